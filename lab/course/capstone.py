"""The capstone: arms of runs compared seed by seed, completions that exploit a reward, and the part of
the rubric that the runs themselves show.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.analysis.comparison_words import Judgement, judge, paired_difference
from lab.analysis.statistics import SHARE, interval
from lab.errors import LabError
from lab.runs.folder import RunFolder
from lab.runs.records import columns_of
from lab.tasks.prompt_file import read_problems
from lab.tasks.registry import TASKS, load_task
from lab.training.own_functions import noted_functions

GOLD = "gold/accuracy"
FEWEST_PROMPTS, FEWEST_HELD_OUT, FEWEST_SEEDS = 200, 30, 3
Arms = Mapping[str, Sequence[RunFolder]]
Reward = Callable[[str, str], float]


@dataclass(frozen=True)
class Comparison:
    """Two arms on one measure: the last value of each seed, and the judged difference, second minus first."""

    values: dict[str, list[float]]
    judgement: Judgement

    def text(self) -> str:
        """Return a line for each arm and one for the difference."""
        lines = [
            f"{name:20} {interval(values).text(2, SHARE)} over {len(values)} seeds"
            for name, values in self.values.items()
        ]
        first, second = self.values
        return "\n".join([*lines, f"{second} minus {first}: {self.judgement.text()}"])


def compare_arms(arms: Arms, measure: str = GOLD) -> Comparison:
    """Return the comparison of two arms, each a run for every seed, in the same order of seeds.

    Raises `LabError` for another number of arms, and when their seeds differ.
    """
    seeds = {name: [run.config.seed for run in runs] for name, runs in arms.items()}
    first, *others = seeds.values()
    if len(arms) != 2 or others != [first] or len(set(first)) != len(first):
        raise LabError(
            f"arms have the seeds {seeds}, but take two arms with the same seeds, once each."
        )
    values = {
        name: [columns_of(run.history())[measure][1][-1] for run in runs]
        for name, runs in arms.items()
    }
    before, after = values.values()
    return Comparison(values, judge([paired_difference(after, before)])[0])


def exploits(run: RunFolder, reward: Reward, quantile: float = 0.75) -> list[dict[str, Any]]:
    """Return the completions of the last evaluation that are wrong by the gold rule, and whose `reward`
    (of completion and right answer) is among the highest: not below the `quantile` of this evaluation's
    rewards, and above the lowest. The best paid stand first, each with its reward.
    """
    rows = [row for row in run.samples() if row.get("held_out")]
    last = [
        row | {"reward": float(reward(row["completion"], row["answer"]))}
        for row in rows
        if row["step"] == rows[-1]["step"]
    ]
    rewards = sorted(row["reward"] for row in last)
    bar = rewards[int(quantile * (len(rewards) - 1))] if rewards else 0.0
    found = [row for row in last if not row["gold"] and row["reward"] >= bar > rewards[0]]
    return sorted(found, key=lambda row: -row["reward"])


def rubric(arms: Arms, hack: Sequence[Mapping[str, Any]]) -> list[tuple[str, bool, str]]:
    """Return for each criterion that runs can show: its name, whether it is met, and what was found.

    `arms` are the arm with the first reward and the arm with the repaired one; `hack` are completions
    that exploit the first.
    """
    (first, runs), (second, _) = arms.items()
    config = runs[0].config
    own_task = config.task not in TASKS
    number = len(read_problems(config.task)) if own_task else 0
    held_out = len(load_task(config.task).held_out(number)) if own_task else 0
    rewards = {noted_functions(run).get("reward", "") for some in arms.values() for run in some}
    comparison = compare_arms(arms)
    seeds = len(runs)
    return [
        (
            "own task",
            own_task and number >= FEWEST_PROMPTS and held_out >= FEWEST_HELD_OUT,
            f"{number} prompts of your own, {held_out} of them held out",
        ),
        ("own rewards", len(rewards - {""}) >= 2, f"rewards: {', '.join(sorted(rewards - {''}))}"),
        (
            "comparison",
            seeds >= FEWEST_SEEDS,
            f"{seeds} seeds of {first} and {second}: {comparison.judgement.text()}",
        ),
        ("a hack found", bool(hack), f"{len(hack)} wrong completions with a high reward"),
        (
            "the repair holds",
            comparison.judgement.word == "better",
            f"gold accuracy of {second} minus {first}: {comparison.judgement.text()}",
        ),
    ]
