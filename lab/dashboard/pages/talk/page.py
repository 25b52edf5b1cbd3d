"""Page Talk: a trained policy and its reference answer the same prompt with the same noise."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from lab.config.methods import method_of
from lab.dashboard.components.layout import (
    cannot_show,
    look_at,
    number_in_url,
    opening,
    plain,
    predict,
    source,
)
from lab.dashboard.components.token_text import nats, ratios, token_table, token_view
from lab.dashboard.pages.talk.before_after import before_and_after
from lab.dashboard.pages.train.page import MARK, badge
from lab.dashboard.state import error_text
from lab.dashboard.state.inference_client import worker
from lab.dashboard.state.shipped_runs import FOLDER as RECORDED
from lab.errors import LabError
from lab.figures.palette import METHOD_NAMES
from lab.runs.catalogue import list_runs
from lab.runs.folder import RunFolder
from lab.runs.summary import Summary, summaries, summarise
from lab.storage.paths import runs_root
from lab.tasks.registry import Problem, Task, named, task_of

QUESTION = "What does the trained model say?"
SENTENCE = (
    "The reference and the same model with a trained adapter answer one prompt with the same noise."
    " Colour says how much likelier the adapter makes each token."
)
GUESSES = ("at the first token", "somewhere on the way", "only in the last number")
# The run that speaks first: its recorded answers need no model, which loads meanwhile.
FIRST = f"{MARK}grpo"
TEMPERATURES = (0.0, 0.5, 1.0, 1.5)
DRAWS = 32
EXAMPLES = 12
# The example that stands there at first: on it the reference is right about as often as on all
# held-out prompts.
TYPICAL = 1
LONGEST = 200  # characters of a prompt
SEEDS = 9999  # the last one that is offered


def page() -> None:
    """The page from top to bottom."""
    opening(QUESTION, SENTENCE)
    guessed(predict("Before you look: where do the two answers part?", GUESSES))
    there = speakers(runs_root())
    if not there:
        st.markdown(
            "No run has an adapter yet. Start one on the page Train; when it has finished, it"
            " speaks here."
        )
        return
    name, problem, seed, temperature = ask(there)
    if problem:
        try:
            said, fresh = answer_of(there[name], problem.prompt, seed, temperature)
        except LabError as error:
            st.error(plain(error_text.error(str(error), there[name].config)))
        else:
            show(said, name)
            if remark := task_called(*asked_of(there[name])).remark(problem):
                st.markdown(remark)
            st.caption(
                "Sampled now, on this machine."
                if fresh
                else f"Recorded: `{recorded_answers()['command']}`."
            )
    if all(other.startswith(MARK) for other in there):
        st.caption(
            "Of the recorded runs only this one came with its adapter. Runs of your own speak here"
            " when they have finished."
        )
    if problem:
        with st.expander("The same from the command line"):
            st.code(
                command(there[name], problem, seed, temperature), language="bash", wrap_lines=True
            )
    before_and_after()
    worker().warm()  # The first answer stands; the next one finds the libraries loaded.
    look_at(
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


@st.cache_data(show_spinner=False)
def recorded_answers() -> dict[str, Any]:
    """What the recorded GRPO run said when it was recorded, with its command, device and versions."""
    return json.loads((RECORDED / "grpo" / "talk.json").read_text("utf-8"))


def guessed(guess: str | None) -> None:
    """Where the recorded answers part, once it has been guessed."""
    if not guess:
        return
    table = recorded_answers()
    sampled = [a for a in table["answers"] if a["temperature"] == 1]
    firsts = sum(parting(a) == 0 for a in sampled)
    same = sum(a["reference"]["tokens"] == a["policy"]["tokens"] for a in sampled)
    right = {who: sum(a[who]["right"] for a in sampled) for who in ("reference", "policy")}
    st.markdown(
        f"You said {guess}. Of {len(sampled)} recorded pairs of answers, {firsts} part at the first"
        f" token, {same} do not part at all and {len(sampled) - firsts - same} part later; the"
        f" reference is right in {right['reference']} of them and the adapter in {right['policy']}."
        " The adapter has learnt to think first; what it thinks the base could write before."
    )
    source(
        table,
        "GRPO with the lab's defaults, seed 0; twelve held-out prompts, three seeds each,"
        " temperature 1.",
    )


def speakers(root: Path) -> dict[str, Summary]:
    """The runs that have an adapter and write completions: own ones, newest first, then the
    recorded ones.
    """
    own = summaries(run for run in list_runs(root) if speaks(run))
    return {s.name: s for s in own} | {
        MARK + run.name: summarise(run) for run in list_runs(RECORDED) if speaks(run)
    }


def speaks(run: RunFolder) -> bool:
    """Whether a run left a policy that can be loaded."""
    return (run.path / "adapter" / "adapter_config.json").is_file() and method_of(
        run.config
    ) != "reward_model"


def ask(there: Mapping[str, Summary]) -> tuple[str, Problem | None, int, float]:
    """Who answers what: run, problem (None after a prompt that the task does not take), seed and
    temperature; all in the URL.
    """
    asked = st.query_params.get("run")
    if asked in there and asked != st.session_state.get("run in the URL"):
        st.session_state["speaker"] = asked
    st.session_state.setdefault("speaker", FIRST if FIRST in there else next(iter(there)))
    left, middle, right, last = st.columns([2, 3, 1, 2], vertical_alignment="bottom")
    name = left.selectbox(
        "Adapter",
        list(there),
        key="speaker",
        format_func=lambda n: f"{badge(n)}, {METHOD_NAMES[there[n].config['method']]}",
    )
    st.query_params["run"] = st.session_state["run in the URL"] = name
    try:
        task = task_called(*asked_of(there[name]))
        examples = [p.prompt for p in task.held_out(EXAMPLES)]
    except LabError as error:
        st.error(plain(error_text.error(str(error), there[name].config)))
        return name, None, 0, 1.0
    text = middle.selectbox(
        "Prompt: pick one, or type your own",
        examples,
        index=min(TYPICAL, len(examples) - 1),
        key="prompt",
        bind="query-params",
        accept_new_options=True,
        help=task.description,
    )
    number_in_url("seed", 0, SEEDS, 0)
    seed = right.number_input(
        "Seed", 0, SEEDS, key="seed", help="Both draw from the noise of this seed."
    )
    temperature = last.select_slider(
        "Temperature",
        TEMPERATURES,
        1.0,
        key="temperature",
        bind="query-params",
        format_func=lambda t: f"{t:g}",
        help="0 takes the likeliest token each time.",
    )
    try:
        return (
            name,
            task.problem(text if text in examples else (text or "")[:LONGEST]),
            int(seed),
            temperature,
        )
    except LabError as error:
        st.error(plain(str(error)))
        return name, None, int(seed), temperature


def asked_of(run: Summary) -> tuple[str, str]:
    """What says which prompts a run answers: its task, or its folder where its own data is the
    task.
    """
    return run.config["task"], "" if run.config["task"] else str(run.path)


@st.cache_resource(show_spinner=False, max_entries=20)
def task_called(name: str, folder: str) -> Task:
    """The task of a run, kept: some make or read their problems first."""
    if name:
        return named(name)
    task = task_of(RunFolder(Path(folder)).config)
    task.held_out(EXAMPLES)
    task.forget()
    return task


def answer_of(
    run: Summary, prompt: str, seed: int, temperature: float
) -> tuple[dict[str, Any], bool]:
    """What the two say, and whether it was sampled now: the recorded run's recorded answers need no
    model.
    """
    if run.path.parent == RECORDED and run.name == "grpo":
        for said in recorded_answers()["answers"]:
            if (said["prompt"], said["temperature"]) == (prompt, temperature) and (
                said["seed"] == seed or not temperature
            ):
                return said, False
    made = (run.path / "adapter" / "adapter_config.json").stat().st_mtime_ns
    return sampled(str(run.path.resolve()), made, prompt, seed, temperature), True


@st.cache_data(show_spinner="The model is loading, or answering …", max_entries=500)
def sampled(path: str, made: int, prompt: str, seed: int, temperature: float) -> dict[str, Any]:
    """The answer of the worker, kept; `made` tells an adapter from a later one of the same run."""
    return worker().ask(
        {"run": path, "prompt": prompt, "seed": seed, "temperature": temperature, "draws": DRAWS}
    )


def parting(said: Mapping[str, Any]) -> int:
    """How many tokens both answers begin with in common."""
    first, second = said["reference"]["tokens"], said["policy"]["tokens"]
    return next(
        (i for i, (a, b) in enumerate(zip(first, second)) if a != b), min(len(first), len(second))
    )


def show(said: Mapping[str, Any], name: str) -> None:
    """Both answers side by side, token by token, and in a sentence where they part."""
    at = parting(said)
    for place, who, title in zip(
        st.columns(2, gap="large"), ("reference", "policy"), ("Reference", badge(name))
    ):
        side = said[who]
        with place:
            verdict = {True: "is right", False: "is wrong", None: "says"}[side["right"]]
            st.markdown(
                f"**{plain(title)}**"
                f" {verdict}{', cut off at the limit' if side['truncated'] else ''}"
            )
            token_view(side, key=f"tokens-{who}", label=f"{title} says {side['text']}", parts=at)
            st.markdown(" ".join(facts(side)))
            token_table(side, key=f"tokens-{who}")
    whole = sum(ratios(said["policy"]))
    same = said["reference"]["tokens"] == said["policy"]["tokens"]
    where = (
        f"Both say the same to `{said['prompt']}`." if same else f"The two part at token {at + 1}."
    )
    gold = f" The gold answer is {plain(said['answer'])}." if said["answer"] else ""
    st.markdown(
        f"{where}{gold} The adapter makes its own answer {abs(whole):.1f} nats "
        f"{'likelier' if whole >= 0 else 'less likely'} than the reference does."
    )
    st.caption(
        "Blue over a solid line: likelier with the adapter. Orange over a dashed line: less likely."
        " Colour is full at 4 nats; a bar marks where the two part."
    )


def facts(side: Mapping[str, Any]) -> list[str]:
    """Of one answer its log-probability under both, and what more draws at the same temperature
    gave.
    """
    found = [
        f"{len(side['tokens'])} tokens, log π {nats(sum(side['policy_logps']))}, log π_ref"
        f" {nats(sum(side['reference_logps']))} nats."
    ]
    if counted := side.get("draws"):
        said = [
            f"{counted[name]} {words}"
            for name, words in (("right", "are right"), ("scratchpads", "think first"))
            if name in counted
        ]
        found += [f"Of {counted['n']} draws {' and '.join(said)}."] if said else []
    return found


def command(run: Summary, problem: Problem, seed: int, temperature: float) -> str:
    """The same on the command line."""
    where = "lab/assets/runs/" + run.name if run.path.parent == RECORDED else f"runs/{run.name}"
    return shlex.join(
        [
            "python",
            "-m",
            "lab",
            "talk",
            where,
            problem.prompt,
            "--seed",
            str(seed),
            "--temperature",
            f"{temperature:g}",
        ]
    )
