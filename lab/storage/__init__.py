"""Files that survive a kill, and where runs and models lie. No torch."""
