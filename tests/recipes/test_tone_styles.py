"""Which two texts of the small model make a pair for the pool `tone`."""

import pytest

from lab.recipes.tone_styles import Answer, are_two_styles

REQUEST = "Thank a neighbour for the help."
WARM = "I'm so grateful for your wonderful help, you are a lovely neighbour!"
DRY = "I acknowledge the help of the neighbour."


def pair(first, second, styles=("warm", "dry")):
    return [Answer(text, style) for text, style in zip((first, second), styles)]


def test_a_warm_and_a_dry_text_about_the_request_are_a_pair_in_either_order():
    assert are_two_styles(REQUEST, pair(WARM, DRY))
    assert are_two_styles(REQUEST, pair(DRY, WARM, ("dry", "warm")))


@pytest.mark.parametrize(
    "first, second",
    [
        (DRY, WARM),  # the "warm" one is the colder
        (WARM, WARM),
        ("I love the sea and the sun, they are wonderful!", DRY),  # not about the request
        ("As an AI I am so grateful for your wonderful help!", DRY),
        ("Dear [Name], thank you for your wonderful help!", DRY),
        ("Thank you!", DRY),  # two words
        ("", DRY),
        ("What a wonderful help, you dumbass neighbour, I love it!", DRY),
    ],
)
def test_texts_that_differ_too_little_or_miss_the_request_are_none(first, second):
    assert not are_two_styles(REQUEST, pair(first, second))


def test_a_rich_text_is_longer_than_a_short_one_by_half():
    short, rich = "Thank you for the help.", "Thank you for the help, neighbour.."
    assert (len(short), len(rich)) == (23, 35)  # 34.5 are needed.
    assert are_two_styles(REQUEST, pair(rich, short, ("rich", "short")))
    assert not are_two_styles(REQUEST, pair(rich[:-1], short, ("rich", "short")))
