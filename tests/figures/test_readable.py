"""Numbers and texts of all figures: no zeros that say nothing, nothing smaller than 12 pixels."""

import re

import pytest
from support.browser import ROOT

from lab.figures.palette import THEMES

SOURCES = sorted((ROOT / "lab" / "figures").glob("*.py"))
HOVER_NUMBER = re.compile(r"%\{+[^}:]+:([^}]*)\}")
FONT = re.compile(r'font"?[=:] ?\{[^}]*"size": (\d+)')


def test_there_are_figures_with_hover_texts_and_fonts():
    texts = "".join(path.read_text("utf-8") for path in SOURCES)
    assert len(HOVER_NUMBER.findall(texts)) > 20 and FONT.findall(texts)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_a_hover_text_writes_significant_digits_without_trailing_zeros(path):
    """d3 writes 0.05 as "0.0500000" for the format "g", and as "0.05" for "~g"."""
    formats = HOVER_NUMBER.findall(path.read_text("utf-8"))
    assert [found for found in formats if found.endswith("g") and not found.endswith("~g")] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_text_of_a_figure_is_smaller_than_12_pixels(path):
    assert [size for size in FONT.findall(path.read_text("utf-8")) if int(size) < 12] == []


def test_the_ticks_of_both_themes_are_at_least_12_pixels():
    for theme in THEMES.values():
        for axis in ("xaxis", "yaxis"):
            assert theme["layout"][axis]["tickfont"]["size"] >= 12
