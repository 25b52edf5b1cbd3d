"""The page Talk."""
