"""Which part of a text a tokenizer without offsets has no token for."""

import pytest

from lab.data.encoding import unknown_text


class SlowTokenizer:
    """One token for each of a, b and c; anything else is unknown. It knows no offsets."""

    is_fast = False
    bos_token_id = eos_token_id = pad_token_id = None
    unk_token_id = 0

    def __init__(self, **names):
        vars(self).update(names)

    def __call__(self, text, add_special_tokens=True):
        ids = [" abc".find(character) for character in text]
        return {"input_ids": [9] * add_special_tokens + [max(0, i) for i in ids]}


def test_the_first_unknown_character_is_found():
    assert unknown_text(SlowTokenizer(), [1, 0, 0], "ax", "y") == "x"


def test_a_text_without_the_unknown_token_has_no_unknown_part():
    assert unknown_text(SlowTokenizer(), [1, 2], "ab") == ""
    assert unknown_text(SlowTokenizer(unk_token_id=None), [1, 0], "ax") == ""


@pytest.mark.parametrize("name", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_an_unknown_token_that_is_also_a_special_one_says_nothing(name):
    assert unknown_text(SlowTokenizer(**{name: 0}), [1, 0], "ax") == ""


def test_special_tokens_are_not_added_in_the_search():
    assert unknown_text(SlowTokenizer(unk_token_id=9), [1, 9], "ab") == ""
    assert unknown_text(SlowTokenizer(), [0], "a", "b") == ""
