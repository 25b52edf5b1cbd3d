"""After training: load an adapter, answer beside the base, merge, push, share a run as one file."""
