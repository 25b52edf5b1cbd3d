"""The bank of questions for a class: each with four options, and for each wrong one the misconception that
leads to it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

BANK = Path(__file__).parents[1] / "assets" / "course" / "quiz-bank.json"
LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """A question to a notebook. `misconceptions` has one text for each option: why somebody picks it, or
    "" for the right one. `why` says why the right one is right.
    """

    notebook: str
    question: str
    options: tuple[str, ...]
    misconceptions: tuple[str, ...]
    why: str

    @property
    def right(self) -> int:
        """The place of the right option, from 0."""
        return self.misconceptions.index("")


def quiz_bank() -> list[Question]:
    """Return the questions in the order of the notebooks."""
    return [
        Question(
            row["notebook"],
            row["question"],
            tuple(option["text"] for option in row["options"]),
            tuple(option.get("misconception", "") for option in row["options"]),
            row["why"],
        )
        for row in json.loads(BANK.read_text("utf-8"))
    ]


def quiz_page() -> str:
    """Return the questions in Markdown, the answers folded."""
    parts, notebook = [], ""
    for number, question in enumerate(quiz_bank(), 1):
        if question.notebook != notebook:
            notebook = question.notebook
            parts.append(f"## Notebook {notebook}\n")
        lines = [f"**{number}.** {question.question}\n"]
        lines += [f"- {letter}: {text}" for letter, text in zip(LETTERS, question.options)]
        lines += ["", '<details markdown="1"><summary>Answer</summary>', ""]
        lines.append(f"**{LETTERS[question.right]}.** {question.why}\n")
        lines += [
            f"- {letter}: {text}" for letter, text in zip(LETTERS, question.misconceptions) if text
        ]
        parts.append("\n".join([*lines, "", "</details>", ""]))
    return "\n".join(parts)
