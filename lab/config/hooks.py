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
