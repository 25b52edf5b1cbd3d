"""The page Story."""
