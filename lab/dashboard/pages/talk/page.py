"""Page Talk: a trained policy and its reference answer the same prompt with the same noise."""

import shlex

import streamlit as st

from lab.dashboard.components.layout import (
    cannot_show,
    escape_markdown,
    folded_commands,
    page_heading,
    source_caption,
    what_to_look_at,
)
from lab.dashboard.components.quiz import quiz
from lab.dashboard.pages.talk.answer_view import common_prefix_length, show_answers
from lab.dashboard.pages.talk.answers import answer_pair, recorded_answers
from lab.dashboard.pages.talk.before_after import before_after
from lab.dashboard.pages.talk.question import (
    load_run_task,
    question_form,
    runs_with_adapter,
    speaker_title,
    task_source,
)
from lab.dashboard.state import error_text
from lab.dashboard.state.inference_client import inference_worker
from lab.dashboard.state.run_selection import SHIPPED_PREFIX
from lab.dashboard.state.shipped_runs import SHIPPED_RUNS_FOLDER
from lab.errors import LabError
from lab.runs.fork import RECORDINGS_FOLDER
from lab.runs.summary import Summary
from lab.storage.paths import runs_root
from lab.tasks.base import Problem

QUESTION = "How does the trained model answer?"
SENTENCE = (
    "Two models answer the same prompt with the same random numbers: the reference (the model"
    " before training) and the policy (the same model with a trained adapter). The colour of a"
    " token shows how much more or less likely training has made it."
)
WORDS = (
    "policy",
    "reference",
    "adapter",
    "completion",
    "log-ratio",
    "nat",
    "scratchpad",
    "held-out",
    "seed",
)
GUESSES = ("at the first token", "in the middle", "only in the last number")


def page() -> None:
    """Show the page."""
    page_heading(QUESTION, SENTENCE, WORDS)
    quiz(
        "Before you look: where do the two answers begin to differ?",
        GUESSES,
        prediction_answer,
        covers=("answers",),
    )
    runs = runs_with_adapter(runs_root())
    if not runs:
        st.markdown(
            "No run has an adapter yet. Start a run on the page Train. When it has finished, you can"
            " ask it here."
        )
        return
    name, problem, seed, temperature = question_form(runs)
    if problem:
        try:
            answers, sampled_now = answer_pair(runs[name], problem.prompt, seed, temperature)
        except LabError as error:
            st.error(escape_markdown(error_text.visible_error(str(error), runs[name].config)))
        else:
            with st.container(key="answers"):
                show_answers(answers, speaker_title(name, runs[name]))
            if remark := load_run_task(*task_source(runs[name])).remark(problem):
                st.markdown(remark)
            st.caption(
                "Sampled now, on this computer."
                if sampled_now
                else f"Recorded: `{recorded_answers()['command']}`."
            )
    if all(other.startswith(SHIPPED_PREFIX) for other in runs):
        st.caption(
            "You can ask every recorded run whose weights the lab ships, and your own runs when they"
            " have finished."
        )
    if problem:
        folded_commands(
            "The same answers from the command line",
            lambda: [talk_command(runs[name], problem, seed, temperature)],
            "commands",
        )
    before_after()
    inference_worker().warm()  # so that its libraries are loaded before the next question
    what_to_look_at(
        "Look at the first token. It decides whether the answer begins with a scratchpad (written"
        " working). The policy that GRPO trained makes `<think>` much more likely than the"
        " reference does. Then look at the tokens of the calculation. They have little colour,"
        " because the reference already makes them likely. An orange token has become less likely."
        " Try another seed, or temperature 0: then each model always takes its most likely token."
    )
    cannot_show(
        "One completion is one random sample, and the counts under the answers come from a few dozen"
        " samples. They do not show exactly how often a model is right. The page Runs shows the"
        " accuracy on hundreds of prompts. This model knows 20 tokens and understands only"
        " calculator chains, so it does not show how a large model answers."
    )


def prediction_answer(guess: str) -> None:
    """Show, after a guess, where the recorded answers part."""
    table = recorded_answers()
    sampled = [a for a in table["answers"] if a["temperature"] == 1]
    firsts = sum(common_prefix_length(a) == 0 for a in sampled)
    same = sum(a["reference"]["tokens"] == a["policy"]["tokens"] for a in sampled)
    right = {who: sum(a[who]["right"] for a in sampled) for who in ("reference", "policy")}
    st.markdown(
        f"You said {guess}. There are {len(sampled)} recorded pairs of answers. {firsts} of them"
        f" differ from the first token on, {len(sampled) - firsts - same} differ later, and {same}"
        f" are equal. The reference is right in {right['reference']} pairs, and the policy in"
        f" {right['policy']}."
    )
    source_caption(
        table,
        "The policy was trained by GRPO with the lab's defaults and seed 0. The answers belong to"
        " twelve held-out prompts with three seeds each, at temperature 1.",
    )


def talk_command(run: Summary, problem: Problem, seed: int, temperature: float) -> str:
    """The command line that samples the same answers."""
    folder = {
        SHIPPED_RUNS_FOLDER: "lab/assets/runs",
        RECORDINGS_FOLDER: "lab/assets/playground",
    }.get(run.path.parent, "runs")
    return shlex.join(
        [
            "python",
            "-m",
            "lab",
            "talk",
            f"{folder}/{run.name}",
            problem.prompt,
            "--seed",
            str(seed),
            "--temperature",
            f"{temperature:g}",
        ]
    )
