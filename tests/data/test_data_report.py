"""The report on a data file, against counts made by hand, and each problem with its lines."""

import json

import pytest
from support.tiny import save, tokenizer

from lab.cli import main
from lab.data import report as report_module
from lab.data import token_lengths
from lab.data.report import data_report, kto_balance
from lab.data.report_text import report_text
from lab.errors import LabError


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def untemplated(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"), template=None)


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "data.jsonl"
        path.write_text(
            "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8"
        )
        return str(path)

    return write


def pair(prompt="ask", chosen="good", rejected="bad"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def judged(label, completion="text"):
    return {"prompt": f"ask {completion}", "completion": completion, "label": label}


def says(text):
    return [{"role": "user", "content": text}]


def tokens(found):
    return {name: column["tokens"] for name, column in found["columns"].items()}


def problems(found):
    return {p["problem"]: (p["refused"], p["lines"]) for p in found["problems"]}


def test_rows_prompts_and_lengths_are_counted_in_tokens_the_end_included(write, model):
    found = data_report(
        write(*[pair(f"p{i}", "c" * (i + 1), "r") for i in range(19)], pair("pp", "c" * 99, "rr")),
        model,
        128,
    )
    assert (
        found["rows"],
        found["prompts"],
        found["format"],
        found["conversations"],
        found["problems"],
    ) == (20, 20, "preference", False, [])
    assert tokens(found) == {
        "prompt": {"min": 2, "median": 2, "95 %": 3, "max": 3},
        "chosen": {"min": 2, "median": 11, "95 %": 20, "max": 100},
        "rejected": {"min": 2, "median": 2, "95 %": 2, "max": 3},
    }  # one token a byte, and the end token
    assert found["kto"] == kto_balance(20, 20)


def test_each_problem_comes_once_with_all_its_lines_and_those_that_training_refuses_first(
    write, model
):
    found = data_report(
        write(
            pair(),
            "",
            "{oops",
            pair(chosen="bad"),
            pair(),
            pair(rejected=""),
            pair("p" * 40),
            {"prompt": "x", "chosen": "y"},
            pair(chosen="same", rejected="same"),
            pair("q" * 30),
            pair(prompt="ask", chosen="bad", rejected="good"),
            "[oops",
            pair(chosen="c" * 28),
        ),
        model,
        30,
    )
    assert (
        problems(found)
        == {
            "is not JSON (Expecting property name enclosed in double quotes at column 2)."
            " Expected one JSON object a line.": (True, [3, 12]),
            "chosen equals rejected, so the pair prefers nothing. Remove the line or correct it.": (
                True,
                [4, 9],
            ),
            "a completion is empty. Remove the line or fill it in.": (True, [6]),
            "is left out: the prompt fills all 30 tokens of max_length (it has 40), so no completion"
            " is left. Raise max_length or shorten the prompt.": (False, [7, 10]),
            next(p for p in problems(found) if p.startswith("has no 'rejected'")): (True, [8]),
            "says the same as an earlier row (1).": (False, [5]),
            "says the opposite of an earlier row (1).": (False, [11]),
            "chosen loses its end at max_length 30.": (False, [13]),
        }
        and [p["refused"] for p in found["problems"]] == [True] * 4 + [False] * 4
    )


def test_text_outside_of_the_vocabulary_is_refused_with_the_character(write):
    found = data_report(write(pair("1+2=", "3", "4"), pair("1+2=", "three", "4")), "embedded", 64)
    assert problems(found) == {
        "the model's vocabulary has no 't'. Use data made for this model, or another --model.": (
            True,
            [2],
        )
    }


def test_conversations_are_measured_as_the_template_renders_them(write, model):
    row = {
        "prompt": says("ab"),
        "chosen": [{"role": "assistant", "content": "cde"}],
        "rejected": [{"role": "assistant", "content": "f"}],
    }
    found = data_report(write(row), model, 64)
    start = len(tokenizer()("<|im_start|>user\nab<|im_end|>\n<|im_start|>assistant\n")["input_ids"])
    assert found["conversations"] and {
        name: value["max"] for name, value in tokens(found).items()
    } == {"prompt": start, "chosen": 5, "rejected": 3}


def test_conversations_for_a_model_without_a_template_are_all_refused(write, untemplated):
    row = {"prompt": says("a"), "completion": [{"role": "assistant", "content": "b"}]}
    found = data_report(write(row, row), untemplated, 64)
    assert problems(found)[
        "is a conversation, but the model has no chat template. Use an instruct model, or data in"
        " plain text."
    ] == (True, [1, 2])
    assert "tokens" not in found["columns"]["prompt"]


def test_mixed_kinds_are_refused_line_by_line(write, model):
    found = data_report(
        write({"prompt": says("a")}, {"prompt": "b"}, {"prompt": says("c")}), model, 64
    )
    assert problems(found) == {
        "is plain text, but other rows are conversations. Use one of them throughout.": (True, [2])
    }
    assert (
        found["format"] == "prompt-only"
        and found["learners"] == "an online method"
        and list(found["columns"]) == ["prompt"]
    )


@pytest.mark.parametrize(
    "desirable, undesirable, holds",
    [(100, 100, True), (400, 300, True), (100, 400, False), (300, 100, False), (99, 100, False)],
)
def test_the_weights_that_the_report_gives_satisfy_the_papers_rule_at_both_ends(
    desirable, undesirable, holds
):
    found = kto_balance(desirable, undesirable)
    assert found["holds"] == holds
    for end in (0, 1):
        assert found["desirable_weight"][end] * desirable / undesirable == pytest.approx(
            (1, 4 / 3)[end], rel=1e-9
        )
        assert desirable / (found["undesirable_weight"][end] * undesirable) == pytest.approx(
            (4 / 3, 1)[end], rel=1e-9
        )


def test_judgements_of_one_prompt_alone_are_refused_as_kto_refuses_them(write, model):
    found = data_report(write(judged(True), judged(False)), model, 64)
    assert problems(found)[
        "all rows share one prompt, but KTO's reference point takes at least two. Add data."
    ] == (True, [1])


def test_the_report_says_which_weight_to_give(write, model):
    found = data_report(
        write(
            *[judged(True, f"a{i}") for i in range(2)], *[judged(False, f"b{i}") for i in range(8)]
        ),
        model,
        64,
    )
    assert found["kto"]["desirable"] == 2 and "--desirable-weight from 4 to 5.33" in report_text(
        found
    )
    assert "--undesirable-weight from 3 to 4" in report_text(
        data_report(write(*[judged(True, f"a{i}") for i in range(4)], judged(False)), model, 64)
    )
    assert "needs both" in report_text(data_report(write(judged(True)), model, 64))


def test_the_command_prints_a_report_and_ends_with_1_when_training_would_refuse(
    write, model, capsys
):
    main.main(["data", write(pair()), "--model", model, "--max-length", "64"])
    assert (
        "1 rows, 1 prompts, preference: for dpo" in (said := capsys.readouterr().out)
        and f"--model {model} --max-length 64" in said
    )
    with pytest.raises(SystemExit) as end:
        main.main(["data", write(pair(), pair(chosen="")), "--model", model, "--json"])
    assert end.value.code == 1 and json.loads(capsys.readouterr().out)["problems"][0]["lines"] == [
        2
    ]
    with pytest.raises(SystemExit) as end:
        main.main(["data", "nowhere.jsonl"])
    assert end.value.code == 2 and "No data file" in capsys.readouterr().err


def test_a_hundred_bad_lines_are_one_short_line_of_the_report(write, model):
    said = report_text(data_report(write(*[pair(chosen="")] * 100), model, 64))
    assert "Line 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 90 more." in said and said.endswith(
        "Training would refuse 100 rows. Remove or correct them."
    )


def test_a_file_without_rows_is_an_error_of_its_own(write, model):
    with pytest.raises(LabError, match="is empty"):
        data_report(write(""), model, 64)


def test_a_text_too_long_for_any_training_is_measured_by_its_beginning_and_named(
    write, model, monkeypatch
):
    monkeypatch.setattr(token_lengths, "MAX_MEASURED_CHARACTERS", 50)
    talk = [{"role": "user", "content": "u" * 60, "name": None}]
    found = data_report(
        write(pair(chosen="c" * 51, rejected="r" * 50), pair(prompt="ask 2")), model, 128
    )
    assert problems(found) == {
        "is so long that only the first 50 characters of chosen are counted in tokens.": (
            False,
            [1],
        )
    }
    assert (tokens(found)["chosen"]["max"], tokens(found)["rejected"]["max"]) == (
        51,
        51,
    )  # 50 bytes and the end token
    found = data_report(write({"prompt": talk}, {"prompt": says("a")}), model, 128)
    assert problems(found) == {
        "is so long that only the first 50 characters of prompt are counted in tokens.": (
            False,
            [1],
        )
    }
    assert (
        tokens(found)["prompt"]["max"]
        - tokens(data_report(write({"prompt": says("u")}), model, 128))["prompt"]["max"]
        == 49
    )


def test_a_quick_report_reads_every_row_and_counts_the_tokens_of_some_from_all_over_the_file(
    write, model, monkeypatch
):
    monkeypatch.setattr(report_module, "QUICK_CHARACTERS", 100)
    path = write(
        *[pair(f"{i:02}", "c" * 9, "r" * 9) for i in range(19)],
        pair(chosen=""),
        pair("last", "c" * 9, "r" * 99),
    )
    found, whole = data_report(path, model, 128, quick=True), data_report(path, model, 128)
    assert (
        found["rows"] == whole["rows"] == 21 and found["measured"] == 4 and "measured" not in whole
    )  # 502 characters in 20 good rows: each sixth
    assert (
        problems(found)
        == {"a completion is empty. Remove the line or fill it in.": (True, [20])}
        == problems(whole)
    )
    assert (
        tokens(found)["chosen"] == {"min": 10, "median": 10, "95 %": 10, "max": 10}
        and tokens(whole)["rejected"]["max"] == 100
    )
    assert "tokens and vocabulary of 4 rows" in report_text(
        found
    ) and "tokens and vocabulary" not in report_text(whole)
    assert "measured" not in data_report(write(pair()), model, 128, quick=True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("unfit", [True, False])
def test_a_line_of_ten_megabytes_is_answered(write, unfit, model):
    long = "lorem ipsum [x] 12 " * 550_000
    found = data_report(write(pair("1+2=", long, "3")), "embedded" if unfit else model, 128)
    assert found["rows"] == 1 and any(
        name.startswith("is so long that only the first 524288 characters of chosen")
        for name in problems(found)
    )
    assert unfit == any(refused for refused, _ in problems(found).values())


def test_a_file_of_which_no_row_is_left_is_refused(write, model):
    path = write(pair("p" * 70), pair("q" * 80))
    found = data_report(path, model, 64)
    assert [(p["refused"], p["lines"]) for p in found["problems"]] == [(True, [1]), (False, [1, 2])]
    assert "no row is left to train on at max_length 64" in report_text(
        found
    ) and "Training would refuse 1 rows" in report_text(found)


def test_the_command_of_a_report_names_all_that_it_was_made_with(write, model):
    path = write(pair("p" * 70))
    assert report_text(data_report(path, model, 64, mode="keep_end")).endswith(
        f"--data {path} --model {model} --max-length 64 --truncation-mode keep_end"
    )
    prompts = write({"prompt": "ask"}, {"prompt": "tell"})
    assert report_text(data_report(prompts, model, 64)).endswith(
        f": --task {prompts} --model {model}"
    )


def test_pairs_of_one_prompt_are_said_to_be_none_for_kto(write, model):
    found = data_report(write(pair(), pair(chosen="better")), model, 64)
    assert problems(found) == {
        "all rows share one prompt: kto refuses them, since its reference point takes at least two prompts.": (
            False,
            [1],
        )
    }
