"""The checks against many answers: right ones in any form pass, wrong ones are named or localised, and
a learner's exception is shown as it is.
"""

from pathlib import Path

import pytest
import torch
from right_answers import RIGHT
from wrong_answers import WRONG

from lab.course.check import check
from lab.course.checker import grade
from lab.course.exercises.registry import EXERCISES
from lab.errors import LabError

ROOT = Path(__file__).parents[2]
SAID_NOTHING = ("other", "kind")
GOAL = 80


@pytest.mark.parametrize(
    ("name", "form", "function"), RIGHT, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_right_answer_passes_in_any_form(name, form, function):
    for seed in (1, 2, 3):
        verdict = grade(EXERCISES[name], function, seed)
        assert verdict.passed, verdict.message


def test_of_100_wrong_answers_none_passes_and_80_are_named_or_localised_as_the_docs_count():
    assert len(WRONG) == 100
    verdicts = [(name, slip, grade(EXERCISES[name], f, 11)) for name, slip, f in WRONG]
    assert [(name, slip) for name, slip, verdict in verdicts if verdict.passed] == []
    found = [v for _, _, v in verdicts if v.mistake not in SAID_NOTHING]
    assert len(found) >= GOAL, len(found)
    exercises = len({name for name, _, _ in RIGHT})
    assert len(RIGHT) >= 60 and exercises >= 25
    named = sum(
        any(v.mistake == known.name for known in EXERCISES[name].mistakes)
        for name, _, v in verdicts
    )
    text = " ".join((ROOT / "docs" / "course.md").read_text("utf-8").split())
    assert f"Of {len(RIGHT)} right answers to {exercises} exercises" in text
    assert (
        f"none passes: {named} are called by their name, of {len(found) - named} the check says where"
        f" the difference lies, and {len(WRONG) - len(found)} get the numbers alone" in text
    )


def verdict_of(name, function, seed=5):
    return grade(EXERCISES[name], function, seed)


def h(pw, pl, qw, ql):
    return (pw - qw) - (pl - ql)


def test_where_a_difference_lies_is_said():
    def dpo(pw, pl, qw, ql, beta):
        return -torch.nn.functional.logsigmoid(beta * h(pw, pl, qw, ql))

    cases = [
        ("my_dpo_loss", lambda *a: 3 * dpo(*a), "factor", "the right one times 3."),
        ("my_dpo_loss", lambda *a: dpo(*a) + a[4], "offset", "the right one plus beta."),
        ("my_dpo_loss", lambda *a: dpo(*a) * a[4] ** 2, "factor", "times beta²."),
        ("my_dpo_loss", lambda *a: dpo(*a).flip(0), "order", "in the reverse order"),
        ("my_dpo_loss", lambda *a: dpo(*a).exp(), "transform", "Leave exp out"),
        ("my_sequence_logps", lambda x, m: (x * m).sum(1).mean(), "shape", "You give the mean of"),
        (
            "my_kto_loss",
            lambda p, q, d, z, b, good, bad: torch.where(
                d, good * torch.sigmoid(b * (z - p + q)), 7.0
            ),
            "rows",
            "only where desirable is false",
        ),
        (
            "my_ratio",
            lambda p, o: (p + o).exp(),
            "term",
            "old_token_logps acts the wrong way round",
        ),
        (
            "my_dpo_loss",
            lambda pw, pl, qw, ql, beta: torch.relu(-beta * h(pw, pl, qw, ql)),
            "term",
            "in the right proportion",
        ),
        (
            "my_kl_estimate",
            lambda p, q, kind: {"k1": p - q, "k2": 7 * p, "k3": (q - p).expm1() - q + p}[kind],
            "rows",
            "right for estimator = 'k1', 'k3', and wrong for 'k2'",
        ),
    ]
    for name, function, kind, words in cases:
        verdict = verdict_of(name, function)
        assert verdict.mistake == kind and words in verdict.message, verdict


def test_an_exception_is_shown_as_it_is_and_only_a_wrong_signature_is_called_one():
    def my_reduction(losses, completion_mask, kind, max_length):
        return losses.sum() / no_such_name  # noqa: F821

    verdict = verdict_of("my_reduction", my_reduction)
    assert verdict.mistake == "NameError" and "takes (" not in verdict.message
    assert "NameError: name 'no_such_name' is not defined in line " in verdict.message
    assert "`return losses.sum() / no_such_name  # noqa: F821`" in verdict.message
    assert "kind = 'sequence_mean'" in verdict.message and "max_length = 20" in verdict.message

    def calls_itself_wrongly(losses, completion_mask, kind, max_length):
        return max(losses.tolist(), 1, 2)

    verdict = verdict_of("my_reduction", calls_itself_wrongly)
    assert verdict.mistake == "TypeError" and "return max(losses.tolist(), 1, 2)" in verdict.message
    verdict = verdict_of("my_reduction", lambda losses, mask: losses.sum())
    assert verdict.mistake == "signature" and "takes (losses, mask)" in verdict.message
    assert "my_reduction(losses, completion_mask, kind, max_length)" in verdict.message


def test_the_failing_input_is_printed_whole_and_its_seed_makes_it_again(capsys, monkeypatch):
    monkeypatch.setenv("LAB_COURSE", "")
    message = verdict_of("my_sequence_logps", lambda x, m: x[:, 0] * 7, seed=123).message
    assert (
        "…" not in message
        and "check(my_sequence_logps, seed=123) makes this input again" in message
    )
    logps = next(line for line in message.splitlines() if line.startswith("  token_logps = "))
    assert logps.count(",") == 3 * 9 - 1 and "  completion_mask = [[" in message
    check("my_sequence_logps", lambda x, m: x[:, 0] * 7, seed=123)
    assert capsys.readouterr().out == f"Not yet: {message}\n"


def test_a_case_is_one_completion():
    message = verdict_of("my_score", lambda text, answer: 1.0).message
    (line,) = [line for line in message.splitlines() if line.startswith("  completion = ")]
    assert line.count("'") == 2 and "[" not in line


def test_a_strict_check_raises(monkeypatch, capsys):
    monkeypatch.setenv("LAB_COURSE", "")
    with pytest.raises(LabError, match="my_ratio: You give the logarithm of the ratio"):
        check("my_ratio", lambda p, o: p - o, strict=True)
    check("my_ratio", lambda p, o: (p - o).exp(), strict=True)
    assert "Right: my_ratio" in capsys.readouterr().out


def test_a_gradient_through_z_is_called_by_its_name_only_where_the_value_is_right():
    def attached(p, q):
        return (p - q).roll(-1, 1).diagonal().mean().clamp(min=0)

    assert verdict_of("my_kto_z", attached).mistake == "not detached"
    assert verdict_of("my_kto_z", lambda p, q: 2 * attached(p, q)).mistake == "factor"
