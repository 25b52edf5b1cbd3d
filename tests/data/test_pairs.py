"""TRL's dataset formats: what a row becomes, against TRL's own functions, and tokens of
conversations against those that TRL trains on.
"""

import json
from decimal import Decimal
from functools import partial

import numpy as np
import pytest
from support.tiny import CHATML, save, tokenizer
from trl.data_utils import (
    _tokenize,
    apply_chat_template,
    common_prefix_length,
    maybe_extract_prompt,
    unpair_preference_dataset,
)

from lab.config.methods import make_config
from lab.data.batching import encode_examples
from lab.data.chat_template import prompt_text
from lab.data.encoding import completion_ids, prompt_ids
from lab.data.examples import Demonstration, Pair, UnpairedExample
from lab.data.parsing import load_examples, parse_examples, parse_pair, parse_prompt, parse_unpaired
from lab.data.readers import read_numbered_rows
from lab.data.resampling import unpair
from lab.data.row_fields import FORMATS, format_of
from lab.data.token_rows import EncodedExample
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.training.driver import drive

load_judged, load_demonstrations = (
    partial(load_examples, method="kto"),
    partial(load_examples, method="sft"),
)


def load_prompts(path):
    """The prompts in a data file, whatever other columns its rows have."""
    return [e.prompt for e in parse_examples(read_numbered_rows(path), path, parse_prompt)]


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
EXPLICIT = {
    "prompt": [SYSTEM, user("Sky?")],
    "chosen": [assistant("Blue.")],
    "rejected": [assistant("Green, I think.")],
}
IMPLICIT = {
    "chosen": [user("Sky?"), assistant("Blue.")],
    "rejected": [user("Sky?"), assistant("Green.")],
}
TURNS = {
    "prompt": [user("a"), assistant("b"), user("c")],
    "chosen": [assistant("d"), user("e"), assistant("f")],
    "rejected": [assistant("")] * 2 + [assistant("g")],
}
ROWS = [
    {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
    {"chosen": "The sky is blue.", "rejected": "The sky is green."},
    {"chosen": "The sky is blue.", "rejected": "The sea is green."},
    {"chosen": "The sky is blue", "rejected": "The sky is blue."},
    {"chosen": "ab", "rejected": "ac d"},
    EXPLICIT,
    IMPLICIT,
    TURNS,
    {
        "chosen": [user("a"), assistant("b"), user("c"), assistant("d")],
        "rejected": [user("a"), assistant("b"), user("c"), assistant("e"), user("f")],
    },
    IMPLICIT | {"prompt": "Sky?"},
]
NAMED = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor"
    " %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
THINKS = (  # The mark is not what a whole conversation has there.
    "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}"
    "{% if add_generation_prompt %}<assistant>(thinking){% endif %}"
)


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path

    return write


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_a_row_is_cut_into_prompt_and_completions_as_trl_cuts_it(row):
    ours = parse_pair(row, "here")
    assert {
        "prompt": ours.prompt,
        "chosen": ours.chosen,
        "rejected": ours.rejected,
    } == maybe_extract_prompt(row)


@pytest.mark.parametrize(
    "template", [CHATML, NAMED, THINKS], ids=["ChatML", "start token", "mark of its own"]
)
@pytest.mark.parametrize("row", [EXPLICIT, TURNS], ids=["one turn", "several turns"])
def test_a_conversation_gives_the_tokens_that_trls_trainer_trains_on(row, template):
    model = tokenizer(template)
    for side in ("chosen", "rejected"):
        start = _tokenize(model, row["prompt"], add_generation_prompt=True)["input_ids"]
        whole = _tokenize(model, row["prompt"] + row[side])["input_ids"]
        cut = common_prefix_length(start, whole)
        assert [e[:2] for e in completion_ids(model, [(row["prompt"], row[side])], "data")] == [
            (whole[:cut], whole[cut:])
        ]
        assert encode_examples(model, [(row["prompt"], row[side])], 500, "data") == [
            EncodedExample(whole, cut)
        ]
        assert encode_examples(model, [(row["prompt"], row[side])], cut + 2, "data") == [
            EncodedExample(whole[: cut + 2], cut)
        ]


def test_a_conversation_ends_as_its_template_ends_it_with_nothing_added():
    model = tokenizer()
    (example,) = encode_examples(model, [([user("Sky?")], [assistant("Blue.")])], 500, "data")
    assert (
        model.decode(example.ids[: example.prompt_length])
        == "<|im_start|>user\nSky?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert model.decode(example.ids[example.prompt_length :]) == "Blue.<|im_end|>\n"


@pytest.mark.parametrize(
    "prompt",
    [[user("Sky?")], [SYSTEM, user("Sky?")], [user("Sky?"), assistant("It is")]],
    ids=["user", "system", "goes on"],
)
@pytest.mark.parametrize("template", [CHATML, THINKS], ids=["ChatML", "mark of its own"])
def test_a_prompt_to_sample_from_is_the_text_that_trl_makes(prompt, template):
    model = tokenizer(template)
    assert prompt_text(model, prompt) == apply_chat_template({"prompt": prompt}, model)["prompt"]
    assert prompt_text(model, "Sky?") == "Sky?"


def test_a_start_token_that_the_tokenizer_adds_itself_is_not_written_twice():
    from tokenizers.processors import TemplateProcessing

    model = tokenizer(NAMED)
    model._tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", model.bos_token_id)]
    )
    asked = model.apply_chat_template([user("Sky?")], add_generation_prompt=True, return_dict=False)
    assert prompt_ids(model, [[user("Sky?")]]) == [asked] and asked.count(model.bos_token_id) == 1


def test_unpairing_gives_the_completions_and_labels_that_trl_gives():
    from datasets import Dataset

    rows = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(5)]
    theirs = [
        UnpairedExample(row["prompt"], row["completion"], row["label"])
        for row in unpair_preference_dataset(Dataset.from_list(rows))
    ]
    ours = unpair([Pair(**row) for row in rows])
    assert sorted(ours, key=str) == sorted(theirs, key=str)


# Formats.


def test_a_row_has_the_first_format_whose_columns_it_has():
    for name, columns in FORMATS.items():
        assert format_of(dict.fromkeys([*columns, "score"], "")) == name
    assert format_of({"body": "…"}) == ""


def test_unpaired_data_is_read_with_labels_of_every_usual_spelling(write):
    rows = [
        {"prompt": "p", "completion": "c", "label": label}
        for label in (True, False, 1, 0, "True", "false", " 1", 0.0)
    ]
    assert load_judged(write(*rows)) == [
        UnpairedExample("p", "c", good) for good in (True, False) * 4
    ]
    assert load_judged(write({"prompt": "p", "chosen": "c", "rejected": "r"})) == [
        Pair("p", "c", "r")
    ]


@pytest.mark.parametrize(
    "label, good",
    [
        (np.bool_(True), True),
        (np.bool_(False), False),
        (np.float32(1), True),
        (np.int8(0), False),
        (Decimal("1.00"), True),
        (Decimal("0.00"), False),
        ("TRUE ", True),
        ("\tfalse", False),
        ("1.", True),
        ("0.00", False),
    ],
)
def test_a_label_may_be_a_truth_value_of_any_library_or_the_text_of_one(label, good):
    assert (
        parse_unpaired({"prompt": "p", "completion": "c", "label": label}, "here").desirable is good
    )


@pytest.mark.parametrize(
    "label",
    [
        -1,
        "-1",
        -1.0,
        2,
        "2",
        0.5,
        "0.5",
        10,
        "01",
        "1e0",
        float("nan"),
        "nan",
        float("inf"),
        None,
        "",
        " ",
        "yes",
        "no",
        "y",
        "n",
        "good",
        "bad",
        "chosen",
        "up",
        "👍",
        "t",
        "f",
        "true false",
        [],
        [1],
        [True],
        {"label": True},
        Decimal("0.1"),
        np.int64(-1),
    ],
    ids=repr,
)
def test_any_other_label_is_refused_with_those_that_are_taken(label):
    with pytest.raises(
        LabError,
        match=(
            r"here: 'label' is .*takes true or 1 for a desirable completion, false or 0 for an"
            r" undesirable one"
        ),
    ):
        parse_unpaired({"prompt": "p", "completion": "c", "label": label}, "here")


def test_demonstrations_and_prompts_are_read(write):
    path = write({"prompt": "p", "completion": "c"}, {"prompt": "q", "completion": "d"})
    assert load_demonstrations(path) == [
        Demonstration("p", "c"),
        Demonstration("q", "d"),
    ] and load_prompts(path) == ["p", "q"]
    assert load_prompts(write({"prompt": [user("a")], "answer": 3})) == [[user("a")]]


def test_columns_that_parquet_fills_with_nothing_are_left_out_of_a_message(write):
    row = {"prompt": [user("a") | {"tool": None}], "completion": [assistant("b") | {"tool": None}]}
    assert load_demonstrations(write(row)) == [Demonstration([user("a")], [assistant("b")])]


@pytest.mark.parametrize(
    "load, row, says",
    [
        (
            load_judged,
            {"prompt": "p", "completion": "c", "label": "good"},
            "line 1: 'label' is 'good', but takes true",
        ),
        (
            load_judged,
            {"prompt": "p", "completion": "", "label": True},
            "line 1: a completion is empty",
        ),
        (load_judged, {"prompt": "p", "completion": "c"}, "line 1 has no 'chosen'"),
        (
            load_judged,
            {"prompt": "p", "label": True, "completion": None},
            "'completion' is NoneType, neither text",
        ),
        (
            load_judged,
            {"prompt": "p", "completion": [assistant("c")], "label": True},
            "of prompt and completion one is text",
        ),
        (
            load_demonstrations,
            {"prompt": "p", "completion": "c", "label": True},
            "has no 'chosen'.*unpaired preference data, which kto learns",
        ),
        (load_demonstrations, {"prompt": [user("a")], "completion": []}, "a completion is empty"),
        (load_prompts, {"question": "p"}, r"has no 'prompt' \(it has: question\)"),
    ],
)
def test_rows_of_another_kind_are_named_by_line(write, load, row, says):
    with pytest.raises(LabError, match=says):
        load(write(row))


def test_plain_text_and_conversations_in_one_file_are_refused(write):
    with pytest.raises(LabError, match="line 2 is a conversation, but .*line 1 is plain text"):
        load_prompts(write({"prompt": "p"}, {"prompt": [user("p")]}))


def test_a_model_without_a_chat_template_refuses_a_conversation_and_says_what_to_use():
    for call in (
        lambda: encode_examples(
            tokenizer(None), [([user("a")], [assistant("b")])], 99, "mine.jsonl, chosen of pair"
        ),
        lambda: prompt_text(tokenizer(None), [user("a")], "mine.jsonl, chosen of pair 1"),
    ):
        with pytest.raises(
            LabError,
            match=(
                "mine.jsonl, chosen of pair 1 is a conversation, but the model has no chat"
                " template. Use an instruct model"
            ),
        ):
            call()


def test_a_template_that_refuses_the_roles_is_quoted_with_the_number_of_the_pair():
    strict = tokenizer(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system please') }}{% endif %}x"
    )
    with pytest.raises(
        LabError,
        match=r"data 1: the model's chat template refuses the conversation \(no system please\)",
    ):
        encode_examples(strict, [([SYSTEM], [assistant("b")])], 99, "data")


@pytest.mark.parametrize(
    "fails", ["{{ 1 // 0 }}", "{{ range(10 ** 9) }}", "{{ messages[9].role }}"]
)
def test_whatever_fails_within_a_template_is_its_refusal(fails):
    with pytest.raises(LabError, match="data 1: the model's chat template refuses the conv"):
        encode_examples(tokenizer(fails), [([user("a")], [assistant("b")])], 99, "data")


# Training.

UNPAIRED = [
    {"prompt": f"{i}", "completion": "a" * (1 + i % 3), "label": i % 2 == 0} for i in range(6)
]
TALKS = [
    {"prompt": [user(f"{i}")], "chosen": [assistant("yes")], "rejected": [assistant("no")]}
    for i in range(6)
]


@pytest.mark.parametrize(
    "method, rows",
    [
        ("dpo", TALKS),
        ("ipo", [{k: [user("a"), *row[k]] for k in ("chosen", "rejected")} for row in TALKS]),
        ("kto", TALKS),
        ("kto", UNPAIRED),
        ("sft", TALKS),
        ("sft", [{"prompt": row["prompt"], "completion": row["chosen"]} for row in TALKS]),
        ("sft", [{"prompt": "p", "completion": "c"}] * 6),
    ],
    ids=[
        "dpo",
        "ipo, prompt implicit",
        "kto, pairs",
        "kto, unpaired",
        "sft, pairs",
        "sft, conversations",
        "sft, plain",
    ],
)
def test_each_offline_method_trains_on_each_format_that_it_takes(tmp_path, write, method, rows):
    config = make_config(
        method,
        {
            "model": save(tmp_path / "model"),
            "data": str(write(*rows)),
            "pairs": 0,
            "steps": 2,
            "batch_size": 4,
            "eval_every": 0,
            "eval_prompts": 2,
            "max_completion_tokens": 4,
            "device": "cpu",
        },
    )
    run = drive(create(tmp_path / "run", config))
    assert run.step == 2 and any(
        p.abs().max() > 0 for name, p in run.model.named_parameters() if "lora_B" in name
    )


@pytest.mark.parametrize("pairs", [4, 0])
def test_with_a_task_a_reward_model_is_measured_on_the_rows_behind_the_first_pairs(
    tmp_path, write, pairs
):
    config = make_config(
        "reward_model",
        {
            "task": "chain",
            "model": save(tmp_path / "model"),
            "data": str(write(*TALKS)),
            "pairs": pairs,
            "steps": 1,
            "batch_size": 2,
            "eval_prompts": 8,
            "device": "cpu",
        },
    )
    run = drive(create(tmp_path / "run", config))
    held = run.cache["held_out_pairs"][0]
    assert [run.tokenizer.decode(e.ids)[17:18] for e in held] == (["4", "5"] if pairs else [])
    assert ("gold/reward_accuracy" in RunFolder(tmp_path / "run").history()[-2]["metrics"]) == bool(
        pairs
    )


def test_noise_on_data_without_judgements_is_refused(tmp_path, write):
    config = make_config(
        "sft",
        {
            "model": save(tmp_path / "model"),
            "data": str(write({"prompt": "p", "completion": "c"})),
            "pairs": 0,
            "label_noise": 0.5,
            "eval_prompts": 2,
            "max_completion_tokens": 4,
            "device": "cpu",
        },
    )
    with pytest.raises(LabError, match="label_noise is 0.5, but .* without a judgement"):
        drive(create(tmp_path / "run", config))
