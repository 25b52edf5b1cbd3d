"""Short texts for figures."""

from typing import Any


def short_number(value: Any) -> str:
    """Return a float as short text: 0.0001 is "0.0001", 0.00002 is "2e-5". Other values keep their text."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e") if "e" in text else text


def truncate_text(text: str, length: int) -> str:
    """Return `text` with at most `length` characters, the last of them an ellipsis if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"
