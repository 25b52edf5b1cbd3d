"""Which tokens end a completion: every one that the model declares, and the tokenizer's, on both
samplers, in training, evaluation and conversation.
"""

import json

import pytest
import torch
from support.fast_path_models import SHAPES, policy
from support.tiny import save
from test_decoding import draw, draw_reference, tokens
from transformers import AutoModelForCausalLM, GenerationConfig, GPTNeoXConfig, set_seed

from lab.config.methods import make_config
from lab.engine.llama import decoder_of
from lab.models.loading import load_base, load_policy
from lab.models.tokenizer import end_token_ids, load_tokenizer
from lab.recipes.pretrain_base import build_tokenizer
from lab.runs.folder import create
from lab.serving.chat import chat
from lab.serving.export import merge
from lab.serving.side_by_side import PolicyWithReference
from lab.tasks.registry import task_of
from lab.training.driver import drive
from lab.training.evaluation import evaluate

CPU = torch.device("cpu")
EOS = 258  # Of the byte tokenizer.


def declares(folder, generation="absent", **config):
    """A tiny model in `folder` whose generation config has this eos_token_id ("absent": there is no
    such file), and whose config has these entries.
    """
    save(folder, **config)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if generation != "absent":
        (folder / "generation_config.json").write_text(
            json.dumps({} if generation is None else {"eos_token_id": generation})
        )
    return str(folder)


@pytest.mark.parametrize(
    "generation, config, ends",
    [
        (EOS, EOS, {EOS}),
        (7, EOS, {EOS, 7}),
        ([EOS, 7], EOS, {EOS, 7}),
        ([7, 9], EOS, {EOS, 7, 9}),
        ([7, 256], EOS, {EOS, 7, 256}),  # 256 is the pad token.
        ([7, 7, 264, 100_000, -1], EOS, {EOS, 7}),
        ([], [7, 9], {EOS}),
        (None, [7, 9], {EOS, 7, 9}),
        ("absent", EOS, {EOS}),
        ("absent", 7, {EOS, 7}),
        ("absent", [7, 9], {EOS, 7, 9}),
        ("absent", None, {EOS}),
    ],
)
def test_a_completion_ends_with_the_tokenizers_end_token_and_all_that_the_model_declares(
    generation, config, ends, tmp_path
):
    folder = declares(tmp_path, generation, eos_token_id=config)
    tokenizer, base = load_tokenizer(folder), load_base(folder, CPU)
    end_ids = end_token_ids(base, tokenizer)
    assert set(end_ids) == ends and len(end_ids) == len(ends) and end_ids[0] == EOS
    assert (
        end_token_ids(load_policy(make_config("grpo", {"model": folder}), CPU), tokenizer)
        == end_ids
    )


def test_the_embedded_model_has_one_end_token():
    tokenizer = load_tokenizer("embedded")
    assert end_token_ids(load_base("embedded", CPU), tokenizer) == [tokenizer.eos_token_id]


NEOX = GPTNeoXConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    eos_token_id=None,
)


def first_end(row, ends):
    return next((i for i, token in enumerate(row) if token in ends), len(row) - 1)


@pytest.mark.parametrize("temperature", [1.0, 0.0])
@pytest.mark.parametrize("shape", ["llama", "qwen2, with biases", "gpt_neox"])
def test_both_samplers_stop_at_the_first_of_several_end_tokens(shape, temperature, monkeypatch):
    model = policy(NEOX if shape == "gpt_neox" else SHAPES[shape])
    assert (decoder_of(model) is None) == (shape == "gpt_neox")
    eos = build_tokenizer(40).eos_token_id
    longest = tokens(draw(model, group_size=8, temperature=temperature))
    ends = {eos, *(row[len(row) // 2] for row in (longest[0], longest[8], longest[-1]))}
    assert ends != {eos}
    model.get_base_model().generation_config.eos_token_id = sorted(ends - {eos})
    completions = draw(model, group_size=8, temperature=temperature)
    assert tokens(completions) == [
        row[: first_end(row, ends) + 1] for row in longest
    ]  # The noise is a row's own: the same tokens, and the end is one of them.
    assert completions.truncated.tolist() == [
        row[-1] not in ends for row in tokens(completions)
    ] and (temperature == 0 or len(set(completions.lengths.tolist())) > 3)
    slow = draw_reference(monkeypatch, model, group_size=8, temperature=temperature)
    assert (
        tokens(slow) == tokens(completions)
        and slow.texts == completions.texts
        and slow.truncated.equal(completions.truncated)
    )
    without = build_tokenizer(40).batch_decode(
        [row[:-1] if row[-1] in ends else row for row in tokens(completions)],
        skip_special_tokens=True,
    )
    assert completions.texts == without


def test_the_end_is_that_of_transformers_generate(tmp_path):
    model = policy(SHAPES["llama"])
    ends = tokens(draw(model, temperature=0.0, group_size=1, max_tokens=12))
    declared = [ends[0][3], ends[2][2]]
    model.get_base_model().generation_config.eos_token_id = declared
    for prompt, row in zip(
        ["7+5*3-4*2=", "9", "3*3*3+1="],
        tokens(draw(model, ["7+5*3-4*2=", "9", "3*3*3+1="], 1, temperature=0.0, max_tokens=12)),
    ):
        ids = torch.tensor([build_tokenizer(40)(prompt)["input_ids"]])
        expected = model.generate(
            input_ids=ids,
            generation_config=GenerationConfig(
                max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=[1, *declared]
            ),
        )
        assert row == expected[0, ids.shape[1] :].tolist()


def taught(folder, end):
    """A tiny model with a chat template that answers each of three sums with a digit and `end`,
    which its generation config declares beside eos.
    """
    save(folder, hidden_size=32, intermediate_size=64)
    tokenizer, questions = load_tokenizer(str(folder)), {"1+1": "2", "2+1": "3", "2+2": "4"}
    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder).train()
    starts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True)[
            "input_ids"
        ]
        for q in questions
    ]
    rows = [
        (start, [*tokenizer(a)["input_ids"], end]) for start, a in zip(starts, questions.values())
    ]
    ids = torch.tensor([start + rest for start, rest in rows])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(400):
        logps = model(input_ids=ids).logits[:, -3:-1].log_softmax(-1)
        loss = -logps.gather(-1, ids[:, -2:, None]).mean()
        if loss < 0.05:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    model.generation_config.eos_token_id = [EOS, end]
    model.save_pretrained(folder)
    (folder / "sums.jsonl").write_text(
        "\n".join(
            json.dumps({"prompt": [{"role": "user", "content": q}], "answer": a})
            for q, a in questions.items()
        )
    )
    return str(folder)


@pytest.fixture(scope="module", params=[97, 257], ids=["a plain token", "a special token"])
def answering(request, tmp_path_factory):
    """The folder of such a model, and the end token that it writes."""
    return taught(tmp_path_factory.mktemp("taught"), request.param), request.param


QUICK = {
    "steps": 2,
    "batch_size": 8,
    "eval_every": 0,
    "eval_prompts": 2,
    "max_completion_tokens": 12,
    "device": "cpu",
    "learning_rate": 1e-5,
}


@pytest.mark.parametrize(
    "method, more",
    [
        ("grpo", {"group_size": 2}),
        ("ppo", {"reward_from": "gold"}),
        ("online_dpo", {"reward_from": "gold"}),
    ],
)
def test_online_methods_are_rewarded_for_answers_that_end_with_a_declared_token(
    answering, method, more, tmp_path
):
    folder, end = answering
    run = drive(
        create(
            tmp_path / "run",
            make_config(method, QUICK | more | {"model": folder, "task": f"{folder}/sums.jsonl"}),
        )
    )
    rows = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    last = [row["metrics"] for row in rows if row["type"] == "step"][-1]
    assert (
        last["gold/accuracy"] == 1.0
        and last["gold/mean_length"] == 2.0
        and last["completions/clipped_ratio"] < 0.2
    )
    trained = run.rollout.ids[run.rollout.completion_mask]
    assert (trained == end).sum() > 0.8 * len(
        run.rollout.ids
    )  # The end token that was sampled is trained on.


def test_evaluation_chat_and_talk_stop_there_and_the_text_is_without_it(answering, tmp_path):
    folder, end = answering
    config = make_config(
        "grpo",
        QUICK | {"group_size": 2, "model": folder, "task": f"{folder}/sums.jsonl", "steps": 1},
    )
    run = create(tmp_path / "run", config)
    drive(run)
    (answers,) = chat(run, ["2+2"], temperature=0.0, max_tokens=12)
    assert answers == {"reference": "4", "policy": "4"}
    answers = PolicyWithReference.of(run, "cpu").answer(temperature=0.0)
    assert (
        answers["policy"]["right"]
        and not answers["policy"]["truncated"]
        and len(answers["policy"]["tokens"]) == 2
    )
    model, tokenizer = load_policy(config, CPU), load_tokenizer(folder)
    result = evaluate(
        model,
        tokenizer,
        task_of(config),
        prompts=2,
        max_tokens=12,
        seed=0,
        device=CPU,
        temperature=0.0,
    )
    assert result.metrics()["gold/accuracy"] == 1.0


@pytest.mark.parametrize(
    "generation",
    [
        {"eos_token_id": [EOS, 97]},
        {"eos_token_id": [EOS, 97], "temperature": 0.6, "do_sample": False},
    ],
)
def test_a_merged_model_declares_what_its_base_declares(generation, tmp_path):
    folder = save(tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(generation))
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(
            json.dumps({"prompt": f"ask {n}", "chosen": "good" * n, "rejected": "bad"})
            for n in (1, 2, 3)
        )
    )
    run = create(
        tmp_path / "run",
        make_config(
            "dpo",
            {
                "model": folder,
                "data": str(tmp_path / "pairs.jsonl"),
                "steps": 1,
                "batch_size": 2,
                "eval_every": 0,
                "eval_prompts": 2,
                "max_completion_tokens": 4,
                "device": "cpu",
            },
        ),
    )
    drive(run)
    merged = merge(run, tmp_path / "merged")
    generation_config = json.loads((merged / "generation_config.json").read_text())
    assert {name: generation_config.get(name) for name in generation} == generation
    assert end_token_ids(load_base(str(merged), CPU), load_tokenizer(str(merged))) == [EOS, 97]
