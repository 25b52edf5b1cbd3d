"""State behind the pages: caches, the address, worker processes."""
