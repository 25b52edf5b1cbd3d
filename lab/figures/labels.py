"""Short texts for figures."""


def truncate_text(text: str, length: int) -> str:
    """Return `text` with at most `length` characters, the last of them an ellipsis if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"
