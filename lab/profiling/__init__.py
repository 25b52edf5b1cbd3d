"""The cost of an update: measured, and estimated beforehand."""
