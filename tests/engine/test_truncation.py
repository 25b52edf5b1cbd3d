"""Truncated sampling: which tokens are left, and that training sees the distribution that was
sampled.
"""

import math

import pytest
import torch
from support.tiny import save
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.sampler import sample
from lab.engine.token_logprobs import token_statistics
from lab.engine.truncation import Truncation, truncation_of
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.training.driver import drive
from lab.training.loop import prepare, train

CPU = torch.device("cpu")
SETTINGS = [
    {"top_k": 5},
    {"top_p": 0.6},
    {"min_p": 0.3},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.05},
]
PROMPT = [5, 9, 17]
QUICK = {
    "steps": 4,
    "batch_size": 8,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A policy whose distributions are uneven, and its tokenizer."""
    folder = save(tmp_path_factory.mktemp("model"))
    model = load_policy(make_config("grpo", {"model": folder, "device": "cpu"}), CPU)
    noise = torch.Generator().manual_seed(1)
    for name, weight in model.named_parameters():
        spread = 0.3 if weight.requires_grad else 1.0 if "lm_head" in name else 0.0
        weight.data += spread * torch.randn(weight.shape, generator=noise)
    return model, load_tokenizer(folder)


@torch.no_grad()
def of_transformers(model, ids, temperature, top_k=0, top_p=1.0, min_p=0.0):
    """Log-probabilities (V,) of the token behind `ids`, by the processors of `generate`, in its order."""
    processors = [TemperatureLogitsWarper(temperature)]
    processors += [TopKLogitsWarper(top_k)] if top_k else []
    processors += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    processors += [MinPLogitsWarper(min_p)] if min_p else []
    logits = model(input_ids=torch.tensor([ids])).logits[:, -1]
    return LogitsProcessorList(processors)(torch.tensor([ids]), logits).log_softmax(-1)[0]


def test_what_is_left_by_hand():
    logits = torch.tensor([[0.5, 0.05, 0.3, 0.15]]).log()
    for truncation, left in [
        (Truncation(top_k=3), [0, 2, 3]),
        (Truncation(top_p=0.7), [0, 2]),
        (Truncation(top_p=0.81), [0, 2, 3]),
        (Truncation(min_p=0.25), [0, 2, 3]),  # At least 0.25 · 0.5 = 0.125.
        (Truncation(top_k=2, top_p=0.6), [0]),  # Of 0.5 + 0.3 the first has 62.5 %.
        (Truncation(), [0, 1, 2, 3]),
    ]:
        assert truncation.kept(logits)[0].nonzero().flatten().tolist() == left, truncation


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("settings", SETTINGS)
def test_log_probabilities_are_those_of_the_processors_of_transformers(
    policy, settings, temperature
):
    model, _ = policy
    expected = of_transformers(model, PROMPT, temperature, **settings)
    left = expected.isfinite().nonzero().flatten()
    assert 0 < len(left) < len(expected)
    ids = torch.tensor([[*PROMPT, token] for token in left.tolist()])
    tokens = TokenBatch(ids, torch.tensor([[False, False, False, True]]).expand(len(ids), 4))
    found = token_statistics(
        model,
        tokens,
        temperature=temperature,
        reference=model,
        entropy=True,
        truncation=Truncation(**settings),
    )
    torch.testing.assert_close(found.logps[:, 3], expected[left], rtol=1e-4, atol=1e-5)
    p = expected[left].exp()
    entropy = -(p * expected[left]).sum()
    assert found.entropy[0, 3].item() == pytest.approx(entropy.item(), rel=1e-4, abs=1e-6)
    with torch.no_grad(), adapter_disabled(model):
        logits = model(input_ids=torch.tensor([PROMPT])).logits[0, -1, left] / temperature
    reference = logits.log_softmax(-1)  # The reference has the same tokens.
    torch.testing.assert_close(found.reference_logps[:, 3], reference, rtol=1e-4, atol=1e-5)
    kl = (p * (expected[left] - reference)).sum()
    assert found.kl[0, 3].item() == pytest.approx(kl.item(), rel=1e-3, abs=1e-6)


def drawn(policy, count, settings, temperature=0.8, tokens=1):
    model, tokenizer = policy
    return sample(
        model,
        tokenizer,
        [PROMPT],
        count,
        max_tokens=tokens,
        temperature=temperature,
        seed=4,
        step=1,
        device=CPU,
        truncation=Truncation(**settings),
    )


@pytest.mark.parametrize("settings", SETTINGS)
def test_tokens_are_sampled_as_often_as_transformers_processors_say(policy, settings):
    count = 4000
    p = of_transformers(policy[0], PROMPT, 0.8, **settings).exp()
    tokens = drawn(policy, count, settings).ids[:, 3]
    frequency = tokens.bincount(minlength=len(p)) / count
    assert (frequency[p == 0] == 0).all()
    # Five standard deviations of a share of 4,000 draws.
    assert ((frequency - p).abs() <= 5 * (p * (1 - p) / count).sqrt() + 1e-9).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_fast_and_the_plain_sampler_write_the_same(policy, settings, monkeypatch):
    fast = drawn(policy, 16, settings, tokens=12)
    monkeypatch.setattr("lab.engine.sampler.decoder_of", lambda model: None)
    plain = drawn(policy, 16, settings, tokens=12)
    assert torch.equal(fast.ids, plain.ids)
    whole = drawn(policy, 16, {}, tokens=12)
    assert fast.ids.shape != whole.ids.shape or not torch.equal(fast.ids, whole.ids)


def test_a_truncation_leaves_nothing_behind_for_the_next_call(policy):
    before = drawn(policy, 16, {}, tokens=6)
    drawn(policy, 16, {"top_k": 1}, tokens=6)
    assert torch.equal(before.ids, drawn(policy, 16, {}, tokens=6).ids)


def test_a_token_that_a_later_policy_would_leave_out_keeps_a_probability(policy):
    model, _ = policy
    unlikely = int(of_transformers(model, PROMPT, 1.0).argmin())
    tokens = TokenBatch(torch.tensor([[*PROMPT, unlikely]]), torch.tensor([[False] * 3 + [True]]))
    found = token_statistics(model, tokens, truncation=Truncation(top_k=3)).logps[0, 3]
    z = of_transformers(model, PROMPT, 1.0)
    top = z.topk(3).values
    expected = z[unlikely] - torch.cat([top, z[unlikely, None]]).logsumexp(0)
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    found.backward()  # The gradient is finite as well.
    trained = [w.grad for w in model.parameters() if w.requires_grad and w.grad is not None]
    assert trained and all(gradient.isfinite().all() for gradient in trained)
    model.zero_grad()


def rows(folder):
    return [row["metrics"] for row in folder.history() if row["type"] == "step"]


@pytest.mark.parametrize(
    "method, more",
    [
        ("grpo", {"group_size": 4, "beta": 0.1, "updates_per_rollout": 2, "top_p": 0.9}),
        ("ppo", {"top_k": 5, "min_p": 0.1}),
        ("online_dpo", {"min_p": 0.2}),
    ],
)
def test_a_run_with_truncation_trains_and_resumes(tmp_path, method, more):
    config = make_config(method, QUICK | more)
    whole, halved = (create(tmp_path / name, config) for name in ("whole", "halved"))
    drive(whole)
    drive(halved, until=lambda run: run.step >= 2)
    drive(RunFolder(halved.path))
    assert rows(whole) == rows(halved) and len(rows(whole)) == 5
    assert all(math.isfinite(v) for row in rows(whole) for v in row.values())


def test_the_first_update_on_a_truncated_rollout_is_on_policy_and_at_no_distance():
    knobs = QUICK | {"steps": 1, "group_size": 4, "beta": 0.1, "top_p": 0.7}
    first = [r for r in train(prepare(make_config("grpo", knobs))) if isinstance(r, StepRecord)][1]
    assert first.metrics["ratio"] == 1.0
    assert first.metrics["kl"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("knobs", [{"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"top_k": -1}])
def test_values_out_of_range_are_refused(knobs):
    with pytest.raises(LabError, match=next(iter(knobs))):
        make_config("grpo", knobs)


def test_a_config_from_before_these_settings_samples_from_the_whole_distribution():
    old = to_dict(make_config("grpo", {}))
    for name in ("top_k", "top_p", "min_p"):
        del old[name]
    assert truncation_of(from_dict(old | {"format": 3})) is None
