"""The part of page Taste that asks for labels."""

import json
from collections.abc import Mapping
from typing import Any

import streamlit as st

from lab.dashboard.components.labeller import labeller_element
from lab.dashboard.components.layout import escape_markdown
from lab.dashboard.pages.taste.label_set import Choices
from lab.dashboard.state import actions
from lab.errors import LabError
from lab.storage.jsonl import read_bytes
from lab.taste.agreement import self_agreement
from lab.taste.labels import LabelSet, uncounted_text
from lab.taste.next_pair import Answer, Question, answer_question, next_answer, next_question
from lab.taste.training import own_held_out, training_rows

KEY = "labeller"
GOAL = 50
MARGINS_FILE = "margins.json"


def labelling(choices: Choices) -> None:
    """Show the pair or the answer that is labelled next."""
    st.session_state["taste.choices"] = choices
    labeller_element(key=KEY, data=element_data(choices), on_command_change=_obey)
    if note := uncounted_text(choices.labels):
        st.warning(escape_markdown(note))


def element_data(choices: Choices) -> dict[str, Any]:
    """What the element shows."""
    labels, asked = choices.labels, asked_next(choices)
    count = len(labels.thumbs() if choices.mode == "thumbs" else labels.pairs())
    return {
        "mode": choices.mode,
        "prompt": asked.pair.prompt if asked else "",
        "answers": shown_answers(asked),
        "question": f"{asked.pair.id}" if asked else "",
        "turn": labels.turn(),
        "turn_before": labels.turn() - 1,
        "count": count,
        "goal": GOAL,
        "status": status_text(choices, count),
        "refusal": actions.refusal(),
        "problem": st.session_state.pop("taste.problem", ""),
    }


def asked_next(choices: Choices) -> Question | Answer | None:
    """The pair or the answer that is asked next."""
    if choices.mode == "thumbs":
        return next_answer(choices.labels)
    return next_question(choices.labels, choices.pick, stored_margins(choices.labels))


def stored_margins(labels: LabelSet) -> dict[str, float]:
    """The margins h of the pool's pairs under the last trained model; empty before there is one."""
    try:
        margins = json.loads(read_bytes(labels.folder / MARGINS_FILE) or b"{}")["margins"]
        return {str(own): float(h) for own, h in margins.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def shown_answers(asked: Question | Answer | None) -> list[str]:
    """The texts that are shown: left and right, or the single answer."""
    if asked is None:
        return []
    if isinstance(asked, Answer):
        return [asked.pair.answers[asked.index]]
    return [asked.pair.answers[asked.left], asked.pair.answers[1 - asked.left]]


def status_text(choices: Choices, count: int) -> str:
    """How many labels there are, and what for."""
    labels = choices.labels
    unit = "rated answers" if choices.mode == "thumbs" else "labels"
    parts = [
        f"{count} {unit}",
        f"{len(training_rows(labels))} pairs to train on",
        f"{len(own_held_out(labels))} held out",
    ]
    own = self_agreement(labels)
    if own.count:
        parts.append(f"{own.hits} of {own.count} repeats answered alike")
    question = asked_next(choices)
    how = ""
    if isinstance(question, Question) and choices.pick == "uncertain":
        how = " This pair is one of the least sure." if question.picked == "uncertain" else ""
        if not stored_margins(labels):
            how = " Pairs come at random until a DPO run on your labels has finished."
    return f"{', '.join(parts)}.{how}"


def _obey() -> None:
    """Callback: write what the visitor has pressed."""
    command = st.session_state[KEY].get("command")
    choices = st.session_state.get("taste.choices")
    if not isinstance(command, Mapping) or not isinstance(choices, Choices):
        return
    try:
        label(choices, command)
    except (LabError, OSError) as error:
        st.session_state["taste.problem"] = str(error)


@actions.requires_permission
def label(choices: Choices, command: Mapping[str, Any]) -> None:
    """Write one action of the visitor: a choice, a thumb, a skip, or the removal of the last.

    Raises `LabError` on a read-only server. A command for another question than the one that is asked
    now, such as a second press of a key, changes nothing.
    """
    action, labels = command.get("action"), choices.labels
    if action == "undo":
        if command.get("turn") == labels.turn():
            labels.undo()
        return
    asked = asked_next(choices)
    if asked is None or (command.get("turn"), command.get("question")) != (
        asked.turn,
        asked.pair.id,
    ):
        return
    if action == "skip":
        labels.skip(asked.pair, asked.turn)
    elif isinstance(asked, Question) and action in ("left", "right"):
        answer_question(labels, asked, left=action == "left")
    elif isinstance(asked, Answer) and action in ("up", "down"):
        labels.rate(asked.pair, asked.index, action == "up", asked.turn)
