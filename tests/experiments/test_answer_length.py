"""The length of right and wrong answers under the three reductions."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import answer_length, answer_length_smollm2, logged_runs
from lab.experiments.answer_length import PLAN, bin_measures, compare_reductions, rollout_sums
from lab.models.tokenizer import load_tokenizer
from lab.tasks.chain import scratchpad
from lab.training.rollout import Rollout

TINY = replace(
    PLAN,
    operations=(3, 4),
    settings={"batch_size": 32},
    updates=4,
    bin=1,
    middle=2,
    window=1,
    max_tokens=48,
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs in this process, by the tiny plan."""
    monkeypatch.setattr(logged_runs, "ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))
    monkeypatch.setattr(answer_length, "PLAN", TINY)


def test_the_tokens_of_a_scratchpad_are_those_of_the_tokenizer_and_the_end():
    tokenizer = load_tokenizer("embedded", "")
    for prompt in ("1+2=", "7+5*3-4*2=", "9-8*7*6+5-4*3*2+1-0="):
        ids = tokenizer(scratchpad(prompt), add_special_tokens=False)["input_ids"]
        assert answer_length.scratchpad_tokens(prompt) == len(ids) + 1


def rollout(texts, rewards, lengths):
    """One group of completions of the chain 1+2=, whose full scratchpad has 9 tokens."""
    mask = torch.arange(20)[None] < torch.tensor(lengths)[:, None]
    return Rollout(
        ids=mask.long(),
        completion_mask=mask,
        truncated=torch.tensor([False] * (len(texts) - 1) + [True]),
        rewards=torch.tensor(rewards),
        gold=None,
        group_size=len(texts),
        prompts=["1+2="],
        texts=texts,
    )


def test_lengths_are_means_over_the_completions_of_each_kind_and_not_over_updates():
    first = rollout(["3", "<think>1+2=3</think>3", "4"], [1.0, 1.0, 0.0], [2, 9, 2])
    second = rollout(["3", "<think>1", "5"], [1.0, 0.0, 0.0], [2, 18, 10])
    found = bin_measures([rollout_sums(first), rollout_sums(second)])
    assert found["accuracy"] == pytest.approx(3 / 6) and found["truncated"] == pytest.approx(2 / 6)
    assert found["right_tokens"] == pytest.approx((2 + 9 + 2) / 3)
    assert found["wrong_tokens"] == pytest.approx((2 + 18 + 10) / 3)
    assert found["wrong_relative"] == pytest.approx((2 / 9 + 2.0 + 10 / 9) / 3)
    assert found["right_thinking"] == pytest.approx(1 / 3)
    assert found["wrong_thinking"] == pytest.approx(1 / 3)


def test_without_chains_the_relative_length_is_in_tokens():
    sums = rollout_sums(rollout(["3", "4"], [1.0, 0.0], [2, 7]), on_chains=False)
    assert (sums["right_relative"], sums["wrong_relative"]) == (2, 7)


def test_the_plan_for_the_language_model_is_accepted():
    plan = answer_length_smollm2.PLAN
    made = make_config("grpo", plan.settings | {"max_completion_tokens": plan.max_tokens})
    assert made.model == "smollm2-135m" and plan.operations is None
    assert plan.updates % plan.bin == 0 == plan.middle % plan.bin


def test_the_words_compare_the_ends_of_two_reductions_and_the_end_with_the_middle():
    def rows(middle, end):
        return [
            {f"{kind}_relative": [1.0, middle + s, 1.0, end + s] for kind in ("right", "wrong")}
            for s in (0.0, 0.01, 0.02)
        ]

    runs = {"sequence_mean": rows(1.0, 1.5), "token_mean": rows(1.0, 1.0)}
    for row in runs["token_mean"]:  # Noise, so that the differences have an error.
        row["wrong_relative"][3] += row["wrong_relative"][1] / 10
        row["right_relative"][3] += row["right_relative"][1] / 10
    for i, row in enumerate(runs["sequence_mean"]):
        row["wrong_relative"][3] += 0.003 * i
        row["right_relative"][3] -= 0.003 * i
    found = [one for one in compare_reductions(TINY, runs) if one["kind"] == "wrong"]
    assert found[0] | {"p": 0} == {
        "kind": "wrong",
        "first": "sequence_mean",
        "second": "token_mean",
        "mean": pytest.approx(0.5 + 0.003 - 0.101),
        "half": pytest.approx(4.3027 * 0.002 / 3**0.5, rel=1e-4),
        "word": "longer",
        "p": 0,
    }
    grows = {one["grows"]: one["mean"] for one in found if "grows" in one}
    assert grows == {"sequence_mean": pytest.approx(0.503), "token_mean": pytest.approx(0.101)}


def test_every_reduction_trains_on_the_same_prompts_and_a_second_call_makes_no_run(
    tmp_path, monkeypatch
):
    table = answer_length.run_experiment(tmp_path, 2, "cpu", 1)
    assert [row["reduction"] for row in table["rows"]] == list(answer_length.REDUCTIONS)
    logged = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert len(logged) == 6
    # Before the first update all reductions have the same policy, prompts and noise.
    first = {(row["seed"], row["wrong_tokens"][0]) for row in logged}
    assert len(first) == 2
    # Later they differ.
    assert len({(row["seed"], row["wrong_tokens"][-1]) for row in logged}) > 2
    assert table["rows"][0]["updates"] == [1, 2, 3, 4]
    assert "Dr. GRPO" in (tmp_path / "report.md").read_text("utf-8")
    monkeypatch.setattr(answer_length, "measure_reduction", lambda *a: pytest.fail("made again"))
    assert answer_length.run_experiment(tmp_path, 2, "cpu", 1)["rows"] == table["rows"]


def test_completions_of_longest_chains_fit_and_may_be_several_times_a_full_scratchpad():
    longest = "9*9" + "*9" * (PLAN.operations[1] - 1) + "="
    assert PLAN.max_tokens > 2 * answer_length.scratchpad_tokens(longest)
    assert len(longest) + PLAN.max_tokens <= 256  # Positions of the embedded model.
    for reduction in answer_length.REDUCTIONS:
        make_config("grpo", {"loss_aggregation": reduction})


def test_one_seed_has_no_interval_and_is_refused(tmp_path):
    with pytest.raises(LabError, match="at least two seeds"):
        answer_length.run_experiment(tmp_path, 1, "cpu", 1)
