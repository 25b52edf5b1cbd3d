"""The places of a training loop where a function of the learner can stand in for the lab's."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hook:
    """A function of a method that a caller may replace: the keyword of `train` in a notebook, the
    arguments in order, and the value that it returns, in words.
    """

    name: str
    arguments: tuple[str, ...]
    returns: str


PAIR_LOSS = Hook(
    "loss",
    (
        "chosen_logps",
        "rejected_logps",
        "reference_chosen_logps",
        "reference_rejected_logps",
        "beta",
    ),
    "(B,) losses, one for each pair",
)
"""The loss of DPO and IPO."""

REWARD = Hook("reward", ("completion", "answer"), "a number for one completion")
"""The reward of the methods that sample."""

COMPLETION_MASK = Hook(
    "completion_mask",
    ("ids", "prompt_lengths", "end_id"),
    "a (B, T) mask of the completions' tokens",
)
SEQUENCE_LOGPS = Hook(
    "sequence_logps",
    ("token_logps", "completion_mask"),
    "(B,) log-probabilities, one for each completion",
)
"""The mask and the sum from which DPO makes the log-probability of a completion."""

SURROGATE = Hook(
    "surrogate",
    ("token_logps", "old_token_logps", "advantages", "epsilon"),
    "(B, T) losses, one for each token",
)
"""The clipped surrogate of GRPO and PPO."""

KL_ESTIMATE = Hook(
    "kl_estimate",
    ("token_logps", "reference_token_logps", "estimator"),
    "(B, T) estimates, one for each token",
)
"""GRPO's estimate of the KL, to which the loss adds β times it."""
