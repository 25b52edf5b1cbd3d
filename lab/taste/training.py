"""Trains on a person's labels: one set of labels becomes runs of five methods, with equal held-out pairs.

The runs are those of the lab: they go through its queue or `lab.api.train`, and every page shows them.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError, unknown
from lab.storage.jsonl import append_rows, read_jsonl, replace_file
from lab.taste.agreement import as_lines
from lab.taste.labels import LabelSet, text_of
from lab.taste.next_pair import HELD_OUT_EVERY, shuffled
from lab.taste.pools import pair_row, truth_of

METHODS = ("dpo", "ipo", "kto", "reward_model", "ppo")
START_ORDER = ("dpo", "reward_model", "ipo", "kto", "ppo")
"""PPO waits for the reward model, so that starts early."""
MIN_TRAIN_PAIRS = 4
MAX_RULE_PAIRS = 100
RUN_PREFIX = "taste-"
SETTINGS: dict[str, dict[str, Any]] = {
    "dpo": {"steps": 60},
    "ipo": {"steps": 60},
    "kto": {"steps": 60},
    "reward_model": {"steps": 60},
    "ppo": {"steps": 20},
}
"""By method, settings with which a run on the embedded model takes three to five seconds of one core, beside
the start of its process."""
SHARED_SETTINGS: dict[str, Any] = {"eval_every": 10, "eval_prompts": 64, "checkpoint_every": 1000}
CHAT_SETTINGS: dict[str, Any] = {
    "steps": 20,
    "batch_size": 8,
    "learning_rate": 1e-4,
    "eval_every": 10,
    "eval_prompts": 2,
    "max_completion_tokens": 48,
    "checkpoint_every": 1000,
}
"""Settings of a run on SmolLM2, which takes minutes on a CPU."""


@dataclass(frozen=True)
class TrainingFiles:
    """The files of one training: `pairs` and, where single answers were rated, `thumbs` to train on, and
    `eval_pairs` to measure agreement on. The counts say how many pairs each holds.
    """

    pairs: Path | None
    thumbs: Path | None
    eval_pairs: Path
    trained: int
    own: int
    rule: int


def training_rows(labels: LabelSet) -> list[dict[str, Any]]:
    """Returns the labelled pairs to train on: neither held out nor a repeat. Pairs whose answers got
    opposite thumbs are among them.
    """
    rows = [row for row in labels.pairs() if not (row.get("held_out") or row.get("repeat"))]
    return rows + [row for row in thumb_pairs(labels) if not row["held_out"]]


def own_held_out(labels: LabelSet) -> list[dict[str, Any]]:
    """Returns the held-out fifth of a person's labels, each pair once."""
    rows = [row for row in labels.pairs() if row.get("held_out") and not row.get("repeat")]
    return rows + [row for row in thumb_pairs(labels) if row["held_out"]]


def thumb_pairs(labels: LabelSet) -> list[dict[str, Any]]:
    """Returns the pairs of which one answer got a thumb up and the other a thumb down; every fifth is
    held out.
    """
    pool, verdicts = labels.known_pairs(), dict[str, dict[int, bool]]()
    for row in labels.thumbs():
        verdicts.setdefault(row["pair"], {})[row["answer"]] = row["label"]
    opposite = [own for own, both in verdicts.items() if len(set(both.values())) == 2]
    return [
        pair_row(labels.pool, pool[own], int(verdicts[own][1]))
        | {"pair": own, "held_out": number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1}
        for number, own in enumerate(opposite)
    ]


def rule_rows(labels: LabelSet, count: int = MAX_RULE_PAIRS) -> list[dict[str, Any]]:
    """Returns at most `count` pairs of the pool that the person has not seen and of which exactly one
    answer is right, with the right one as chosen; none for a pool without a ground truth.
    """
    pool = labels.pool_pairs()
    seen = {row["pair"] for row in (*labels.pairs(), *labels.thumbs())}
    rows = []
    for own in shuffled(pool, f"rule/{labels.name}"):
        if own not in seen and (right := truth_of(pool[own])) is not None:
            rows.append(pair_row(labels.pool, pool[own], right))
    return rows[:count]


def write_training_files(
    labels: LabelSet, others: Sequence[Mapping[str, Any]] = ()
) -> TrainingFiles:
    """Writes the files of a training into the folder of the label set, under a name made from their
    content, and returns them. `others` are labelled pairs of another person, which are trained on too
    unless they are held out here.

    Raises `LabError` for too few labels.
    """
    train, own, rule = training_rows(labels), own_held_out(labels), rule_rows(labels)
    held = {row["pair"] for row in own}
    measured = [_item(row) for row in (*own, *rule)]
    train += [dict(row) for row in others if _item(row) not in measured]
    thumbs = [row for row in labels.thumbs() if row["pair"] not in held]
    if len(train) < MIN_TRAIN_PAIRS and len(thumbs) < MIN_TRAIN_PAIRS:
        raise LabError(
            f"{len(train)} labelled pairs are too few to train on; at least {MIN_TRAIN_PAIRS} are"
            " needed beside the held-out fifth. Label some more."
        )
    own_group = [row | {"group": "own"} for row in own]
    rule_group = [row | {"group": "rule"} for row in rule]
    parts = {"pairs": train, "thumbs": thumbs, "eval": own_group + rule_group}
    if not parts["eval"]:
        raise LabError("No label is held out yet, so nothing could be measured. Label some more.")
    data = {name: as_lines(rows) for name, rows in parts.items()}
    digest = hashlib.sha256(b"\n".join(data.values())).hexdigest()[:10]
    folder = labels.folder / "training"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{digest}-{name}.jsonl" for name in data}
    for name, path in paths.items():
        replace_file(path, data[name])
    return TrainingFiles(
        paths["pairs"] if len(train) >= MIN_TRAIN_PAIRS else None,
        paths["thumbs"] if thumbs else None,
        paths["eval"],
        len(train),
        len(own),
        len(rule),
    )


def _item(row: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """What a labelled pair is about, whichever answer is chosen."""
    return row["prompt"], sorted(text_of(row[side]) for side in ("chosen", "rejected"))


def methods_of(labels: LabelSet) -> tuple[str, ...]:
    """Returns the methods that can train on a label set. PPO samples prompts of a task, which a pool of
    texts does not have; without pairs only KTO learns, from thumbs.
    """
    if len(training_rows(labels)) < MIN_TRAIN_PAIRS:
        return ("kto",)
    return tuple(own for own in METHODS if own != "ppo" or not labels.pool.is_chat)


def settings_of(
    method: str, labels: LabelSet, files: TrainingFiles, seed: int = 0
) -> dict[str, Any]:
    """Returns the settings of a run of `method` on the files of a training. PPO's `reward_from` is
    missing, since it is the run of the reward model.

    Raises `LabError` for a method that cannot train on these labels.
    """
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    if method not in methods_of(labels):
        raise LabError(
            f"{method} cannot train on the labels of '{labels.name}' ({labels.pool.name}). It takes"
            f" {', '.join(methods_of(labels))}."
        )
    settings = dict(CHAT_SETTINGS if labels.pool.is_chat else SHARED_SETTINGS | SETTINGS[method])
    settings |= {"model": labels.pool.model, "seed": seed, "eval_pairs": str(files.eval_pairs)}
    if method == "ppo":
        return settings
    uses_thumbs = method == "kto" and files.thumbs is not None
    data = files.thumbs if uses_thumbs else files.pairs
    settings |= {"data": str(data), "pairs": 0}
    if not labels.pool.is_chat:
        settings |= {"task": "chain"}
    return settings


Start = Callable[[str, dict[str, Any]], str]
"""Starts a run with a method and its settings, and returns its name or folder."""


def start_training(
    labels: LabelSet,
    methods: Iterable[str],
    start: Start,
    root: Path,
    seed: int = 0,
    others: Sequence[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """Starts a run of every method on the labels and returns their names by method. PPO learns from the
    reward model's run, which is started with it. `others` are the labels of another person.

    The folder of the label set notes the runs, so that a page finds them again.
    """
    files, names = write_training_files(labels, others), dict[str, str]()
    wanted = [own for own in METHODS if own in set(methods)]
    if "ppo" in wanted and "reward_model" not in wanted:
        wanted.insert(wanted.index("ppo"), "reward_model")
    for method in sorted(wanted, key=START_ORDER.index):
        settings = settings_of(method, labels, files, seed)
        if method == "ppo":
            settings |= {"reward_from": str(root / names["reward_model"])}
        names[method] = start(method, settings)
    picked = {row.get("picked", "random") for row in training_rows(labels)}
    append_rows(
        labels.folder / "runs.jsonl",
        [
            {
                "runs": {method: names[method] for method in wanted},
                "trained": files.trained,
                "own": files.own,
                "rule": files.rule,
                "picked": "uncertain" if "uncertain" in picked else "random",
                "people": 2 if others else 1,
            }
        ],
    )
    return names


def noted_trainings(labels: LabelSet) -> list[Mapping[str, Any]]:
    """Returns the trainings of a label set in their order: the names of the `runs` by method, and how
    many pairs they `trained` on.
    """
    rows: Sequence[Mapping[str, Any]] = read_jsonl(labels.folder / "runs.jsonl")[0]
    return [row for row in rows if isinstance(row.get("runs"), dict)]
