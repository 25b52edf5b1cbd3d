"""A chapter of the story: figures that stay in view beside steps of text that move them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lab.dashboard.components.glossary import WORDS
from lab.dashboard.components.js_component import js_component

_chapter_element = js_component("story", "slider_figure", "step_diagram")
_TERM = re.compile(r"\[([^\]|]+)(?:\|([^\]]+))?\]")


@dataclass(frozen=True)
class StoryClaim:
    """A sentence of the article with its verdict. `kind` is "holds", "fails" or "open"."""

    sentence: str
    kind: str
    verdict: str
    measurement: str
    command: str


@dataclass(frozen=True)
class StoryStep:
    """One step of a chapter.

    text: paragraphs of plain text in which "[word]" or "[shown|word]" is a word of the glossary
    at: where the step moves its figure: the index of a slider's value or of a diagram's step
    figure: which figure of the chapter the step shows
    formula: HTML, made with `lab.dashboard.pages.story.formulas`
    """

    text: str
    at: int | None = None
    figure: int = 0
    formula: str = ""
    claims: tuple[StoryClaim, ...] = ()


@dataclass(frozen=True)
class StoryFigure:
    """A figure as slider_figure.js (`kind` "slider") or step_diagram.js (`kind` "steps") takes it."""

    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Chapter:
    """One figure of the article, or two, with its steps.

    marks: by word of the glossary, the CSS selectors of what it means in the figures
    boxes: by word of the glossary, the name of its box in a diagram, where it is another
    """

    key: str
    title: str
    figures: tuple[StoryFigure, ...]
    steps: tuple[StoryStep, ...]
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    boxes: dict[str, str] = field(default_factory=dict)


def term(word: str, shown: str) -> str:
    """A word of the glossary as HTML that lights up, shown as the HTML `shown`. Raises `KeyError` for a
    word that the glossary lacks.
    """
    if word not in WORDS:
        raise KeyError(word)
    return f'<button type="button" class="lab-term" data-term="{escape(word)}">{shown}</button>'


def step_html(step: StoryStep) -> str:
    """The text and the formula of a step as HTML."""
    paragraphs = "".join(
        f"<p>{_TERM.sub(lambda found: term(found[2] or found[1], found[1]), escape(text, False))}</p>"
        for text in step.text.split("\n")
    )
    return paragraphs + step.formula


def show_chapter(number: int, chapter: Chapter) -> None:
    """Show the chapter under its number."""
    texts = [step_html(step) for step in chapter.steps]
    _chapter_element(
        key=f"story-{chapter.key}",
        data={
            "key": chapter.key,
            "number": number,
            "title": chapter.title,
            "figures": [vars(figure) for figure in chapter.figures],
            "steps": [
                {
                    "html": text,
                    "at": step.at,
                    "figure": step.figure,
                    "claims": [vars(claim) for claim in step.claims],
                }
                for text, step in zip(texts, chapter.steps)
            ],
            "terms": _terms(chapter, texts),
        },
        on_dark_change=lambda: None,
    )


def _terms(chapter: Chapter, texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    words = dict.fromkeys(re.findall(r'data-term="([^"]+)"', "".join(texts)))
    return {
        word: {
            "word": word,
            "meaning": WORDS[word].replace("`", ""),
            "marks": list(chapter.marks.get(word, ())),
            "box": chapter.boxes.get(word, word),
        }
        for word in words
    }
