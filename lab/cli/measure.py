"""The commands that measure: compare, experiment, resources, estimate, bench."""

import dataclasses
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from lab.analysis.statistics import MAX_SEEDS
from lab.cli.arguments import Device, OutFile, OutFolder
from lab.cli.method_arguments import METHOD_TO_MEASURE
from lab.config.input_checks import Range, require_writable
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments.registry import EXPERIMENTS, find_experiment

if TYPE_CHECKING:
    from lab.profiling.estimate import MemoryEstimate
from lab.storage.paths import runs_root


def compare(
    methods: str = "sft,dpo,ipo,kto,online_dpo,grpo,ppo",
    seeds: Annotated[int, Range(int, 2, MAX_SEEDS)] = 3,
    budget: str = "defaults",
    amount: Annotated[float, Range(float, 0, 1e12)] = 0.0,
    out: OutFolder = None,
    device: Device = "auto",
    model: str = "embedded",
    task: str = "chain",
    data: str = "",
    knobs: str = "",
    jobs: Annotated[int, Range(int, 1, 256)] = 1,
) -> None:
    """Train several methods over several seeds from the same base and tabulate them; a second call
    goes on where the first stopped.

    Args:
        methods: Names separated by commas. Online methods take @gold (the task's rule scores) or
        @model (a learnt reward model does);
            by default the rule for grpo, the reward model for ppo and online_dpo.
        seeds: How many seeds, from 0; at least 2.
        budget: defaults (each method's own number of updates), or what amount counts: updates,
        tokens (trained on), seconds (of training).
        amount: How much of the budget each run gets; 0 for defaults.
        out: Folder of the comparison; left out, compare in the folder of runs.
        device: auto, cpu, cuda or cuda:N.
        model: Base model of all.
        task: Where prompts, gold answers and rewards come from.
        data: Pairs to learn from; empty: the task's own. `python -m lab build-pairs` samples some.
        knobs: Further settings, such as lora_rank=16,grpo.beta=0.04: SETTING=VALUE for every method
        that has it, METHOD.SETTING=VALUE for one.
        jobs: Runs at a time, each in a process of its own. Their seconds grow where they share cores.
    """
    from lab.experiments.compare import run_comparison
    from lab.experiments.comparison_plan import ComparisonPlan
    from lab.experiments.comparison_report import comparison_table

    plan = ComparisonPlan(
        tuple(methods.split(",")), seeds, budget, amount, device, model, task, data, knobs
    )
    folder = _folder(out, "compare")
    table = run_comparison(plan, folder, lambda text: print(text, flush=True), jobs)
    print(
        f"\n{comparison_table(table)}\n{folder}/report.md, table.json and table.csv hold the rest."
    )


def _folder(out: Path | None, name: str) -> Path:
    """`out`, or the folder `name` among the runs if that can be written."""
    if out is None:
        require_writable("out", runs_root() / name, folder=True)
    return out or runs_root() / name


_ExperimentName = Annotated[
    str,
    tyro.conf.arg(
        help="; ".join(f"{name}: {entry.question}" for name, entry in EXPERIMENTS.items()) + "."
    ),
]


def experiment(
    name: _ExperimentName,
    /,
    seeds: Annotated[int | None, Range(int, 1, MAX_SEEDS)] = None,
    out: OutFolder = None,
    jobs: Annotated[int, Range(int, 1, 256)] = 1,
    device: Device = "auto",
) -> None:
    """Rerun an experiment behind one of the lab's claims; a second call goes on where the first
    stopped.

    Args:
        seeds: How many seeds, from 0; left out, 3, or 1 where single runs are shown.
        out: Folder of the experiment; left out, runs/NAME.
        jobs: Runs at a time, each in a process of its own.
        device: auto, cpu, cuda or cuda:N.
    """
    entry = find_experiment(name)
    folder = _folder(out, name)
    code = entry.code()
    count = entry.seeds if seeds is None else seeds
    table = code.run_experiment(folder, count, device, jobs, lambda text: print(text, flush=True))
    report = code.render_report(table)
    print(f"\n{report}\n{folder}/report.md and table.json hold this and every run.")


def resources(method: Annotated[Any, METHOD_TO_MEASURE], json: bool = False) -> None:
    """Measure what one update of a method costs: memory by what it holds, tokens, arithmetic, time.

    Args:
        method: The method to measure, with its settings.
        json: Print one JSON object instead of lines.
    """
    from lab.profiling.profiler import as_row, profile_update

    row = as_row(profile_update(make_config(type(method).__name__, vars(method).copy())))
    if json:
        print(dumps(row))
        return
    print(
        f"measured on {row['device']}, one update of {row['method']}: {', '.join(row['models'])};"
        f" weights of the base in memory {row['copies']:.2f} times"
    )
    for phase, kinds in row["memory"].items():
        print(f"{phase:22} {_mebibytes(kinds)}")
    if row["allocated"]:
        print(f"{'CUDA allocator':22} {row['allocated'] / 2**20:,.1f} MiB at its peak")
    print(f"{'key-value cache':22} {row['largest_cache'] / 2**20:,.1f} MiB at its largest")
    print(
        f"{'tokens':22} {'  '.join(f'{name} {count:,}' for name, count in row['tokens'].items())}"
    )
    print(f"{'arithmetic':22} {row['flops'] / 1e9:,.1f} GFLOP")
    print(
        f"{'seconds':22}"
        f" {'  '.join(f'{name} {value:.3f}' for name, value in row['seconds'].items())}"
    )
    print(
        f"{'energy':22} "
        + ("the device does not say" if row["joules"] is None else f"{row['joules']:.1f} J")
    )


def _mebibytes(kinds: dict[str, int]) -> str:
    return f"{sum(kinds.values()) / 2**20:,.1f} MiB: " + "  ".join(
        f"{name} {size / 2**20:,.1f}" for name, size in kinds.items()
    )


def estimate(
    model: str = "7b",
    method: str = "grpo",
    batch_size: Annotated[int, Range(int, 1, 65_536)] = 16,
    prompt_tokens: Annotated[int, Range(int, 1, 131_072)] = 64,
    completion_tokens: Annotated[int, Range(int, 1, 131_072)] = 256,
    group_size: Annotated[int, Range(int, 2, 1024)] = 8,
    full: bool = False,
    lora_rank: Annotated[int, Range(int, 1, 1024)] = 16,
    float32: bool = False,
    checkpointing: bool = False,
    layout: Literal["shared", "separate"] = "shared",
    micro_batches: Annotated[int, Range(int, 1, 4096)] = 1,
    optimizer: str = "adamw",
    json: bool = False,
    check: str = "",
    out: OutFile = None,
    device: Device = "auto",
) -> None:
    """Estimate the memory of a model that does not fit here, or check the estimates by measuring.

    Args:
        model: 135m, 360m, 1.2b, 7b or 70b: a shape of Llama's family.
        method: dpo, ipo, kto, grpo or ppo.
        batch_size: Pairs (dpo, ipo), examples (kto) or completions (grpo, ppo) in one update.
        prompt_tokens: Length of every prompt.
        completion_tokens: Length of every completion.
        group_size: G of grpo.
        full: Train every weight instead of LoRA, in the dtype of the base. (--lora-rank 0 of a run
        trains them in float32.)
        lora_rank: Rank of LoRA.
        float32: Compute in float32 instead of bfloat16.
        checkpointing: Recompute activations instead of keeping them.
        layout: shared or separate: how ppo keeps its four models.
        micro_batches: Pieces that a batch is cut into.
        optimizer: adamw, adamw_8bit, muon or sgd.
        json: Print one JSON object instead of lines.
        check: Sizes, separated by commas (embedded: the shipped model; 1m and 5m suit a CPU), whose
        estimates are compared with measurements on this machine, for every method.
        out: JSON file that gets the result of the check.
        device: Where the check runs: auto, cpu, cuda or cuda:N.
    """
    if check or out:
        _check_estimates(check, out, device)
        return
    from lab.profiling.estimate import UpdateSettings, estimate_memory

    settings = UpdateSettings(
        batch_size=batch_size,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        group_size=group_size,
        full=full,
        lora_rank=lora_rank,
        bf16=not float32,
        checkpointing=checkpointing,
        layout=layout,
        micro_batches=micro_batches,
        optimizer=optimizer,
    )
    _print_estimate(estimate_memory(model, method, settings), json)


def _check_estimates(check: str, out: Path | None, device: str) -> None:
    if not check:
        raise LabError(
            f"out is '{out}', which gets the result of --check, but no sizes to check are given."
            " Add --check 1m, or leave --out out."
        )
    from lab.experiments.costs import check_estimates

    check_estimates(check.split(","), device, lambda text: print(text, flush=True), out)


def _print_estimate(estimated: "MemoryEstimate", json: bool) -> None:
    if json:
        print(dumps({"estimate": True} | dataclasses.asdict(estimated)))
        return
    print(
        f"an estimate, not a measurement: {estimated.method} on {estimated.model},"
        f" {estimated.parameters / 1e6:,.0f} M weights, of which {estimated.trainable / 1e6:,.1f} M train"
    )
    print(f"models: {', '.join(estimated.models)}; peak {estimated.peak / 2**30:.1f} GiB")
    for phase, kinds in estimated.memory.items():
        print(f"{phase:12} {_mebibytes(kinds)}")


def bench(
    works: str = "dpo,ipo,kto,grpo,decode,padding",
    sizes: str = "embedded",
    checkpointing: Literal["off", "on", "both"] = "off",
    peer: str = "",
    settings: str = "",
    peer_python: str = "",
    plan: str = "",
    rounds: Annotated[int, Range(int, 1, 1000)] = 5,
    out: OutFile = None,
    models: OutFolder = None,
    device: Device = "auto",
) -> None:
    """Measure how fast the lab is on this machine, beside another library and beside the limit of
    the device. The same command with the same --out goes on where it stopped.

    Args:
        works: Names separated by commas: updates of dpo, ipo, kto and grpo; decode, sampling alone;
        padding, the same tokens with one completion twice as long.
        sizes: embedded (the shipped model), or shapes with random weights: 135m, 360m, 1.2b, 8b; for
        a CPU also 1m, 5m.
        checkpointing: Gradient checkpointing, for every side: off, on, or both, one after the other.
        TRL's default has it on and is always tried.
        peer: trl does the same work, in its default and in its fastest settings; unsloth (dpo, ipo,
        grpo) and vllm (decode) do it in an environment of their own; empty: the lab alone.
        settings: Only these settings of the peer, separated by semicolons; empty: all.
        peer_python: The Python of the environment that has unsloth or vllm.
        plan: gpu (the lab and TRL), lab (the lab alone), scaling (for torchrun) or laptop (135m
        beside TRL, with an amount for a CPU): works in the order of their importance, in place of
        --works, --sizes, --checkpointing and --peer.
        rounds: Turns of each side; the median and the range over them are shown.
        out: JSON file that gets every number.
        models: Folder that keeps the models with random weights for the next command.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.benchmarks.plans import Request
    from lab.benchmarks.report import benchmark_table
    from lab.benchmarks.run import run_benchmark
    from lab.distributed.collectives import env_rank

    request = Request(
        works=tuple(works.split(",")),
        sizes=tuple(sizes.split(",")),
        checkpointing=checkpointing,
        peer=peer,
        settings=tuple(name.strip() for name in settings.split(";") if name.strip()),
        peer_python=peer_python,
        plan=plan,
    )
    table = run_benchmark(
        request, rounds, device, lambda text: print(text, flush=True), out, models
    )
    if not env_rank():
        print(f"\n{benchmark_table(table)}")


MEASURING_COMMANDS: dict[str, Callable[..., None]] = {
    "compare": compare,
    "experiment": experiment,
    "resources": resources,
    "estimate": estimate,
    "bench": bench,
}
