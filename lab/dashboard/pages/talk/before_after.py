"""Section of page Talk: what a real language model wrote to fixed prompts, before training and
after it with each method.
"""

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import Any

import streamlit as st

from lab.analysis.recorded_results import recorded_result
from lab.dashboard.components.layout import source_caption, url_choice
from lab.dashboard.components.text import method_dot
from lab.dashboard.state.arithmetic_text import restatement_sentence
from lab.figures.arithmetic import REWARD_TITLES
from lab.figures.palette import METHOD_NAMES

RESULT_OF_TOPIC = {"sentiment": "frontier", "arithmetic": "arithmetic"}
"""What is asked, as the address says it, and the recorded result that holds the answers."""
TOPIC_LABELS = {"sentiment": "The opening of a film review", "arithmetic": "A sum"}
VERDICTS_OF_TOPIC = {"sentiment": ("positive", "not positive"), "arithmetic": ("right", "wrong")}
CRITERION_OF_TOPIC = {"sentiment": "VADER calls positive", "arithmetic": "end in the right number"}
MIN_SHARED_LENGTH = (
    12  # characters; a shorter beginning or end that all prompts share is part of what they say
)

CompletionsByPolicy = Mapping[str, Sequence[Mapping[str, Any]]]


def before_after() -> None:
    """One prompt at a time, and what each policy made of it; nothing where none is recorded."""
    tables = {
        name: table
        for name, result in RESULT_OF_TOPIC.items()
        if "shown" in (table := recorded_result(result) or {})
    }
    if not tables:
        return
    st.subheader("What a real language model wrote, before and after", anchor=False)
    asked = url_choice("wrote", tables, next(iter(tables)))
    left, right, last = st.columns([2, 4, 1], vertical_alignment="bottom")
    left.segmented_control(
        "SmolLM2-135M goes on from",
        list(tables),
        format_func=TOPIC_LABELS.get,
        key="wrote",
        required=True,
    )
    shown: CompletionsByPolicy = (
        rename_policies(tables[asked]["shown"]) if asked == "arithmetic" else tables[asked]["shown"]
    )
    places = [str(place) for place in range(1, len(shown["base"]) + 1)]
    if st.session_state.get("opening") not in (None, *places):
        del st.session_state["opening"]
    place = int(url_choice("opening", places, places[0])) - 1
    right.selectbox(
        f"One of {len(places)} fixed prompts",
        places,
        key="opening",
        format_func=dict(zip(places, prompt_labels(shown["base"]))).get,
    )
    last.button("Next", key="next-opening", width="stretch", on_click=next_prompt, args=(places,))
    heading_and_text("The prompt", shown["base"][place]["prompt"])
    for policy in shown:
        said = shown[policy][place]
        heading_and_text(
            f"{policy_title(policy)}, {VERDICTS_OF_TOPIC[asked][0 if said['gold'] else 1]}",
            said["completion"].strip() or "(nothing)",
        )
    st.markdown(success_counts(shown, asked))
    if asked == "arithmetic":
        st.markdown(restatement_sentence(shown["base"], shown["math"]))
    source_caption(tables[asked], training_setting(asked, tables[asked]))


def rename_policies(shown: CompletionsByPolicy) -> CompletionsByPolicy:
    """What was written in the arithmetic experiment by its arms: there "grpo" is the one with
    checked answers, beside others of GRPO.
    """
    return {"rollouts" if policy == "grpo" else policy: texts for policy, texts in shown.items()}


def next_prompt(places: Sequence[str]) -> None:
    """Callback: the prompt after this one, the first after the last."""
    now = places.index(st.session_state["opening"])
    st.session_state["opening"] = places[(now + 1) % len(places)]


def prompt_labels(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """The prompts in a line each, numbered, without the instruction that all of them begin or end
    with.
    """
    prompts = [" ".join(one["prompt"].split()) for one in asked]
    begin, end = (
        len(shared) if len(shared := commonprefix(ends)) >= MIN_SHARED_LENGTH else 0
        for ends in (prompts, [prompt[::-1] for prompt in prompts])
    )
    return [
        f"{place}: {prompt[begin : len(prompt) - end].strip() or prompt}"
        for place, prompt in enumerate(prompts, 1)
    ]


def policy_name(policy: str) -> str:
    """A policy's name in words: the base, GRPO with one of three rewards, or the method that
    trained it.
    """
    return (
        "before training"
        if policy == "base"
        else f"GRPO, {REWARD_TITLES[policy]}"
        if policy in REWARD_TITLES
        else METHOD_NAMES[policy]
    )


def policy_title(policy: str) -> str:
    """The name behind a dot in the colour of its method; the base is the reference."""
    return f"{method_dot('sft' if policy == 'base' else 'grpo' if policy in REWARD_TITLES else policy)} {policy_name(policy)}"


def heading_and_text(head: str, text: str) -> None:
    """A head in Markdown, and beside it a text, letter by letter as it is."""
    left, right = st.columns([1, 4], gap="xsmall")
    left.markdown(head)
    right.text(text)


def success_counts(shown: CompletionsByPolicy, asked: str) -> str:
    """How many of the texts each policy has that are positive, or right."""
    right = [
        f"{sum(bool(said['gold']) for said in texts)} {policy_name(policy) if policy == 'base' else f'with {policy_name(policy)}'}"
        for policy, texts in shown.items()
    ]
    return f"Of the {len(shown['base'])} texts to these prompts {CRITERION_OF_TOPIC[asked]}: {'; '.join(right)}."


def training_setting(asked: str, table: Mapping[str, Any]) -> str:
    """How the policies were trained that wrote this."""
    plan = table["plan"]
    return (
        f"Seed 0, β = {plan['shown_beta']:g}, one text each."
        if asked == "sentiment"
        else f"Seed 0, G = {plan['control']}, one text each."
    )
