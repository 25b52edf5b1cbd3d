"""The source "your prompt" of page GRPO: a group that the base model writes for the visitor's prompt, and
updates of a scratch copy on it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import load_result
from lab.dashboard.components.group_cards import group_cards
from lab.dashboard.pages.grpo.group_text import group_sentences, measured_sentence
from lab.dashboard.state.inference_client import inference_worker
from lab.errors import LabError
from lab.tasks.chain import GRADED_WEIGHTS
from lab.tasks.registry import TASKS

KEY = "own-group"
SIZES = (4, 8, 16)
REWARDS = {"answer": "right / wrong", "graded": "graded"}
MAX_UPDATES, MAX_SEED = 30, 999_999


@dataclass(frozen=True)
class Question:
    """What the page asks the worker: `OnePromptTrainer.answer`."""

    prompt: str = "7+5*3-4="
    group_size: int = 8
    reward: str = "answer"
    seed: int = 0
    updates: int = 0


NAMES_IN_URL = {
    "prompt": "ask",
    "group_size": "G",
    "reward": "reward",
    "seed": "draw",
    "updates": "updates",
}
"""By part of a question, its name in the URL."""


def question_of(parts: Mapping[str, Any]) -> Question:
    """The question with these parts; a part that is missing or not accepted has its default."""
    default = Question()
    try:
        prompt = TASKS["chain"].problem(str(parts.get("prompt") or default.prompt)).prompt
    except LabError:
        prompt = default.prompt
    size = _whole_number(parts.get("group_size"), default.group_size, max(SIZES))
    reward = parts.get("reward")
    return Question(
        prompt,
        size if size in SIZES else default.group_size,
        reward if reward in REWARDS else default.reward,
        _whole_number(parts.get("seed"), 0, MAX_SEED),
        _whole_number(parts.get("updates"), 0, MAX_UPDATES),
    )


def _whole_number(value: Any, default: int, highest: int) -> int:
    text = str(value)
    fits = text.isascii() and text.isdigit() and len(text) <= len(str(highest))
    return int(text) if fits and int(text) <= highest else default


def question_in_url() -> Question:
    """The question that the URL of the page holds."""
    return question_of({part: st.query_params.get(name, "") for part, name in NAMES_IN_URL.items()})


def keep_in_url(question: Question) -> None:
    """Write the parts of a question that are not the default ones into the URL."""
    default = asdict(Question())
    for part, value in asdict(question).items():
        if value != default[part] or part == "group_size":
            st.query_params[NAMES_IN_URL[part]] = str(value)
        else:
            st.query_params.pop(NAMES_IN_URL[part], None)


def answer_to(question: Question) -> dict[str, Any]:
    """The answer of the worker; for the question that the page opens with, the recorded one. Raises
    `LabError` if the worker cannot answer.
    """
    for row in load_result("one_prompt")["rows"]:
        if all(row.get(part, value) == value for part, value in asdict(question).items()):
            at = question.updates
            if str(at) in row["measured"] and at < len(row["groups"]):
                return row | {
                    "groups": row["groups"][: at + 1],
                    "measured": {name: row["measured"][name] for name in ("0", str(at))},
                }
    return _sampled(**asdict(question))


@st.cache_data(show_spinner=False, max_entries=200)
def _sampled(**parts: Any) -> dict[str, Any]:
    return inference_worker().ask({"one_prompt": parts})


def own_group() -> dict[str, Any]:
    """Show the field for the prompt and the cards; returns the answer that they show."""
    inference_worker().warm()  # so that its libraries are loaded before the first question
    _stage()
    answer: dict[str, Any] = st.session_state["own.answer"]
    return answer


@st.fragment
def _stage() -> None:
    """The element. While the visitor types, only this runs again; after a command the whole page does,
    because further sections show the same group.
    """
    question = question_in_url()
    problem = st.session_state.pop("own.problem", "")
    try:
        answer = answer_to(question)
        keep_in_url(question)
    except LabError as error:
        problem = f"{error} The cards show the group that the page opens with."
        answer = answer_to(question := Question())
    st.session_state["own.answer"] = answer
    typed = _typed()
    group_cards(
        key=KEY,
        data={
            "key": KEY,
            "question": asdict(question),
            "rewards": REWARDS,
            "weights": GRADED_WEIGHTS,
            "sizes": SIZES,
            "most": MAX_UPDATES,
            "answer": answer["answer"],
            "groups": answer["groups"],
            "says": group_sentences(answer),
            "measured": answer["measured"],
            "measuredSays": measured_sentence(answer, question.updates),
            "of": answer["of"],
            "typed": typed,
            "reason": refusal(typed),
            "problem": problem,
            "done": st.session_state.get("own.done", 0),
        },
        on_command_change=_obey,
        on_typed_change=lambda: None,
    )
    if st.session_state.pop("own.moved", False):
        st.rerun()


def _typed() -> str:
    """The text in the field, as the browser reported it last."""
    state = st.session_state.get(KEY)
    text = state.get("typed") if isinstance(state, Mapping) else None
    return text[:200] if isinstance(text, str) else ""


def refusal(typed: str) -> str:
    """Why the task does not accept a typed prompt, or how it differs from those that the model has
    learnt; empty if nothing is to be said.
    """
    if not typed.strip():
        return ""
    task = TASKS["chain"]
    try:
        return task.remark(task.problem(typed))
    except LabError as error:
        return str(error)


def _obey() -> None:
    """Callback: keep the question that the browser asks."""
    state = st.session_state.get(KEY)
    command = state.get("command") if isinstance(state, Mapping) else None
    if not isinstance(command, Mapping):
        return
    st.session_state["own.done"] = command.get("id", 0)
    try:
        TASKS["chain"].problem(str(command.get("prompt", "")))
    except LabError as error:
        st.session_state["own.problem"] = str(error)
        return
    keep_in_url(question_of(command))
    st.session_state["own.moved"] = True
