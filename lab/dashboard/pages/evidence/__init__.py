"""The page Measurements."""
