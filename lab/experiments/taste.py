"""How many labels a taste needs: simulated labellers, pairs picked at random or by the model's uncertainty."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers

from lab.analysis.comparison_words import Judgement, judge, paired_difference
from lab.analysis.labels_needed import goal_sentence, needed_words
from lab.analysis.statistics import SHARE, Interval, interval
from lab.config.methods import make_config
from lab.data.parsing import parse_pair
from lab.experiments.arms import command_line, device_name, record_plan
from lab.experiments.process_pool import map_cached, mean_over_seeds, round_significant, write_table
from lab.experiments.protocol import Log
from lab.experiments.run_log import code_commit, code_fingerprint, origin
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
    never labelled, and measure the agreement with the rule. `choice` says how the other settings were
    chosen.
    """

    counts: tuple[int, ...] = (25, 50, 100, 200)
    noises: tuple[float, ...] = (0.0, 0.1, 0.3)
    picks: tuple[str, ...] = ("random", "uncertain")
    rule: str = "right"
    tested: int = 100
    method: str = "ipo"
    settings: dict[str, Any] = field(
        default_factory=lambda: {
            "steps": 80,
            "batch_size": 8,
            "learning_rate": 2e-3,
            "beta": 0.05,
            "eval_every": 0,
            "eval_prompts": 512,
        }
    )
    choice: str = (
        "The pool, the method and its settings were chosen by gold accuracy: the settings on seeds"
        " 100 and 101, with pairs at random and without wrong labels."
    )


PLAN = TastePlan()
GOAL, GOAL_LABELS = 0.80, 50
"""The goal: this share after so many labels."""


def measure_unit(pick: str, noise: float, seed: int, count: int, device: str) -> dict[str, Any]:
    """Returns gold accuracy of the base, and under each count the measures of the model trained on so
    many labels: for pairs at random after `count` labels, and for the least sure pairs after all
    counts up to it, since each of these models picks the next pairs.

    The first pairs are random for both ways.
    """
    order = random_pairs([*load_pool("chain").values()], len(load_pool("chain")), seed)
    tested = [pair for pair in order if truth_of(pair) is not None][: PLAN.tested]
    free = [pair for pair in order if pair not in tested]
    if pick == "random":
        _, first, last = _trained(free[:count], tested, noise, seed, device)
        return {"base": first.metrics["gold/accuracy"], str(count): _measures(last)}
    labelled = free[: PLAN.counts[0]]
    run, first, last = _trained(labelled, tested, noise, seed, device)
    result = {"base": first.metrics["gold/accuracy"], str(len(labelled)): _measures(last)}
    for more in (own for own in PLAN.counts[1:] if own <= count):
        rest = {pair.id: pair for pair in free if pair not in labelled}
        margins = _margins(run, [*rest.values()])
        nearest = most_uncertain([*rest], margins, more - len(labelled))
        labelled = labelled + [rest[own] for own in nearest]
        run, _, last = _trained(labelled, tested, noise, seed, device)
        result[str(more)] = _measures(last)
    return result


def _measures(record: StepRecord) -> dict[str, float]:
    return {name: record.metrics[metric] for name, metric in MEASURES.items()}


def units() -> list[tuple[str, int]]:
    """Returns the independent trainings of one labeller as the way to pick pairs and the number of labels,
    the longest first. The first count belongs to both ways and is trained once.
    """
    return [("uncertain", PLAN.counts[-1])] + [("random", own) for own in PLAN.counts[:0:-1]]


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
    record_plan(out, {"experiment": "taste"} | origin(device) | plan)
    results = map_cached(
        out,
        measure_unit,
        {
            f"{pick}-{count}-{noise:g}-{seed}": (pick, noise, seed, count, device)
            for pick, count in units()
            for seed in range(seeds)
            for noise in PLAN.noises
        },
        jobs,
        say,
    )
    runs = {
        (noise, seed): _curves(results, noise, seed)
        for noise in PLAN.noises
        for seed in range(seeds)
    }
    rows = []
    for noise, pick in product(PLAN.noises, PLAN.picks):
        curves = [runs[noise, seed][pick] for seed in range(seeds)]
        means = {name: mean_over_seeds([curve[name] for curve in curves]) for name in MEASURES}
        needed = {f"needed/{name}": needed_range(**means[name]) for name in MEASURES}
        rows.append({"pick": pick, "noise": noise, "labels": list(PLAN.counts)} | means | needed)
    base = [runs[PLAN.noises[0], seed]["base"] for seed in range(seeds)]
    table = {
        "command": command_line("taste", seeds, device),
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "code": code_fingerprint(),
        "commit": code_commit(),
        "seeds": seeds,
        "plan": plan,
        "goal": GOAL,
        "goal_labels": GOAL_LABELS,
        "base": asdict(interval(base)),
        "comparisons": _comparisons(runs, seeds),
        "rows": rows,
    }
    table = round_significant(table)
    write_table(out, table, render_report(table))
    return table


def _curves(results: dict[str, dict[str, Any]], noise: float, seed: int) -> dict[str, Any]:
    """Gold accuracy of the base, and both measures by pick, with one value for each count."""
    chain = results[f"uncertain-{PLAN.counts[-1]}-{noise:g}-{seed}"]
    at_random = [chain[str(PLAN.counts[0])]] + [
        results[f"random-{count}-{noise:g}-{seed}"][str(count)] for count in PLAN.counts[1:]
    ]
    least_sure = [chain[str(count)] for count in PLAN.counts]
    return {
        "base": chain["base"],
        "random": {name: [own[name] for own in at_random] for name in MEASURES},
        "uncertain": {name: [own[name] for own in least_sure] for name in MEASURES},
    }


def needed_range(mean: Sequence[float], half: Sequence[float]) -> dict[str, int | None]:
    """Returns the number of labels needed by the means, and the numbers that the upper and the lower ends
    of their 95 % intervals need.
    """
    ends = [Interval(m, h).ends(SHARE) for m, h in zip(mean, half)]
    return {
        "mean": labels_needed(mean),
        "least": labels_needed([high for _, high in ends]),
        "most": labels_needed([low for low, _ in ends]),
    }


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


def _comparisons(runs: dict[tuple[float, int], dict[str, Any]], seeds: int) -> list[dict[str, Any]]:
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
                        [runs[noise, seed][pick][name][i] for seed in range(seeds)]
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
            f" {table['plan']['choice']}"
        ),
        "",
        goal_sentence(table),
    ]
    for name, metric in MEASURES.items():
        lines += [
            "",
            f"| {metric}: pick, noise |{''.join(f' {c} labels |' for c in counts)} needed for {GOAL} |",
            f"| --- |{' --- |' * len(counts)} --- |",
        ]
        for row in table["rows"]:
            cells = [Interval(m, h).text(2, SHARE) for m, h in zip(*row[name].values())]
            needed = needed_words(row[f"needed/{name}"], counts[-1])
            lines.append(f"| {row['pick']}, {row['noise']:.0%} | {' | '.join(cells)} | {needed} |")
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
