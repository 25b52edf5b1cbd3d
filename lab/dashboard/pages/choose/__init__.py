"""The page Choose a method."""
