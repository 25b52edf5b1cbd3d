"""Which texts of the small model the pool `tone` takes, and what the model reads."""

from collections import Counter

import pytest

from lab.recipes.record_tone import conversation
from lab.recipes.tone_fit import SCENES, matter_of, misfit
from lab.recipes.tone_requests import EXAMPLES, PEOPLE, REQUESTS, STYLES, ToneRequest, kind_of
from lab.recipes.tone_styles import first_sentence, next_fault, opening, plain_fault
from lab.taste.pools import load_pool, pool_record

THANK = ToneRequest("Thank {} for the help.", ("thank|grateful", "help"), "you're welcome")
PLAIN = "Anna, thank you for the help."
RICH = "The heavy boxes stand in the dry cellar now."
PHOTOS, RAIN = "Ask Leo to send the photos.", "Remind Leo of the umbrella."
THANKS = "Thank Leo for the dinner."
MATTER, AGAINST = "another matter", "contradiction"
WARM = "You are a lovely and wonderful friend."


@pytest.mark.parametrize("text", [PLAIN, "Thanks for all the help, Anna, can't wait!"])
def test_a_plain_message_to_the_person_about_the_request_has_no_fault(text):
    assert plain_fault(THANK, "Anna", text) == ""


@pytest.mark.parametrize(
    "text, fault",
    [
        ("Thank you!", "length"),
        ("", "length"),
        ("Thank you for the help at 12:01.", "signs"),
        ("Dear [Name], thank you for the help.", "signs"),
        ("thank you for the help.", "signs"),
        ("As an AI I thank you for the help.", "the writer"),
        ("Thank you for the help, you dumbass.", "rude"),
        ("Thank you for the help and thank you for the help.", "repetition"),
        ("Thank you for the the help.", "repetition"),
        ("I love the sea and the sun.", "topic"),
        ("Thanks, you're welcome to my help.", "turned around"),
        ("Peter, thank you for the help.", "somebody else"),
        ("Thank you, Peter, for the help.", "somebody else"),
        ("Anna thanked the team for the help.", "somebody else"),
        ("She is grateful for the help.", "somebody else"),
        ("I am not grateful for the help.", "negation"),
        ("Thank you for the help. It was good.", "sentences"),
        ("Thank you for the help", "sentences"),
    ],
)
def test_the_fault_of_a_plain_message_is_named(text, fault):
    assert plain_fault(THANK, "Anna", text) == fault


def test_a_request_that_is_said_again_is_a_copy():
    remind = ToneRequest("Remember the rent.", ("rent",))
    assert plain_fault(remind, "Anna", "Remember the rent.") == "copy"


@pytest.mark.parametrize(
    "style, text, fault",
    [
        ("rich", RICH, ""),
        ("warm", WARM, ""),
        ("rich", "The boxes stand there now.", "length"),
        ("warm", "You are lovely.", "length"),
        ("rich", "I will hope for the dry cellar and the boxes.", "empty"),
        ("warm", "You are a person who has a table.", "cold"),
        ("warm", "What a lovely and wonderful evening.", "cold"),
        ("warm", "I am sorry, you wonderful and lovely friend.", "astray"),
        ("rich", "The help was great and I thank everybody there.", "says it again"),
        ("rich", "There is a sweet cake and a cake on the table.", "says it again"),
        ("rich", "It fills the whole room with soft blue smoke.", "copy"),
        ("warm", "You are so kind, and it makes me happy every day.", "copy"),
    ],
)
def test_the_sentence_behind_a_plain_message_is_judged_by_its_style(style, text, fault):
    assert next_fault(style, "Anna", PLAIN, text) == fault


def test_a_warm_text_begins_with_dear_and_a_rich_one_with_the_plain_message():
    assert opening("warm", "Anna", PLAIN) == "Dear Anna, thank you for the help!"
    assert opening("warm", "Anna", "Thank you, Anna.") == "Thank you, Anna!"
    assert opening("rich", "Anna", PLAIN) == PLAIN


def test_a_first_sentence_is_whole_or_empty():
    assert first_sentence(" I like it.\n So do I.") == "I like it."
    assert first_sentence("It costs 1.5 euros! And") == "It costs 1.5 euros!"
    assert first_sentence("I like") == ""


@pytest.mark.parametrize(
    "asked, style, plain, sentence, fault",
    [
        (PHOTOS, "rich", "Leo, send the photos.", "The lights are on, the sea is blue.", MATTER),
        (PHOTOS, "rich", "Leo, send the photos.", "The frame is on the wall, and it is blue.", ""),
        (RAIN, "rich", "Leo, remember the umbrella.", "The wind is cold, and the sky is dark.", ""),
        (RAIN, "rich", "Leo, remember the umbrella.", "The wind is cold, the sun is up.", AGAINST),
        (THANKS, "warm", "Leo, thank you for the dinner.", "I'm so glad you enjoyed it.", AGAINST),
        (THANKS, "warm", "Leo, thank you for the dinner.", "You are the best.", ""),
        (
            THANKS,
            "warm",
            "Leo, thank you for the dinner.",
            "The whole city smiles at you.",
            "nonsense",
        ),
    ],
)
def test_a_sentence_has_to_fit_the_message_before_it(asked, style, plain, sentence, fault):
    assert misfit(asked, style, f"{plain} {sentence}", sentence) == fault


def test_every_request_has_a_scene_of_its_own():
    assert sorted(matter_of(own.text) for own in REQUESTS) == sorted(SCENES)


def test_every_shipped_pair_fits_and_has_a_number_of_its_own():
    pairs = load_pool("tone")
    assert len(pairs) == pool_record("tone")["pairs"]
    for pair in pairs.values():
        plain, long = sorted(pair.answers, key=len)
        style = pair.sources[pair.answers.index(long)]
        sentence = long[len(plain) :] if style == "rich" else long.partition("!")[2]
        assert misfit(pair.prompt, style, long, sentence) == "", pair


def test_every_request_has_two_examples_of_its_kind_with_other_people():
    kinds = Counter(kind_of(own.request) for own in EXAMPLES)
    assert set(kinds.values()) == {2}
    assert {kind_of(request.text) for request in REQUESTS} == set(kinds)
    texts = [text for own in EXAMPLES for text in (own.request, own.plain, own.rich, own.warm)]
    assert not [name for name in PEOPLE if any(name in text for text in texts)]
    assert len({request.text for request in REQUESTS}) == len(REQUESTS)


def test_the_model_reads_the_style_two_examples_and_the_request():
    system, *turns = conversation(REQUESTS[0], "Anna", "warm")
    assert system == {"role": "system", "content": STYLES["warm"]}
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    assert turns[-1]["content"] == "Thank Anna for the flowers."
    assert turns[1]["content"].startswith("Dear Paul, thank you for the lamp! You are so kind,")
    assert conversation(REQUESTS[0], "Anna", "plain")[2]["content"] == EXAMPLES[0].plain
