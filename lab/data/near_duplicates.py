"""Compares prompts without their case, spaces and punctuation."""

import string

from lab.data.examples import Text, plain_text

PUNCTUATION = string.punctuation + "…“”‘’«»„–—¿¡。，！？"
"""Characters that are removed from both ends of a word before prompts are compared."""


def comparable_text(prompt: Text) -> str:
    """Return the words of a prompt in lower case without punctuation around them.

    Anchors: "What is 3*4?" and " what is  3*4" are "what is 3*4"; "?!" stays.
    """
    text = plain_text(prompt)
    words = (word.strip(PUNCTUATION) for word in text.casefold().split())
    return " ".join(filter(None, words)) or text
