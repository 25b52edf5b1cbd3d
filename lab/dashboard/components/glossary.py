"""The words of the lab, each explained in plain sentences, for the list that a page opens with."""

from collections.abc import Sequence

import streamlit as st

WORDS = {
    "adapter": (
        "Small extra matrices (LoRA) that training changes. The weights of the base model stay as"
        " they are."
    ),
    "advantage": (
        "How much better a completion, or a token, was than expected. A positive advantage makes it"
        " more likely, a negative one less likely."
    ),
    "agreement": (
        "The share of preference pairs in which a model prefers the same completion as a person (or a"
        " rule). 0.5 is chance."
    ),
    "base model": "The model before training. In this lab it is also the reference.",
    "chosen and rejected": (
        "The two completions of a preference pair. Somebody preferred the chosen one to the"
        " rejected one."
    ),
    "clip": (
        "A limit on one update: where the probability of a token has already changed by more than a"
        " factor of 1 ± ε in the wanted direction, it gets no further push."
    ),
    "completion": "The text that a model writes after a prompt.",
    "critic": "A model that predicts the reward before each token. PPO trains it beside the policy.",
    "dead group": (
        "A group whose rewards are all equal. Every advantage is then 0, and the group teaches"
        " nothing."
    ),
    "entropy": (
        "How widely the policy spreads its probability over the next token, in nats. Near 0 it"
        " writes almost the same text every time."
    ),
    "equal tokens": (
        "Every method has used the same number of completion tokens. In the tuned comparison, tokens"
        " that it sampled and tokens that it trained on both count. In the older comparison, which"
        " measured the times, only tokens that it trained on count."
    ),
    "fork": (
        "A new run that goes on from a checkpoint of another run, with another setting. The other run"
        " stays as it is."
    ),
    "gold accuracy": (
        "The share of held-out prompts that get the right answer. The task knows these answers."
    ),
    "gold reward": "The score that the task itself gives a completion, measured on held-out prompts.",
    "group": "The G completions that GRPO samples for one prompt.",
    "held-out": "Held-out prompts (or rows of data) are never used for training.",
    "implicit reward": (
        "The log-ratio of a completion, which DPO, IPO and KTO use in place of a reward model: what"
        " training has made more likely has the higher implicit reward."
    ),
    "interval": (
        "The 95 % interval of a mean over seeds. The number behind ± is half of its width. Where it"
        " would reach beyond the possible values, such as an accuracy above 1, it is cut there and"
        " written with both ends. Nothing is lost, because the true mean cannot lie beyond. Two"
        " results are told apart only where the interval of their difference leaves out 0; of several"
        " comparisons, only where this holds after a correction for their number (Holm)."
    ),
    "kappa": (
        "Cohen's κ: the agreement of two people beyond chance. 1 means that they always judge alike,"
        " 0 that they agree as often as chance does."
    ),
    "KL": (
        "How far the policy has moved from the reference: the mean of log π − log π_ref over the"
        " policy's own completions, in nats. It is 0 when both models are equal."
    ),
    "log-ratio": (
        "log π − log π_ref: how much more likely the policy makes a text, or a token, than the"
        " reference does."
    ),
    "loss": "The number that training lowers. Each method has its own formula for it.",
    "margin": (
        "h, a number of each pair: the log-ratio of the chosen completion minus the log-ratio of"
        " the rejected one."
    ),
    "nat": (
        "The unit of log-probabilities with natural logarithms. 1 nat more means e ≈ 2.7 times as"
        " likely."
    ),
    "online and offline": (
        "An online method trains on completions that the present policy has just sampled. An"
        " offline method trains on a fixed data set."
    ),
    "policy": "The model that is trained. Formulas write it π.",
    "prompt": "The text that a model is given and goes on from. Formulas write it x.",
    "proxy reward": (
        "The score of a reward model. It stands in for the truth, and it can be wrong where the"
        " truth is known."
    ),
    "push": (
        "−∂L/∂h, the slope of the loss L: how hard gradient descent pushes the margin of a pair up."
    ),
    "reference": "The model before training. It never changes. Formulas write it π_ref.",
    "reference point": (
        "z, KTO's estimate of how far the policy has moved on average. A good completion should lie"
        " above it, a bad one below."
    ),
    "reward": "The score of a completion, from a rule, a reward model or a person. Formulas write it r.",
    "reward model": "A model that learns from preference pairs to give a completion a score.",
    "RLHF": (
        "Reinforcement learning from human feedback: first a reward model learns from pairs, then"
        " PPO trains the policy on its scores."
    ),
    "rollout": "The completions that the policy samples for one round of training.",
    "rule": "A small program that scores a completion: 1 for the right answer, 0 for any other text.",
    "scratchpad": "Working between `<think>` and `</think>` that a completion shows before its answer.",
    "seed": (
        "The number that fixes every random choice of a run. Runs that differ only in their seed"
        " show how much is chance."
    ),
    "SFT": "Supervised fine-tuning: it raises the probability of the chosen completions.",
    "std": ("The standard deviation: how widely the numbers of a list lie around their mean."),
    "update": "One change of the weights by the optimizer. A run counts its updates as steps.",
    "VADER": (
        "A program that looks up the words of a text in a list and adds up how positive they are."
        " Its score lies between −1 and 1."
    ),
    "Z": (
        "The sum over all completions that makes the probabilities of a policy add up to 1. Nobody can"
        " compute it for a language model."
    ),
    "β": (
        "The price of distance from the reference. At the optimum a larger β keeps the policy nearer to"
        " the reference; in the DPO loss it multiplies the margin, so the loss is steeper."
    ),
    "σ": "The sigmoid, 1/(1 + e^−x): it turns any number into a probability between 0 and 1.",
}
"""By word, its explanation as Markdown."""


def words_list(words: Sequence[str]) -> str:
    """Each of `words`, which are keys of `WORDS`, with its explanation, as a Markdown list."""
    return "\n".join(f"- **{word}**: {WORDS[word]}" for word in words)


def words_on_page(words: Sequence[str]) -> None:
    """Show a small button that opens a list: each of `words`, which are keys of `WORDS`, explained."""
    with st.popover("Words on this page", type="tertiary", icon=":material/menu_book:"):
        st.markdown(words_list(words))
