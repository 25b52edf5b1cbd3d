"""Architectures: each trains on the plain path, samples what an unpadded pass says, and leaves an
adapter that plain peft loads.

All of the table with all methods: python -m pytest tests/models/test_architectures.py
--all-architectures
"""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support.architectures import CONFIGS, QUICK, listed, save
from support.tiny import tokenizer as bytes_of
from transformers import AutoModelForCausalLM

import lab.engine.fastest_decoder
from lab.config.methods import METHODS, make_config
from lab.data.batching import TokenBatch
from lab.engine.decode_any_model import EqualLengthDecoder, PaddedDecoder, RecomputingDecoder
from lab.engine.fastest_decoder import fastest_decoder
from lab.engine.sampler import generator, sample
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.models.adapters import adapter_merged
from lab.models.loading import load_policy, load_reward_model
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import create
from lab.serving.load import evaluate_run
from lab.training.driver import drive

CPU = torch.device("cpu")
IDS = torch.arange(40, 60).view(2, 10)
PROMPTS = ["ask", "tell me x", "hi there", "say"]
KNOBS = {
    "steps": 1,
    "eval_every": 0,
    "eval_prompts": 2,
    "max_completion_tokens": 5,
    "device": "cpu",
}
WAYS = {
    "EqualLengthDecoder": ["qwen3_next", "lfm2", "bamba", "zamba2", "mamba"],
    "RecomputingDecoder": ["recurrent_gemma", "rwkv"],
}


def pytest_generate_tests(metafunc):
    everything = metafunc.config.getoption("--all-architectures")
    if "kind" in metafunc.fixturenames:
        metafunc.parametrize("kind", CONFIGS if everything else QUICK)
    if "methods" in metafunc.fixturenames:
        metafunc.parametrize(
            "methods", [tuple(METHODS) if everything else ("dpo", "grpo")], ids=["methods"]
        )


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = save(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    pairs = [
        {"prompt": f"ask {'x' * n}", "chosen": "good" * n, "rejected": "bad"} for n in (1, 2, 3)
    ]
    prompts = [{"prompt": f"ask {'y' * n}", "answer": str(n)} for n in range(12)]
    for name, rows in (("pairs", pairs), ("prompts", prompts)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def config_of(method, model, files, **knobs):
    own = (
        {"batch_size": 4}
        if METHODS[method].online
        else {"batch_size": 2, "pairs": 0, "data": str(files / "pairs.jsonl")}
    )
    groups = {
        "grpo": {"group_size": 2},
        "online_dpo": {"group_size": 2},
        "ppo": {"minibatches": 1},
    }.get(method, {})
    return make_config(
        method,
        KNOBS | own | groups | {"model": model, "task": str(files / "prompts.jsonl")} | knobs,
    )


def moved(model, **knobs):
    """A policy whose adapter does something."""
    policy = load_policy(make_config("grpo", {"model": model, "device": "cpu"} | knobs), CPU)
    torch.manual_seed(1)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return policy


def unpadded(policy, ids):
    """Logits (T, V) of one row by itself."""
    with torch.no_grad():
        return policy(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def test_it_trains_and_its_adapter_loads_in_plain_peft(kind, methods, folder_of, files, tmp_path):
    for method in methods:
        run = drive(create(tmp_path / method, config_of(method, folder_of(kind), files)))
        rows = [
            json.loads(line)
            for line in (tmp_path / method / "metrics.jsonl").read_text().splitlines()
        ]
        loss = rows[-2]["metrics"]["loss"]
        assert rows[-1]["kind"] == "finished" and math.isfinite(loss)
        if method == "dpo":
            assert any(
                weight.abs().max() > 0
                for name, weight in run.model.named_parameters()
                if "lora_B" in name
            )
            loaded = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(folder_of(kind)), tmp_path / method / "adapter"
            ).eval()
            with torch.no_grad():
                ours, theirs = (
                    model(input_ids=IDS, use_cache=False).logits for model in (run.model, loaded)
                )
            torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)


def test_each_sampled_token_is_the_one_that_the_noise_picks_from_an_unpadded_pass(kind, folder_of):
    policy, tokenizer = moved(folder_of(kind)), bytes_of()
    drawn = sample(
        policy,
        tokenizer,
        [tokenizer(text)["input_ids"] for text in PROMPTS],
        2,
        max_tokens=9,
        temperature=1.0,
        seed=5,
        step=1,
        device=CPU,
    )
    source, noise = generator(5, "rollout", 1, CPU), []
    for _ in range(9):
        noise.append(torch.empty(len(drawn.ids), 264).exponential_(generator=source))
    for i, prompt in enumerate(p for p in PROMPTS for _ in range(2)):
        start, n = len(tokenizer(prompt)["input_ids"]), int(drawn.lengths[i])
        logits = unpadded(policy, drawn.ids[i, : start + n].tolist())
        picked = [int((logits[start + t - 1, :264] - noise[t][i].log()).argmax()) for t in range(n)]
        assert drawn.ids[i, start : start + n].tolist() == picked


def test_neither_padding_nor_the_rest_of_the_batch_changes_a_log_probability(kind, folder_of):
    policy, tokenizer = moved(folder_of(kind)), load_tokenizer(folder_of(kind))
    rows = [tokenizer(text)["input_ids"] for text in ("tell me something", "ask", "hi there")]
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[0 < t < len(row) for t in range(width)] for row in rows])
    with torch.no_grad():
        found = token_statistics(policy, TokenBatch(ids, mask)).logps
    for row, ours in zip(rows, found):
        wanted = (
            unpadded(policy, row)
            .log_softmax(-1)[:-1]
            .gather(1, torch.tensor(row[1:])[:, None])
            .squeeze(1)
        )
        torch.testing.assert_close(ours[1 : len(row)], wanted, rtol=1e-4, atol=1e-5)


def test_merging_the_adapter_keeps_the_policy_and_restores_the_base(kind, folder_of):
    policy = moved(folder_of(kind))
    before = {name: weight.clone() for name, weight in policy.named_parameters()}
    with torch.no_grad():
        expected = policy(input_ids=IDS, use_cache=False).logits
        with adapter_merged(policy):
            found = policy(input_ids=IDS, use_cache=False).logits
    torch.testing.assert_close(
        found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item()
    )  # W + BA is rounded before the product, not after.
    assert all(torch.equal(before[name], weight) for name, weight in policy.named_parameters())


@pytest.mark.parametrize(
    "way, of",
    [(way, of) for way, kinds in WAYS.items() for of in kinds]
    + [("PaddedDecoder", "opt"), ("PaddedDecoder", "qwen3_moe")],
)
def test_states_are_kept_where_that_is_right_and_computed_again_where_not(way, of, folder_of):
    assert fastest_decoder(moved(folder_of(of))).__name__ == way


def test_a_cache_that_gives_other_logits_is_not_used(folder_of, monkeypatch):
    class Wrong(PaddedDecoder):
        def step(self, token):
            self.mask[:, 0] = 1  # As if the padding were part of the prompt.
            return super().step(token)

    monkeypatch.setattr(
        lab.engine.fastest_decoder,
        "_candidates",
        lambda base: [Wrong, EqualLengthDecoder, RecomputingDecoder],
    )
    assert fastest_decoder(moved(folder_of("mistral"))) is EqualLengthDecoder


def test_a_cache_that_raises_is_not_used(folder_of, monkeypatch):
    class Broken(PaddedDecoder):
        def keep_rows(self, rows):
            raise TypeError

    monkeypatch.setattr(
        lab.engine.fastest_decoder, "_candidates", lambda base: [Broken, RecomputingDecoder]
    )
    assert fastest_decoder(moved(folder_of("mistral"))) is RecomputingDecoder


@pytest.mark.parametrize("layout", ["shared", "separate"])
@pytest.mark.parametrize("of", ["granite", "qwen3_moe", "mamba", "opt"])
def test_ppo_takes_the_reward_model_of_an_architecture_whether_or_not_transformers_has_a_class_for_scores(
    of, layout, folder_of, files, tmp_path
):
    judge = tmp_path / "judge"
    drive(create(judge, config_of("reward_model", folder_of(of), files)))
    run = drive(
        create(
            tmp_path / "ppo",
            config_of("ppo", folder_of(of), files, reward_from=str(judge), model_layout=layout),
        )
    )
    tokens = TokenBatch(IDS, torch.arange(10).expand(2, -1) > 4)
    with torch.no_grad():
        ours = run.method_state.reward_model.scores(tokens)
    scorer = load_reward_model(
        make_config("reward_model", {"model": folder_of(of), "device": "cpu"}), CPU
    )
    loaded = PeftModel.from_pretrained(scorer.unload(), judge / "adapter").eval()
    with torch.no_grad():
        states = (
            loaded.get_base_model()
            .base_model(input_ids=IDS, use_cache=False)
            .last_hidden_state[:, -1]
        )
        theirs = loaded.get_base_model().score(states).squeeze(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_trained_run_of_a_recurrent_model_is_evaluated(folder_of, files, tmp_path):
    folder = create(tmp_path / "run", config_of("grpo", folder_of("lfm2"), files))
    drive(folder)
    assert math.isfinite(evaluate_run(folder, prompts=2, samples=2, seed=0, device="cpu")["kl"])


@pytest.mark.parametrize("scale", [1, 10])  # 1: as transformers initialises it.
def test_a_model_that_looks_at_later_tokens_is_refused(files, tmp_path, scale):
    import transformers

    bert = transformers.BertConfig(
        vocab_size=264,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        pad_token_id=256,
    )
    torch.manual_seed(0)
    model = transformers.BertLMHeadModel(bert)
    for weight in model.parameters():
        weight.data.mul_(scale if weight.ndim > 1 else 1)
    model.save_pretrained(tmp_path / "model")
    bytes_of().save_pretrained(tmp_path / "model")
    with pytest.raises(
        LabError, match="of type 'bert', and its output for a token depends on later tokens"
    ):
        drive(create(tmp_path / "run", config_of("dpo", str(tmp_path / "model"), files)))


def test_the_documentation_names_the_architectures_of_the_table():
    text = (Path(__file__).parents[2] / "docs" / "own-model.md").read_text("utf-8")
    assert f"{len(CONFIGS)} architectures" in text and re.sub(
        r"\s+", " ", f"`{listed()}`"
    ) in re.sub(r"\s+", " ", text)
    assert set(QUICK) <= set(CONFIGS)
