"""Rows of data files by hand: what each format becomes, and what is refused with which words."""

import pytest

from lab.data.examples import (
    Conversation,
    Demonstration,
    FullText,
    Pair,
    Prompt,
    UnpairedExample,
    plain_text,
    prompt_or_text,
    template_columns,
    template_of,
)
from lab.data.parsing import (
    load_examples,
    load_pairs,
    parse_demonstration,
    parse_full_text,
    parse_pair,
    parse_pairs,
    parse_prompt,
    parse_unpaired,
    read_examples,
)
from lab.data.row_fields import format_of
from lab.errors import LabError

TOOLS = [{"name": "search"}]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


TALK = [user("a"), assistant("b")]


def refused(parse, row, says):
    with pytest.raises(LabError, match=says) as caught:
        parse(row, "line 3")
    assert str(caught.value).startswith("line 3")


# Conversations and examples


def test_conversations_are_equal_with_equal_messages_and_an_equal_template():
    bare, tools = Conversation(TALK), Conversation(TALK, {"tools": TOOLS})
    assert bare == Conversation(TALK) == TALK and bare.template == {}
    assert tools != bare and not tools == TALK and tools != Conversation([], {"tools": TOOLS})
    assert tools == Conversation(TALK, {"tools": TOOLS}) and not tools != Conversation(
        TALK, tools.template
    )
    assert Conversation() == []


def test_a_conversation_shows_its_template_where_it_has_one():
    assert repr(Conversation(TALK)) == repr(TALK)
    assert repr(Conversation([], {"x": 1})) == "Conversation([], {'x': 1})"


def test_the_template_of_a_prompt_goes_back_into_the_columns_it_came_from():
    prompt = Conversation(TALK, {"tools": TOOLS, "enable_thinking": False})
    assert template_of(prompt) == prompt.template and template_of("a") == template_of(TALK) == {}
    assert template_columns(prompt) == {
        "tools": TOOLS,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert prompt.template["tools"] == TOOLS
    assert template_columns(Conversation(TALK, {"tools": TOOLS})) == {"tools": TOOLS}
    assert template_columns("a") == {}


def test_flipping_swaps_the_completions_of_a_pair_and_turns_a_thumb():
    assert Pair("p", "c", "r").flipped() == Pair("p", "r", "c")
    assert UnpairedExample("p", "c", True).flipped() == UnpairedExample("p", "c", False)


def test_an_example_begins_with_its_prompt_or_is_a_whole_text():
    assert prompt_or_text(FullText("text")) == "text" and prompt_or_text(Prompt("p")) == "p"


def test_the_first_format_whose_columns_a_row_has_is_its_format():
    assert format_of({"prompt": "", "completion": "", "label": 1}) == "unpaired preference"
    assert format_of({"prompt": "", "completion": ""}) == "prompt-completion"
    assert format_of({"chosen": ""}) == ""


def test_plain_text_is_the_words_and_the_calls_of_tools():
    calls = [{"name": "é"}]
    talk = [user("a"), assistant(None, tool_calls=calls), assistant("b")]
    assert plain_text("a") == "a" and plain_text(talk) == 'a\n[{"name": "é"}]\nb'


# Pairs


def test_a_pair_with_a_prompt_is_taken_as_it_is():
    row = {"prompt": "p ", "chosen": "c", "rejected": "r"}
    assert parse_pair(row, "here") == Pair("p ", "c", "r")


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("a b", "a c", Pair("a", " b", " c")),
        ("ab", "ac", Pair("a", "b", "c")),
        ("abc", "ab", Pair("a", "bc", "b")),
        ("ab", "abc", Pair("a", "b", "bc")),
        ("a ", "a b", Pair("a", " ", " b")),
    ],
)
def test_an_implicit_prompt_is_what_both_begin_with(chosen, rejected, expected):
    assert parse_pair({"chosen": chosen, "rejected": rejected}, "here") == expected


def test_an_implicit_prompt_of_messages_keeps_the_template_of_its_row():
    row = {
        "chosen": [user("a"), assistant("b")],
        "rejected": [user("a"), assistant("c")],
        "tools": TOOLS,
    }
    found = parse_pair(row, "here")
    assert found == Pair(
        Conversation([user("a")], {"tools": TOOLS}), [assistant("b")], [assistant("c")]
    )
    repeated = {"prompt": "a"} | {name: row[name] for name in ("chosen", "rejected")}
    assert parse_pair(repeated, "here") == Pair([user("a")], [assistant("b")], [assistant("c")])


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p", "chosen": "c", "rejected": "c"}, "chosen equals rejected"),
        ({"prompt": "p", "chosen": "", "rejected": "c"}, "a completion is empty"),
        ({"prompt": "p", "chosen": "c", "rejected": ""}, "a completion is empty"),
        ({"prompt": "p", "chosen": "c", "rejected": TALK}, "of chosen and rejected one is text"),
        ({"prompt": TALK, "chosen": "c", "rejected": "r"}, "of prompt and chosen one is text"),
        ({"chosen": "ab", "rejected": "cd"}, "there is no prompt"),
        ({"chosen": " b", "rejected": " c"}, "there is no prompt"),
        ({"chosen": "c"}, r"has no 'rejected' \(it has: chosen\)"),
        ({}, r"has no 'chosen' \(it has: nothing\)"),
        (
            {"prompt": "p", "completion": "c", "label": 1},
            "unpaired preference data, which kto learns",
        ),
        ({"prompt": "p", "chosen": 1, "rejected": "r"}, "'chosen' is int, neither text"),
        ({"prompt": "p", "chosen": "\ud800", "rejected": "r"}, "half of a surrogate pair"),
    ],
)
def test_a_row_that_is_no_pair_is_refused(row, says):
    refused(parse_pair, row, says)


# Other formats


def test_demonstrations_whole_texts_and_prompts_are_read():
    assert parse_demonstration({"prompt": "p", "completion": "c"}, "x") == Demonstration("p", "c")
    assert parse_full_text({"text": "t"}, "x") == FullText("t") and parse_full_text(
        {"messages": TALK}, "x"
    ) == FullText(TALK)
    assert parse_prompt({"prompt": TALK, "tools": TOOLS}, "x").prompt.template == {"tools": TOOLS}


@pytest.mark.parametrize(
    ("parse", "row", "says"),
    [
        (parse_demonstration, {"prompt": "p", "completion": ""}, "a completion is empty"),
        (
            parse_demonstration,
            {"prompt": "p", "completion": TALK},
            "of prompt and completion one is text",
        ),
        (parse_demonstration, {"prompt": "p"}, "in every row the columns that the first one has"),
        (parse_unpaired, {"prompt": "p", "completion": "", "label": 1}, "a completion is empty"),
        (
            parse_unpaired,
            {"prompt": "p", "completion": TALK, "label": 1},
            "of prompt and completion",
        ),
        (parse_unpaired, {"prompt": "p", "completion": "c"}, "'label' is None"),
        (parse_full_text, {"text": ""}, "a completion is empty"),
        (parse_full_text, {"messages": [user("")]}, "a completion is empty"),
    ],
)
def test_a_row_of_another_format_that_is_unfit_is_refused(parse, row, says):
    refused(parse, row, says)


def test_a_message_that_calls_tools_may_be_silent():
    calls = [{"name": "search"}]
    row = {"messages": [user("a"), assistant(None, tool_calls=calls)]}
    assert parse_full_text(row, "x").text[1] == assistant(None, tool_calls=calls)
    assert parse_full_text({"messages": [assistant(None, tool_calls=calls)]}, "x").text


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("a", "a list, but not of messages"),
        ({"content": "a"}, "a list, but not of messages"),
        ({"role": 1, "content": "a"}, "a list, but not of messages"),
        ({"role": "user"}, "a list, but not of messages"),
        ({"role": "user", "content": 1}, "a list, but not of messages"),
        ({"role": "user", "content": ["a"]}, "a content that is a list of parts"),
        (assistant("a", tool_calls="b"), "'tool_calls' that are 'b'"),
        (assistant("a", tool_calls=["b"]), "'tool_calls' that are"),
        (assistant(None, tool_calls=[]), "a list, but not of messages"),
        (assistant("\udfff"), "half of a surrogate pair"),
    ],
)
def test_what_is_no_message_is_refused(message, says):
    refused(parse_full_text, {"messages": [user("a"), message]}, says)


# What a row gives the chat template


def test_columns_of_the_chat_template_may_be_json_text_and_null_is_left_out():
    row = {
        "prompt": TALK,
        "tools": '[{"name": "search"}]',
        "chat_template_kwargs": '{"x": 1, "y": null}',
    }
    assert parse_prompt(row, "x").prompt.template == {"tools": TOOLS, "x": 1}
    for empty in ("", " ", "null", None):
        assert parse_prompt({"prompt": "p", "tools": empty}, "x") == Prompt("p")


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"tools": "{"}, "'tools' is text, but no JSON"),
        ({"tools": {"name": "a"}}, "'tools' is {'name': 'a'}, but takes a list"),
        ({"tools": ["a"]}, r"'tools' is \['a'\], but takes a list"),
        ({"chat_template_kwargs": ["a"]}, r"'chat_template_kwargs' has \['a'\]"),
        ({"chat_template_kwargs": {"tokenize": True}}, "'chat_template_kwargs' has tokenize"),
        ({"chat_template_kwargs": {"x": "\ud800"}}, "half of a surrogate pair"),
        ({"image": "a.png"}, "has 'image', but the lab trains language models"),
        ({"audios": ["a.wav"]}, "has 'audios'"),
    ],
)
def test_columns_that_the_chat_template_cannot_take_are_refused(columns, says):
    refused(parse_prompt, {"prompt": TALK} | columns, says)


@pytest.mark.parametrize("name", ["tools", "chat_template_kwargs"])
def test_plain_text_takes_nothing_for_a_chat_template(name):
    value = TOOLS if name == "tools" else {"x": 1}
    refused(
        parse_prompt, {"prompt": "p", name: value}, f"has '{name}', which goes into a chat template"
    )


# Whole files


def test_the_first_row_says_what_a_method_reads():
    thumbs = [(1, {"prompt": "p", "completion": "c", "label": 1})]
    assert read_examples(thumbs, "file", "kto") == [UnpairedExample("p", "c", True)]
    with pytest.raises(LabError, match="which kto learns from"):
        read_examples(thumbs, "file", "dpo")
    texts = [(1, {"text": "t"})]
    assert read_examples(texts, "file", "sft") == [FullText("t")]
    pairs = [(1, {"prompt": "p", "chosen": "c", "rejected": "r"})]
    assert (
        read_examples(pairs, "file", "sft")
        == read_examples(pairs, "file", "dpo")
        == [Pair("p", "c", "r")]
    )


def test_a_file_is_plain_text_or_conversations_throughout():
    rows = [(1, {"prompt": "p"}), (4, {"prompt": TALK})]
    for order, says in (
        (rows, "4 is a conversation, but .*1 is plain text. Use one of them throughout"),
        (rows[::-1], "1 is plain text, but .*4 is a conversation. Use one of them throughout"),
    ):
        numbered = [(number, row | {"completion": row["prompt"]}) for number, row in order]
        with pytest.raises(LabError, match=says):
            read_examples(numbered, "file", "sft")


def test_prompts_and_pairs_are_read_from_files_and_from_bytes(tmp_path):
    line = b'{"prompt": "p", "chosen": "c", "rejected": "r"}\n'
    (tmp_path / "pairs.jsonl").write_bytes(line)
    assert load_pairs(tmp_path / "pairs.jsonl") == [Pair("p", "c", "r")]
    assert load_examples(tmp_path / "pairs.jsonl", "dpo") == [Pair("p", "c", "r")]
    assert parse_pairs(line, "pairs.jsonl") == [Pair("p", "c", "r")]
