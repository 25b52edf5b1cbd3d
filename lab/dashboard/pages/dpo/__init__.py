"""The page DPO."""
