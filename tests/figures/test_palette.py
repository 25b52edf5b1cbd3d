"""Lines can be seen on the ground of the dark theme, and text can be read on both."""

import tomllib

import pytest
from support.browser import ROOT

from lab.figures.palette import DARK_COLOURS, METHOD_COLOURS, REFERENCE_COLOUR, THEMES, theme_colour

GROUNDS = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text("utf-8"))["theme"]


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_contrast_of_the_standards_own_examples():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)
    assert contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("colour", [*dict.fromkeys(METHOD_COLOURS.values()), REFERENCE_COLOUR])
def test_a_line_stands_out_on_every_dark_ground(colour):
    for ground in ("backgroundColor", "secondaryBackgroundColor"):
        assert contrast(theme_colour(colour, "dark"), GROUNDS["dark"][ground]) >= 4.5
    assert theme_colour(colour, "light") == colour


def test_no_two_dark_colours_are_the_same_and_the_browser_gets_them():
    assert len(set(DARK_COLOURS.values())) == len(DARK_COLOURS)
    assert THEMES["dark"]["layout"]["meta"] == DARK_COLOURS
    assert THEMES["light"]["layout"]["meta"] == {}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["text", "muted"])
def test_text_can_be_read(theme, ink):
    assert contrast(THEMES[theme][ink], GROUNDS[theme]["backgroundColor"]) >= 4.5
