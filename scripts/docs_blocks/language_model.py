"""Blocks on SmolLM2-135M: film reviews (sentiment) and sums (arithmetic)."""

import re

from docs_blocks.markdown import markdown_table, percent, told, with_source
from lab.analysis.recorded_results import load_result
from lab.analysis.statistics import NOT_NEGATIVE, SHARE, possible_range
from lab.dashboard.state.arithmetic_text import only_restates_question
from lab.experiments import arithmetic, frontier
from lab.experiments.comparison_report import comparison_table
from lab.figures.palette import METHOD_NAMES
from lab.tasks.rewards.answer_matching import same_number

NEGATIVE = r"(?<!\d )(?<![\d)])[-−]\d"  # A minus behind a number takes away.
KINDS = ("sum", "difference", "negative difference")


def frontier_table() -> str:
    """Return gold reward at KL by method and β."""
    table = load_result("frontier")
    base = table["base"]
    text = (
        f"{frontier.reward_and_kl_table(table)}\nThe base has {base['reward']:.2f}."
        f" {table['evaluation'].capitalize()}."
    )
    return with_source(text, table, "frontier")


def frontier_repetition() -> str:
    """Return gold reward, KL and repetition of every method at the smallest β."""
    table = load_result("frontier")
    beta = min(table["plan"]["betas"])
    base = table["base"]
    rows = [
        ["base", f"{base['reward']:.2f}", "0.0", percent(base["repetition"]), "–"],
        *(
            [
                METHOD_NAMES[row["method"]],
                told(row["end"]["reward"], 2, possible_range("reward")),
                told(row["end"]["kl"], 1, NOT_NEGATIVE),
                percent(row["end"]["repetition"]["mean"]),
                percent(row["end"]["distinct_2"]["mean"]),
            ]
            for row in table["rows"]
            if row["beta"] == beta
        ),
    ]
    rows[0][-1] = percent(base["distinct_2"])
    heads = [f"β = {beta:g}", "gold reward", "KL, nats", "repeated bigrams", "distinct bigrams"]
    return with_source(markdown_table(heads, rows), table, "frontier")


def frontier_setup() -> str:
    """Return the settings of the frontier."""
    table = load_result("frontier")
    plan, pairs = table["plan"], table["pairs"]
    rates = {f"{rate:g}" for rate in plan["rates"].values()}
    updates = ", ".join(
        f"{METHOD_NAMES[method]} {count}" for method, count in plan["updates"].items()
    )
    rows = [
        ["learning rate", ", ".join(sorted(rates)) + " for all"],
        ["updates", updates],
        ["preference pairs", f"{pairs['pairs']:,}, `{pairs['command']}`"],
        ["longest completion", f"{plan['tokens']} tokens"],
    ]
    return markdown_table(["setting", ""], rows)


def compare() -> str:
    """Return all methods on film reviews at equal tokens."""
    table = load_result("compare-smollm2")
    return with_source(
        f"{comparison_table(table)}\n{table['evaluation'].capitalize()}.", table, "compare-smollm2"
    )


def compare_time() -> str:
    """Return PPO's time divided by that of DPO and GRPO, at equal tokens."""
    table = load_result("compare-smollm2")
    seconds = {row["method"]: row["seconds"] for row in table["methods"]}
    rows = [
        [
            f"PPO / {METHOD_NAMES[method]}",
            f"{seconds['ppo']['mean'] / seconds[method]['mean']:.0f} ×",
            f"{told(seconds['ppo'], 0, NOT_NEGATIVE)} / {told(seconds[method], 0, NOT_NEGATIVE)}",
        ]
        for method in ("dpo", "grpo")
    ]
    return markdown_table(["ratio of training times", "means", "seconds"], rows)


def arithmetic_results() -> str:
    """Return every arm of the experiment on sums."""
    table = load_result("arithmetic")
    text = (
        f"{arithmetic.arithmetic_table(table)}\nBefore training the base is right"
        f" {percent(table['base']['gold/accuracy'])} of the time."
        f" {table['evaluation'].capitalize()}."
    )
    return with_source(text, table, "arithmetic")


def _answer(prompt: str) -> int:
    first, sign, second = re.search(r"(-?\d+) ([+-]) (-?\d+) =", prompt).groups()
    return int(first) + int(sign + "1") * int(second)


def _kind(prompt: str) -> str:
    return "sum" if "+" in prompt else KINDS[2] if _answer(prompt) < 0 else "difference"


def arithmetic_texts() -> str:
    """Return how many of the recorded completions are right, by kind, and how many restate the sum."""
    table = load_result("arithmetic")
    titles = {
        "base": "base",
        "grpo": "checked answers",
        "math": "checked values",
        "random": "random rewards",
    }
    rows = []
    for who, texts in table["shown"].items():
        right = [same_number(str(_answer(one["prompt"])), one["completion"]) for one in texts]
        cells = []
        for kind in KINDS:
            solved = [ok for one, ok in zip(texts, right) if _kind(one["prompt"]) == kind]
            cells.append(f"{sum(solved)} of {len(solved)}")
        restated = [not ok and only_restates_question(one) for one, ok in zip(texts, right)]
        negative = [bool(re.search(NEGATIVE, one["completion"])) for one in texts]
        rows.append([titles[who], *cells, str(sum(restated)), str(sum(negative))])
    heads = [
        "recorded completions of seed 0",
        *(f"right: {kind}s" for kind in KINDS),
        "only restate the sum",
        "write a negative number",
    ]
    return markdown_table(heads, rows)


def arithmetic_rewards() -> str:
    """Return gold accuracy, reward paid and KL for the three rewards, at one group size."""
    table = load_result("arithmetic")
    titles = {"rollouts": "checked answer", "math": "checked value", "random": "random"}
    rows = [
        [
            titles[row["equal"]],
            f"{row['reward']['mean'][0]:.2f} → {row['reward']['mean'][-1]:.2f}",
            f"{table['base']['gold/accuracy']:.2f} → {told(row['end']['gold/accuracy'], 2, SHARE)}",
            told(row["end"]["kl"], 1, NOT_NEGATIVE),
        ]
        for row in table["rows"]
        if row["equal"] in titles and row["group_size"] == table["plan"]["control"]
    ]
    heads = [f"reward, G = {table['plan']['control']}", "reward paid", "gold accuracy", "KL, nats"]
    return markdown_table(heads, rows)


def arithmetic_groups() -> str:
    """Return gold accuracy and live groups by group size, at equal rollouts and at equal prompts."""
    table = load_result("arithmetic")
    rows = []
    for row in table["rows"]:
        if row["equal"] in ("rollouts", "steps"):
            prompts = row["batch_size"] // row["group_size"]
            dead = row["dead"]["mean"]
            rows.append(
                [
                    "equal completions" if row["equal"] == "rollouts" else "equal prompts",
                    str(row["group_size"]),
                    str(prompts),
                    told(row["end"]["gold/accuracy"], 2, SHARE),
                    f"{percent(dead[0])} → {percent(dead[-1])}",
                    f"{prompts * (1 - dead[0]):.0f}",
                    f"{row['end']['tokens']['mean'] / 1000:.0f} k",
                ]
            )
    heads = [
        "an update has",
        "G",
        "prompts",
        "gold accuracy",
        "dead groups, first → last",
        "live groups at first",
        "tokens",
    ]
    return markdown_table(heads, rows)


BLOCKS = {
    "smollm2-frontier": frontier_table,
    "smollm2-frontier-setup": frontier_setup,
    "smollm2-repetition": frontier_repetition,
    "smollm2-compare": compare,
    "smollm2-time": compare_time,
    "smollm2-arithmetic": arithmetic_results,
    "smollm2-arithmetic-rewards": arithmetic_rewards,
    "smollm2-arithmetic-texts": arithmetic_texts,
    "smollm2-arithmetic-groups": arithmetic_groups,
}
