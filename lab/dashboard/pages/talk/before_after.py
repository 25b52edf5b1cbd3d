"""Section of page Talk: the completions of a real language model to fixed prompts, before training
and after training with each method.
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
"""By topic, as it stands in the URL, the recorded result that holds the completions."""
TOPIC_LABELS = {"sentiment": "Film reviews", "arithmetic": "Sums"}
VERDICTS_OF_TOPIC = {"sentiment": ("positive", "not positive"), "arithmetic": ("right", "wrong")}
CRITERION_OF_TOPIC = {
    "sentiment": "positive by VADER, a program that adds up positive and negative words",
    "arithmetic": "right (their last number is the answer)",
}
# Characters. A label leaves out a beginning or end that all prompts share, if it is this long.
MIN_SHARED_LENGTH = 12

CompletionsByPolicy = Mapping[str, Sequence[Mapping[str, Any]]]


def before_after() -> None:
    """Show what each policy wrote to one prompt at a time; nothing if no texts are recorded."""
    results = {
        topic: result
        for topic, name in RESULT_OF_TOPIC.items()
        if "shown" in (result := recorded_result(name) or {})
    }
    if not results:
        return
    st.subheader("Texts of a real language model before and after training", anchor=False)
    topic = url_choice("wrote", results, next(iter(results)))
    left, right, last = st.columns([2, 4, 1], vertical_alignment="bottom")
    left.segmented_control(
        "Task of SmolLM2-135M",
        list(results),
        format_func=TOPIC_LABELS.__getitem__,
        key="wrote",
        required=True,
    )
    completions: CompletionsByPolicy = results[topic]["shown"]
    if topic == "arithmetic":
        completions = rename_policies(completions)
    numbers = [str(number) for number in range(1, len(completions["base"]) + 1)]
    if st.session_state.get("opening") not in (None, *numbers):
        del st.session_state["opening"]
    at = int(url_choice("opening", numbers, numbers[0])) - 1
    right.selectbox(
        f"Prompt, one of {len(numbers)}",
        numbers,
        key="opening",
        format_func=dict(zip(numbers, prompt_labels(completions["base"]))).__getitem__,
    )
    last.button("Next", key="next-opening", width="stretch", on_click=next_prompt, args=(numbers,))
    heading_and_text("Prompt", completions["base"][at]["prompt"])
    for policy, texts in completions.items():
        verdict = VERDICTS_OF_TOPIC[topic][0 if texts[at]["gold"] else 1]
        heading_and_text(
            f"{policy_title(policy)}: {verdict}", texts[at]["completion"].strip() or "(no text)"
        )
    st.markdown(success_counts(completions, topic))
    if topic == "arithmetic":
        st.markdown(restatement_sentence(completions["base"], completions["math"]))
    source_caption(results[topic], training_setting(topic, results[topic]))


def rename_policies(completions: CompletionsByPolicy) -> CompletionsByPolicy:
    """The completions of the arithmetic experiment under the names of its arms. Its record calls
    the arm with checked answers "grpo", although all its arms are GRPO.
    """
    return {
        "rollouts" if policy == "grpo" else policy: texts for policy, texts in completions.items()
    }


def next_prompt(numbers: Sequence[str]) -> None:
    """Callback: pick the next prompt; after the last one the first."""
    now = numbers.index(st.session_state["opening"])
    st.session_state["opening"] = numbers[(now + 1) % len(numbers)]


def prompt_labels(completions: Sequence[Mapping[str, Any]]) -> list[str]:
    """One numbered line per prompt, without the instruction that all prompts begin or end with."""
    prompts = [" ".join(completion["prompt"].split()) for completion in completions]
    begin, end = (
        len(shared) if len(shared := commonprefix(texts)) >= MIN_SHARED_LENGTH else 0
        for texts in (prompts, [prompt[::-1] for prompt in prompts])
    )
    return [
        f"{number}: {prompt[begin : len(prompt) - end].strip() or prompt}"
        for number, prompt in enumerate(prompts, 1)
    ]


def policy_name(policy: str) -> str:
    """A policy's name in words: the untrained base, GRPO with its reward, or the method that
    trained the policy.
    """
    return (
        "before training"
        if policy == "base"
        else f"GRPO, {REWARD_TITLES[policy]}"
        if policy in REWARD_TITLES
        else METHOD_NAMES[policy]
    )


def policy_title(policy: str) -> str:
    """A policy's name after a dot in the colour of its method, as Markdown."""
    return (
        f"{method_dot('sft' if policy == 'base' else 'grpo' if policy in REWARD_TITLES else policy)}"
        f" {policy_name(policy)}"
    )


def heading_and_text(heading: str, text: str) -> None:
    """Show a heading in Markdown and, beside it, a text literally."""
    left, right = st.columns([1, 4], gap="xsmall")
    left.markdown(heading)
    right.text(text)


def success_counts(completions: CompletionsByPolicy, topic: str) -> str:
    """How many of each policy's completions are positive, or right."""
    right = [
        f"{sum(bool(text['gold']) for text in texts)}"
        f" {policy_name(policy) if policy == 'base' else f'with {policy_name(policy)}'}"
        for policy, texts in completions.items()
    ]
    return (
        f"Each policy wrote {len(completions['base'])} texts. The number of them that are"
        f" {CRITERION_OF_TOPIC[topic]}: {'; '.join(right)}."
    )


def training_setting(topic: str, table: Mapping[str, Any]) -> str:
    """The seed and the setting with which the policies of a topic were trained."""
    plan = table["plan"]
    return (
        f"Seed 0, β = {plan['shown_beta']:g}, one text for each prompt."
        if topic == "sentiment"
        else f"Seed 0, G = {plan['control']}, one text for each prompt."
    )
