"""The capstone's comparison, its search for exploits and its rubric, on runs written by hand."""

import json
from types import SimpleNamespace

import pytest

from lab.course.capstone import compare_arms, exploits, rubric
from lab.errors import LabError
from lab.training.own_functions import OWN_FUNCTIONS_FILE


def run(folder, seed, gold, reward="my_reward", task="chain", samples=()):
    """A run with one evaluation, whose folder names its reward."""
    folder.mkdir(parents=True)
    noted = {"reward": {"name": reward, "source": ""}}
    (folder / OWN_FUNCTIONS_FILE).write_text(json.dumps(noted))
    rows = [{"type": "step", "step": 1, "metrics": {"gold/accuracy": gold}}]
    return SimpleNamespace(
        path=folder,
        config=SimpleNamespace(seed=seed, task=task),
        history=lambda: rows,
        samples=lambda: list(samples),
    )


def arms(tmp_path, task="chain", first=(0.2, 0.3, 0.1), second=(0.8, 0.9, 0.75)):
    return {
        name: [
            run(tmp_path / f"{name}-{seed}", seed, gold, name, task)
            for seed, gold in enumerate(golds)
        ]
        for name, golds in (("paid_badly", first), ("repaired", second))
    }


def test_two_arms_are_compared_seed_by_seed(tmp_path):
    comparison = compare_arms(arms(tmp_path))
    assert comparison.judgement.word == "better"
    assert comparison.judgement.difference.interval.mean == pytest.approx(1.85 / 3)
    text = comparison.text()
    assert "repaired minus paid_badly: +0.62 ± 0.07, better" in text
    assert "paid_badly           0.20" in text and "over 3 seeds" in text


def test_arms_without_the_same_seeds_are_refused(tmp_path):
    both = arms(tmp_path)
    both["repaired"] = both["repaired"][:2]
    with pytest.raises(LabError, match="two arms with the same seeds"):
        compare_arms(both)
    with pytest.raises(LabError, match="two arms"):
        compare_arms({"paid_badly": both["paid_badly"]})


def sample(step, completion, gold, **more):
    return {
        "step": step,
        "prompt": "1+1=",
        "completion": completion,
        "gold": gold,
        "answer": "2",
        "held_out": True,
    } | more


def test_exploits_are_the_wrong_completions_that_are_paid_among_the_best_at_the_end(tmp_path):
    def pays_length_and_knows_the_answer(completion, answer):
        assert answer == "2"
        return len(completion)

    rows = [
        sample(1, "early, long and wrong", 0),
        *(
            sample(9, "x" * length, gold)
            for length, gold in ((1, 0), (2, 0), (8, 0), (9, 0), (9, 1))
        ),
        {
            "step": 9,
            "prompt": "1+1=",
            "completion": "of the rollout, long",
            "reward": 1.0,
            "group": 0,
        },
    ]
    found = exploits(
        run(tmp_path / "a", 0, 0.5, samples=rows), pays_length_and_knows_the_answer, quantile=0.5
    )
    assert [(row["step"], row["reward"], row["gold"]) for row in found] == [(9, 9, 0), (9, 8, 0)]
    flat = [sample(9, "xx", 0), sample(9, "yy", 1)]
    assert exploits(run(tmp_path / "b", 0, 0.5, samples=flat), lambda text, answer: 0.5) == []
    assert exploits(run(tmp_path / "c", 0, 0.5), lambda text, answer: 0.5) == []


def test_the_rubric_says_what_the_runs_show(tmp_path):
    path = tmp_path / "task.jsonl"
    rows = [
        {"prompt": f"{a}+{b}+{c}=", "answer": str(a + b + c)}
        for a in range(8)
        for b in range(8)
        for c in range(8)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = rubric(arms(tmp_path / "good", str(path)), [{"reward": 1}])
    assert [(name, met) for name, met, _ in good] == [
        ("own task", True),
        ("own rewards", True),
        ("comparison", True),
        ("a hack found", True),
        ("the repair holds", True),
    ]
    assert good[0][2] == "512 prompts of your own, 51 of them held out"
    bad = rubric(arms(tmp_path / "bad", second=(0.2, 0.25, 0.2)), [])
    assert [met for _, met, _ in bad] == [False, True, True, False, False]
