"""How many labels a taste needs: simulated labellers, pairs picked at random or by the model's uncertainty."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lab.analysis.comparison_words import Judgement, judge, paired_difference
from lab.analysis.statistics import SHARE, Interval, interval
from lab.config.methods import make_config
from lab.data.parsing import parse_pair
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.process_pool import map_cached, mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.models.loading import fitting_threads
from lab.runs.records import StepRecord
from lab.storage.jsonl import replace_file
from lab.taste.agreement import as_lines
from lab.taste.labellers import labelled_rows, random_pairs
from lab.taste.next_pair import most_uncertain
from lab.taste.pools import POOLS, PoolPair, load_pool, pair_row, truth_of
from lab.training.loop import prepare, train
from lab.training.pair_agreement import model_margins
from lab.training.state import TrainState

MEASURES = {"gold": "gold/accuracy", "agreement": "agreement/rule"}
"""By measure of the table, the metric of a run at its end."""


@dataclass(frozen=True)
class TastePlan:
    """The runs: after each of `counts` labels a model is trained from the base.

    A labeller follows `rule` and errs with one of `noises`. `tested` pairs with one right answer are
    never labelled, and measure the agreement with the rule.
    """

    counts: tuple[int, ...] = (25, 50, 100)
    noises: tuple[float, ...] = (0.0, 0.1, 0.3)
    picks: tuple[str, ...] = ("random", "uncertain")
    rule: str = "right"
    tested: int = 100
    method: str = "ipo"
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 40,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "beta": 0.05,
            "eval_every": 0,
            "eval_prompts": 64,
        }
    )


PLAN = TastePlan()
GOAL, GOAL_LABELS = 0.80, 50
"""The goal: this share after so many labels."""


def label_and_train(noise: float, seed: int, device: str) -> dict[str, Any]:
    """Labels up to the largest of `counts` pairs by each way to pick them, and trains after each count.
    Returns both measures by pick and count, and gold accuracy of the base. The first pairs are random
    for both, so they share that run.
    """
    order = random_pairs([*load_pool("chain").values()], len(load_pool("chain")), seed)
    tested = [pair for pair in order if truth_of(pair) is not None][: PLAN.tested]
    free = [pair for pair in order if pair not in tested]
    shared = free[: PLAN.counts[0]]
    run, first, last = _trained(shared, tested, noise, seed, device)
    result: dict[str, Any] = {"base": first.metrics["gold/accuracy"]}
    for pick in PLAN.picks:
        labelled, latest, record = list(shared), run, last
        result[pick] = {name: [record.metrics[metric]] for name, metric in MEASURES.items()}
        for count in PLAN.counts[1:]:
            rest = [pair for pair in free if pair not in labelled]
            if pick == "uncertain":
                margins, by_id = _margins(latest, rest), {pair.id: pair for pair in rest}
                rest = [by_id[own] for own in most_uncertain([*by_id], margins, len(rest))]
            labelled += rest[: count - len(labelled)]
            latest, _, record = _trained(labelled, tested, noise, seed, device)
            for name, metric in MEASURES.items():
                result[pick][name].append(record.metrics[metric])
    return result


def _trained(
    labelled: Sequence[PoolPair], tested: Sequence[PoolPair], noise: float, seed: int, device: str
) -> tuple[TrainState, StepRecord, StepRecord]:
    """A run on the labels, trained from the base, with its first and its last record."""
    pool = POOLS["chain"]
    truths = [pair_row(pool, pair, truth_of(pair) or 0) | {"group": "rule"} for pair in tested]
    with tempfile.TemporaryDirectory() as folder:
        data, eval_pairs = Path(folder) / "labels.jsonl", Path(folder) / "eval.jsonl"
        rows = labelled_rows(pool, labelled, PLAN.rule, noise, seed)
        replace_file(data, as_lines(rows), durable=False)
        replace_file(eval_pairs, as_lines(truths), durable=False)
        files = {"data": str(data), "pairs": 0, "eval_pairs": str(eval_pairs), "task": "chain"}
        run = prepare(
            make_config(PLAN.method, PLAN.settings | files | {"seed": seed, "device": device})
        )
        with fitting_threads(run.model):
            records = [record for record in train(run) if isinstance(record, StepRecord)]
    return run, records[0], records[-1]


def _margins(run: TrainState, pairs: Sequence[PoolPair]) -> dict[str, float]:
    """The margin h of every pair under the run's policy."""
    examples = [parse_pair(pair_row(POOLS["chain"], pair, 0), pair.id) for pair in pairs]
    with fitting_threads(run.model):
        margins = model_margins(run, examples)
    return {pair.id: h for pair, h in zip(pairs, margins.tolist())}


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Labels and trains for every noise and seed (`ExperimentCode`)."""
    interval([0.0] * seeds)
    plan = asdict(PLAN)
    record_plan(out, {"experiment": "taste", "device": device} | plan)
    arms = [(pick, noise) for noise in PLAN.noises for pick in PLAN.picks]
    runs = map_cached(
        out,
        label_and_train,
        {
            f"{noise:g}-{seed}": (noise, seed, device)
            for seed in range(seeds)
            for noise in PLAN.noises
        },
        jobs,
        say,
    )
    rows = []
    for pick, noise in arms:
        curves = [runs[f"{noise:g}-{seed}"][pick] for seed in range(seeds)]
        means = {name: mean_over_seeds([curve[name] for curve in curves]) for name in MEASURES}
        needed = {f"needed/{name}": labels_needed(means[name]["mean"]) for name in MEASURES}
        rows.append({"pick": pick, "noise": noise, "labels": list(PLAN.counts)} | means | needed)
    base = [runs[f"{PLAN.noises[0]:g}-{seed}"]["base"] for seed in range(seeds)]
    table = {
        "command": command_line("taste", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "plan": plan,
        "goal": GOAL,
        "base": asdict(interval(base)),
        "comparisons": _comparisons(runs, seeds),
        "rows": rows,
    }
    table = round_significant(table)
    write_table(out, table, render_report(table))
    return table


def labels_needed(means: Sequence[float], goal: float = GOAL) -> int | None:
    """Returns the smallest number of labels from which on every mean reaches the goal; None where the
    last does not.

    Anchor: means 0.9, 0.7, 0.85 after 25, 50 and 100 labels need 100.
    """
    needed = None
    for count, mean in zip(reversed(PLAN.counts), reversed(means)):
        if mean < goal:
            break
        needed = count
    return needed


def _comparisons(runs: dict[str, dict[str, Any]], seeds: int) -> list[dict[str, Any]]:
    """Uncertain minus random, seed by seed, for every noise and count behind the first, which both share;
    all of a measure are judged as one family.
    """
    rows: list[dict[str, Any]] = []
    for name in MEASURES:
        places = [(noise, i) for noise in PLAN.noises for i in range(1, len(PLAN.counts))]
        judgements = judge(
            [
                paired_difference(
                    *(
                        [runs[f"{noise:g}-{seed}"][pick][name][i] for seed in range(seeds)]
                        for pick in ("uncertain", "random")
                    )
                )
                for noise, i in places
            ]
        )
        rows += [
            {"measure": name, "noise": noise, "labels": PLAN.counts[i]} | _as_row(judgement)
            for (noise, i), judgement in zip(places, judgements)
        ]
    return rows


def _as_row(judgement: Judgement) -> dict[str, Any]:
    difference = judgement.difference.interval
    return {"mean": difference.mean, "half": difference.half, "word": judgement.word}


def render_report(table: dict[str, Any]) -> str:
    """Returns both measures by number of labels as Markdown, and the comparison of the two picks."""
    counts = table["plan"]["counts"]
    lines = [
        "# How many labels a taste needs",
        "",
        (
            f"`{table['command']}` on {table['device']}; {table['seeds']} seeds, ± half the 95 %"
            f" interval; gold accuracy of the base {Interval(**table['base']).text(2, SHARE)}."
        ),
    ]
    for name, metric in MEASURES.items():
        lines += [
            "",
            f"| {metric}: pick, noise |{''.join(f' {c} labels |' for c in counts)} needed for {GOAL} |",
            f"| --- |{' --- |' * len(counts)} --- |",
        ]
        for row in table["rows"]:
            cells = [Interval(m, h).text(2, SHARE) for m, h in zip(*row[name].values())]
            needed = row[f"needed/{name}"]
            lines.append(
                f"| {row['pick']}, {row['noise']:.0%} | {' | '.join(cells)} | {needed or 'not reached'} |"
            )
    lines += [
        "",
        "| uncertain − random | noise | labels | difference |",
        "| --- | --- | --- | --- |",
    ]
    for row in table["comparisons"]:
        difference = Interval(row["mean"], row["half"]).signed()
        lines.append(
            f"| {row['measure']} | {row['noise']:.0%} | {row['labels']} | {difference}, {row['word']} |"
        )
    return "\n".join(lines) + "\n"
