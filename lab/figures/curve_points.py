"""The points of a curve: fewer of them, smoothed, or as JSON."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from lab.analysis.diagnose import MetricColumn


def decimate(
    steps: Sequence[int], values: Sequence[float], limit: int
) -> tuple[list[int], list[float | None]]:
    """Return at most `limit` points: the first, the last, and the lowest and highest of every bucket,
    so that no spike is lost.

    Values that are not finite become None, a gap in the line.
    """
    if len(steps) <= limit:
        return list(steps), [v if math.isfinite(v) else None for v in values]
    y = np.asarray(values, dtype=float)
    size = math.ceil(len(y) / max(1, (limit - 2) // 2))
    finite = np.where(np.isfinite(y), y, 0.0)
    buckets = np.pad(finite, (0, -len(y) % size), mode="edge").reshape(-1, size)
    starts = np.arange(len(buckets)) * size
    indices = {
        0,
        len(y) - 1,
        *(starts + buckets.argmin(1)).tolist(),
        *(starts + buckets.argmax(1)).tolist(),
    }
    chosen = sorted(i for i in indices if i < len(y))
    return [steps[i] for i in chosen], [
        values[i] if math.isfinite(values[i]) else None for i in chosen
    ]


def smooth(values: Sequence[float], weight: float) -> list[float]:
    """Return the exponential moving average of `values`: each value has `weight` times the weight of
    the next.

    The average is divided by the sum of its weights, so that it starts at the first value and not at
    zero. A value that is not finite stays a gap and does not change the average. With weight 0.5,
    (0, 1, 1) becomes (0, 2/3, 6/7).
    """
    total = norm = 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
            out.append(total / norm)
        else:
            out.append(value)
    return out


def points_json(column: MetricColumn, limit: int, clock: Mapping[int, float] | None = None) -> str:
    """Return `"x":[…],"y":[…]` of a decimated column with five significant digits: the part of a trace
    that grows during training.
    """
    steps, values = decimate(*column, limit)
    x = (
        json.dumps(steps)
        if clock is None
        else f"[{','.join(f'{clock.get(step, 0):.7g}' for step in steps)}]"
    )
    return f'"x":{x},"y":[{",".join("null" if v is None else f"{v:.5g}" for v in values)}]'
