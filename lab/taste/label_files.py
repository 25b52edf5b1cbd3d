"""What the command line does with files of labels: agreement, merge, and a run on them."""

import hashlib
import json
from itertools import combinations
from pathlib import Path
from typing import Any

from lab.api import train
from lab.data.row_fields import format_of
from lab.errors import LabError, unknown
from lab.runs.catalogue import new_path
from lab.runs.records import columns_of
from lab.storage.jsonl import replace_file
from lab.taste.agreement import agreement_of, as_lines, merged_rows, read_label_file
from lab.taste.next_pair import HELD_OUT_EVERY
from lab.taste.training import CHAT_SETTINGS, MIN_TRAIN_PAIRS, SETTINGS, SHARED_SETTINGS

OFFLINE_METHODS = ("dpo", "ipo", "kto", "reward_model")


def _require_files(files: list[Path], least: int, order: str) -> None:
    if len(files) < least:
        raise LabError(
            f"{order} takes at least {least} file{'s' * (least > 1)} of labels, but {len(files)}"
            f" {'is' if len(files) == 1 else 'are'} given: python -m lab taste {order} ADA.jsonl"
            " BOB.jsonl"
        )


def pairwise_kappa(files: list[Path]) -> list[str]:
    """Returns a line with Cohen's κ for every two of the files, and one for each file with skipped lines.

    Raises `LabError` for fewer than two files, for files that hold no labels, and where two of them have
    no item in common.
    """
    _require_files(files, 2, "kappa")
    read = {path: read_label_file(path) for path in files}
    kappas = [
        f"{one} and {other}: {agreement_of(read[one].judgements, read[other].judgements).text()}"
        for one, other in combinations(files, 2)
    ]
    return [*kappas, *filter(None, (file.skipped_text(path) for path, file in read.items()))]


def merge(files: list[Path], out: Path) -> str:
    """Writes the labels of all files into the new file `out` and returns what it holds, in words."""
    _require_files(files, 2, "merge")
    if out.exists():
        raise LabError(f"{out} exists. Give --out the name of a new file, or remove it.")
    rows, notes = merged_rows(files)
    replace_file(out, as_lines(rows))
    return "\n".join([f"{out} holds {len(rows)} labels of {len(files)} files.", *notes])


def train_on(files: list[Path], method: str, model: str, seed: int, device: str) -> str:
    """Trains on the labels of all files, with every fifth prompt by hash held out, and returns the
    agreement with the held-out labels, in words.
    """
    _require_files(files, 1, "train")
    if method not in OFFLINE_METHODS:
        raise unknown("method", method, list(OFFLINE_METHODS))
    rows, notes = merged_rows(files)
    kept = [row for row in rows if not _is_held_out(row)]
    held = [row for row in rows if _is_held_out(row)]
    if format_of(rows[0]) == "unpaired preference":
        if method != "kto":
            raise LabError(f"{files[0]} holds single answers, from which only kto learns.")
        kept, held = rows, []
    if len(kept) < MIN_TRAIN_PAIRS:
        raise LabError(f"{len(kept)} labels are too few to train on; {MIN_TRAIN_PAIRS} are needed.")
    folder = new_path(f"taste-{method}")
    data, pairs = folder.with_name(f"{folder.name}.data"), {"train": kept, "eval": held}
    data.mkdir(parents=True)
    for name, part in pairs.items():
        replace_file(data / f"{name}.jsonl", as_lines(part))
    settings: dict[str, Any] = dict(
        CHAT_SETTINGS if model != "embedded" else SHARED_SETTINGS | SETTINGS[method]
    )
    settings |= {"task": "chain"} if model == "embedded" else {}
    settings |= {"eval_pairs": str(data / "eval.jsonl")} if held else {}
    run = train(
        method,
        out=folder,
        data=str(data / "train.jsonl"),
        pairs=0,
        model=model,
        seed=seed,
        device=device,
        **settings,
    )
    columns = columns_of(run.history())
    if "agreement/pairs" not in columns:
        result = f"{run.path}: {method} on {len(kept)} labels. No label is held out."
    else:
        share = columns["agreement/pairs"][1][-1]
        result = (
            f"{run.path}: {method} on {len(kept)} labels agrees with {share:.0%} of the {len(held)}"
            " held-out labels."
        )
    return "\n".join([result, *notes])


def _is_held_out(row: dict[str, Any]) -> bool:
    """Whether the prompt of a row belongs to the fifth of all prompts, by hash, that is held out."""
    prompt = json.dumps(row.get("prompt"), sort_keys=True)
    return hashlib.sha256(f"taste/{prompt}".encode()).digest()[0] % HELD_OUT_EVERY == 0
