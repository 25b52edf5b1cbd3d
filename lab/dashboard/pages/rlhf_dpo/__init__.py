"""The page RLHF and DPO."""
