"""The page GRPO."""
