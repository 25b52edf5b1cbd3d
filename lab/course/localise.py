"""Finds where a wrong answer differs from the right one, if the check does not know the mistake: its
shape, its sign, a factor, an offset, some rows, or the argument that enters wrongly.

Each test looks at all calls of a check at once, so that it says only what holds for every input.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lab.course.dependence import wrong_dependence
from lab.course.exercise import Exercise
from lab.course.input_numbers import conditions, input_numbers
from lab.course.values import as_tensor, five_digits, significant, wrong_entries

Call = tuple[Any, ...]
Finding = tuple[str, str]
POWERS = ((1, "{}"), (-1, "1 / {}"), (2, "{}²"), (-2, "1 / {}²"))
ROOTS = ((0.5, "√{}"), (-0.5, "1 / √{}"))
UNKNOWN = "The check does not know this mistake."


@dataclass(frozen=True)
class Outcomes:
    """The learner's values and the right ones of one call, of one shape, and which differ."""

    values: torch.Tensor
    right: torch.Tensor
    call: Call

    @property
    def wrong(self) -> torch.Tensor:
        """Which entries differ."""
        return wrong_entries(self.values, self.right)


def localise(
    exercise: Exercise,
    function: Callable[..., Any],
    calls: Sequence[Call],
    results: Sequence[Any],
    expected: Sequence[Any],
) -> Finding:
    """Return the kind of the difference and a text that says where it lies; ("other", …) if nothing
    more than the numbers can be said.
    """
    pairs = []
    for call, result, right in zip(calls, results, expected):
        values, wanted = as_tensor(result), as_tensor(right)
        if values is None or wanted is None:
            return "other", UNKNOWN
        if significant(values.shape) != significant(wanted.shape):
            return "shape", _shape(values, wanted)
        pairs.append(Outcomes(values.reshape(wanted.shape), wanted, call))
    wrong = [pair for pair in pairs if pair.wrong.any()]
    if not pairs[0].right.ndim and all(bool(p.right == 0) == bool(p.wrong) for p in pairs):
        return "rows", "Your answer is wrong exactly where 0 is right, and right elsewhere."
    only = _only_some_calls(exercise, pairs)
    found = (
        _not_finite(wrong)
        or _simple_change(wrong)
        or _factor(exercise, wrong)
        or _offset(exercise, wrong)
        or _some_entries(exercise, wrong)
        or _row_by_row(wrong)
        or wrong_dependence(exercise, function, [pair.call for pair in wrong])
    )
    if only:
        return "rows", f"{only} {found[1] if found else ''}".strip()
    return found or ("other", UNKNOWN)


def _shape(values: torch.Tensor, right: torch.Tensor) -> str:
    """What the wrong shape comes from."""

    def same(one: torch.Tensor, other: torch.Tensor) -> bool:
        return one.shape == other.shape and not wrong_entries(one, other).any()

    if not significant(values.shape):
        for name, whole in (("mean", right.mean()), ("sum", right.sum())):
            if same(values.flatten()[0], whole):
                return f"You give the {name} of the right numbers. Leave that step out."
    if values.ndim == 2 and same(values.T.contiguous(), right):
        return "Your numbers are right, but rows and columns are swapped."
    if values.numel() == right.numel() and same(values.flatten(), right.flatten()):
        return "Your numbers are right, but not their shape."
    if values.ndim > right.ndim:
        return (
            "Your answer has a dimension too many: a sum or mean is missing, or two tensors spread."
        )
    if values.ndim < right.ndim:
        return "Your answer has a dimension too few: it sums or averages too much."
    return "Your answer has the wrong length: it sums along the wrong dimension, or drops entries."


def _only_some_calls(exercise: Exercise, pairs: Sequence[Outcomes]) -> str:
    """For which values of a text argument the answer is right, if that decides it."""
    for place, name in enumerate(exercise.arguments):
        if place >= len(pairs[0].call) or not isinstance(pairs[0].call[place], str):
            continue
        wrong = {pair.call[place] for pair in pairs if pair.wrong.any()}
        right = {pair.call[place] for pair in pairs} - wrong
        if right and len(wrong | right) <= 4:
            return (
                f"Your answer is right for {name} = {', '.join(map(repr, sorted(right)))}, and wrong"
                f" for {', '.join(map(repr, sorted(wrong)))}."
            )
    return ""


def _not_finite(pairs: Sequence[Outcomes]) -> Finding | None:
    bad = [pair for pair in pairs if (~pair.values.isfinite() & pair.right.isfinite()).any()]
    if not bad:
        return None
    count = int((~bad[0].values.isfinite()).sum())
    return "NaN", (
        f"{count} of {bad[0].values.numel()} of your numbers are NaN or infinite. Look for 0/0, the"
        " log of 0 or a difference of infinities."
    )


def _all_equal(pairs: Sequence[Outcomes], change: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Whether the learner's values are the right ones, changed."""
    return all(
        (made := change(pair.right)).shape == pair.values.shape
        and not wrong_entries(pair.values, made).any()
        for pair in pairs
    )


_CHANGES: tuple[tuple[str, str, Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ("sign", "Your numbers have the wrong sign: each is minus the right one.", torch.neg),
    ("sign", "You give the absolute value of the right number.", torch.abs),
    ("transform", "You give exp of the right number. Leave exp out.", torch.exp),
    ("transform", "You give the logarithm of the right number.", torch.log),
    ("transform", "You give exp of minus the right number.", lambda x: (-x).exp()),
    ("transform", "Your numbers are upside down: each is 1 over the right one.", torch.reciprocal),
    ("transform", "You give 1 minus the right number.", lambda x: 1 - x),
    ("transform", "You give the square of the right number.", torch.square),
    ("transform", "You give the square root of the right number.", lambda x: x.abs().sqrt()),
    ("transform", "You cut the right numbers off at 0.", lambda x: x.clamp(min=0)),
    ("transform", "You round the right numbers.", torch.round),
    ("order", "Your numbers are right, but in the reverse order.", lambda x: x.flip(-1)),
    (
        "order",
        "Your numbers are right, but one place too far to the right.",
        lambda x: x.roll(1, -1),
    ),
    (
        "order",
        "Your numbers are right, but one place too far to the left.",
        lambda x: x.roll(-1, -1),
    ),
    ("order", "You give running sums of the right numbers.", lambda x: x.cumsum(-1)),
)


def _simple_change(pairs: Sequence[Outcomes]) -> Finding | None:
    many = pairs[0].right.ndim > 0
    for kind, text, change in _CHANGES:
        if (many or kind in ("sign", "transform")) and _all_equal(pairs, change):
            return kind, text
    if many and all(
        not wrong_entries(p.values.flatten().sort()[0], p.right.flatten().sort()[0]).any()
        for p in pairs
    ):
        return "order", "Your numbers are right, but in another order."
    if all(not wrong_entries(p.values.abs(), p.right.abs()).any() for p in pairs):
        return "sign", "The size of your numbers is right everywhere, but some have the wrong sign."
    return None


def _factor(exercise: Exercise, pairs: Sequence[Outcomes]) -> Finding | None:
    """A factor that is the same in all inputs, that an argument explains, or that each input has."""
    if any(
        (wrong_entries(p.right, 0 * p.right) != wrong_entries(p.values, 0 * p.values)).any()
        for p in pairs
    ):
        return None
    ratios = [torch.where(p.right.abs() > 1e-9, p.values / p.right, torch.nan) for p in pairs]
    if not any(r.isfinite().any() for r in ratios):
        return None
    if (text := _explained(exercise, pairs, ratios, "times")) is not None:
        return "factor", f"{text} A factor is wrong or missing."
    spread = [r[r.isfinite()] for r in ratios]
    if max(len(r) for r in spread) > 1 and all(_constant(r) for r in spread if len(r)):
        return "factor", (
            "Within one input all your numbers are the same multiple of the right ones"
            f" ({', '.join(five_digits(r[0].item()) for r in spread[:4] if len(r))} times …). A factor"
            " that depends on the input is wrong or missing."
        )
    return None


def _offset(exercise: Exercise, pairs: Sequence[Outcomes]) -> Finding | None:
    """The same for a number that is added."""
    gaps = [p.values - p.right for p in pairs]
    if (text := _explained(exercise, pairs, gaps, "plus")) is not None:
        return "offset", f"{text} A term is wrong or missing."
    if max(g.numel() for g in gaps) > 1 and all(_constant(g.flatten()) for g in gaps):
        return "offset", (
            "Within one input all your numbers are off by the same amount"
            f" ({', '.join(five_digits(g.flatten()[0].item()) for g in gaps[:4])} …). A term that"
            " depends on the input is wrong or missing."
        )
    return None


def _explained(
    exercise: Exercise, pairs: Sequence[Outcomes], found: Sequence[torch.Tensor], word: str
) -> str | None:
    """What a factor or an offset is: one number for all inputs, or a power of a number of the input."""
    flat = torch.cat([f[f.isfinite()].flatten() for f in found])
    if len(flat) > 1 and _constant(flat):
        return f"Each of your numbers is the right one {word} {five_digits(flat[0].item())}."
    for name, numbers in input_numbers(exercise.arguments, [p.call for p in pairs]).items():
        for sign in (1, -1) if word == "plus" else (1,):
            for power, form in POWERS + ROOTS if word == "times" else POWERS[:2]:
                made = [_broadcast(sign * n.abs() ** power, f) for n, f in zip(numbers, found)]
                if all(
                    m is not None and not wrong_entries(f[f.isfinite()], m[f.isfinite()]).any()
                    for m, f in zip(made, found)
                ):
                    written = name if name.isidentifier() else f"({name})"
                    shown = "minus" if word == "plus" and sign < 0 else word
                    return f"Each of your numbers is the right one {shown} {form.format(written)}."
    return None


def _broadcast(number: torch.Tensor, like: torch.Tensor) -> torch.Tensor | None:
    if number.ndim == 1 and like.ndim == 2:
        number = number[:, None]
    try:
        return number.expand(like.shape)
    except RuntimeError:
        return None


def _constant(numbers: torch.Tensor) -> bool:
    return not wrong_entries(numbers, numbers[0].expand(numbers.shape)).any()


def _some_entries(exercise: Exercise, pairs: Sequence[Outcomes]) -> Finding | None:
    """A condition on the inputs that holds for the wrong entries, and not for all entries."""
    wrong = torch.cat([p.wrong.flatten() for p in pairs])
    if wrong.all() or not pairs[0].right.ndim:
        return None
    best: tuple[float, str] = (1.0, "")
    for text, tests in conditions(exercise.arguments, [(p.right, p.call) for p in pairs]).items():
        holds = torch.cat([test.flatten() for test in tests])
        share = holds.double().mean().item()
        chance = share ** int(wrong.sum())  # Of so many wrong entries in these places by luck.
        if bool((wrong & ~holds).any()) or chance > 1e-3 or share >= best[0]:
            continue
        best = share, text if bool((holds == wrong).all()) else f"{text} (there not always)"
    if not best[1]:
        return None
    return "rows", (
        f"Your numbers are wrong only {best[1]}: {int(wrong.sum())} of {len(wrong)} in all inputs."
        " The others are right."
    )


def _row_by_row(pairs: Sequence[Outcomes]) -> Finding | None:
    """Groups or rows in which the answer is the right one times a factor, plus a constant."""
    rows = []
    for pair in pairs:
        size = next((a for a in pair.call if type(a) is int and pair.right.ndim == 1), 0)
        shape = (-1, size) if size > 1 and pair.right.numel() % size == 0 else pair.right.shape
        if len(shape) != 2 or pair.right.reshape(shape).shape[1] < 4:
            return None
        rows += list(zip(pair.values.reshape(shape), pair.right.reshape(shape)))
    kinds = set()
    for mine, right in rows:
        if right.std() < 1e-9:
            continue
        if _constant(mine - right):
            kinds.add("offset")
        elif right.abs().min() > 1e-9 and _constant(mine / right):
            kinds.add("factor")
        else:
            return None
    if kinds == {"offset"}:
        return "offset", (
            "Within each group your numbers are off by one constant. So the scale is right, and what"
            " you subtract is wrong."
        )
    if kinds == {"factor"}:
        return "factor", (
            "Within each group your numbers are one multiple of the right ones. So what you subtract"
            " is right, and what you divide by is wrong."
        )
    return None
