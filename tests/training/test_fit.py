"""Which rows are trained on: what fits, what is left out and counted, which end is kept, and that
large data costs no more than what a run visits.
"""

import json
import random

import numpy as np
import pytest
import torch
from support.tiny import CHATML, save
from support.tiny import tokenizer as bytes_tokenizer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from trl.trainer.dpo_trainer import DataCollatorForPreference

import lab.data.batching
import lab.data.corpus
import lab.training.reference_logps
from lab.config.methods import METHODS, make_config
from lab.data.batching import batch_indices, collate, encode_examples
from lab.data.chat_template import render
from lab.data.corpus import Corpus, Examples
from lab.data.examples import Pair
from lab.data.length_bounds import CharacterBounds
from lab.data.token_rows import (
    EncodedExample,
    RowIds,
    omission_reason,
    refusal_reason,
    tokenize_rows,
    truncate,
)
from lab.errors import LabError
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder, create
from lab.training.driver import drive
from lab.training.loop import prepare
from lab.training.methods.offline import rows_of
from lab.training.reference_logps import ReferenceLogps, reference_logps

QUICK = {
    "steps": 2,
    "batch_size": 2,
    "eval_every": 0,
    "eval_prompts": 4,
    "max_completion_tokens": 4,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def sides(row):
    return {"chosen of pair": row.chosen, "rejected of pair": row.rejected}


# Truncation.


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("max_length", range(4, 12))
def test_truncation_keeps_the_ids_and_the_mask_that_trl_keeps(mode, max_length):
    rows = [
        ([1, 2, 3], [4, 5, 6, 7], [8, 9]),
        ([1], [4], [5, 6, 7, 8, 9, 10, 11, 12]),
        ([1, 2], [3, 4, 5, 6, 7, 8, 9], [3]),
    ]
    theirs = DataCollatorForPreference(pad_token_id=0, max_length=max_length, truncation_mode=mode)(
        [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in rows]
    )
    ours = collate(
        [truncate(RowIds(p, c), max_length, mode) for p, c, _ in rows]
        + [truncate(RowIds(p, r), max_length, mode) for p, _, r in rows],
        0,
    )
    assert ours.ids.tolist() == theirs["input_ids"].tolist()
    predicted = theirs["completion_mask"].bool()
    predicted[:, 0] = (
        False  # Nothing predicts the first token of a row, so TRL's shifted loss does not count it.
    )
    assert ours.completion_mask.tolist() == predicted.tolist()


def test_where_the_end_alone_fills_the_length_its_first_token_is_context():
    assert truncate(RowIds([1, 2], [3, 4, 5, 6, 7]), 4, "keep_end") == EncodedExample(
        [4, 5, 6, 7], 1
    )
    assert (
        truncate(RowIds([1, 2], [3]), 4, "keep_end")
        == truncate(RowIds([1, 2], [3]), 4)
        == EncodedExample([1, 2, 3], 2)
    )


@pytest.mark.parametrize(
    "mode, max_length, says",
    [
        ("keep_start", 3, "the prompt fills all 3 tokens of max_length (it has 3)"),
        ("keep_start", 4, "equal in the first 4 tokens"),
        ("keep_start", 5, ""),
        ("keep_end", 2, "equal in the last 2 tokens"),
        ("keep_end", 3, ""),
    ],
)
def test_a_pair_is_left_out_where_its_prompt_does_not_fit_or_both_are_equal_after_truncation(
    mode, max_length, says
):
    chosen, rejected = RowIds([1, 2, 3], [4, 5, 9, 9]), RowIds([1, 2, 3], [4, 6, 9, 9])
    reason = omission_reason([chosen, rejected], max_length, mode)
    assert says in reason and bool(reason) == bool(says)
    assert not omission_reason([chosen], 4, mode) and not omission_reason([chosen], 3, "keep_end")


def test_encode_keeps_the_end_where_asked(model):
    tokens = load_tokenizer(model)
    assert encode_examples(tokens, [("ab", "cdef")], 4, "data", "keep_end")[0].ids == tokens("def")[
        "input_ids"
    ] + [tokens.eos_token_id]


# What surely fits.


def words(model, normalizer=None, pre=None):
    whole = Tokenizer(model)
    whole.normalizer, whole.pre_tokenizer = normalizer, pre
    return PreTrainedTokenizerFast(tokenizer_object=whole, unk_token="<unk>", eos_token="<eos>")


LETTERS = {"<unk>": 0, "<eos>": 1, **{c: i for i, c in enumerate("abcdef ▁", 2)}}
TOKENIZERS = {
    "bytes": bytes_tokenizer,
    "embedded": lambda: load_tokenizer("embedded"),
    "letters": lambda: words(models.BPE(LETTERS, [], unk_token="<unk>")),
    "a mark for a space": lambda: words(
        models.BPE(LETTERS, [], unk_token="<unk>"), pre=pre_tokenizers.Metaspace()
    ),
    "small letters": lambda: words(
        models.BPE(LETTERS, [], unk_token="<unk>"), normalizers.Lowercase()
    ),
    "spaces dropped": lambda: words(
        models.WordLevel(LETTERS, unk_token="<unk>"), pre=pre_tokenizers.Whitespace()
    ),
    "without its end": lambda: words(
        models.BPE(LETTERS, [], unk_token="<unk>"), normalizers.Strip()
    ),
}


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_row_of_which_it_is_said_that_it_fits_does_fit(name, mode):
    tokens, state = TOKENIZERS[name](), random.Random(name)
    bounds = CharacterBounds(tokens)
    letters, odd = ("0123456789+=", "a<é ") if name == "embedded" else ("abcdef", "ABé ")
    said = {True: 0, False: 0}

    def text(longest):
        written = state.choices(letters, k=state.randint(0, longest))
        return "".join(
            written + state.choice([[], [], [], [state.choice(odd)], [tokens.eos_token], [" "]])
        )

    for _ in range(600):
        prompt, chosen = text(12), text(20)
        rejected = state.choice(
            [
                text(20),
                chosen[:8] + text(10),
                chosen[:8] + text(10),
                chosen + tokens.eos_token,
                " " + chosen,
                chosen.upper(),
                chosen,
            ]
        )
        max_length = state.randint(8, 48)
        sure = bounds.fit(prompt, [chosen, rejected], max_length, mode)
        said[sure] += 1
        if sure:
            ids = tokenize_rows(tokens, [(prompt, chosen), (prompt, rejected)], "row")
            assert not omission_reason(ids, max_length, mode) and all(
                refusal_reason(tokens, (prompt, chosen), side) == "" for side in ids
            )
    assert said[False] > 100 and (said[True] > 20) == (
        name in ("bytes", "embedded", "letters", "a mark for a space")
    )


def test_rows_and_ids_are_the_same_whether_or_not_something_was_known_before(model, monkeypatch):
    tokens, state = load_tokenizer(model), random.Random(0)
    rows = [
        Pair(
            "p" * state.randint(1, 30),
            "same" * state.randint(0, 8) + "x",
            "same" * state.randint(0, 8) + "y",
        )
        for _ in range(200)
    ]
    found = []
    for known in (True, False):
        if not known:
            monkeypatch.setattr(CharacterBounds, "fit", lambda *_: False)
        corpus = Corpus(tokens, 24, "keep_start")
        kept, note = corpus.fitting(rows, sides, "mine")
        found.append((kept, note, corpus.cut(corpus.rows([(p.prompt, p.rejected) for p in kept]))))
    assert found[0] == found[1] and 20 < len(found[0][0]) < 180
    expected = [
        p
        for p in rows
        if not omission_reason(
            tokenize_rows(tokens, [(p.prompt, p.chosen), (p.prompt, p.rejected)], "row"), 24
        )
    ]
    assert found[0][0] == expected and found[0][2] == encode_examples(
        tokens, [(p.prompt, p.rejected) for p in expected], 24, "row"
    )


def test_an_error_names_the_row_whatever_block_it_stands_in(monkeypatch):
    monkeypatch.setattr(lab.data.corpus, "ROWS_PER_CALL", 2)
    tokens = bytes_tokenizer(
        "{{ raise_exception('no') if messages[0]['content'] == 'bad' else messages[0]['content'] }}"
    )
    talks = [
        Pair(
            [{"role": "user", "content": text}],
            [{"role": "assistant", "content": "a"}],
            [{"role": "assistant", "content": "b"}],
        )
        for text in ("x", "y", "z", "bad", "x")
    ]
    with pytest.raises(LabError, match="mine, chosen of pair 4: the model's chat template refuses"):
        Corpus(tokens, 24, "keep_start").fitting(talks, sides, "mine")
    with pytest.raises(
        LabError, match="mine, rejected of pair 3: the model's vocabulary has no 'é'"
    ):
        Corpus(TOKENIZERS["letters"](), 24, "keep_start").fitting(
            [Pair("a", "b", "c")] * 2 + [Pair("a", "b", "é")], sides, "mine"
        )


# What surely fits of conversations.

TEMPLATES = {
    "copies": (CHATML, True),
    "adds a system message": ("You are a machine.<|im_end|>" + CHATML, True),
    "strips": (CHATML.replace("m['content']", "m['content'] | trim"), True),
    "splits at a word of its own": (
        CHATML.replace("m['content']", "m['content'].split('</abc>')[-1]"),
        True,
    ),
    "refuses a word": (
        "{% if 'fed' in messages[-1]['content'] %}{{ raise_exception('no') }}{% endif %}" + CHATML,
        True,
    ),
    "opens a think block for the policy alone": (
        CHATML.replace("assistant\n' }}{% endif", "assistant\n<think>' }}{% endif"),
        False,
    ),
    "writes large letters": (CHATML.replace("m['content']", "m['content'] | upper"), False),
    "knows no user": (
        CHATML.replace("m['content']", "(m['content'] if m.role != 'user' else '')"),
        False,
    ),
    "none": (None, False),
}


@pytest.mark.parametrize("mode", ["keep_start", "keep_end"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_of_which_it_is_said_that_it_fits_does_fit(name, mode, monkeypatch):
    monkeypatch.setattr("lab.data.conversation_shapes.TRIAL_ROWS", 0)
    template, some_fit = TEMPLATES[name]
    tokens, state = bytes_tokenizer(template), random.Random(name)
    bounds, fitting = CharacterBounds(tokens), 0

    def text(longest):
        written = "".join(state.choices("abcdef", k=state.randint(0, longest)))
        return state.choice(["", "", "", "", " "]) + written + state.choice(["", "", "", "</abc>"])

    def says(role, content):
        return {"role": role, "content": content}

    for _ in range(400):
        prompt = state.choice(
            [
                [says("user", text(12))],
                [says("system", text(6)), says("user", text(12))],
                [says("user", text(5)), says("assistant", text(5)), says("user", text(5))],
                [says("user", text(5)), says("assistant", text(5))],
                [says("user", text(5)) | {"name": "b"}],
            ]
        )
        chosen = text(20)
        rejected = state.choice([text(20), chosen[:8] + text(10), " " + chosen, chosen])
        pair = [[says("assistant", chosen)], [says("assistant", rejected)]]
        max_length = state.randint(30, 160)
        if bounds.fit(prompt, pair, max_length, mode):
            fitting += 1
            ids = tokenize_rows(tokens, [(prompt, side) for side in pair], "row")
            assert not omission_reason(ids, max_length, mode)
            assert not any(refusal_reason(tokens, (prompt, pair[0]), side) for side in ids)
            assert not any(side.departure for side in ids)
        full = [*prompt, *pair[0]]
        if bounds.fit(full, [None], max_length, mode):
            ids = tokenize_rows(tokens, [(full, None)], "row")
            assert not omission_reason(ids, max_length, mode)
    assert fitting > 5 if some_fit else fitting == 0


def test_only_the_first_conversations_of_a_large_file_are_rendered(monkeypatch):
    tokens, rendered = bytes_tokenizer(), []

    def noted_render(*arguments, **options):
        rendered.append(arguments)
        return render(*arguments, **options)

    monkeypatch.setattr("lab.data.chat_template.render", noted_render)
    talks = [
        Pair(
            [{"role": "user", "content": f"{i} + 1"}],
            [{"role": "assistant", "content": f"{i + 1}"}],
            [{"role": "assistant", "content": f"{i - 1}"}],
        )
        for i in range(2000)
    ]
    fitting, notes = Corpus(tokens, 64, "keep_start").fitting(talks, sides, "mine")
    assert fitting == talks and not notes and 0 < len(rendered) < 200


# A run.

LONG = "p" * 60
SHAPES = {
    "pairs": lambda prompt, i: {"prompt": prompt, "chosen": f"yes {i}", "rejected": f"no {i}"},
    "judged": lambda prompt, i: {"prompt": prompt, "completion": f"text {i}", "label": i % 2 == 0},
    "completions": lambda prompt, i: {"prompt": prompt, "completion": f"text {i}"},
}


@pytest.mark.parametrize(
    "method, shape",
    [
        ("sft", "pairs"),
        ("sft", "completions"),
        ("reward_model", "pairs"),
        ("dpo", "pairs"),
        ("ipo", "pairs"),
        ("kto", "pairs"),
        ("kto", "judged"),
    ],
)
def test_rows_whose_prompt_does_not_fit_are_left_out_and_counted_by_every_method(
    tmp_path, model, method, shape
):
    prompts = [LONG if i in (3, 7) else f"prompt {i}" for i in range(12)]
    data = write(
        tmp_path / "mine.jsonl", [SHAPES[shape](prompt, i) for i, prompt in enumerate(prompts)]
    )
    folder = create(
        tmp_path / "run",
        make_config(method, QUICK | {"model": model, "data": data, "max_length": 40}),
    )
    run = drive(folder)
    assert run.step == 2 and {row.prompt for part in rows_of(run) for row in part} == set(
        prompts
    ) - {LONG}
    said = (
        f"2 of 12 rows of {data} are left out. Rows 4, 8: the prompt fills all 40 tokens of"
        " max_length, so no completion is left."
    )
    assert said in (folder.path / "log.txt").read_text() and any(
        said in row["detail"].get("message", "")
        for row in folder.history()
        if row["type"] == "event"
    )


def test_with_the_end_kept_the_same_rows_are_trained_on(tmp_path, model):
    data = write(
        tmp_path / "mine.jsonl",
        [SHAPES["pairs"](LONG if i == 3 else f"prompt {i}", i) for i in range(6)],
    )
    run = drive(
        create(
            tmp_path / "run",
            make_config(
                "dpo",
                QUICK
                | {"model": model, "data": data, "max_length": 40, "truncation_mode": "keep_end"},
            ),
        )
    )
    assert (
        LONG in {row.prompt for part in rows_of(run) for row in part}
        and "left out" not in (tmp_path / "run" / "log.txt").read_text()
    )


def test_pairs_that_are_equal_after_truncation_are_left_out_and_counted(tmp_path, model):
    rows = [SHAPES["pairs"](f"p{i}", i) for i in range(6)] + [
        {"prompt": "q", "chosen": "s" * 50 + "x", "rejected": "s" * 50 + "y"}
    ]
    data = write(tmp_path / "mine.jsonl", rows)
    run = drive(
        create(
            tmp_path / "run",
            make_config("ipo", QUICK | {"model": model, "data": data, "max_length": 40}),
        )
    )
    assert len(sum(rows_of(run), [])) == 6
    assert (
        "1 of 7 rows of" in (log := (tmp_path / "run" / "log.txt").read_text())
        and "Row 7: chosen and rejected are equal in the first 40 tokens" in log
    )


def test_a_run_that_leaves_rows_out_goes_on_after_a_stop_as_if_it_had_not_stopped(tmp_path, model):
    data = write(
        tmp_path / "mine.jsonl",
        [SHAPES["pairs"](LONG if i % 5 == 0 else f"prompt {i}", i) for i in range(20)],
    )
    config = make_config(
        "dpo",
        QUICK
        | {
            "model": model,
            "data": data,
            "max_length": 40,
            "steps": 6,
            "checkpoint_every": 1,
            "label_noise": 0.3,
        },
    )
    drive(create(tmp_path / "whole", config))
    drive(create(tmp_path / "parts", config), until=lambda run: run.step >= 3)
    drive(RunFolder(tmp_path / "parts"))
    whole, parts = (
        [
            (row["step"], row["metrics"])
            for row in RunFolder(tmp_path / name).history()
            if row["type"] == "step"
        ]
        for name in ("whole", "parts")
    )
    assert whole == parts and len(whole) == 7


def test_prompts_that_leave_no_room_in_the_positions_are_left_out_and_counted(tmp_path):
    model = save(tmp_path / "model", "gpt2", n_positions=32)
    source = write(
        tmp_path / "prompts.jsonl",
        [{"prompt": "q" * 33 if i == 5 else f"prompt {i}", "answer": "1"} for i in range(12)],
    )
    config = QUICK | {
        "model": model,
        "task": source,
        "batch_size": 4,
        "group_size": 2,
        "max_completion_tokens": 6,
    }
    run = drive(create(tmp_path / "run", make_config("grpo", config)))
    assert (
        run.step == 2
        and f"1 prompts of {source} are left out: they have more than the 31 tokens"
        in (tmp_path / "run" / "log.txt").read_text()
    )
    longer = write(
        tmp_path / "longer.jsonl", [{"prompt": "p" * (33 + i), "answer": "1"} for i in range(12)]
    )
    with pytest.raises(
        LabError,
        match="No prompt to train on of .* leaves room for a completion in the model's positions",
    ):
        drive(create(tmp_path / "none", make_config("grpo", config | {"task": longer})))


# Large data.


def test_the_order_of_an_epoch_is_a_plain_shuffle_made_once(monkeypatch):
    expected = list(range(1000))
    random.Random("order/5/1").shuffle(expected)
    lab.data.batching.epoch_order.cache_clear()
    assert [i for step in range(63, 125) for i in batch_indices(1000, 16, 5, step)] == expected[
        : 62 * 16
    ]
    assert lab.data.batching.epoch_order.cache_info().misses == 1


def many(count):
    state = random.Random(1)
    rows = [("".join(state.choices("123456789", k=3)), state.randint(1, 9)) for _ in range(count)]
    return [
        {"prompt": f"{a[0]}+{a[1]}*{a[2]}=", "chosen": f"{b}", "rejected": f"{b}{b}"}
        for a, b in rows
    ]


@pytest.mark.parametrize("method, texts", [("dpo", 2), ("kto", 4), ("sft", 1), ("reward_model", 2)])
def test_a_run_tokenises_and_passes_what_it_visits_however_much_data_there_is(
    tmp_path, monkeypatch, method, texts
):
    counts, tokenised_rows, passed = {}, [], []
    monkeypatch.setattr(
        lab.data.corpus,
        "tokenize_rows",
        lambda tokens, found, where: (
            tokenised_rows.append(len(found)) or tokenize_rows(tokens, found, where)
        ),
    )
    monkeypatch.setattr(
        lab.training.reference_logps,
        "reference_logps",
        lambda run, found: passed.append(len(found)) or reference_logps(run, found),
    )
    for count in (2_000, 20_000):
        tokenised_rows.clear()
        passed.clear()
        run = prepare(
            make_config(
                method,
                {
                    "data": write(tmp_path / "mine.jsonl", many(count)),
                    "batch_size": 16,
                    "device": "cpu",
                },
            )
        )
        made = METHODS[method].batches(run)
        for _ in range(3):
            next(made)
            run.step += 1
        counts[count] = sum(tokenised_rows), sum(passed)
    for few, more in zip(counts[2_000], counts[20_000]):
        assert (
            more <= 1.1 * few and few <= 256 * texts
        )  # By chance a little more or less: some texts come twice.


def test_reference_log_probabilities_are_those_of_the_stretches_of_the_first_epoch(monkeypatch):
    monkeypatch.setattr(lab.training.reference_logps, "EVAL_BATCH_ROWS", 8)
    run = prepare(make_config("dpo", {"pairs": 40, "batch_size": 4, "device": "cpu"}))
    pairs = rows_of(run)[0]
    examples = Examples(run.cache["corpus"], [(p.prompt, p.chosen) for p in pairs])
    frozen, order = ReferenceLogps(run, examples), np.array(batch_indices(40, 40, 0, 1))
    asked = [int(order[9]), int(order[30]), int(order[8])]
    whole = {
        int(i): value
        for part in (order[8:16], order[24:32])
        for i, value in zip(part, reference_logps(run, examples.at(part)).tolist())
    }
    assert frozen[asked].tolist() == [whole[i] for i in asked]
    assert int(torch.isfinite(frozen._logps).sum()) == 16
