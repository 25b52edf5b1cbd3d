"""The part of page Taste that asks for labels."""

import json
import threading
from collections.abc import Mapping, Sequence
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
from lab.taste.next_pair import (
    Answer,
    Question,
    answer_question,
    next_answer,
    next_answers,
    next_question,
    next_questions,
)
from lab.taste.training import own_held_out, training_rows

KEY = "labeller"
GOAL = 50
AHEAD = 40
"""Pairs that the browser knows in advance: four seconds of labels at ten keys a second."""
CLIENT = "taste.client"
"""Key of the session: the browser element whose actions were taken last."""
MOST_CLIENTS = 1000
MARGINS_FILE = "margins.json"
_one_message = threading.Lock()
_written: dict[str, int] = {}
"""By browser element: the number of its last action that was taken. It outlives a session, since a browser
sends what it has stored again after a reload.
"""


def labelling(choices: Choices) -> None:
    """Show the pair or the answer that is labelled next."""
    st.session_state["taste.choices"] = choices
    labeller_element(key=KEY, data=element_data(choices), on_command_change=_obey)
    if note := uncounted_text(choices.labels):
        st.warning(escape_markdown(note))


def element_data(choices: Choices) -> dict[str, Any]:
    """What the element shows."""
    labels = choices.labels
    client = st.session_state.get(CLIENT, "")
    with _one_message:
        count = len(labels.thumbs() if choices.mode == "thumbs" else labels.pairs())
        plan, turn, done = asked_ahead(choices), labels.turn(), _written.get(client, 0)
    return {
        "mode": choices.mode,
        "source": source(choices),
        "plan": [
            shown_pair(asked) | {"skipped": skipped and shown_pair(skipped)}
            for asked, skipped in plan
        ],
        "turn": turn,
        "client": client,
        "done": done,
        "count": count,
        "goal": GOAL,
        "status": status_text(choices, count),
        "refusal": actions.refusal(),
        "problem": st.session_state.pop("taste.problem", ""),
    }


def source(choices: Choices) -> str:
    """Which set is labelled, and how; presses for another are not taken."""
    return "/".join((choices.labels.name, choices.labels.pool.name, choices.mode, choices.pick))


def asked_ahead(choices: Choices) -> Sequence[tuple[Question | Answer, Question | Answer | None]]:
    """The pairs or answers that are asked next if each is labelled, and with each the one after a skip."""
    if choices.mode == "thumbs":
        return next_answers(choices.labels, AHEAD)
    return next_questions(choices.labels, AHEAD, choices.pick, stored_margins(choices.labels))


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


def shown_pair(asked: Question | Answer) -> dict[str, Any]:
    """What is shown of a pair: its id, its prompt, and its answers left and right, or the single one."""
    answers = asked.pair.answers
    left = asked.index if isinstance(asked, Answer) else asked.left
    shown = [answers[left]] if isinstance(asked, Answer) else [answers[left], answers[1 - left]]
    return {"question": asked.pair.id, "prompt": asked.pair.prompt, "answers": shown}


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
        obey(choices, command)
    except (LabError, OSError) as error:
        st.session_state["taste.problem"] = str(error)


def obey(choices: Choices, command: Mapping[str, Any]) -> None:
    """Write the actions of one message in their order: `client`, `source`, and `actions`, each with its
    `number`. One that was written before is passed over, since a browser may send a message twice.
    After one that cannot be written the rest of the message is not taken; raises `LabError` if one no
    longer fits.
    """
    client, pressed = command.get("client"), command.get("actions")
    if not isinstance(client, str) or len(client) > 60 or not isinstance(pressed, list):
        return
    st.session_state[CLIENT] = client
    with _one_message:
        done = _written.pop(client, 0)
        new = [own for own in pressed if isinstance(own, Mapping) and _number(own) > done]
        _written[client] = _number(new[-1]) if new else done
        while len(_written) > MOST_CLIENTS:
            del _written[next(iter(_written))]
        if command.get("source") == source(choices):
            while new and label(choices, new[0]):
                del new[0]
    if new:
        raise LabError(
            "Another window has labelled this set, or the server was restarted: your last presses"
            f" ({len(new)}) no longer fit."
        )


def _number(pressed: Mapping[str, Any]) -> int:
    number = pressed.get("number")
    return number if type(number) is int else 0


@actions.requires_permission
def label(choices: Choices, pressed: Mapping[str, Any]) -> bool:
    """Write one action of the visitor: a choice, a thumb, a skip, or the removal of the last. Returns
    whether it was written.

    Raises `LabError` on a read-only server. An action for another question than the one that is asked
    now, such as one of a second window, changes nothing.
    """
    action, labels = pressed.get("action"), choices.labels
    if action == "undo":
        return pressed.get("turn") == labels.turn() and labels.undo() is not None
    asked = asked_next(choices)
    if asked is None or (pressed.get("turn"), pressed.get("question")) != (
        asked.turn,
        asked.pair.id,
    ):
        return False
    if action == "skip":
        return labels.skip(asked.pair, asked.turn)
    if isinstance(asked, Question) and action in ("left", "right"):
        return answer_question(labels, asked, left=action == "left")
    if isinstance(asked, Answer) and action in ("up", "down"):
        return labels.rate(asked.pair, asked.index, action == "up", asked.turn)
    return False
