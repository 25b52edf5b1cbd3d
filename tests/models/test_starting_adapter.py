"""A run that starts from an existing adapter: policy and reference begin as that adapter, and only
the policy moves.
"""

import json
import shutil

import pytest
import torch
from peft import PeftModel
from support.tiny import save
from transformers import AutoModelForCausalLM

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.data.batching import TokenBatch
from lab.engine.llama import decoder_of
from lab.engine.sampler import sample
from lab.engine.token_logprobs import reference_implementation, token_statistics
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.models.loading import load_policy
from lab.models.sources import EMBEDDED
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.serving.export import merge
from lab.serving.load import load_run
from lab.training.driver import drive
from lab.training.loop import prepare, train

CPU = torch.device("cpu")
QUICK = {
    "steps": 2,
    "batch_size": 8,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 1,
    "max_completion_tokens": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
}
IDS = torch.tensor([[5, 9, 11, 4, 8, 2], [7, 3, 3, 11, 6, 1]])
BATCH = TokenBatch(IDS, torch.arange(6).expand(2, 6) >= 2)


def trained(folder, **more):
    """A short run, and the folder of its adapter."""
    config = make_config("dpo", QUICK | {"pairs": 32} | more)
    drive(create(folder, config))
    return folder / "adapter"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("first") / "run")


def config_from(adapter, method="dpo", **more):
    few = {} if method in ("grpo", "ppo", "online_dpo") else {"pairs": 32}
    return make_config(method, QUICK | few | {"adapter": str(adapter)} | more)


@torch.no_grad()
def by_peft(adapter):
    """Log-probabilities (2, 4) of the completions, by peft alone."""
    model = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(EMBEDDED), adapter
    ).eval()
    logits = model(input_ids=IDS).logits[:, :-1].log_softmax(-1)
    return logits.gather(2, IDS[:, 1:, None]).squeeze(2)[:, 1:]


def near(ours, theirs):
    torch.testing.assert_close(ours[:, 2:].detach(), theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_policy_and_reference_begin_as_the_adapter(adapter, tmp_path, variant):
    folder = trained(tmp_path / "run", **variant) if variant else adapter
    model, start = load_policy(config_from(folder), CPU), by_peft(folder)
    assert (decoder_of(model) is not None) == ("use_dora" not in variant)
    for found in (
        token_statistics(model, BATCH, reference=model),
        reference_implementation(model, BATCH, reference=model),
    ):
        near(found.logps, start)
        near(found.reference_logps, start)
        assert found.kl.abs().max() < 1e-5
    with adapter_disabled(model), torch.no_grad():
        near(token_statistics(model, BATCH).logps, start)
    base = token_statistics(load_policy(make_config("dpo", {"device": "cpu"}), CPU), BATCH).logps
    assert (base[:, 2:] - start).abs().max() > 1e-2  # The adapter is not the base.
    names = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert names and not any(".ref." in name for name in names)


def test_the_first_loss_is_that_of_no_margin_and_the_reference_stays(adapter):
    run = prepare(config_from(adapter))
    start = by_peft(adapter)
    records = [r.metrics for r in train(run) if isinstance(r, StepRecord)]
    assert records[1]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert (
        records[0]["gold/kl"] == pytest.approx(0, abs=1e-6)
        and records[2]["loss"] != records[1]["loss"]
    )
    found = token_statistics(run.model, BATCH, reference=run.model)
    near(found.reference_logps, start)
    assert (found.logps[:, 2:] - start).abs().max() > 1e-3


def test_the_reference_is_sampled_with_its_adapter(adapter, monkeypatch):
    run = prepare(config_from(adapter))
    prompt = [run.tokenizer("12+7=").input_ids]
    how = {"max_tokens": 8, "temperature": 0.0, "seed": 0, "step": 0, "device": CPU}
    before = sample(run.model, run.tokenizer, prompt, 1, **how).ids
    for _ in train(run):
        pass
    with adapter_disabled(run.model):
        fast = sample(run.model, run.tokenizer, prompt, 1, **how).ids
        monkeypatch.setattr("lab.engine.sampler.decoder_of", lambda model: None)
        plain = sample(run.model, run.tokenizer, prompt, 1, **how).ids
    assert torch.equal(before, fast) and torch.equal(before, plain)


@pytest.mark.parametrize("method, more", [("dpo", {}), ("grpo", {"beta": 0.1}), ("ppo", {})])
def test_a_resumed_run_follows_the_uninterrupted_one_and_its_adapter_fits_the_base(
    adapter, tmp_path, method, more
):
    config = config_from(adapter, method, steps=3, **more)
    whole, halved = (create(tmp_path / name, config) for name in ("whole", "halved"))
    run = drive(whole)
    drive(halved, until=lambda run: run.step >= 1)
    drive(RunFolder(halved.path))
    rows = [
        [row["metrics"] for row in folder.history() if row["type"] == "step"]
        for folder in (whole, halved)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 4
    near(token_statistics(run.model, BATCH).logps, by_peft(whole.path / "adapter"))
    _, loaded = load_run(whole, "cpu")
    found = token_statistics(loaded, BATCH, reference=loaded)
    near(found.logps, by_peft(whole.path / "adapter"))
    near(found.reference_logps, by_peft(adapter))


def test_a_run_from_an_adapter_is_merged_into_the_base(adapter, tmp_path):
    folder = create(tmp_path / "run", config_from(adapter))
    drive(folder)
    model = AutoModelForCausalLM.from_pretrained(merge(folder, tmp_path / "merged"))
    with torch.no_grad():
        logits = model(input_ids=IDS).logits[:, :-1].log_softmax(-1)
    merged = logits.gather(2, IDS[:, 1:, None]).squeeze(2)[:, 1:]
    torch.testing.assert_close(merged, by_peft(folder.path / "adapter"), rtol=1e-4, atol=1e-5)


def test_an_adapter_of_another_base_is_refused(adapter, tmp_path):
    other = save(tmp_path / "other")
    with pytest.raises(LabError, match="was trained on .*embedded_model', but the model is"):
        load_policy(config_from(adapter, model=other), CPU)
    copied = shutil.copytree(adapter, tmp_path / "copied")
    written = json.loads((copied / "adapter_config.json").read_text("utf-8"))
    (copied / "adapter_config.json").write_text(
        json.dumps(written | {"base_model_name_or_path": None}), "utf-8"
    )
    (copied / "SHA256SUMS").unlink(missing_ok=True)
    with pytest.raises(LabError, match="does not fit its base"):
        load_policy(config_from(copied, model=other), CPU)


def test_what_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(LabError, match="there is no adapter_config.json in it"):
        load_policy(config_from(tmp_path), CPU)
    judge = create(
        tmp_path / "judge", make_config("reward_model", QUICK | {"pairs": 32, "steps": 1})
    )
    drive(judge)
    with pytest.raises(LabError, match="no LoRA adapter of a language model alone"):
        load_policy(config_from(judge.path / "adapter"), CPU)


@pytest.mark.parametrize(
    "knobs, words",
    [
        ({"lora_rank": 4}, "lora_rank is 4, but the adapter in .* has 8"),
        ({"lora_alpha": 3.0}, "Leave --lora-alpha out"),
        ({"lora_dropout": 0.1}, "lora_dropout is 0.1, but the adapter"),
        ({"use_dora": True}, "use_dora is True"),
        ({"lora_targets": "q_proj"}, "has its own layers"),
    ],
)
def test_a_setting_that_contradicts_the_adapter_is_refused(adapter, knobs, words):
    with pytest.raises(LabError, match=words):
        load_policy(config_from(adapter, **knobs), CPU)


def test_methods_and_settings_that_cannot_start_from_an_adapter_say_so(adapter):
    with pytest.raises(LabError, match="Use --model-layout shared"):
        config_from(adapter, "ppo", model_layout="separate")
    with pytest.raises(LabError, match="which shard cannot start from"):
        config_from(adapter, shard=True)
    with pytest.raises(LabError, match="a reward model starts from a new adapter"):
        prepare(config_from(adapter, "reward_model"))


def test_a_run_does_not_continue_with_another_starting_adapter(adapter, tmp_path):
    copied = shutil.copytree(adapter, tmp_path / "copied")
    folder = create(tmp_path / "run", config_from(copied, steps=3))
    drive(folder, until=lambda run: run.step >= 1)
    other = trained(tmp_path / "other", seed=5)
    for path in other.iterdir():
        shutil.copy(path, copied / path.name)
    with pytest.raises(LabError, match=r"\(adapter\) has changed since"):
        drive(RunFolder(folder.path))


def test_a_config_from_before_has_a_new_adapter():
    old = to_dict(make_config("dpo", {}))
    del old["adapter"]
    assert from_dict(old | {"format": 3}).adapter == ""
