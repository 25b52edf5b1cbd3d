import pytest

from lab.config.sweep import sweep_runs, sweepable
from lab.errors import LabError


def test_a_sweep_is_every_value_with_every_seed_and_every_value_comes_once_before_any_comes_twice():
    made = sweep_runs("dpo", {"seed": 5, "steps": 7}, "beta", "0.1, 0.5", 2)
    assert made == [
        {"seed": 5, "steps": 7, "beta": 0.1},
        {"seed": 5, "steps": 7, "beta": 0.5},
        {"seed": 6, "steps": 7, "beta": 0.1},
        {"seed": 6, "steps": 7, "beta": 0.5},
    ]


def test_group_sizes_are_whole_numbers():
    assert [one["group_size"] for one in sweep_runs("grpo", {}, "group_size", "2,4, 8 ,", 1)] == [
        2,
        4,
        8,
    ]


def test_a_method_is_swept_over_the_knobs_that_it_has():
    assert sweepable("grpo") == ["learning_rate", "beta", "group_size"] and sweepable("sft") == [
        "learning_rate"
    ]


@pytest.mark.parametrize(
    "method, knob, values, seeds, says",
    [
        (
            "dpo",
            "beta",
            "0.1, much",
            1,
            "'much' is no value of beta, which takes numbers between commas",
        ),
        ("dpo", "beta", "nan", 1, "'nan' is no value of beta"),
        ("dpo", "beta", "1e999", 1, "'1e999' is no value of beta"),
        ("dpo", "beta", " , ", 1, "No value of beta is given"),
        ("dpo", "beta", "-1", 1, "beta is -1.0, but takes a number from 0.0001 to 100"),
        ("dpo", "beta", "0.1, 0.10", 1, "0.1 stands in the values of beta more than once"),
        ("grpo", "group_size", "2.5", 1, "which takes whole numbers"),
        ("grpo", "group_size", "3", 1, "batch_size 128 is not divisible by group_size 3"),
        ("sft", "beta", "0.1", 1, "Unknown setting for a sweep of sft 'beta'"),
        (
            "dpo",
            "beta",
            ",".join(str(i) for i in range(1, 34)),
            2,
            "33 values with 2 seeds are 66 runs, and a sweep takes at most 64",
        ),
    ],
)
def test_what_cannot_be_swept_is_told(method, knob, values, seeds, says):
    with pytest.raises(LabError, match=says):
        sweep_runs(method, {}, knob, values, seeds)
