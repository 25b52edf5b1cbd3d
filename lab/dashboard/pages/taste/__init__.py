"""The page Taste."""
