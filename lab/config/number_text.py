"""Numbers as short text. lab/dashboard/components/js_component.js writes them equally in the browser."""

import math
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any

SIGNIFICANT_DIGITS = 4
WHOLE_BELOW = 1e6
"""Whole numbers below it have all their digits."""


def number_text(value: Any) -> str:
    """A number as short text: 0.0001 is "0.0001", 0.00002 is "2e-5"; anything else as it is."""
    if not isinstance(value, float) or not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < WHOLE_BELOW:
        return str(int(value))
    rounding = Context(prec=SIGNIFICANT_DIGITS, rounding=ROUND_HALF_UP)
    text = f"{float(rounding.create_decimal(Decimal(value))):.{SIGNIFICANT_DIGITS}g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def signed_number(value: float) -> str:
    """A number with its sign and two decimals: "+0.50", "−1.25"; "0" for one that rounds to zero."""
    if not math.isfinite(value):
        return str(value)
    rounded = Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_UP)
    return f"{rounded:+}".replace("-", "−") if rounded else "0"
