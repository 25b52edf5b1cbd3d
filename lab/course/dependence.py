"""Which argument enters a learner's function wrongly: how its answer moves when one argument is
changed a little, beside how the right answer moves.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from lab.course.exercise import Exercise
from lab.course.values import as_tensor

STEP = 1e-5
Call = tuple[Any, ...]
Moves = dict[str, list[torch.Tensor]]


def wrong_dependence(
    exercise: Exercise, function: Callable[..., Any], calls: Sequence[Call]
) -> tuple[str, str] | None:
    """Return ("term", a text) if an argument is ignored, has the reverse effect, or enters in another
    proportion than in the right answer; None if all enter alike or the answer cannot be moved.
    """
    mine, right = (
        _moves(exercise, f, calls)
        for f in (function, lambda *a: exercise.probe(exercise.reference, *a))
    )
    if mine is None or right is None:
        return None
    ignored = [n for n in right if _moved(right[n]) and not _moved(mine[n])]
    extra = [n for n in right if _moved(mine[n]) and not _moved(right[n])]
    if ignored:
        return "term", f"Your answer does not change with {_and(ignored)}, but the right one does."
    if extra:
        return "term", f"Your answer changes with {_and(extra)}, but the right one does not."
    reverse = [n for n in right if _moved(right[n]) and _reverse(mine[n], right[n])]
    straight = [n for n in right if _moved(right[n]) and n not in reverse]
    if reverse and straight:
        return "term", (
            f"{_and(reverse)} {'acts' if len(reverse) == 1 else 'act'} the wrong way round: where the"
            " right answer rises with it, yours falls. Look at its sign."
        )
    return _proportions(exercise, mine, right)


def _moves(exercise: Exercise, function: Callable[..., Any], calls: Sequence[Call]) -> Moves | None:
    """By argument, the change of the answer per change of that argument, for each call; None if the
    function raises or gives no numbers.
    """
    moves: Moves = {}
    noise = torch.Generator().manual_seed(0)
    for call in calls:
        for place, name in enumerate(exercise.arguments[: len(call)]):
            value = call[place]
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                change = torch.randn(value.shape, generator=noise, dtype=value.dtype)
            elif type(value) is float:
                change = torch.ones((), dtype=torch.float64)
            else:
                continue
            ends = []
            for sign in (1, -1):
                moved = value + sign * STEP * (change if isinstance(value, torch.Tensor) else 1.0)
                inputs = [v.clone() if isinstance(v, torch.Tensor) else v for v in call]
                inputs[place] = moved
                try:
                    ends.append(as_tensor(function(*inputs)))
                except Exception:
                    return None
            if ends[0] is None or ends[1] is None or ends[0].shape != ends[1].shape:
                return None
            moves.setdefault(name, []).append((ends[0] - ends[1]) / (2 * STEP))
    return moves


def _moved(moves: Sequence[torch.Tensor]) -> bool:
    return any(bool((m.abs() > 1e-7).any()) for m in moves)


def _reverse(mine: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> bool:
    """Whether all clear movements have the opposite sign."""
    one, other = (torch.cat([m.flatten() for m in moves]) for moves in (mine, right))
    if one.shape != other.shape:
        return False
    clear = (one.abs() > 1e-6) & (other.abs() > 1e-6)
    return bool(clear.sum() >= 3) and bool((one[clear].sign() == -other[clear].sign()).all())


def _proportions(exercise: Exercise, mine: Moves, right: Moves) -> tuple[str, str] | None:
    """Compare, entry by entry, how strongly the arguments of the answer's own shape enter relative to
    the first of them: whatever is done with their sum afterwards cancels.
    """
    names = [
        n
        for n in right
        if _moved(right[n])
        and all(a.shape == b.shape and a.ndim for a, b in zip(mine[n], right[n]))
    ]
    if len(names) < 2:
        return None
    base, *others = names
    off = [n for n in others if not _alike(mine[n], mine[base], right[n], right[base])]
    if off and len(off) < len(others):
        return "term", (
            f"Beside the other arguments, {_and(off)} enter{'s' * (len(off) == 1)} with the wrong"
            " weight. Look at that term."
        )
    if off:
        return "term", (
            f"{_and([base, *off])} enter with the wrong weight relative to each other. Look at the"
            f" terms with {base} first."
        )
    return "term", (
        f"{_and(names)} enter in the right proportion to each other. So what you do with them together"
        " is wrong: the function around them, or a constant in it."
    )


def _alike(
    mine: Sequence[torch.Tensor],
    my_base: Sequence[torch.Tensor],
    right: Sequence[torch.Tensor],
    right_base: Sequence[torch.Tensor],
) -> bool:
    """Whether an argument moves every entry in the right proportion to the base argument."""
    a, b, c, d = (torch.cat([m.flatten() for m in x]) for x in (mine, my_base, right, right_base))
    size = torch.maximum((a * d).abs(), (c * b).abs())
    return bool(((a * d - c * b).abs() <= 1e-2 * size + 1e-9).all())


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
