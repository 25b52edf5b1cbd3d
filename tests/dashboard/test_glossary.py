"""The words that each page explains."""

from importlib import import_module

import pytest
from support.elements import opened, texts

from lab.dashboard.components.glossary import WORDS
from lab.dashboard.components.text import WORDS as TRAIN_WORDS
from lab.dashboard.pages.registry import PAGES


def words_of(module):
    if module == "train.page":  # its fixed texts stand beside those about a run
        return TRAIN_WORDS
    return import_module(f"lab.dashboard.pages.{module}").WORDS


def test_every_word_of_a_page_is_explained_once_and_every_explanation_is_used():
    pages = [words_of(page.module) for page in PAGES]
    assert all(len(set(words)) == len(words) for words in pages)
    assert set().union(*pages) == set(WORDS)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_page_shows_the_explanations_of_its_words(name):
    said = texts(opened(name), "markdown")
    assert all(f"**{word}**: {WORDS[word]}" in said for word in words_of(f"{name}.page"))
