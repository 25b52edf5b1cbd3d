"""Runs worth starting: settings that work, settings that fail, and what to look for in each."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A run under a name: the method, the knobs that differ from its defaults, and what the run is
    about to show.
    """

    name: str
    method: str
    shows: str
    knobs: dict[str, Any] = field(default_factory=dict)


RUN_PRESETS: tuple[Preset, ...] = (
    Preset(
        "Learns to think",
        "grpo",
        "The rule rewards nothing but the right answer. Scratchpads spread because they are right"
        " more often: GRPO amplifies a habit that the base already has.",
    ),
    Preset(
        "DPO that collapses",
        "dpo",
        "The learning rate is twice the default and the run is longer. The loss on the pairs falls"
        " and stays low while gold accuracy turns down: the fixed pairs no longer tell anything"
        " about what the policy samples.",
        {"learning_rate": 1e-3, "steps": 175},
    ),
    Preset(
        "A stronger pull",
        "dpo",
        "β 0.3 instead of 0.1. The margin saturates earlier, so the policy stays nearer to the"
        " reference and keeps its accuracy for longer.",
        {"beta": 0.3},
    ),
    Preset(
        "β too small",
        "ipo",
        "β 0.01 instead of 0.1 draws the margin to 1/(2β) = 50 nats instead of 5. It does not get"
        " there, so the pull does not end: the KL grows to two or three times that of the default,"
        " and gold accuracy stays well below what the default reaches.",
        {"beta": 0.01, "steps": 200},
    ),
    Preset(
        "Out of reach",
        "ipo",
        "IPO per token asks for a margin of 1/(2β) = 5 nats in every token. No policy gets there,"
        " so the pull never ends and the model breaks.",
        {"ipo_variant": "token_mean", "learning_rate": 1e-3},
    ),
    Preset(
        "Groups of two",
        "grpo",
        "With G = 2 an advantage says only who won, and many groups are dead: both right or both"
        " wrong. At the same number of completions it still learns about as fast as G = 8 (arXiv"
        " 2510.00977).",
        {"group_size": 2},
    ),
    Preset(
        "All rewards equal",
        "grpo",
        "The reward is 1 for everything. Every group is dead, the gradient is exactly zero and"
        " nothing changes, however long it runs.",
        {"reward": "constant"},
    ),
    Preset(
        "Reward hacked",
        "grpo",
        "The reward is the length of the completion. For some ten updates gold accuracy rises with"
        " it, since a scratchpad is long; then it falls to 0, and so does format: the optimizer"
        " does what is paid, not what was meant.",
        {"reward": "length"},
    ),
    Preset(
        "Coin flips",
        "grpo",
        "The reward is a coin toss: the control arm. What moves here moves by chance, and shows how"
        " far chance carries.",
        {"reward": "random"},
    ),
    Preset(
        "Noisy labels",
        "dpo",
        "A third of the pairs prefer the wrong answer. They pull against the others, so the margin"
        " grows slowly and the loss hardly falls; gold accuracy still rises, later than with clean"
        " labels.",
        {"label_noise": 0.33},
    ),
    Preset(
        "Tiny data",
        "dpo",
        "32 pairs, seen again and again. Pair accuracy reaches 1 at once and the loss goes towards"
        " 0, while gold accuracy ends no better than it began: the pairs are known by heart.",
        {"pairs": 32},
    ),
)
