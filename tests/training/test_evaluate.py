import itertools

import pytest
import torch

from lab.analysis.statistics import pass_at_k, wilson_interval
from lab.config.methods import make_config
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.tasks.registry import TASKS
from lab.training.evaluation import completion_kl, evaluate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("embedded")


@pytest.fixture
def policy():
    return load_policy(make_config("grpo"), CPU)


def look(policy, tokenizer, **options):
    return evaluate(
        policy,
        tokenizer,
        TASKS["chain"],
        **({"prompts": 16, "max_tokens": 48, "seed": 0, "device": CPU} | options),
    )


def test_wilson_interval_of_half_of_a_hundred():
    assert wilson_interval(0.5, 100) == pytest.approx(
        (0.4038, 0.5962), abs=5e-5
    )  # Four digits as printed in tables.


def test_wilson_interval_of_none_of_ten_starts_at_zero():
    low, high = wilson_interval(0.0, 10)
    assert low == pytest.approx(0.0, abs=1e-12) and high == pytest.approx(0.2775, abs=5e-5)


@pytest.mark.parametrize("n, correct, k", [(4, 1, 2), (5, 2, 3), (6, 0, 2), (6, 6, 1), (6, 4, 3)])
def test_pass_at_k_counts_the_subsets_with_a_right_answer(n, correct, k):
    subsets = list(itertools.combinations([i < correct for i in range(n)], k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_needs_k_samples():
    with pytest.raises(LabError, match="pass@8 needs at least 8"):
        pass_at_k(4, 1, 8)


def test_an_untrained_policy_has_no_distance_to_its_reference(policy, tokenizer):
    assert look(policy, tokenizer).kl == pytest.approx(0.0, abs=1e-5)


def test_the_distance_of_one_token_is_the_kl_of_the_two_next_token_distributions(policy, tokenizer):
    torch.manual_seed(3)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    drawn = sample(
        policy,
        tokenizer,
        tokenizer(["7+5*3="])["input_ids"],
        4,
        max_tokens=1,
        temperature=1.0,
        seed=0,
        step=0,
        device=CPU,
    )
    ids = torch.tensor([tokenizer("7+5*3=")["input_ids"]])
    with torch.no_grad():
        p = policy(input_ids=ids).logits[0, -1].double().softmax(-1)
        with adapter_disabled(policy):
            q = policy(input_ids=ids).logits[0, -1].double().softmax(-1)
    expected = (p * (p / q).log()).sum().item()
    assert expected > 1e-4
    assert completion_kl(policy, drawn, CPU).tolist() == pytest.approx(
        [expected] * 4, rel=1e-3
    )  # float32 logits of a small difference.


def test_an_evaluation_counts_what_its_completions_show(policy, tokenizer):
    seen = look(policy, tokenizer, samples=4)
    assert len(seen.completions) == 64
    assert seen.accuracy == sum(c["gold"] for c in seen.completions) / 64
    assert seen.mean_length == sum(c["length"] for c in seen.completions) / 64
    assert (
        seen.facts["scratchpad_share"]
        == sum(c["completion"].startswith("<think>") for c in seen.completions) / 64
    )
    assert seen.pass_at_k[1] == pytest.approx(seen.accuracy)
    assert seen.pass_at_k[1] <= seen.pass_at_k[2] <= seen.pass_at_k[4]
    assert (
        seen.pass_at_k[4]
        == sum(any(c["gold"] for c in seen.completions[i : i + 4]) for i in range(0, 64, 4)) / 16
    )


def test_the_same_seed_evaluates_on_the_same_draws(policy, tokenizer):
    assert look(policy, tokenizer) == look(policy, tokenizer)
    assert look(policy, tokenizer).completions != look(policy, tokenizer, seed=1).completions


def test_the_base_starts_where_the_lessons_need_it(policy, tokenizer):
    seen = look(policy, tokenizer, prompts=1000)
    assert 0.40 <= seen.accuracy <= 0.55
    assert 0.15 <= seen.facts["scratchpad_share"] <= 0.25
