"""Prompts and gold answers, and the rewards that score completions."""
