"""Numbers as short text."""

from typing import Any


def number_text(value: Any) -> str:
    """A number as short text: 0.0001 is "0.0001", 0.00002 is "2e-5"; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e") if "e" in text else text
