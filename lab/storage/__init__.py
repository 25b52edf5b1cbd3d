"""Files that survive a kill: append-only JSONL, atomic replacement, and where runs and models lie.
No torch.
"""
