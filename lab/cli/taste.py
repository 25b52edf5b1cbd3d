"""The command taste, for files of labels, and build-taste, which records the pools."""

from pathlib import Path
from typing import Annotated, Literal

from lab.cli.arguments import Device, OutFile, OutFolder
from lab.config.input_checks import SEED_RANGE, Range, require_writable
from lab.errors import LabError

MAX_POOL_PAIRS = 2000


def taste(
    order: Literal["kappa", "merge", "train"],
    /,
    *files: Path,
    out: OutFile = None,
    method: str = "dpo",
    model: str = "embedded",
    seed: Annotated[int, SEED_RANGE] = 0,
    device: Device = "auto",
) -> None:
    """Files of labels that people gave on the page Taste: their agreement, one file of several, and a
    run on them.

    Args:
        order: kappa prints Cohen's κ of every two of the files. merge writes the labels of all FILES
        into --out. train trains on the labels of all FILES, with a fifth of the prompts held out, and
        prints the agreement with it.
        files: JSONL files in TRL's preference or unpaired preference format.
        out: The merged file, which has to be new.
        method: Method of train: dpo, ipo, kto or reward_model.
        model: Base model of train.
        seed: Seed of train.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.taste import label_files

    if order == "merge":
        if out is None:
            raise LabError("merge writes a new file: name it with --out FILE.jsonl.")
        print(label_files.merge(list(files), out))
    elif order == "kappa":
        print("\n".join(label_files.pairwise_kappa(list(files))))
    else:
        print(label_files.train_on(list(files), method, model, seed, device))


def build_taste_command(
    pool: Literal["chain", "tone"],
    /,
    out: OutFolder = None,
    count: Annotated[int, Range(int, 1, MAX_POOL_PAIRS)] = 400,
    seed: Annotated[int, SEED_RANGE] = 0,
    device: Device = "auto",
) -> None:
    """Record a pool of answer pairs for the page Taste.

    Args:
        pool: chain, answers of the embedded model at several checkpoints, or tone, short English texts of
        smollm2-135m (python -m lab fetch smollm2-135m).
        out: Folder of the pools; left out, the lab's own pool is replaced.
        count: Number of pairs, at most.
        seed: Seeds runs, prompts and noise.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.experiments.run_log import code_commit
    from lab.recipes.record_taste import record_pool
    from lab.taste.pools import POOLS_FOLDER

    folder = out or POOLS_FOLDER
    require_writable("out", folder, folder=True)
    print(record_pool(pool, folder, count, seed, device, code_commit()))
