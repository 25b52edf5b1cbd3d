"""The block of the glossary: the words that the pages of the dashboard explain."""

from docs_blocks.markdown import markdown_table
from lab.dashboard.components.glossary import WORDS

BLOCKS = {
    "words": lambda: markdown_table(
        ("word", "meaning"), sorted(WORDS.items(), key=lambda word: word[0].lower())
    )
}
