"""Pieces of LaTeX that the formulas of the methods share."""

from typing import Any

from lab.config.number_text import number_text

PAIR_MARGIN = (
    r"h=\log\tfrac{\pi_\theta(y_w|x)}{\pi_{\mathrm{ref}}(y_w|x)}"
    r"-\log\tfrac{\pi_\theta(y_l|x)}{\pi_{\mathrm{ref}}(y_l|x)}"
)
"""The margin h of a pair: the difference of its two log-probability ratios."""


def braced(value: Any, symbol: str) -> str:
    """Return LaTeX for a value with the symbol that it stands for below it."""
    return rf"\underbrace{{{number_text(value)}}}_{{{symbol}}}"
