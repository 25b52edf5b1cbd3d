"""The generated blocks of the documentation, by subject. Each module has a dictionary `BLOCKS`: name
of a block → function that returns its Markdown.
"""
