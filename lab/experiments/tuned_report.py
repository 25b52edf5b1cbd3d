"""The table and the report of the comparison of tuned methods."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any

from lab.analysis.comparison_words import Difference, judge
from lab.analysis.crossed_design import Scores, crossed_difference, crossed_mean
from lab.analysis.statistics import Interval, interval
from lab.analysis.tuned_view import VIEW_TITLES
from lab.experiments.tuned_plan import HALTON_BASES, TunedArm, TunedPlan, radical_inverse

SETTING_WORDS = {
    "learning_rate": "learning rate",
    "beta": "β",
    "group_size": "G",
    "updates_per_rollout": "updates on a rollout",
    "critic_learning_rate": "critic's learning rate",
}
SEED_MEASURES = ("kl", "completions/mean_length", "updates", "trained", "sampled", "seconds")
"""Measures with an interval over seeds alone."""
Rows = Mapping[str, Mapping[str, Any]]


def tabulate_tuned(
    plan: TunedPlan, log: Rows, chosen: dict[str, dict[str, Any]], seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the settings that were chosen, and for every view the arms with intervals and the word
    for every two arms.
    """
    base = scores_of(plan, log, "base-test", seeds)
    return {
        "base": {"gold/accuracy": as_interval(crossed_mean(base))},
        "titles": {arm.name: arm.title for arm in plan.arms},
        "chosen": chosen,
        "rows": [
            view_row(plan, log, view, arm, done)
            for view in VIEW_TITLES
            for arm, done in finished_arms(plan, log, view, seeds, chosen)
        ],
        "comparisons": {view: compare_arms(plan, log, view, seeds, chosen) for view in VIEW_TITLES},
    }


def finished_arms(
    plan: TunedPlan, log: Rows, view: str, seeds: Sequence[int], chosen: Mapping[str, Any]
) -> list[tuple[TunedArm, list[int]]]:
    """Return the arms of a view with the seeds that are done with the chosen settings, at least two."""

    def is_done(arm: TunedArm, seed: int) -> bool:
        settings = chosen.get(arm.name, {}).get(view, {"settings": {}})["settings"]
        row = log.get(f"{view}-{arm.name}-{seed}")
        return row is not None and row.get("settings", settings) == settings

    done = [(arm, [seed for seed in seeds if is_done(arm, seed)]) for arm in plan.arms]
    return [(arm, finished) for arm, finished in done if len(finished) > 1]


def scores_of(plan: TunedPlan, log: Rows, prefix: str, seeds: Sequence[int]) -> Scores:
    """Return for every seed and test prompt the share of right completions."""
    return [
        [int(digit) / plan.samples for digit in log[f"{prefix}-{seed}"]["right"]] for seed in seeds
    ]


def as_interval(difference: Difference) -> dict[str, float]:
    """Return the mean and half the 95 % interval."""
    return asdict(difference.interval)


def view_row(
    plan: TunedPlan, log: Rows, view: str, arm: TunedArm, seeds: Sequence[int]
) -> dict[str, Any]:
    """Return the measures of an arm in a view; "by_seed" has the accuracy of every seed."""
    rows = [log[f"{view}-{arm.name}-{seed}"] for seed in seeds]
    accuracies = [row["gold/accuracy"] for row in rows]
    names = [*SEED_MEASURES, *(n for n in rows[0] if n == "scratchpad_share")]
    return {
        "view": view,
        "arm": arm.name,
        "title": arm.title,
        "seeds": len(seeds),
        "gold/accuracy": as_interval(
            crossed_mean(scores_of(plan, log, f"{view}-{arm.name}", seeds))
        ),
        "lowest": min(accuracies),
        "highest": max(accuracies),
        **{name: asdict(interval([row[name] for row in rows])) for name in names},
        "reward_model_tokens": max(row["reward_model_tokens"] for row in rows),
        "by_seed": accuracies,
        "right": [row["right"] for row in rows],
    }


def compare_arms(
    plan: TunedPlan, log: Rows, view: str, seeds: Sequence[int], chosen: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the difference in gold accuracy of every two arms of a view, with the word that `judge`
    gives; all of them are one family.
    """
    scores = {
        arm.name: scores_of(plan, log, f"{view}-{arm.name}", done)
        for arm, done in finished_arms(plan, log, view, seeds, chosen)
    }
    pairs = list(combinations(scores, 2))
    judged = judge([crossed_difference(scores[a], scores[b]) for a, b in pairs], margin=plan.margin)
    return [
        {"first": a, "second": b, "word": one.word, "p": one.p_value}
        | {"degrees": one.difference.degrees}
        | as_interval(one.difference)
        for (a, b), one in zip(pairs, judged)
    ]


def settings_text(settings: Mapping[str, Any]) -> str:
    """Return settings such as "learning rate 0.001, β 0.3"; "the defaults" for none."""
    return (
        ", ".join(f"{SETTING_WORDS[name]} {value:.2g}" for name, value in settings.items())
        or "the defaults"
    )


def view_table(table: Mapping[str, Any], view: str) -> str:
    """Return a view as a Markdown table."""
    tuned = view in ("tokens", "kl")
    heads = [
        "method",
        *(["settings"] if tuned else []),
        "seeds",
        "gold accuracy",
        "lowest to highest seed",
        "KL, nats",
        "updates",
        "tokens trained",
        "tokens sampled",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for row in table["rows"]:
        if row["view"] != view:
            continue
        gold, kl = row["gold/accuracy"], row["kl"]
        cells = [
            row["title"],
            *([settings_text(table["chosen"][row["arm"]][view]["settings"])] if tuned else []),
            str(row["seeds"]),
            f"{gold['mean']:.3f} ± {gold['half']:.3f}",
            f"{row['lowest']:.2f} to {row['highest']:.2f}",
            f"{kl['mean']:.2f} ± {kl['half']:.2f}",
            f"{row['updates']['mean']:.0f}",
            f"{row['trained']['mean'] / 1000:.0f} k",
            f"{row['sampled']['mean'] / 1000:.0f} k",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_matrix(table: Mapping[str, Any], view: str) -> str:
    """Return the differences of a view as a Markdown table: row minus column, and the row's word."""
    titles = {row["arm"]: row["title"] for row in table["rows"] if row["view"] == view}
    found = {(one["second"], one["first"]): one for one in table["comparisons"][view]}
    columns = list(titles)[:-1]
    lines = [
        f"| row − column | {' | '.join(titles[name] for name in columns)} |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for name in list(titles)[1:]:
        cells = [
            comparison_cell(found[name, column]) if (name, column) in found else ""
            for column in columns
        ]
        lines.append(f"| {titles[name]} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def comparison_cell(one: Mapping[str, Any]) -> str:
    """Return second minus first with the word for the second, such as "+0.05 ± 0.02 better"."""
    turned = {"better": "worse", "worse": "better"}
    word = turned.get(one["word"], one["word"].partition(" within")[0])
    return f"{Interval(-one['mean'], one['half']).signed()} {word}"


def completions_text(plan: Mapping[str, Any]) -> str:
    """Return how many completions each policy writes for a test prompt."""
    samples = plan.get("samples", 1)
    return f"{samples} completions each" if samples > 1 else "one completion each"


def trials_table(table: Mapping[str, Any]) -> str:
    """Return for every method the accuracy of each trial after all tokens, the mean over the tuning
    seeds; the columns are in the order of the learning rate.
    """
    plan = table["plan"]
    factors = {0: 1.0} | {
        trial: plan["rate_factor"] ** (2 * radical_inverse(trial + 1, HALTON_BASES[0]) - 1)
        for trial in range(1, plan["trials"])
    }
    order = sorted(factors, key=lambda trial: factors[trial])
    heads = [f"× {factors[trial]:.2g}" if trial else "defaults" for trial in order]
    lines = [
        f"| learning rate | {' | '.join(heads)} | highest − lowest |",
        "| --- " * (len(heads) + 2) + "|",
    ]
    for name, chosen in table["chosen"].items():
        scores = chosen["tokens"]["scores"]
        lines.append(
            f"| {table['titles'][name]} | {' | '.join(f'{scores[t]:.2f}' for t in order)} |"
            f" {max(scores) - min(scores):.2f} |"
        )
    return "\n".join(lines) + "\n"


def render_report(table: dict[str, Any]) -> str:
    """Return the three views and their comparisons as Markdown."""
    plan = table["plan"]
    base = table["base"]["gold/accuracy"]
    prompts = plan["test_prompts"][1] - plan["test_prompts"][0]
    parts = [
        "# Methods, at defaults and tuned",
        f"`{table['command']}` on {table['device']}, torch {table['torch']}, transformers"
        f" {table['transformers']}, commit {table['commit']}. {table['seeds']} seeds from"
        f" {plan['first_seed']}; {prompts} test prompts,"
        f" {completions_text(plan)}; ± is half the 95 % interval over seeds and prompts. Before training: gold accuracy"
        f" {base['mean']:.3f} ± {base['half']:.3f}.",
    ]
    parts += ["## Trials", trials_table(table)]
    for view, title in VIEW_TITLES.items():
        if table["comparisons"][view]:
            parts += [f"## {title}", view_table(table, view), comparison_matrix(table, view)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"
