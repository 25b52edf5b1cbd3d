"""Functions that the offline methods share: they read a fixed data set, leave out rows that do not
fit, hold out a part of the user's own data, and measure the loss on it.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import ceil, exp
from typing import Any

import torch

from lab.config.methods import METHODS, method_of
from lab.config.run_config import OfflineConfig, RunConfig, config_as
from lab.data.corpus import Corpus, Examples
from lab.data.examples import Demonstration, FullText, Pair, UnpairedExample
from lab.data.gc_pause import gc_paused
from lab.data.parsing import load_examples
from lab.data.resampling import add_label_noise, keep_desirable, unpair
from lab.data.token_rows import TextPair
from lab.distributed import collectives
from lab.errors import LabError
from lab.tasks.user_data import DataTask
from lab.training.evaluation import Evaluation, evaluate
from lab.training.method import EvalResult, MetricTensors, evaluate_policy
from lab.training.state import TrainState

NUM_ANSWERED_PROMPTS = 8  # Held-out prompts that the policy answers at each evaluation of own data.
HELD_OUT_METRICS = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
)
Batches = Callable[[TrainState], Iterator[list[Any]]]
Loss = Callable[[TrainState, Any], tuple[torch.Tensor, MetricTensors]]


def _config(run: TrainState) -> OfflineConfig:
    return config_as(run.config, OfflineConfig)


def _learns_from(config: RunConfig) -> str:
    return METHODS[method_of(config)].learns_from


def load_preferences(run: TrainState) -> list[Pair]:
    """Return the preference pairs of the run: the user's or the task's, at most `pairs` of them, a
    share `label_noise` of them swapped.
    """
    return _judged(run)


def load_labelled(run: TrainState) -> list[UnpairedExample]:
    """Return the labelled completions of the run: the user's unpaired data, or the completions of
    pairs; of the desirable ones a share `desirable_share`.
    """
    judged = _judged(run)
    return keep_desirable(
        unpair(judged) if isinstance(judged[0], Pair) else judged,
        getattr(run.config, "desirable_share", 1.0),
        run.config.seed,
    )


def load_imitated(run: TrainState) -> list[TextPair]:
    """Return the texts that the run imitates: demonstrations, chosen completions of pairs, or full texts."""
    return [
        (
            (e.text, None)
            if isinstance(e, FullText)
            else (e.prompt, e.chosen if isinstance(e, Pair) else e.completion)
        )
        for e in _judged(run)
    ]


def _judged(run: TrainState) -> list:
    """The rows to train on, a share `label_noise` of them with the opposite label."""
    rows, config = rows_of(run)[0], _config(run)
    if config.label_noise and isinstance(rows[0], Demonstration | FullText):
        raise LabError(
            f"label_noise is {config.label_noise:g}, but {config.data} holds completions without a"
            " judgement. Use 0."
        )
    return add_label_noise(rows, config.label_noise, config.seed) if config.label_noise else rows


def rows_of(run: TrainState) -> tuple[list, list]:
    """Return the rows to train on and the held-out rows, which are read once. Only the user's data
    without a task has held-out rows.
    """
    if "rows" not in run.cache:
        run.cache["rows"] = _read(run)
    return run.cache["rows"]


@gc_paused()
def _read(run: TrainState) -> tuple[list, list]:
    config, task = _config(run), run.task
    if isinstance(task, DataTask):
        rows, count = task.read()
    else:
        source = config.data or task.pairs_path
        assert source is not None  # `lab.tasks.registry.check` has refused such a config.
        found = load_examples(source, method_of(config))
        rows, count = found[: config.pairs or len(found)], len(found)
    if config.data and len(rows) < count:
        run.notes.append(
            f"{config.data} has {count} rows, of which pairs takes the first {config.pairs}. Use"
            " --pairs 0 for all."
        )
    rows = fitting(run, rows)
    return _divided(run, task, rows) if isinstance(task, DataTask) else (rows, [])


def fitting(run: TrainState, rows: list) -> list:
    """Return the rows that can be trained on; a note of the run names those that are left out."""
    config = _config(run)
    if "corpus" not in run.cache:
        run.cache["corpus"] = Corpus(run.tokenizer, config.max_length, config.truncation_mode)
    rows, notes = run.cache["corpus"].fitting(
        rows, _sides_of(config), config.data or "shipped pairs"
    )
    run.notes += notes
    return rows


def _sides_of(config: Any) -> Callable[[Any], dict[str, Any]]:
    """The completions of a row that the method reads, by the name that errors have for each."""
    imitated = _learns_from(config) == "demonstrations"

    def sides(row: Any) -> dict[str, Any]:
        if isinstance(row, FullText):
            return {"example": None}
        if not isinstance(row, Pair):
            return {"example" if imitated else "unpaired example": row.completion}
        return (
            {"example": row.chosen}
            if imitated
            else {"chosen of pair": row.chosen, "rejected of pair": row.rejected}
        )

    return sides


def _divided(run: TrainState, task: DataTask, rows: list) -> tuple[list, list]:
    """The rows to train on and the held-out rows; a note of the run tells the numbers."""
    held: list[Any] = []
    train: list[Any] = []
    for row in rows:
        (held if task.holds_out(row) else train).append(row)
    if not train:
        raise LabError(
            f"All rows of {task.name} that fit are held out, so none is left to train on. Raise"
            " max_length, add rows or give a --task."
        )
    what = {"demonstrations": "loss and perplexity", "judgements": "loss and margin"}.get(
        _learns_from(run.config), "loss, margin and pair accuracy"
    )
    run.notes.append(
        f"Without --task, {len(held)} of {len(rows)} rows of {task.name} are held out, and {what}"
        " are measured on them."
        if held
        else (
            f"{task.name} has too few prompts to hold any out, so nothing is measured beside the"
            " training batches. Add rows or give a --task."
        )
    )
    return train, held[: run.config.eval_prompts]


def encode_pairs(run: TrainState, pairs: list[Pair]) -> tuple[Examples, Examples]:
    """Return the chosen and the rejected examples. Where one text of a pair departs from the prompt
    earlier, both completions begin there, as in TRL.
    """
    chosen, rejected = (
        [(p.prompt, getattr(p, side)) for p in pairs] for side in ("chosen", "rejected")
    )
    return Examples(run.cache["corpus"], chosen, beside=rejected), Examples(
        run.cache["corpus"], rejected, beside=chosen
    )


def examples_of(run: TrainState, texts: list[TextPair]) -> Examples:
    """Return prompts and completions as examples, which are tokenised when they are first needed."""
    return Examples(run.cache["corpus"], texts)


def evaluate_task_or_rows(batches: Batches, loss: Loss) -> Callable[[TrainState], EvalResult]:
    """Return the evaluation of a method: by the run's task or, on the user's data without a task, by
    the method's own loss on the held-out rows, with completions of some prompts.
    """

    def evaluation(run: TrainState) -> EvalResult:
        if not isinstance(run.task, DataTask):
            return evaluate_policy(run)
        answers = _answers(run)
        return held_out_metrics(run, batches, loss) | {"eval/kl": answers.kl}, answers.completions

    return evaluation


@torch.no_grad()
def held_out_metrics(run: TrainState, batches: Batches, loss: Loss) -> dict[str, float]:
    """Return the method's loss and metrics on the held-out rows as one batch, with the prefix eval/
    in their names; empty where no row is held out.
    """
    if not rows_of(run)[1]:
        return {}
    with collectives.alone():
        if "held out" not in run.cache:
            probe = _probe(run)
            run.cache["held out"] = probe, batches(probe)
        probe, source = run.cache["held out"]
        probe.config = replace(run.config, **_whole(run))
        total = 0.0
        found: dict[str, list[torch.Tensor]] = {}
        for piece in next(source):
            share, metrics = loss(probe, piece)
            total += share.item()
            for name in HELD_OUT_METRICS:
                if name in metrics:
                    found.setdefault(name, []).append(metrics[name].float().flatten())
    means = {name: torch.cat(values).nanmean().item() for name, values in found.items()}
    if "rewards/chosen" in means and "rewards/margins" not in means:
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    more = (
        {"perplexity": exp(min(total, 700.0))}
        if _learns_from(run.config) == "demonstrations"
        else {}
    )
    return {
        f"eval/{name}": value
        for name, value in ({"loss": total} | more | means).items()
        if value == value
    }


def _probe(run: TrainState) -> TrainState:
    """A run of the same networks whose one batch is all held-out rows, measured by the lab's own
    functions.
    """
    probe = copy.copy(run)
    probe.step, probe.notes, probe.own = 0, [], {}
    probe.config = replace(run.config, **_whole(run))
    probe.cache = {"rows": (rows_of(run)[1], []), "corpus": run.cache["corpus"]}
    return probe


def _whole(run: TrainState) -> dict[str, Any]:
    """The settings that make all held-out rows one batch without noise, in micro-batches of the size
    that the run trains on.
    """
    config, held = _config(run), rows_of(run)[1]
    unpaired = _learns_from(config) == "judgements" and isinstance(held[0], Pair)
    size = max(1, config.batch_size // config.micro_batches)
    kept = {"desirable_share": 1.0} if hasattr(config, "desirable_share") else {}
    return kept | {
        "batch_size": 65_536,
        "tokens_per_batch": 0,
        "micro_batches": min(4096, ceil(len(held) * (1 + unpaired) / size)),
        "label_noise": 0.0,
    }


def _answers(run: TrainState) -> Evaluation:
    """The policy's completions of the first held-out prompts, with their KL."""
    return evaluate(
        run.model,
        run.tokenizer,
        run.task,
        prompts=min(NUM_ANSWERED_PROMPTS, run.config.eval_prompts),
        max_tokens=run.config.max_completion_tokens,
        seed=run.config.seed,
        device=run.device,
    )
