"""One file per method: its batches and its loss."""
