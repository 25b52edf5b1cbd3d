"""LoRA of every rank against full fine-tuning: how learning rates are chosen, and what the table says."""

from dataclasses import replace

import pytest

from lab.analysis.lora_rank import rank_sentence, summary_sentence
from lab.experiments import lora_rank
from lab.experiments.lora_rank import (
    PLAN,
    best_rate,
    compare_with_full,
    next_rates,
    render_report,
    run_plan,
    scores,
)

SMALL = replace(
    PLAN,
    ranks=(1, 0),
    settings={"steps": 2, "batch_size": 4, "pairs": 16, "max_completion_tokens": 8},
    extensions=1,
    tuning_prompts=(0, 4),
    test_prompts=(4, 10),
)


def tried(rank, accuracies):
    return {
        f"tuning-{rank}-{rate:g}-1000": {"learning_rate": rate, "gold/accuracy": accuracy}
        for rate, accuracy in accuracies.items()
    }


def test_a_rank_tries_four_rates_and_goes_on_where_the_best_is_at_the_edge():
    assert next_rates(PLAN, {}, 8) == [3e-4, 1e-3, 3e-3, 1e-2]
    assert next_rates(PLAN, {}, 0) == [3e-5, 1e-4, 3e-4, 1e-3]
    inside = tried(8, {3e-4: 0.5, 1e-3: 0.7, 3e-3: 0.6, 1e-2: 0.1})
    assert next_rates(PLAN, inside, 8) == [] and best_rate(PLAN, inside, 8) == 1e-3
    high = tried(8, {3e-4: 0.5, 1e-3: 0.6, 3e-3: 0.6, 1e-2: 0.7})
    assert next_rates(PLAN, high, 8) == [3e-2]
    low = tried(0, {1e-5: 0.9, 3e-5: 0.5, 1e-4: 0.3, 3e-4: 0.1, 1e-3: 0.0})
    assert next_rates(PLAN, low, 0) == []  # The ladder ends there.
    many = high | tried(8, {3e-2: 0.8, 1e-1: 0.9})
    assert next_rates(PLAN, many, 8) == []  # The plan has two extensions.
    killed = tried(8, {3e-4: 0.5, 3e-3: 0.6})
    assert next_rates(PLAN, killed, 8) == [1e-3, 1e-2]
    equal = tried(8, {3e-4: 0.1, 1e-3: 0.6, 3e-3: 0.6, 1e-2: 0.1})
    assert best_rate(PLAN, equal, 8) == 1e-3


def test_differences_are_paired_over_seeds_and_prompts():
    """Rank 1 is right twice where full is right once on two of four prompts, with both seeds."""
    rows = [{"rank": 1, "right": ["2211", "2211"]}, {"rank": 0, "right": ["1111", "1111"]}]
    assert scores(PLAN, [{"right": "201"}]) == [[1.0, 0.0, 0.5]]
    (one,) = compare_with_full(PLAN, rows)
    assert one["rank"] == 1 and one["mean"] == pytest.approx(0.25)
    # Prompts 0.5, 0.5, 0, 0: variance 1/12 over 4 prompts, and 3 degrees of freedom.
    assert one["half"] == pytest.approx(3.182446 * (1 / 12 / 4) ** 0.5, rel=1e-4)
    assert one["word"] == "not told apart"


def make_here(log, planned, jobs, say):
    """Make the missing runs in this process."""
    for one in planned:
        if not log.has(one.key, one.settings):
            log.append(one.key, {"settings": one.settings} | one.work(*one.arguments))
            say(one.key)


def test_a_small_plan_resumes_and_tabulates(tmp_path, monkeypatch):
    monkeypatch.setattr(lora_rank, "make_missing", make_here)
    said = []
    table = run_plan(SMALL, tmp_path, 2, "cpu", 1, said.append)
    assert [row["rank"] for row in table["rows"]] == [1, 0]
    lora, full = table["rows"]
    assert lora["trained_weights"] < full["trained_weights"] == 328_944
    assert all(len(row["by_seed"]) == 2 and len(row["right"][0]) == 6 for row in table["rows"])
    assert table["comparisons"][0]["mean"] == pytest.approx(
        sum(lora["by_seed"]) / 2 - sum(full["by_seed"]) / 2, abs=1e-3
    )
    report = render_report(table)
    assert table["command"] in report and "| full | 328,944 |" in report
    assert f"{lora['trained_weights']:,} weights" in rank_sentence(table, 1)
    assert "times that of full fine-tuning" in summary_sentence(table)
    runs = len(said)
    assert runs >= 12
    again = run_plan(SMALL, tmp_path, 2, "cpu", 1, said.append)
    assert len(said) == runs and again["rows"] == table["rows"]
