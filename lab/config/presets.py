"""Runs worth starting: settings that work, settings that fail, and what to look for in each."""

import re
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Preset:
    """A run worth starting.

    name: what is done, from which the folder of its recorded run is named
    title: the same in a few words, as a card on a page
    method: its method
    shows: sentences about what happens in it
    knobs: the settings that differ from the method's defaults
    """

    name: str
    title: str
    method: str
    shows: str
    knobs: dict[str, Any] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The first of its sentences: what is done in it."""
        return self.shows.partition(". ")[0].removesuffix(".") + "."

    @property
    def run_name(self) -> str:
        """The folder name of its recorded run. A preset without knobs is its method's default run."""
        name = re.sub("[^a-z0-9]+", "-", self.name.lower().replace("β", "beta")).strip("-")
        return name if self.knobs else self.method


RUN_PRESETS: tuple[Preset, ...] = (
    Preset(
        "GRPO with its defaults",
        "GRPO, defaults",
        "grpo",
        "The reward is 1 for the right answer and 0 for any other. Completions with a scratchpad (written working"
        " before the answer) are right more often, so they become more frequent. GRPO strengthens a"
        " habit that the base model already has.",
    ),
    Preset(
        "DPO that collapses",
        "DPO, learning rate × 2, longer",
        "dpo",
        "The learning rate is twice the default and the run is longer. The loss on the training"
        " pairs falls, but gold accuracy first rises and then falls. The fixed pairs do not contain"
        " the mistakes that the policy makes now.",
        {"learning_rate": 1e-3, "steps": 175},
    ),
    Preset(
        "DPO with a larger β",
        "DPO, β = 0.3",
        "dpo",
        "β is 0.3 instead of 0.1. The push of the loss becomes small at smaller margins. In the"
        " recorded run, the policy stays nearer to the reference, and gold accuracy ends higher"
        " than with the default.",
        {"beta": 0.3},
    ),
    Preset(
        "IPO with a small β",
        "IPO, β = 0.01",
        "ipo",
        "β is 0.01 instead of 0.1, so the target of the margin is 1/(2β) = 50 nats instead of 5."
        " The margin does not reach it, so the pull does not end. The KL grows to two or three"
        " times that of the default, and gold accuracy stays below it.",
        {"beta": 0.01, "steps": 200},
    ),
    Preset(
        "IPO with a margin per token",
        "IPO, margin per token",
        "ipo",
        "IPO with token_mean asks for a margin of 1/(2β) = 5 nats at every token. The margin stays"
        " far below this target, so the pull does not end. Gold accuracy and the format of the"
        " completions fall.",
        {"ipo_variant": "token_mean", "learning_rate": 1e-3},
    ),
    Preset(
        "Groups of two",
        "GRPO, G = 2",
        "grpo",
        "With G = 2 an advantage only says which of two completions is better. Many groups are"
        " dead: both are right or both are wrong. With the same number of completions, the recorded"
        " run ends with about the gold accuracy of that with G = 8, one seed each (compare arXiv"
        " 2510.00977).",
        {"group_size": 2},
    ),
    Preset(
        "All rewards equal",
        "GRPO, reward always 1",
        "grpo",
        "The reward is 1 for every completion. So every group is dead: all advantages and the"
        " gradient are exactly 0, and nothing changes.",
        {"reward": "constant"},
    ),
    Preset(
        "Reward hacked",
        "GRPO, reward = length",
        "grpo",
        "The reward is the length of the completion. For about ten updates gold accuracy rises too,"
        " because a scratchpad is long. Then gold accuracy and format fall to 0. The policy exploits"
        " the reward: it does what is paid, not what was meant.",
        {"reward": "length"},
    ),
    Preset(
        "Rewards at random",
        "GRPO, random reward",
        "grpo",
        "The reward is 0 or 1 at random. This run is a control: every change in it comes from"
        " chance.",
        {"reward": "random"},
    ),
    Preset(
        "Noisy labels",
        "DPO, 33 % wrong labels",
        "dpo",
        "In a third of the pairs, the wrong answer is marked as chosen. These pairs push against the"
        " others, so the margin grows slowly and the loss falls little. Gold accuracy still rises,"
        " but later than with clean labels.",
        {"label_noise": 0.33},
    ),
    Preset(
        "DPO on 32 pairs",
        "DPO, 32 pairs",
        "dpo",
        "The run sees the same 32 pairs again and again. Pair accuracy reaches 1 and the loss falls,"
        " but gold accuracy ends lower than it began. The policy has learnt the pairs by heart.",
        {"pairs": 32},
    ),
)
