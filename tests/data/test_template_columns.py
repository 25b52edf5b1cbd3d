"""What a row gives the chat template beside messages (tools, options), options of a run, and texts
that are imitated as a whole: ids against TRL's.
"""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import trl
from support.tiny import CHATML, save, tokenizer
from trl.data_utils import _tokenize

from lab.algorithms.losses import sft_loss
from lab.cli import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.config.template_options import read_template_options
from lab.data.batching import collate, encode_examples
from lab.data.corpus import Corpus
from lab.data.encoding import completion_ids, prompt_ids
from lab.data.examples import Demonstration, FullText, Pair
from lab.data.parsing import load_examples, load_pairs, parse_examples, parse_prompt
from lab.data.readers import read_numbered_rows
from lab.data.report import data_report
from lab.data.report_text import report_text
from lab.data.token_rows import EncodedExample
from lab.engine.sampler import sample
from lab.engine.token_logprobs import token_statistics
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer, set_template_options
from lab.recipes.generate_pairs import build_pairs
from lab.runs.folder import create
from lab.serving.chat import chat
from lab.serving.load import evaluate_run
from lab.serving.side_by_side import PolicyWithReference
from lab.tasks.prompting import render_prompts
from lab.tasks.registry import load_task
from lab.training.driver import drive


def load_prompts(path):
    """The prompts in a data file, whatever other columns its rows have."""
    return [e.prompt for e in parse_examples(read_numbered_rows(path), path, parse_prompt)]


CPU = torch.device("cpu")
QWEN = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text("utf-8")
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "the weather in a city",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Bern"}}}]
ASKED = [{"role": "user", "content": "Rain in Bern?"}]
SAYS, CALLS, EMPTY = (
    {"role": "assistant", "content": "no idea"},
    {"role": "assistant", "content": None, "tool_calls": CALL},
    {"role": "assistant", "content": "", "tool_calls": CALL},
)
ROW = {"prompt": ASKED, "chosen": [CALLS], "rejected": [SAYS], "tools": TOOLS}
MARKED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation"
    " %}{{ m.content }}<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif"
    " %}\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TALK = [
    *ASKED,
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And snow?"},
    {"role": "assistant", "content": "No."},
]


@pytest.fixture
def write(tmp_path):
    def write(*rows, name="data.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return str(path)

    return write


# Columns.


@pytest.mark.parametrize(
    "chosen",
    [CALLS, EMPTY, SAYS | {"content": "yes"}],
    ids=["content null", "content empty", "no call"],
)
@pytest.mark.parametrize(
    "columns",
    [
        {"tools": TOOLS},
        {"tools": json.dumps(TOOLS)},
        {"tools": []},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"tools": TOOLS, "chat_template_kwargs": {"enable_thinking": False}},
    ],
    ids=["tools", "as text", "none", "options", "both"],
)
def test_tools_and_options_of_a_row_give_the_ids_that_trl_trains_on(write, columns, chosen):
    model = tokenizer(QWEN)
    (found,) = load_pairs(write(ROW | {"chosen": [chosen]} | {"tools": None} | columns))
    given = {"tools": TOOLS if columns.get("tools") else None} | columns.get(
        "chat_template_kwargs", {}
    )
    alone = _tokenize(model, ASKED, add_generation_prompt=True, **given)["input_ids"]
    assert prompt_ids(model, [found.prompt]) == [alone]
    for side, messages in (("chosen", [chosen]), ("rejected", [SAYS])):
        (ids,) = completion_ids(model, [(found.prompt, getattr(found, side))], "data")
        assert ids == (
            alone,
            _tokenize(model, ASKED + messages, **given)["input_ids"][len(alone) :],
            "",
        )


def test_tools_come_from_parquet_and_csv_too(tmp_path):
    pq.write_table(
        pa.Table.from_pylist(
            [
                {
                    "prompt": ASKED,
                    "completion": [CALLS],
                    "tools": TOOLS,
                    "chat_template_kwargs": {"enable_thinking": False},
                },
                {
                    "prompt": ASKED,
                    "completion": [SAYS],
                    "tools": None,
                    "chat_template_kwargs": None,
                },
            ]
        ),
        tmp_path / "rows.parquet",
    )
    first, second = load_examples(tmp_path / "rows.parquet", "sft")
    assert (
        first.prompt.template == {"tools": TOOLS, "enable_thinking": False}
        and second.prompt.template == {}
    )
    assert (
        (first.completion, second.completion) == ([CALLS], [SAYS])
        and first != Demonstration(ASKED, [CALLS])
        and second == Demonstration(ASKED, [SAYS])
    )
    assert load_pairs_of(
        {"chosen": [*ASKED, SAYS], "rejected": [*ASKED, CALLS], "tools": json.dumps(TOOLS)},
        tmp_path,
    ).prompt.template == {"tools": TOOLS}


def load_pairs_of(row, folder):
    (folder / "one.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    (found,) = load_pairs(folder / "one.jsonl")
    return found


@pytest.mark.parametrize(
    "columns, says",
    [
        (
            {"images": ["cat.png"]},
            "line 1 has 'images', but the lab trains language models, which read text alone",
        ),
        ({"image": "cat.png"}, "has 'image'"),
        ({"video": "cat.mp4"}, "has 'video'"),
        ({"audio": {"path": "a.wav"}}, "has 'audio'"),
        ({"tools": "weather"}, "'tools' is text, but no JSON: weather"),
        ({"tools": {"a": 1}}, "'tools' is {'a': 1}, but takes a list of JSON schemas"),
        ({"chat_template_kwargs": [1]}, r"'chat_template_kwargs' has \[1\], but takes an object"),
        (
            {"chat_template_kwargs": {"tokenize": True}},
            "'chat_template_kwargs' has tokenize, but takes",
        ),
        ({"chosen": [SAYS | {"content": None}]}, "not of messages whose role and content are text"),
        ({"chosen": [CALLS | {"tool_calls": "weather"}]}, "'tool_calls' that are 'weather'"),
        ({"chosen": [SAYS | {"content": ""}]}, "a completion is empty"),
        (
            {
                "prompt": [
                    {
                        "role": "user",
                        "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}],
                    }
                ]
            },
            "a list of parts, as models for pictures",
        ),
        ({"tools": [{"name": "\ud800"}]}, "half of a surrogate pair"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            "has 'tools', which goes into a chat template, but plain text",
        ),
        (
            {
                "prompt": "p",
                "chosen": "a",
                "rejected": "b",
                "tools": [],
                "chat_template_kwargs": {"a": 1},
            },
            "has 'chat_template_kwargs', which goes into",
        ),
    ],
)
def test_columns_that_would_reach_no_token_are_refused_in_training_in_prompts_and_in_the_report(
    write, tmp_path, columns, says
):
    path = write(ROW | columns)
    with pytest.raises(LabError, match=says):
        load_pairs(path)
    if "chosen" not in columns or isinstance(columns["chosen"], str):
        with pytest.raises(LabError, match=says):
            load_prompts(path)
    (problem,) = data_report(path, save(tmp_path / "model", template=QWEN), 999)["problems"]
    assert problem["refused"] and problem["lines"] == [1]


def test_a_column_of_pictures_without_a_picture_is_text(write):
    assert load_pairs(write(ROW | {"images": [], "image": None}))[0].chosen == [CALLS]


def test_tools_that_the_template_does_not_read_are_said_in_the_report_and_at_the_start_of_training(
    write, tmp_path
):
    path, name = write(ROW | {"chosen": [SAYS | {"content": "yes"}]}), save(tmp_path / "model")
    (problem,) = data_report(path, name, 999)["problems"]
    assert problem == {
        "problem": "the model's chat template does not read tools, so that it reaches no token.",
        "refused": False,
        "lines": [1],
    }
    _, said = Corpus(load_tokenizer(name), 999, "keep_start").fitting(
        load_pairs(path), lambda p: {"chosen": p.chosen, "rejected": p.rejected}, "mine"
    )
    assert said == [
        "mine, row 1: the model's chat template does not read tools, so that it reaches no token."
    ]


# Prompts of online methods.


def test_prompts_of_a_task_are_posed_with_their_tools_and_options_and_shown_without(write):
    model = tokenizer(QWEN)
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Rain in {city}?"}],
            "answer": "yes",
            "tools": TOOLS,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        for city in ("Bern", "Rom")
    ]
    problems = load_task(write(*rows)).train_problems(1, 0, 1)
    assert render_prompts(model, problems) == [
        _tokenize(
            model,
            [{"role": "user", "content": problems[0].prompt}],
            add_generation_prompt=True,
            tools=TOOLS,
            enable_thinking=False,
        )["input_ids"]
    ]


def test_pairs_sampled_from_prompts_with_tools_have_them_too(write, tmp_path, monkeypatch):
    rows = [
        {
            "prompt": [{"role": "user", "content": str(i)}],
            "tools": TOOLS,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        for i in range(20)
    ]
    (tmp_path / "longer.py").write_text(
        "def first(completions, **rest): return [len(said[0]['content']) for said in completions]"
    )
    monkeypatch.chdir(tmp_path)
    model = save(tmp_path / "model", template=QWEN)
    made = build_pairs(
        tmp_path / "pairs.jsonl",
        model=model,
        count=2,
        device="cpu",
        task=write(*rows),
        reward="longer:first",
        max_tokens=4,
        template_options="enable_thinking=true",
    )
    assert "--template-options enable_thinking=true" in made["command"]
    assert [p.prompt.template for p in load_pairs(tmp_path / "pairs.jsonl")] == [
        {"tools": TOOLS, "enable_thinking": False}
    ] * 2


# Options of a run.


@pytest.mark.parametrize(
    "written, options",
    [
        ("", {}),
        ("enable_thinking=false", {"enable_thinking": False}),
        ("enable_thinking=False", {"enable_thinking": False}),
        (" a = 1, b=low ", {"a": 1, "b": "low"}),
        ('{"a": {"b": [1, 2]}}', {"a": {"b": [1, 2]}}),
        ("a=None", {"a": None}),
    ],
)
def test_options_are_read_as_json_or_else_as_text(written, options):
    assert read_template_options(written) == options
    config = make_config("grpo", {"template_options": written})
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


@pytest.mark.parametrize(
    "written",
    [
        "enable_thinking",
        "=1",
        "a b=1",
        "{",
        "[1]",
        '{"a": }',
        "tools=1",
        "messages=x",
        '{"tokenize": true}',
        "a=1,,b",
    ],
)
def test_what_are_no_options_is_refused(written):
    with pytest.raises(
        LabError,
        match=(
            "template_options has .* takes options of the model's chat template, such as"
            " enable_thinking=false"
        ),
    ):
        make_config("dpo", {"template_options": written})


def test_an_option_that_the_template_does_not_read_is_refused(tmp_path):
    with pytest.raises(
        LabError,
        match=(
            "template_options names enable_thinkin, which the model's chat template does not read"
        ),
    ):
        load_tokenizer(save(tmp_path / "chat", template=QWEN), "enable_thinkin=false")
    with pytest.raises(
        LabError, match="the model has no chat template that could read enable_thinking"
    ):
        load_tokenizer(save(tmp_path / "plain", template=None), "enable_thinking=false")


def test_a_rows_own_options_go_before_those_of_the_run(write):
    model = set_template_options(tokenizer(QWEN), {"enable_thinking": False})
    own, none = load_pairs(write(ROW | {"chat_template_kwargs": {"enable_thinking": True}}, ROW))
    thinks, does_not = prompt_ids(model, [own.prompt, none.prompt])
    assert [
        ids
        == _tokenize(
            tokenizer(QWEN), ASKED, add_generation_prompt=True, tools=TOOLS, enable_thinking=which
        )["input_ids"]
        for ids, which in ((thinks, True), (does_not, False))
    ] == [True, True]


def test_options_of_a_run_hold_in_training_rollouts_evaluation_chat_talk_and_the_report(
    write, tmp_path, monkeypatch
):
    name, options = (
        save(tmp_path / "model", template=QWEN),
        {"template_options": "enable_thinking=false"},
    )
    prompts = write(
        *({"prompt": [{"role": "user", "content": str(i)}], "answer": "4"} for i in range(4)),
        name="prompts.jsonl",
    )
    data = write(
        *(
            {
                "prompt": [{"role": "user", "content": str(i)}],
                "chosen": [SAYS],
                "rejected": [SAYS | {"content": "x"}],
            }
            for i in range(4)
        )
    )
    common = {
        "model": name,
        "task": prompts,
        "steps": 1,
        "batch_size": 4,
        "eval_prompts": 2,
        "max_completion_tokens": 2,
        "device": "cpu",
    } | options
    seen, plain = [], tokenizer()
    for module in (
        "engine.samplers.base",
        "training.evaluation",
        "serving.side_by_side",
        "serving.chat",
    ):
        monkeypatch.setattr(
            f"lab.{module}.sample",
            lambda model, words, ids, *rest, **more: (
                seen.extend(ids) or sample(model, words, ids, *rest, **more)
            ),
        )
    folder = create(tmp_path / "grpo", make_config("grpo", common | {"group_size": 2}))
    drive(folder)
    evaluate_run(folder, prompts=2, samples=1, seed=0, device="cpu")
    PolicyWithReference.of(folder, "cpu").answer()
    next(chat(folder, ["Hello"], max_tokens=2, device="cpu"))
    assert len(seen) >= 2 + 2 + 2 + 2 and all(
        plain.decode(ids).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n") for ids in seen
    )
    run = drive(create(tmp_path / "dpo", make_config("dpo", common | {"data": data})))
    (trained,) = encode_examples(run.tokenizer, [(load_pairs(data)[0].prompt, [SAYS])], 999, "data")
    assert plain.decode(trained.ids[: trained.prompt_length]).endswith("</think>\n\n")
    assert plain.decode(trained.ids[trained.prompt_length :]) == "no idea<|im_end|>\n"
    found = data_report(data, name, 999, template_options="enable_thinking=false")
    assert found["columns"]["prompt"]["tokens"][
        "max"
    ] == trained.prompt_length and "--template-options 'enable_thinking=false'" in report_text(
        found
    )


def test_the_command_reports_with_the_options_of_a_run(write, tmp_path, capsys):
    data, name = write(ROW), save(tmp_path / "model", template=QWEN)
    main.main(
        [
            "data",
            data,
            "--model",
            name,
            "--max-length",
            "9999",
            "--json",
            "--template-options",
            "enable_thinking=false",
        ]
    )
    with_knob = json.loads(capsys.readouterr().out)["columns"]["prompt"]["tokens"]["max"]
    main.main(["data", data, "--model", name, "--max-length", "9999", "--json"])
    assert with_knob == json.loads(capsys.readouterr().out)["columns"]["prompt"]["tokens"][
        "max"
    ] + len("<think>\n\n</think>\n\n")


# Texts that are imitated as a whole.


@pytest.mark.parametrize("template", [MARKED, CHATML], ids=["marked", "not marked"])
def test_a_conversation_is_imitated_where_the_template_marks_the_assistants_words_or_as_a_whole(
    write, template
):
    model = tokenizer(template)
    (found,) = load_examples(write({"messages": TALK}), "sft")
    theirs = _tokenize(model, TALK, return_assistant_tokens_mask=template == MARKED)
    (example,) = encode_examples(model, [(found.text, None)], 999, "data")
    mask = (
        theirs["assistant_masks"]
        if template == MARKED
        else [0] + [1] * (len(theirs["input_ids"]) - 1)
    )
    assert example == EncodedExample(
        theirs["input_ids"], 1, [bool(m) for m in mask]
    ) and example.trained == sum(mask)
    if template == MARKED:
        tokens = collate([example], 0)
        assert (
            model.decode(tokens.ids[tokens.completion_mask].tolist())
            == "Yes.<|im_end|>No.<|im_end|>"
        )


def test_plain_text_is_imitated_from_its_second_token_to_the_end_token(write):
    model = tokenizer()
    texts = [e.text for e in load_examples(write({"text": "abc"}, {"text": "ab<|im_end|>"}), "sft")]
    for said, example in zip(
        texts, encode_examples(model, [(said, None) for said in texts], 99, "data")
    ):
        ids = _tokenize(model, said.removesuffix("<|im_end|>") + "<|im_end|>")["input_ids"]
        assert example == EncodedExample(ids, 1, [False] + [True] * (len(ids) - 1))
    assert encode_examples(model, [(said, None) for said in texts], 3, "data")[0] == EncodedExample(
        [*model("abc")["input_ids"]], 1, [False, True, True]
    )


def test_masked_rows_in_one_batch_give_each_token_the_log_probability_that_it_has_alone(tmp_path):
    name = save(tmp_path / "model", template=MARKED)
    policy, model = load_policy(make_config("sft", {"model": name}), CPU), load_tokenizer(name)
    tokens = collate(
        encode_examples(
            model, [(talk, None) for talk in (TALK, TALK[:2], [*ASKED, SAYS])], 999, "data"
        ),
        model.pad_token_id,
    )
    losses, _ = sft_loss(token_statistics(policy, tokens).logps)
    for row, mask, loss in zip(tokens.ids, tokens.completion_mask, losses):
        alone = (
            policy(input_ids=row[None])
            .logits[0, :-1]
            .log_softmax(-1)
            .gather(1, row[1:, None])
            .squeeze(1)
        )
        torch.testing.assert_close(loss[mask], -alone[mask[1:]], rtol=1e-4, atol=1e-5)
        assert not loss[~mask].any()


def test_a_text_with_nothing_to_learn_from_is_refused(write, tmp_path):
    name = save(tmp_path / "model", template=MARKED)
    model, path = load_tokenizer(name), write({"messages": TALK}, {"messages": ASKED})
    talks = [e.text for e in load_examples(path, "sft")]
    with pytest.raises(LabError, match="data 2: nothing in it is trained on"):
        encode_examples(model, [(talk, None) for talk in talks], 999, "data")
    with pytest.raises(
        LabError, match="data 1: none of its tokens to train on is among the first 20"
    ):
        encode_examples(model, [(talks[0], None)], 20, "data")
    found = data_report(path, name, 999)
    assert (
        found["format"] == "conversational language modeling"
        and found["learners"] == "sft"
        and [name for name, column in found["columns"].items() if "tokens" in column] == ["text"]
    )
    assert [(p["refused"], p["lines"]) for p in found["problems"]] == [(True, [2])]


def test_that_every_token_is_trained_on_is_said_where_the_template_marks_none(write, tmp_path):
    path, name = write({"messages": TALK}), save(tmp_path / "model")
    (problem,) = data_report(path, name, 999)["problems"]
    assert (
        "does not mark the assistant's words with {% generation %}, so every token"
        in problem["problem"]
        and not problem["refused"]
    )
    folder = create(
        tmp_path / "run",
        make_config(
            "sft",
            {
                "model": name,
                "data": path,
                "steps": 1,
                "batch_size": 1,
                "max_length": 999,
                "eval_prompts": 2,
                "max_completion_tokens": 2,
                "device": "cpu",
            },
        ),
    )
    drive(folder)
    said = [
        row["detail"]["message"]
        for row in folder.history()
        if row["type"] == "event" and row["kind"] == "noted"
    ]
    assert any("every token of a conversation is trained on" in text for text in said)


@pytest.mark.parametrize(
    "rows",
    [[{"text": f"text {i}"} for i in range(4)], [{"messages": TALK, "prompt": "once more"}] * 4],
    ids=["text", "messages"],
)
def test_sft_trains_on_whole_texts_and_other_methods_say_who_does(write, tmp_path, rows):
    name, data = save(tmp_path / "model", template=MARKED), write(*rows)
    config = {
        "model": name,
        "data": data,
        "steps": 2,
        "batch_size": 2,
        "max_length": 999,
        "eval_prompts": 2,
        "max_completion_tokens": 2,
        "device": "cpu",
    }
    run = drive(create(tmp_path / "run", make_config("sft", config)))
    assert run.step == 2 and isinstance(load_examples(data, "sft")[0], FullText)
    assert run.tokens == (2 * 2 * 6 if "text" in rows[0] else 2 * 2 * len("Yes.No.") + 2 * 2 * 2)
    with pytest.raises(LabError, match="language modeling data, which sft learns from"):
        load_examples(data, "dpo")


def test_whole_texts_are_not_turned_round(write):
    with pytest.raises(LabError, match="holds completions without a judgement"):
        drive(
            create(
                Path(write({"text": "7+5=12"})).parent / "run",
                make_config("sft", {"data": write({"text": "7+5=12"}), "label_noise": 0.5}),
            )
        )


def test_pairs_stay_equal_to_lists_of_messages():
    assert Pair(ASKED, [SAYS], [CALLS]) == Pair([*ASKED], [SAYS], [CALLS])
