"""Dropout of LoRA, rank-stabilised LoRA and DoRA: what the policy computes, and where the fast path
has to stay off.
"""

import json
import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from support.tiny import save
from torch import nn
from transformers import AutoModelForCausalLM

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.llama import decoder_of
from lab.engine.sampler import sample
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.training.driver import drive
from lab.training.loop import prepare, train

CPU = torch.device("cpu")
QUICK = {
    "steps": 4,
    "batch_size": 4,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
}
IDS = torch.tensor([[5, 9, 17, 4, 8, 2], [7, 3, 3, 11, 6, 1]])
BATCH = TokenBatch(IDS, torch.arange(6).expand(2, 6) >= 2)


def moved(model, seed=1):
    """The model with other weights than at the start, where LoRA adds nothing."""
    noise = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data += 0.1 * torch.randn(weight.shape, generator=noise)
    return model


def policy(folder, **knobs):
    return moved(load_policy(make_config("dpo", {"model": folder, "device": "cpu"} | knobs), CPU))


def by_peft(folder, **options):
    """The same model, made by peft alone."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    lora = LoraConfig(
        r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM", **options
    )
    return moved(get_peft_model(base, lora))


def logps_of(model):
    logits = model(input_ids=IDS).logits[:, :-1].log_softmax(-1)
    return logits.gather(2, IDS[:, 1:, None]).squeeze(2)[:, 1:]


@pytest.mark.parametrize("option, fast", [("use_rslora", True), ("use_dora", False)])
def test_the_policy_is_the_one_that_peft_makes(tmp_path, option, fast):
    folder = save(tmp_path)
    ours, theirs = policy(folder, **{option: True}), by_peft(folder, **{option: True}).eval()
    assert (decoder_of(ours) is not None) == fast
    logps = token_statistics(ours, BATCH, reference=ours).logps[:, 2:]
    torch.testing.assert_close(logps, logps_of(theirs), rtol=1e-4, atol=1e-5)
    plain = token_statistics(policy(folder), BATCH).logps[:, 2:]
    assert (plain - logps).abs().max() > 1e-2  # The option changes something.
    found = token_statistics(ours, BATCH, reference=ours).reference_logps
    with torch.no_grad(), theirs.disable_adapter():
        torch.testing.assert_close(found[:, 2:], logps_of(theirs), rtol=1e-4, atol=1e-5)


def test_the_scale_of_rank_stabilised_lora_is_alpha_over_the_root_of_the_rank(tmp_path):
    model = policy(save(tmp_path), use_rslora=True, lora_rank=16, lora_alpha=8)
    scales = {m.scaling["default"] for m in model.modules() if isinstance(m, LoraLayer)}
    assert scales == {8 / math.sqrt(16)} == {2.0}


def test_sampling_with_dora_follows_the_policy(tmp_path):
    folder = save(tmp_path)
    model, tokenizer = policy(folder, use_dora=True), load_tokenizer(folder)
    drawn = sample(
        model, tokenizer, [[5, 9, 17]], 1, max_tokens=6, temperature=0, seed=0, step=0, device=CPU
    )
    theirs = by_peft(folder, use_dora=True).eval()
    written = torch.tensor([[5, 9, 17]])
    with torch.no_grad():
        while written.shape[1] < drawn.ids.shape[1]:
            likeliest = theirs(input_ids=written).logits[:, -1:].argmax(-1)
            written = torch.cat([written, likeliest], 1)
    assert written.tolist() == drawn.ids.tolist()


def test_dropout_acts_on_gradients_alone_and_is_torchs(tmp_path):
    folder = save(tmp_path)
    dropped, plain = policy(folder, lora_dropout=0.4), policy(folder)
    assert decoder_of(dropped) is None and decoder_of(plain) is not None
    theirs = by_peft(folder, lora_dropout=0.4)
    for module in theirs.modules():
        assert type(module) is not nn.Dropout or module.p in (0.0, 0.4)
    theirs.train()
    torch.manual_seed(3)
    expected = logps_of(theirs)
    torch.manual_seed(3)
    torch.testing.assert_close(logps_of(dropped), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(logps_of(dropped), logps_of(plain), rtol=1e-5, atol=1e-6)
        with adapter_disabled(dropped), adapter_disabled(plain):
            torch.testing.assert_close(logps_of(dropped), logps_of(plain), rtol=1e-5, atol=1e-6)
    assert (expected - logps_of(plain)).abs().max() > 1e-3


def rows(folder):
    return [row["metrics"] for row in folder.history() if row["type"] == "step"]


@pytest.mark.parametrize(
    "method, more",
    [
        ("dpo", {"lora_dropout": 0.3, "gradient_checkpointing": True}),
        ("grpo", {"lora_dropout": 0.3, "group_size": 2}),
        ("ppo", {"lora_dropout": 0.3}),
        ("dpo", {"use_dora": True}),
        ("ppo", {"use_dora": True}),
        ("reward_model", {"use_rslora": True, "lora_dropout": 0.1}),
    ],
)
def test_a_resumed_run_follows_the_uninterrupted_one(tmp_path, method, more):
    few = {} if method in ("grpo", "ppo") else {"pairs": 24}
    config = make_config(method, QUICK | few | more)
    whole, halved = (create(tmp_path / name, config) for name in ("whole", "halved"))
    drive(whole)
    drive(halved, until=lambda run: run.step >= 2)
    drive(RunFolder(halved.path))
    assert rows(whole) == rows(halved) and len(rows(whole)) == 5
    written = json.loads((whole.path / "adapter" / "adapter_config.json").read_text("utf-8"))
    assert written["use_dora"] == more.get("use_dora", False)
    assert written["lora_dropout"] == more.get("lora_dropout", 0.0)


def test_checkpointed_activations_have_the_same_dropout():
    losses = []
    for recomputed in (False, True):
        knobs = {"lora_dropout": 0.5, "gradient_checkpointing": recomputed, "pairs": 24}
        run = prepare(make_config("dpo", QUICK | knobs))
        losses.append(
            [
                (r.metrics["loss"], r.metrics["grad_norm"])
                for r in train(run)
                if isinstance(r, StepRecord) and r.step
            ]
        )
    for one, other in zip(*losses):
        assert one == pytest.approx(other, rel=1e-4)


def test_the_first_ratio_with_dropout_is_exactly_one():
    run = prepare(make_config("grpo", QUICK | {"group_size": 2, "lora_dropout": 0.5}))
    first = [r for r in train(run) if isinstance(r, StepRecord)][1]
    assert first.metrics["ratio"] == 1.0


@pytest.mark.parametrize(
    "knobs, words",
    [
        ({"use_dora": True, "lora_dropout": 0.1}, "Leave one of them out"),
        ({"use_dora": True, "shard": True}, "shard spreads"),
        ({"lora_dropout": 1.0}, "a number from 0 to 0.99"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(knobs, words):
    with pytest.raises(LabError, match=words):
        make_config("dpo", knobs)


def test_a_config_from_before_these_settings_has_plain_lora():
    old = to_dict(make_config("dpo", {}))
    for name in ("lora_dropout", "use_rslora", "use_dora"):
        del old[name]
    config = from_dict(old | {"format": 3})
    assert (config.lora_dropout, config.use_rslora, config.use_dora) == (0.0, False, False)
    assert decoder_of(load_policy(config, CPU)) is not None
