"""A person's preferences: pools of answers to compare, labels on disk, agreement, and the runs on them."""
