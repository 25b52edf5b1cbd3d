"""Models that users bring: LoRA where it belongs, recomputed activations with the same gradients,
and a clear word for what cannot be trained.
"""

import json
import math

import pytest
import torch
import transformers
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from support.tiny import CONFIGS, save
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

import lab.training.driver
from lab.config.methods import make_config
from lab.data.batching import collate, encode_examples
from lab.engine.token_logprobs import reference_implementation, token_statistics
from lab.errors import LabError
from lab.models.adapters import adapter_disabled, adapter_merged
from lab.models.loading import load_base, load_policy, load_reward_model
from lab.models.tokenizer import load_tokenizer
from lab.profiling.out_of_memory import expected_memory
from lab.runs.folder import create
from lab.serving.load import load_run
from lab.training.driver import drive

CPU = torch.device("cpu")
IDS = torch.arange(24).view(2, 12)
QUICK = {
    "pairs": 0,
    "steps": 2,
    "batch_size": 2,
    "eval_every": 0,
    "eval_prompts": 2,
    "max_completion_tokens": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save(tmp_path_factory.mktemp(kind), kind) for kind in CONFIGS}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"prompt": f"ask {n}", "chosen": "good" * n, "rejected": "bad"})
            for n in (1, 2, 3)
        )
    )
    return str(path)


def moved(folder, **knobs):
    policy = load_policy(make_config("dpo", {"model": folder, "device": "cpu"} | knobs), CPU)
    torch.manual_seed(1)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return policy


# Where LoRA goes.


@pytest.mark.parametrize("kind", CONFIGS)
def test_lora_is_on_every_matrix_of_the_blocks_and_neither_on_embeddings_nor_on_the_vocabulary(
    folders, kind
):
    plain = AutoModelForCausalLM.from_pretrained(folders[kind])
    matrices = {
        name
        for name, m in plain.named_modules()
        if isinstance(m, (torch.nn.Linear, Conv1D)) and m is not plain.get_output_embeddings()
    }
    adapted = {
        name.removeprefix("base_model.model.")
        for name, m in moved(folders[kind]).named_modules()
        if isinstance(m, LoraLayer)
    }
    assert (
        adapted == matrices
        and len(matrices) == 2 * {"llama": 7, "qwen2": 7, "gpt_neox": 4, "gpt2": 4}[kind]
    )


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_reference_is_the_plain_model_and_merging_keeps_the_policy(folders, kind):
    plain, policy = AutoModelForCausalLM.from_pretrained(folders[kind]).eval(), moved(folders[kind])
    with torch.no_grad():
        expected = policy(input_ids=IDS).logits
        assert not torch.allclose(expected, plain(input_ids=IDS).logits, atol=1e-3)
        with adapter_disabled(policy):
            torch.testing.assert_close(
                policy(input_ids=IDS).logits, plain(input_ids=IDS).logits, rtol=1e-6, atol=1e-6
            )
        with adapter_merged(policy):
            torch.testing.assert_close(policy(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONFIGS)
def test_each_architecture_trains_and_its_adapter_loads_in_plain_peft(
    folders, data, tmp_path, kind
):
    run = drive(
        create(tmp_path / "run", make_config("dpo", QUICK | {"model": folders[kind], "data": data}))
    )
    base = AutoModelForCausalLM.from_pretrained(folders[kind])
    loaded = PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(input_ids=IDS).logits, run.model(input_ids=IDS).logits, rtol=1e-4, atol=1e-5
        )


# Recomputed activations.


def gradients(policy, folder):
    """Gradients of the log-probabilities of two completions, and how many bytes were kept for the
    way back.
    """
    tokenizer, kept = load_tokenizer(folder), []

    def keep(tensor):
        kept.append(tensor.untyped_storage().nbytes())
        return tensor

    batch = collate(
        encode_examples(tokenizer, [("ask", "good"), ("tell", "something longer")], 99, "data"),
        tokenizer.pad_token_id,
    )
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = token_statistics(policy, batch).logps.sum()
        count = sum(kept)
    loss.backward()
    return {
        name: weight.grad.clone()
        for name, weight in policy.named_parameters()
        if weight.grad is not None
    }, count


@pytest.fixture
def one_way(monkeypatch):
    """The pass that can recompute, also where nothing is recomputed: Adam makes whole steps of the
    last digits of a gradient that is nearly nothing.
    """
    monkeypatch.setattr("lab.engine.cuda_graphs.supports", lambda decoder: False)


@pytest.mark.parametrize("kind", CONFIGS)
def test_recomputing_activations_keeps_less_and_gives_the_same_gradients(folders, kind, one_way):
    kept, size = gradients(moved(folders[kind]), folders[kind])
    again, smaller = gradients(moved(folders[kind], gradient_checkpointing=True), folders[kind])
    assert (
        kept.keys() == again.keys()
        and len(kept) == 2 * 2 * {"llama": 7, "qwen2": 7, "gpt_neox": 4, "gpt2": 4}[kind]
    )
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-7)
    assert smaller < 0.7 * size


@pytest.mark.parametrize("kind", CONFIGS)
def test_likelihoods_of_each_architecture_are_those_of_its_own_logits_without_holding_them(
    folders, kind, monkeypatch
):
    policy, tokenizer = moved(folders[kind]), load_tokenizer(folders[kind])
    batch = collate(
        encode_examples(tokenizer, [("ask", "good"), ("tell me", "something longer")], 99, "data"),
        tokenizer.pad_token_id,
    )
    oracle = reference_implementation(
        policy, batch, temperature=0.7, reference=policy, entropy=True
    )
    slopes = torch.autograd.grad(
        oracle.logps.sum(), [p for p in policy.parameters() if p.requires_grad]
    )
    monkeypatch.setattr("lab.engine.token_logprobs.reference_implementation", None)
    found = token_statistics(policy, batch, temperature=0.7, reference=policy, entropy=True)
    for name in ("logps", "entropy", "reference_logps", "kl"):
        torch.testing.assert_close(
            getattr(found, name), getattr(oracle, name), rtol=1e-4, atol=1e-5
        )
    for ours, theirs in zip(
        torch.autograd.grad(found.logps.sum(), [p for p in policy.parameters() if p.requires_grad]),
        slopes,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "method, knobs",
    [
        ("grpo", {"group_size": 2}),
        ("ppo", {"minibatches": 1}),
        ("ppo", {"minibatches": 1, "model_layout": "separate"}),
        ("kto", {}),
    ],
)
@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_a_run_with_recomputed_activations_is_the_run_without(
    folders, data, tmp_path, method, knobs, kind, one_way
):
    ends = []
    for switch in (False, True):
        own = {"pairs": 0, "data": data} if method == "kto" else {}
        config = (
            {k: v for k, v in QUICK.items() if k != "pairs"}
            | own
            | {"model": folders[kind], "gradient_checkpointing": switch}
            | knobs
        )
        run = drive(create(tmp_path / str(switch), make_config(method, config)))
        ends.append(
            [w.detach() for group in run.trainable_parameters().values() for w in group.values()]
        )
    for off, on in zip(*ends):
        torch.testing.assert_close(on, off, rtol=1e-4, atol=1e-6)


# What cannot be trained.


def test_4_bits_need_cuda_and_say_so(folders):
    with pytest.raises(
        LabError,
        match="quantization is '4bit', which needs a CUDA device, but this run is on the cpu",
    ):
        load_policy(make_config("dpo", {"model": folders["llama"], "quantization": "4bit"}), CPU)


def test_4_bits_need_bitsandbytes_and_say_how_to_install_it(folders, monkeypatch):
    monkeypatch.setattr("lab.models.loading.find_spec", lambda name: None)
    with pytest.raises(LabError, match="bitsandbytes. Install it: pip install bitsandbytes"):
        load_base(folders["llama"], torch.device("cuda"), "4bit")


def test_pickled_weights_are_not_read(tmp_path):
    folder = save(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(LabError, match=r"pickled \(\.bin\), which may run code.*safetensors"):
        load_base(folder, CPU)


def test_code_that_a_model_brings_is_not_run(tmp_path):
    folder = save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    own = {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config | own))
    (tmp_path / "own.py").write_text("raise SystemExit('code of the model ran')")
    with pytest.raises(LabError, match="Could not load"):
        load_base(folder, CPU)


def _rewrite(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def _halve(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "half": (_halve, "incomplete metadata"),
    "a pointer to the weights": (
        lambda folder: (folder / "model.safetensors").write_text("version https://git-lfs"),
        "Could not load .*header too large",
    ),
    "other shapes": (
        lambda folder: _rewrite(folder, lambda w: w.update({"model.norm.weight": torch.ones(5)})),
        "its weights have other shapes than its config.json says",
    ),
    "a layer is missing": (
        lambda folder: _rewrite(folder, lambda w: w.pop("model.layers.1.mlp.up_proj.weight")),
        r"lacks 1 of the weights .* 'llama', such as model\.layers\.1\.mlp\.up_proj\.weight",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_weights_that_are_damaged_or_incomplete_are_refused_in_one_line(tmp_path, damage):
    folder = save(tmp_path)
    change, says = DAMAGES[damage]
    change(tmp_path)
    with pytest.raises(LabError, match=says) as refused:
        load_base(folder, CPU)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "kind", ["LlamaForSequenceClassification", "LlamaForTokenClassification", "LlamaModel"]
)
def test_a_model_without_a_vocabulary_to_write_with_is_refused(tmp_path, kind, capfd):
    folder = save(tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(folder)
    getattr(transformers, kind)(whole.config).save_pretrained(folder)
    with pytest.raises(LabError, match=r"lacks 1 of the weights .*such as lm_head\.weight: it may"):
        load_base(folder, CPU)
    assert "MISSING" not in capfd.readouterr().err


def test_an_adapter_in_place_of_a_model_is_told_from_one(folders, data, tmp_path):
    drive(
        create(
            tmp_path / "run",
            make_config("dpo", QUICK | {"model": folders["llama"], "data": data, "steps": 1}),
        )
    )
    with pytest.raises(LabError, match="holds an adapter, not a model.*python -m lab merge"):
        load_base(str(tmp_path / "run" / "adapter"), CPU)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path, data):
    folder = save(tmp_path / "model", vocab_size=200, bos_token_id=1, eos_token_id=2)
    with pytest.raises(LabError, match="has 260 tokens, but the model only 200"):
        drive(create(tmp_path / "run", make_config("dpo", QUICK | {"model": folder, "data": data})))


@pytest.mark.parametrize(
    "change, says",
    [
        ("other tokens", "was trained on a model of 260 tokens, but .* now has 261, or other ones"),
        ("other shapes", "does not fit .*: its matrices have other shapes"),
    ],
)
def test_an_adapter_whose_base_has_changed_is_refused(data, tmp_path, change, says):
    folder = save(tmp_path / "model")
    made = create(
        tmp_path / "run", make_config("dpo", QUICK | {"model": folder, "data": data, "steps": 1})
    )
    drive(made)
    assert load_run(made, "cpu")
    if change == "other shapes":
        save(tmp_path / "model", hidden_size=32)
    else:
        tokenizer = load_tokenizer(folder)
        tokenizer.add_tokens(["new"])
        tokenizer.save_pretrained(folder)
    with pytest.raises(LabError, match=says):
        load_run(made, "cpu")


# Out of memory.


@pytest.mark.parametrize(
    "method, error, length",
    [
        (
            "dpo",
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"),
            "--max-length (now 128)",
        ),
        (
            "grpo",
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "--max-completion-tokens (now 4)",
        ),
    ],
)
def test_running_out_of_memory_says_what_to_lower_and_what_the_estimator_expects(
    folders, data, tmp_path, monkeypatch, method, error, length
):
    def full(run, orders):
        raise error
        yield

    monkeypatch.setattr(lab.training.driver, "train", full)
    own = {"model": folders["llama"], "batch_size": 4} | (
        {"data": data, "pairs": 0} if method == "dpo" else {"group_size": 2}
    )
    folder = create(
        tmp_path / "run",
        make_config(method, {k: v for k, v in QUICK.items() if k != "pairs"} | own),
    )
    with pytest.raises(LabError) as caught:
        drive(folder, expected_memory=expected_memory)
    said = str(caught.value)
    for part in (
        f"Out of memory ({error})",
        "--micro-batches 2 or more (now 1; the update stays the same)",
        "--gradient-checkpointing",
        length,
        "--batch-size (now 4)",
        "The estimator expects 0.0 GiB",
    ):
        assert part in said, said
    assert folder.state == "failed" and folder.status()["message"] == said


def test_another_error_of_the_runtime_is_not_called_out_of_memory(
    folders, data, tmp_path, monkeypatch
):
    def broken(run, orders):
        raise RuntimeError("shapes differ")
        yield

    monkeypatch.setattr(lab.training.driver, "train", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        drive(
            create(
                tmp_path / "run",
                make_config("dpo", QUICK | {"model": folders["gpt2"], "data": data}),
            )
        )


def test_a_reward_model_has_lora_on_the_blocks_and_a_head_of_its_own(folders):
    model = load_reward_model(
        make_config("reward_model", {"model": folders["gpt2"], "device": "cpu"}), CPU
    )
    trainable = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert (
        sum("lora_A" in name for name in trainable) == 8
        and sum("score" in name for name in trainable) == 1
    )
    assert all(math.isfinite(weight.float().sum().item()) for weight in model.parameters())
