"""What the lab ships, and that it can be built again."""

import functools
import json

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import lab.recipes.pretrain_base
from lab.data.parsing import load_pairs
from lab.errors import LabError
from lab.models.sources import EMBEDDED
from lab.recipes.generate_pairs import build_pairs
from lab.recipes.pretrain_base import CHAIN_VOCABULARY, build_base
from lab.tasks.registry import TASKS

STARTING_POINT = {
    "prompts",
    "accuracy",
    "scratchpad_share",
    "mean_length",
    "scratchpad_accuracy",
    "answer_alone_accuracy",
}
BUILD = {
    "command",
    "device",
    "machine",
    "seed",
    "steps",
    "seconds",
    "torch",
    "transformers",
    "parameters",
    "starting_point",
}


def value(prompt):
    """The chain's value from left to right in plain integers, modulo 100."""
    total = int(prompt[0])
    for sign, digit in zip(prompt[1:-1:2], prompt[2:-1:2]):
        total = (
            total + int(digit)
            if sign == "+"
            else total - int(digit)
            if sign == "-"
            else total * int(digit)
        )
    return total % 100


@pytest.fixture(scope="module")
def shipped():
    return json.loads((EMBEDDED / "BUILD.json").read_text(encoding="utf-8"))


def test_the_base_is_at_most_4_megabytes_and_holds_no_code_to_run():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_the_base_answers_with_the_plain_classes_of_transformers():
    tokenizer, model = (
        AutoTokenizer.from_pretrained(EMBEDDED),
        AutoModelForCausalLM.from_pretrained(EMBEDDED),
    )
    prompts = [
        f"{a}+{b}*{c}-1=" for a in range(0, 10, 3) for b in range(1, 10, 4) for c in range(1, 4)
    ]
    right = 0
    for prompt in prompts:
        ids = tokenizer(prompt + "<think>", return_tensors="pt")["input_ids"]
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=60
        )[0]
        text = tokenizer.decode(out, skip_special_tokens=True)
        right += text.rpartition("</think>")[2] == str(value(prompt))
    assert right >= 0.8 * len(prompts)  # 96 % of the scratchpads that it samples are right.


def test_the_tokenizer_has_one_token_for_each_character_and_each_tag_and_gives_the_text_back():
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    text = "7+5*3-4*2=<think>7+5=12;12*3=36;36-4=32;32*2=64</think>64"
    ids = tokenizer(text)["input_ids"]
    assert len(ids) == len(text) - len("<think>") - len("</think>") + 2
    assert tokenizer.decode(ids) == text
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert [tokenizer.convert_tokens_to_ids(word) for word in CHAIN_VOCABULARY] == list(range(20))


def test_build_json_holds_every_figure_of_the_build(shipped):
    assert set(shipped) == BUILD and set(shipped["starting_point"]) == STARTING_POINT
    assert (
        shipped["command"]
        == f"python -m lab build-base --seed {shipped['seed']} --steps {shipped['steps']}"
    )
    assert all(
        type(shipped[name]) is int and shipped[name] > 0
        for name in ("steps", "seconds", "parameters")
    )
    assert all(
        isinstance(shipped[name], str) and shipped[name]
        for name in ("device", "machine", "torch", "transformers")
    )


def test_the_parameters_in_build_json_are_those_in_the_weights_file(shipped):
    weights = load_file(EMBEDDED / "model.safetensors")
    assert sum(w.numel() for w in weights.values()) == shipped["parameters"]
    assert all(w.dtype == torch.float32 and w.isfinite().all() for w in weights.values())


def test_the_accuracies_in_build_json_add_up(shipped):
    start = shipped["starting_point"]
    share = start["scratchpad_share"]
    assert share * start["scratchpad_accuracy"] + (1 - share) * start[
        "answer_alone_accuracy"
    ] == pytest.approx(start["accuracy"], abs=1e-9)


@pytest.fixture
def small_evaluation(monkeypatch):
    monkeypatch.setattr(
        lab.recipes.pretrain_base,
        "starting_point",
        functools.partial(lab.recipes.pretrain_base.starting_point, prompts=16),
    )


def test_the_same_seed_builds_the_same_base_twice_and_another_seed_another(
    small_evaluation, tmp_path
):
    said = []
    builds = [
        build_base(tmp_path / name, seed=seed, steps=2, device="cpu", report=said.append)
        for name, seed in (("a", 4), ("b", 4), ("c", 5))
    ]
    first, again, other = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert set(first) == set(again) == set(other)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
    assert builds[0]["starting_point"] == builds[1]["starting_point"]
    assert (
        len(said) == 6
        and said[0].startswith("step 1/2  loss ")
        and said[1].startswith("step 2/2  loss ")
    )


def test_a_built_base_has_the_files_and_figures_of_the_shipped_one(
    small_evaluation, tmp_path, shipped
):
    build = build_base(
        tmp_path / "new" / "base", seed=1, steps=1, device="cpu", report=lambda line: None
    )
    assert {p.name for p in (tmp_path / "new" / "base").iterdir()} == {
        p.name for p in EMBEDDED.iterdir()
    }
    assert json.loads((tmp_path / "new" / "base" / "BUILD.json").read_text()) == build
    assert (
        set(build) == BUILD
        and build["parameters"] == shipped["parameters"]
        and build["starting_point"]["prompts"] == 16
    )
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert json.loads((tmp_path / "new" / "base" / name).read_text()) == json.loads(
            (EMBEDDED / name).read_text()
        )
    assert (
        AutoModelForCausalLM.from_pretrained(tmp_path / "new" / "base").num_parameters()
        == shipped["parameters"]
    )


def test_pairs_are_built_the_same_twice_each_right_against_wrong(tmp_path):
    paths = [tmp_path / "data" / f"{name}.jsonl" for name in "abc"]
    counts = [
        build_pairs(path, count=6, seed=seed, device="cpu") for path, seed in zip(paths, (1, 1, 2))
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    assert counts[0] == counts[1]
    pairs = load_pairs(paths[0])
    assert len(pairs) == len({p.prompt for p in pairs}) == counts[0]["pairs"] == 6
    held_out = {p.prompt for p in TASKS["chain"].held_out(3000)}
    for pair in pairs:
        assert pair.prompt not in held_out
        assert pair.chosen.rpartition("</think>")[2] == str(
            value(pair.prompt)
        ) and pair.rejected.rpartition("</think>")[2] != str(value(pair.prompt))
    assert counts[0]["scratchpad_share_chosen"] == sum("<think>" in p.chosen for p in pairs) / 6
    assert counts[0]["scratchpad_share_rejected"] == sum("<think>" in p.rejected for p in pairs) / 6


def test_a_model_that_is_never_right_gives_no_pairs_and_says_so(small_evaluation, tmp_path):
    build_base(tmp_path / "base", steps=1, device="cpu", report=lambda line: None)
    with pytest.raises(LabError, match="have both a better and a worse completion"):
        build_pairs(tmp_path / "pairs.jsonl", model=str(tmp_path / "base"), count=6, device="cpu")
    assert not (tmp_path / "pairs.jsonl").exists()
