"""Page Talk: a trained policy and its reference answer the same prompt with the same noise."""

import shlex

import streamlit as st

from lab.dashboard.components.layout import (
    ask_prediction,
    cannot_show,
    escape_markdown,
    page_heading,
    source_caption,
    what_to_look_at,
)
from lab.dashboard.pages.talk.answer_view import common_prefix_length, show_answers
from lab.dashboard.pages.talk.answers import answer_pair, recorded_answers
from lab.dashboard.pages.talk.before_after import before_after
from lab.dashboard.pages.talk.question import (
    load_run_task,
    question_form,
    runs_with_adapter,
    task_source,
)
from lab.dashboard.state import error_text
from lab.dashboard.state.inference_client import inference_worker
from lab.dashboard.state.run_selection import SHIPPED_PREFIX
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.errors import LabError
from lab.runs.summary import Summary
from lab.storage.paths import runs_root
from lab.tasks.base import Problem

QUESTION = "What does the trained model say?"
SENTENCE = (
    "The reference and the same model with a trained adapter answer one prompt with the same noise."
    " Colour says how much likelier the adapter makes each token."
)
GUESSES = ("at the first token", "somewhere on the way", "only in the last number")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE)
    prediction_answer(ask_prediction("Before you look: where do the two answers part?", GUESSES))
    runs = runs_with_adapter(runs_root())
    if not runs:
        st.markdown(
            "No run has an adapter yet. Start one on the page Train; when it has finished, it"
            " speaks here."
        )
        return
    name, problem, seed, temperature = question_form(runs)
    if problem:
        try:
            answers, sampled_now = answer_pair(runs[name], problem.prompt, seed, temperature)
        except LabError as error:
            st.error(escape_markdown(error_text.visible_error(str(error), runs[name].config)))
        else:
            show_answers(answers, name)
            if remark := load_run_task(*task_source(runs[name])).remark(problem):
                st.markdown(remark)
            st.caption(
                "Sampled now, on this machine."
                if sampled_now
                else f"Recorded: `{recorded_answers()['command']}`."
            )
    if all(other.startswith(SHIPPED_PREFIX) for other in runs):
        st.caption(
            "Of the recorded runs only this one came with its adapter. Runs of your own speak here"
            " when they have finished."
        )
    if problem:
        with st.expander("The same from the command line"):
            st.code(
                talk_command(runs[name], problem, seed, temperature),
                language="bash",
                wrap_lines=True,
            )
    before_after()
    inference_worker().warm()  # so that its libraries are loaded before the next question
    what_to_look_at(
        "The first token: to think or not to think is decided there, and a thinking policy makes"
        " `<think>` far likelier than the reference does. Then the arithmetic inside, which the"
        " reference already knew: its tokens are hardly coloured. An orange token is one that"
        " training made less likely. Take the next seed, or temperature 0, which takes the"
        " likeliest token each time."
    )
    cannot_show(
        "How often either is right: one completion is one draw, and the counts under it are of a"
        " few dozen. The page Runs has the accuracy on hundreds of prompts. Nor how a large model"
        " talks: this one has 20 tokens, and a chain is all that it understands."
    )


def prediction_answer(guess: str | None) -> None:
    """Show, after a guess, where the recorded answers part."""
    if not guess:
        return
    table = recorded_answers()
    sampled = [a for a in table["answers"] if a["temperature"] == 1]
    firsts = sum(common_prefix_length(a) == 0 for a in sampled)
    same = sum(a["reference"]["tokens"] == a["policy"]["tokens"] for a in sampled)
    right = {who: sum(a[who]["right"] for a in sampled) for who in ("reference", "policy")}
    st.markdown(
        f"You said {guess}. Of {len(sampled)} recorded pairs of answers, {firsts} part at the first"
        f" token, {same} do not part at all and {len(sampled) - firsts - same} part later; the"
        f" reference is right in {right['reference']} of them and the adapter in {right['policy']}."
        " The adapter has learnt to think first; what it thinks the base could write before."
    )
    source_caption(
        table,
        "GRPO with the lab's defaults, seed 0; twelve held-out prompts, three seeds each,"
        " temperature 1.",
    )


def talk_command(run: Summary, problem: Problem, seed: int, temperature: float) -> str:
    """The command line that samples the same answers."""
    folder = (
        "lab/assets/runs/" + run.name
        if run.path.parent == SHIPPED_RUNS_FOLDER
        else f"runs/{run.name}"
    )
    return shlex.join(
        [
            "python",
            "-m",
            "lab",
            "talk",
            folder,
            problem.prompt,
            "--seed",
            str(seed),
            "--temperature",
            f"{temperature:g}",
        ]
    )
