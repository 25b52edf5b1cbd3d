"""The page IPO and KTO."""
