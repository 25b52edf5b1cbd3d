"""Full fine-tuning (lora_rank 0): all weights train, the reference is a copy of the initial ones, and a
run writes a whole model.
"""

import json

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import save, tokenizer
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.models.adapters import adapter_disabled, adapter_merged
from lab.models.loading import load_policy
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.serving.export import merge, push
from lab.serving.load import load_run
from lab.serving.side_by_side import PolicyWithReference
from lab.training.driver import drive
from lab.training.loop import prepare, train

CPU = torch.device("cpu")
PAIRS = [
    {"prompt": f"ask {i}", "chosen": "yes" * (1 + i % 3), "rejected": "no" * (1 + i % 4)}
    for i in range(6)
]
QUICK = {
    "lora_rank": 0,
    "steps": 4,
    "batch_size": 6,
    "eval_every": 2,
    "eval_prompts": 4,
    "checkpoint_every": 1,
    "max_completion_tokens": 6,
    "learning_rate": 1e-2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A tiny model with tied embeddings, and six pairs for every update."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS), "utf-8")
    return {
        "model": save(folder / "model", tie_word_embeddings=True),
        "data": str(folder / "pairs.jsonl"),
        "task": "chain",
    }


def config_of(own, method="dpo", **more):
    return make_config(method, QUICK | own | more)


def trained(path, config):
    folder = create(path, config)
    drive(folder)
    return folder


def losses_of(config):
    return [
        record.metrics["loss"]
        for record in train(prepare(config))
        if isinstance(record, StepRecord) and record.step
    ]


def completion_logps(model, text):
    """The summed log-probabilities of the completions of `text`, row by row, without padding."""
    sums = []
    for prompt, completion in text:
        start = text_ids(prompt)
        ids = torch.tensor([start + text_ids(completion) + [258]])
        logps = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        sums.append(logps.gather(2, ids[:, 1:, None]).flatten()[len(start) - 1 :].sum())
    return torch.stack(sums)


def text_ids(text):
    return tokenizer().encode(text, add_special_tokens=False)


def plain_dpo(folder, updates, *, beta, rate):
    """The losses of DPO on all weights, written out: two models, torch's AdamW, no lab."""
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder).eval() for _ in range(2))
    optimizer = torch.optim.AdamW(policy.parameters(), lr=rate, weight_decay=0.0)
    sides = [[(row["prompt"], row[side]) for row in PAIRS] for side in ("chosen", "rejected")]
    losses = []
    for _ in range(updates):
        with torch.no_grad():
            frozen = [completion_logps(reference, side) for side in sides]
        good, bad = (completion_logps(policy, side) - logps for side, logps in zip(sides, frozen))
        loss = -logsigmoid(beta * (good - bad)).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_dpo_has_the_losses_of_a_loop_written_with_two_models(own):
    ours = losses_of(config_of(own, steps=6, eval_every=0, beta=0.3))
    theirs = plain_dpo(own["model"], 6, beta=0.3, rate=QUICK["learning_rate"])
    assert theirs[-1] < 0.8 * theirs[0]
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_every_weight_trains_and_the_reference_keeps_the_first_ones(own):
    run = prepare(config_of(own))
    first = {name: w.detach().clone() for name, w in run.model.named_parameters()}
    (group,) = run.trainable_parameters().values()
    assert group.keys() == first.keys()
    for _ in train(run):
        pass
    assert all(not torch.equal(w, first[name]) for name, w in run.model.named_parameters())
    own_data = [w.data_ptr() for w in run.model.parameters()]
    with adapter_disabled(run.model):
        assert all(torch.equal(w, first[name]) for name, w in run.model.named_parameters())
    assert [w.data_ptr() for w in run.model.parameters()] == own_data
    with adapter_merged(run.model):
        assert [w.data_ptr() for w in run.model.parameters()] == own_data


def test_kl_and_reference_are_those_of_two_models(own):
    model = load_policy(config_of(own), CPU)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.add_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
            )
    ids = torch.tensor([[5, 9, 11, 4, 8, 2], [7, 3, 3, 11, 6, 1]])
    tokens = TokenBatch(ids, torch.arange(6).expand(2, 6) >= 2)
    found = token_statistics(model, tokens, reference=model)
    with torch.no_grad():
        policy = model(input_ids=ids).logits.log_softmax(-1)
        reference = AutoModelForCausalLM.from_pretrained(own["model"])(
            input_ids=ids
        ).logits.log_softmax(-1)
    kl = (policy.exp() * (policy - reference)).sum(-1)[:, 1:5]
    torch.testing.assert_close(found.kl[:, 2:], kl, rtol=1e-4, atol=1e-6)
    of_tokens = reference[:, :-1].gather(2, ids[:, 1:, None]).squeeze(2)[:, 1:]
    torch.testing.assert_close(found.reference_logps[:, 2:], of_tokens, rtol=1e-4, atol=1e-5)


def test_a_resumed_run_is_equal_to_the_last_bit_and_transformers_loads_its_model(own, tmp_path):
    whole = trained(tmp_path / "whole", config_of(own))
    parted = create(tmp_path / "parted", config_of(own))
    drive(parted, until=lambda run: run.step >= 2)
    drive(RunFolder(parted.path))
    ours, again = (load_file(f.path / "model" / "model.safetensors") for f in (whole, parted))
    assert ours.keys() == again.keys() and len(ours) > 10
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    assert not (whole.path / "adapter").exists()
    model = AutoModelForCausalLM.from_pretrained(whole.path / "model")
    assert (
        AutoTokenizer.from_pretrained(whole.path / "model").get_vocab() == tokenizer().get_vocab()
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name, weight in ours.items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=0)


def test_the_trained_run_talks_merges_and_is_refused_by_the_hub_of_adapters(own, tmp_path):
    folder = trained(tmp_path / "run", config_of(own))
    _, model = load_run(folder)
    saved = load_file(folder.path / "model" / "model.safetensors")
    base = AutoModelForCausalLM.from_pretrained(own["model"])
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(model.state_dict()[name], saved[name])
    with adapter_disabled(model):
        assert torch.equal(model.state_dict()[name], base.state_dict()[name])
    answer = PolicyWithReference.of(folder, "cpu").answer("1+2=", seed=3)
    assert answer["policy"]["policy_logps"] != answer["policy"]["reference_logps"]
    plain = AutoModelForCausalLM.from_pretrained(merge(folder, tmp_path / "plain"))
    assert torch.equal(plain.state_dict()[name], saved[name])
    with pytest.raises(LabError, match="has no adapter: it trained all weights.*hf upload me/x"):
        push(folder, "me/x")


def test_the_best_and_every_evaluation_keep_whole_models(own, tmp_path):
    folder = trained(tmp_path / "best", config_of(own, keep="best", best_metric="gold/format"))
    assert (folder.path / "model-best" / "config.json").is_file()
    kept = [load_file(folder.path / f / "model.safetensors") for f in ("model", "model-best")]
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])
    every = trained(tmp_path / "all", config_of(own, keep="all", best_metric="gold/format"))
    assert {p.name for p in (every.path / "models").iterdir()} == {"step-0", "step-2", "step-4"}


def test_a_damaged_model_is_refused_and_written_again(own, tmp_path):
    folder = trained(tmp_path / "run", config_of(own))
    path = folder.path / "model" / "model.safetensors"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    with pytest.raises(LabError, match="model.safetensors is damaged"):
        load_run(folder)
    drive(RunFolder(folder.path))
    assert path.read_bytes() == intact


ONLINE = {"batch_size": 4, "steps": 2, "eval_every": 0}


@pytest.mark.parametrize(
    "method, more",
    [
        ("sft", {}),
        ("ipo", {"gradient_checkpointing": True}),
        ("kto", {}),
        ("grpo", ONLINE | {"group_size": 2, "beta": 0.1}),
        ("online_dpo", ONLINE),
        ("ppo", ONLINE | {"model_layout": "separate"}),
    ],
)
def test_every_method_trains_all_weights(own, tmp_path, method, more):
    source = (
        {"model": own["model"]} if "group_size" in more or method in ("ppo", "online_dpo") else own
    )
    config = make_config(method, QUICK | {"steps": 2} | source | more)
    run = prepare(config)
    first = [w.detach().clone() for w in run.model.parameters()]
    records = [record for record in train(run) if isinstance(record, StepRecord)]
    assert all(torch.isfinite(torch.tensor(record.metrics["loss"])) for record in records[1:])
    if method in ("sft", "ipo", "kto"):  # Equal rewards of a random model give no gradient.
        assert all(not torch.equal(a, b) for a, b in zip(first, run.model.parameters()))
    assert records[0].metrics["gold/kl"] == pytest.approx(0.0, abs=1e-6)


def test_gradient_checkpointing_changes_no_loss(own):
    plain, recomputed = (
        losses_of(config_of(own, eval_every=0, gradient_checkpointing=on)) for on in (False, True)
    )
    assert recomputed == pytest.approx(plain, rel=1e-6)


def test_a_reward_model_and_a_critic_train_all_weights(own, tmp_path):
    reward = trained(tmp_path / "reward", config_of(own, "reward_model", eval_every=0))
    ppo = {"lora_rank": 0, "model_layout": "separate", "reward_from": str(reward.path)}
    run = prepare(make_config("ppo", QUICK | ONLINE | ppo | {"model": own["model"]}))
    head = load_file(reward.path / "model" / "model.safetensors")["score.weight"]
    assert torch.equal(run.method_state.reward_model.head, head)
    critic = run.trainable_parameters()["critic_learning_rate"]
    first = {name: weight.detach().clone() for name, weight in critic.items()}
    for _ in train(run):
        pass
    moved = [name for name, weight in critic.items() if not torch.equal(weight, first[name])]
    assert "head" in moved and any("q_proj" in name for name in moved)
    with pytest.raises(LabError, match="cannot share the policy's base.*separate"):
        prepare(
            make_config(
                "ppo",
                QUICK
                | ONLINE
                | ppo
                | {"model": own["model"], "lora_rank": 2, "model_layout": "shared"},
            )
        )


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"adapter": "some/adapter"}, "adapter is some/adapter. Leave --adapter out"),
        ({"use_dora": True}, "use_dora is True. Leave --use-dora out"),
        ({"use_rslora": True}, "use_rslora is True"),
        ({"lora_dropout": 0.1}, "lora_dropout is 0.1. Leave --lora-dropout out"),
        ({"lora_alpha": 32.0}, "lora_alpha is 32.0"),
        ({"lora_targets": "q_proj"}, "lora_targets is q_proj"),
        ({"quantization": "4bit"}, "quantization is 4bit. Leave --quantization out"),
        ({"shard": True}, "shard is True. Leave --shard out"),
    ],
)
def test_settings_of_lora_are_refused_in_one_line(settings, message):
    with pytest.raises(LabError, match=f"^lora_rank is 0, which trains all weights.*{message}"):
        make_config("dpo", {"lora_rank": 0} | settings)


def test_ppo_on_one_base_is_refused():
    with pytest.raises(LabError, match="model_layout shared.*Use --model-layout separate"):
        make_config("ppo", {"lora_rank": 0})
