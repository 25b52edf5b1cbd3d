"""The command line: train, steer, evaluate, list and question runs. torch is imported only by the commands that compute."""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_type_hints

import tyro

from lab import runs
from lab.cli_own import OWN
from lab.config import CONFIGS, RunConfig, make_config, method_of, read, to_dict
from lab.control import command
from lab.diagnosis import diagnose
from lab.errors import LabError, unknown
from lab.metrics import columns_of
from lab.tasks import catalogue, check


def _arguments(method: str, kind: type[RunConfig], writes: bool = True) -> type:
    """The knobs of `kind` as tyro wants them: help with the range, choices as a literal type; and, if a run is written, where."""
    hints, parts = get_type_hints(kind), []
    for f in dataclasses.fields(kind):
        low, high, choices = f.metadata["low"], f.metadata["high"], f.metadata["choices"]
        text = f.metadata["help"] + (f" From {low:g} to {high:g}." if low is not None else "") + (" Can change while it runs." if f.metadata["live"] else "")
        words = choices and not f.metadata["also"]
        parts.append((f.name, Annotated[Literal[choices] if words else hints[f.name], tyro.conf.arg(help=text)], dataclasses.field(default=f.default)))
    where = Annotated[str, tyro.conf.arg(help="Folder of the run; it must not exist. Empty makes runs/METHOD-DATE-TIME.")]
    made = dataclasses.make_dataclass(method, [*parts, ("out", where, dataclasses.field(default=""))] if writes else parts)
    made.__doc__ = kind.__doc__
    return made


EXPERIMENTS = {
    "arithmetic": "GRPO on arithmetic with SmolLM2-135M: verifier, random rewards, groups of 2 to 32",
    "beta": "KL, gold accuracy and log-probabilities of DPO, IPO and KTO at equal updates for five β",
    "drift": "how far a policy leaves its data",
    "frontier": "gold reward against KL of every method on sentiment with SmolLM2-135M, for four β",
    "groups": "GRPO with groups of 2 to 32, at equal rollouts and at equal prompts",
    "margins": "the margin of every one of 64 training pairs while a run trains",
    "one_update": "one update of PPO and one of DPO, number by number",
    "overoptimisation": "proxy against gold reward as reward models are optimised",
    "pool": "real completions of the base and of a GRPO run, with the log-probability of every token",
    "recorded": "the runs that the lab ships: every method's defaults and every preset",
    "sensitivity": "the outcome against each knob",
}
ONE_SEED = ("margins", "one_update", "pool", "recorded")  # Those that show single runs.


@dataclass
class Resume:
    """Continue a run from its checkpoint, along the same trajectory."""

    out: Path
    """Folder of the run."""
    method: Annotated[Literal[("", *CONFIGS)], tyro.conf.Positional] = ""
    """Its method; may be left out."""
    steps: int | None = None
    """Updates in all; left out, the run keeps its number."""


def train(method: Any) -> None:
    """Train a LoRA adapter with one method. Ctrl-C stops after the present update and keeps everything; `--resume --out RUN` goes on."""
    knobs = vars(method).copy()
    name, out = type(method).__name__, knobs.pop("out")
    if _follows():
        return
    config = make_config(name, knobs)
    check(config)
    _drive(runs.create(Path(out) if out else runs.new_path(name), config))


def resume(asked: Resume) -> None:
    """Continue the run in `asked.out`."""
    if _follows():
        return
    folder = runs.find(str(asked.out))
    own = method_of(folder.config)
    if asked.method and asked.method != own:
        raise LabError(f"{asked.out} is a run of {own}, not {asked.method}. Leave the method out, or name {own}.")
    _drive(folder, asked.steps)


def _follows() -> bool:
    """Take part in a run as one of several processes, unless this one leads or was started alone."""
    from lab.parallel import launched

    if not launched():
        return False
    from lab.driver import follow

    follow()
    return True


def _drive(folder: runs.RunFolder, steps: int | None = None) -> None:
    from lab.driver import drive
    from lab.progress import Progress

    progress = Progress(sys.stdout)
    try:
        run = drive(folder, steps, progress.show)
    finally:
        progress.close()
    rows = folder.history()
    for text in diagnose(to_dict(run.config), columns_of(rows), [row for row in rows if row["type"] == "event"]):
        print(text)
    print(f"{folder.path} is {folder.state} after {run.step} updates in {run.seconds:.1f} s. Measure it: python -m lab eval {folder.path}")


def evaluate(run: Annotated[str, tyro.conf.Positional], /, json: bool = False, prompts: int = 512, samples: int = 4, seed: int = 0,
             device: str = "auto") -> None:
    """Measure a trained run on held-out prompts.

    Args:
        run: Name or folder of the run.
        json: Print one JSON object instead of lines.
        prompts: Held-out prompts, the first of a fixed list.
        samples: Completions of each prompt; pass@k is given for k up to this.
        seed: Seeds the sampling noise.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.trained import evaluate_run

    result = evaluate_run(runs.find(run), prompts=prompts, samples=samples, seed=seed, device=device)
    print(_json(result) if json else "\n".join(f"{name:26} {_shown(value)}" for name, value in result.items()))


def _json(value: Any) -> str:
    return json.dumps(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k}: {v:.3f}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(f"{v:.3f}" for v in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def list_runs(root: Path = Path("runs")) -> None:
    """List the runs of a folder.

    Args:
        root: The folder that holds the runs.
    """
    found = runs.list_runs(root)
    if not found:
        print(f"No runs in {root}/ yet. Start one: python -m lab train grpo")
    for folder in found:
        rows = [row for row in folder.history() if row["type"] == "step"]
        gold = [row["metrics"][name] for row in rows for name in ("gold/accuracy", "gold/reward_accuracy") if row["metrics"].get(name) is not None]
        step = rows[-1]["step"] if rows else 0
        accuracy = f"gold {gold[0]:.2f} -> {gold[-1]:.2f}" if gold else ""
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime((folder.path / "config.json").stat().st_mtime))
        print(f"{folder.name:24} {method_of(folder.config):13} {folder.state:12} step {step}/{folder.config.steps:<6} {accuracy:21} {when}")


def control(run: Annotated[str, tyro.conf.Positional], order: Annotated[str, tyro.conf.Positional], /) -> None:
    """Steer a running training and wait for its answer.

    Args:
        run: Name or folder of the run.
        order: KNOB=VALUE (such as beta=0.2), pause, continue or stop.
    """
    folder = runs.find(run)
    knob, is_setting, text = order.partition("=")
    if not is_setting and order not in ("pause", "continue", "stop"):
        raise unknown("order", order, ["pause", "continue", "stop", "KNOB=VALUE"])
    answer = folder.ask(command("set", knob, read(type(folder.config), knob, text)) if is_setting else command(order))
    detail = answer["detail"]
    if answer["kind"] == "rejected":
        raise LabError(detail["message"])
    print(f"step {answer['step']}: {answer['kind']}" + (f" {detail['knob']} from {detail['from']} to {detail['to']}" if answer["kind"] == "changed" else ""))


def queue(root: Path = Path("runs")) -> None:
    """Start the runs that wait in the queue as cores become free; ends when none waits. The dashboard starts this by itself.

    Args:
        root: The folder that holds the runs.
    """
    from lab.queue import work

    work(root)


def talk(run: Annotated[str, tyro.conf.Positional] = "", prompt: str = "", /, seed: int = 0, temperature: float = 1.0, max_tokens: int = 0,
         draws: int = 32, json: bool = False, serve: bool = False, device: str = "auto") -> None:
    """Let a trained policy and its reference answer one prompt with the same noise.

    Args:
        run: Name or folder of the run.
        prompt: What they answer; left out, the task's first held-out prompt.
        seed: Seeds the noise, which both draw from.
        temperature: 0 takes the likeliest token each time.
        max_tokens: Longest completion in tokens; 0 is the run's own limit.
        draws: Completions of each that are counted; 0 counts none.
        json: Print one JSON object instead of lines.
        serve: Answer requests from standard input, one JSON object a line, until it ends: what the dashboard starts.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.talk import Talker
    from lab.talk import serve as answers

    if serve:
        for answer in answers(sys.stdin, device):
            print(_json(answer), flush=True)
        return
    said = Talker.of(runs.find(run), device).answer(prompt, seed=seed, temperature=temperature, max_tokens=max_tokens, draws=draws)
    if json:
        print(_json(said))
        return
    print(f"{'prompt':10} {said['prompt']}" + (f"   gold answer {said['answer']}" if said["answer"] else ""))
    for name in ("reference", "policy"):
        side = said[name]
        counts = [f"{side['draws'][kind]} {words}" for kind, words in (("right", "right"), ("scratchpads", "think first")) if kind in side.get("draws", {})]
        counted = f"   of {draws} draws {', '.join(counts)}" if counts else ""
        print(f"{name:10} {side['text']}   {({True: 'right', False: 'wrong', None: ''})[side['right']]}   log π {sum(side['policy_logps']):.2f}, "
              f"log π_ref {sum(side['reference_logps']):.2f}{counted}")


def build_talk(run: Annotated[str, tyro.conf.Positional], /, out: Path | None = None, device: str = "auto") -> None:
    """Ship a trained policy with its answers to the first held-out prompts, for the page Talk.

    Args:
        run: Name or folder of the run.
        out: Folder to write; left out, the lab's own recorded GRPO run.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.talk import RECORDED, record

    print(record(runs.find(run), out or RECORDED, device))


def compare(methods: str = "sft,dpo,ipo,kto,online_dpo,grpo,ppo", seeds: int = 3, budget: str = "defaults", amount: float = 0.0,
            out: Path = Path("runs/compare"), device: str = "auto", model: str = "embedded", task: str = "chain", data: str = "",
            knobs: str = "") -> None:
    """Train several methods over several seeds from the same base and tabulate them; a second call goes on where the first stopped.

    Args:
        methods: Names separated by commas. Online methods take @gold (the task's rule scores) or @model (a learnt reward model does);
            by default the rule for grpo, the reward model for ppo and online_dpo.
        seeds: How many seeds, from 0; at least 2.
        budget: defaults (each method's own number of updates), or what amount counts: updates, tokens (trained on), seconds (of training).
        amount: How much of the budget each run gets.
        out: Folder of the comparison.
        device: auto, cpu, cuda or cuda:N.
        model: Base model of all.
        task: Where prompts, gold answers and rewards come from.
        data: Pairs to learn from; empty: the task's own. `python -m lab build-pairs` samples some.
        knobs: Further knobs, such as lora_rank=16,grpo.beta=0.04: KNOB=VALUE for every method that has it, METHOD.KNOB=VALUE for one.
    """
    from lab.experiments.compare import Plan, markdown
    from lab.experiments.compare import compare as run_all

    plan = Plan(tuple(methods.split(",")), seeds, budget, amount, device, model, task, data, knobs)
    table = run_all(plan, out, lambda text: print(text, flush=True))
    print(f"\n{markdown(table)}\n{out}/report.md, table.json and table.csv hold the rest.")


_ExperimentName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help="; ".join(f"{name}: {text}" for name, text in EXPERIMENTS.items()) + ".")]


def experiment(name: _ExperimentName, /, seeds: int | None = None, out: Path | None = None, jobs: int = 1, device: str = "auto") -> None:
    """Rerun an experiment behind one of the lab's claims; a second call goes on where the first stopped.

    Args:
        seeds: How many seeds, from 0; left out, 3, or 1 where single runs are shown.
        out: Folder of the experiment; left out, runs/NAME.
        jobs: Runs at a time, each in a process of its own.
        device: auto, cpu, cuda or cuda:N.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, list(EXPERIMENTS))
    if jobs < 1:
        raise LabError(f"jobs is {jobs}, but takes a whole number of at least 1.")
    module = import_module(f"lab.experiments.{name}")
    folder = out or runs.runs_root() / name
    count = (1 if name in ONE_SEED else 3) if seeds is None else seeds
    table = getattr(module, name)(folder, count, device, jobs, lambda text: print(text, flush=True))
    print(f"\n{module.report(table)}\n{folder}/report.md and table.json hold this and every run.")


def resources(method: Any, json: bool = False) -> None:
    """Measure what one update of a method costs: memory by what it holds, tokens, arithmetic, time.

    Args:
        method: What to measure, with its knobs.
        json: Print one JSON object instead of lines.
    """
    from lab.resources import as_row, profile

    row = as_row(profile(make_config(type(method).__name__, vars(method).copy())))
    if json:
        print(_json(row))
        return
    print(f"measured on {row['device']}, one update of {row['method']}: {', '.join(row['models'])}; weights of the base in memory {row['copies']:.2f} times")
    for phase, kinds in row["memory"].items():
        print(f"{phase:22} {_mebibytes(kinds)}")
    if row["allocated"]:
        print(f"{'CUDA allocator':22} {row['allocated'] / 2**20:,.1f} MiB at its peak")
    print(f"{'key-value cache':22} {row['largest_cache'] / 2**20:,.1f} MiB at its largest")
    print(f"{'tokens':22} {'  '.join(f'{name} {count:,}' for name, count in row['tokens'].items())}")
    print(f"{'arithmetic':22} {row['flops'] / 1e9:,.1f} GFLOP")
    print(f"{'seconds':22} {'  '.join(f'{name} {value:.3f}' for name, value in row['seconds'].items())}")
    print(f"{'energy':22} " + ("the device does not say" if row["joules"] is None else f"{row['joules']:.1f} J"))


def _mebibytes(kinds: dict[str, int]) -> str:
    return f"{sum(kinds.values()) / 2**20:,.1f} MiB: " + "  ".join(f"{name} {size / 2**20:,.1f}" for name, size in kinds.items())


def estimate(model: str = "7b", method: str = "grpo", batch_size: int = 16, prompt_tokens: int = 64, completion_tokens: int = 256, group_size: int = 8,
             full: bool = False, lora_rank: int = 16, float32: bool = False, checkpointing: bool = False, layout: str = "shared", micro_batches: int = 1,
             optimizer: str = "adamw", json: bool = False, check: str = "", out: Path | None = None, device: str = "auto") -> None:
    """Estimate the memory of a model that does not fit here, or check the estimator against measurement.

    Args:
        model: 135m, 360m, 1.2b, 7b or 70b: a shape of Llama's family.
        method: dpo, ipo, kto, grpo or ppo.
        batch_size: Pairs (dpo, ipo), examples (kto) or completions (grpo, ppo) in one update.
        prompt_tokens: Length of every prompt.
        completion_tokens: Length of every completion.
        group_size: G of grpo.
        full: Train every weight instead of LoRA.
        lora_rank: Rank of LoRA.
        float32: Compute in float32 instead of bfloat16.
        checkpointing: Recompute activations instead of keeping them.
        layout: shared or separate: how ppo keeps its four models.
        micro_batches: Pieces that a batch is cut into.
        optimizer: adamw, adamw_8bit or sgd.
        json: Print one JSON object instead of lines.
        check: Sizes, separated by commas, that are built with random weights (embedded: the shipped model), measured on this machine with every
            method and compared with their estimates. Further sizes for a CPU: 1m, 5m.
        out: JSON file that gets the result of the check.
        device: Where the check runs: auto, cpu, cuda or cuda:N.
    """
    if check:
        from lab.experiments.costs import check as run_check

        run_check(check.split(","), device, lambda text: print(text, flush=True), out)
        return
    from lab.estimate import estimate as guess

    found = guess(model, method, batch_size=batch_size, prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, group_size=group_size, full=full,
                  lora_rank=lora_rank, bf16=not float32, checkpointing=checkpointing, layout=layout, micro_batches=micro_batches, optimizer=optimizer)
    if json:
        print(_json({"estimate": True} | dataclasses.asdict(found)))
        return
    print(f"an estimate, not a measurement: {found.method} on {found.model}, {found.parameters / 1e6:,.0f} M weights, "
          f"of which {found.trainable / 1e6:,.1f} M train")
    print(f"models: {', '.join(found.models)}; peak {found.peak / 2**30:.1f} GiB")
    for phase, kinds in found.memory.items():
        print(f"{phase:12} {_mebibytes(kinds)}")


def bench(works: str = "dpo,ipo,kto,grpo,decode,padding", sizes: str = "embedded", peer: str = "", rounds: int = 5, out: Path | None = None,
          device: str = "auto") -> None:
    """Measure how fast the lab is on this machine, beside another library and beside the limit of the device.

    Args:
        works: Names separated by commas: updates of dpo, ipo, kto and grpo; decode, sampling alone; padding, the same tokens with one completion twice as long.
        sizes: embedded (the shipped model), or shapes with random weights: 135m, 360m, 1.2b; for a CPU also 1m, 5m.
        peer: trl does the same work in turns with the lab, in its default and in its fastest settings; empty: the lab alone.
        rounds: Turns of each side; the median and the range over them are shown.
        out: JSON file that gets every number.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.experiments.bench import bench as measure
    from lab.experiments.bench_report import markdown
    from lab.parallel import launched

    table = measure(works.split(","), sizes.split(","), peer, rounds, device, lambda text: print(text, flush=True), out)
    if not launched():
        print(f"\n{markdown(table)}")


def course(order: Annotated[Literal["report", "handout", "build"], tyro.conf.Positional], folder: Annotated[Path, tyro.conf.Positional] = Path("notebooks"),
           /, only: str = "") -> None:
    """The notebooks: collect what learners have done, make copies for a class, or execute them all.

    Args:
        order: report prints a CSV with a row for every learner's folder in FOLDER: which checks passed, at which call. handout writes the notebooks
            without their solutions into FOLDER. build executes the lab's own notebooks and writes what they show.
        folder: Where learners' folders lie, or where copies go.
        only: Number of the one notebook to build, such as 03; left out, all of them.
    """
    if order == "report":
        from lab.course.exercises import EXERCISES
        from lab.course.progress import report

        print(report(folder, list(EXERCISES)), end="")
    elif order == "handout":
        from lab.course.handout import handout

        for path in handout(folder):
            print(path)
    else:
        from lab.course.build import build, notebooks

        build([path for path in notebooks() if path.name.startswith(only)])


def build_base(out: Path | None = None, seed: int = 0, steps: int = 1500, device: str = "auto") -> None:
    """Train the embedded base model from a seed.

    Args:
        out: Where to write it; left out, the lab's own base is replaced.
        seed: Seeds weights and data.
        steps: Optimizer updates.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab import base

    print(json.dumps(base.build_base(out or base.EMBEDDED, seed, steps, device), indent=2))


def build_pairs(out: Path | None = None, task: str = "chain", reward: str = "answer", model: str = "embedded", count: int = 4000, seed: int = 0,
                max_tokens: int = 64, device: str = "auto") -> None:
    """Sample preference pairs from a base model: the chosen completion has the higher reward (is right), the rejected one the lower (is wrong).

    Args:
        out: JSONL file to write; left out, the lab's own pairs are replaced, and those of another task go to runs/pairs-TASK.jsonl.
        task: chain, sentiment, gym:NAME or prompts of your own.
        reward: Rule of the task, or MODULE:FUNCTION; answer is its ground truth.
        model: Base model to sample from.
        count: Number of pairs.
        seed: Seeds prompts and noise.
        max_tokens: Longest completion in tokens.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab import base

    print(json.dumps(base.build_pairs(out or base.pairs_path(task), model, count, seed, device, task, reward, max_tokens), indent=2))


def tasks() -> None:
    """List the tasks: what they ask for, and the rewards that they name."""
    for name, text in catalogue():
        print(f"{name:32} {text}")


def _one_of_the_methods(writes: bool) -> Any:
    return Union[tuple(Annotated[_arguments(name, kind, writes), tyro.conf.subcommand(name, description=kind.__doc__)]  # noqa: UP007
                       for name, kind in CONFIGS.items())]


train.__annotations__["method"] = _one_of_the_methods(writes=True)
resources.__annotations__["method"] = _one_of_the_methods(writes=False)
COMMANDS = {"train": train, "eval": evaluate, "runs": list_runs, "control": control, "talk": talk, "queue": queue, "compare": compare, "experiment": experiment,
            "resources": resources, "estimate": estimate, "bench": bench, "course": course,
            "tasks": tasks, "build-base": build_base, "build-pairs": build_pairs, "build-talk": build_talk, **OWN}


def _check_names(arguments: list[str]) -> None:
    """Name the nearest valid command, method or knob for one that does not exist; tyro checks the rest."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], list(COMMANDS))
    if arguments[:1] not in (["train"], ["resources"]) or len(arguments) < 2 or arguments[1].startswith("-"):
        return
    method = arguments[1]
    if method not in CONFIGS:
        raise unknown("method", method, list(CONFIGS))
    known = ["out", "steps"] if "--resume" in arguments else ["out", *(f.name for f in dataclasses.fields(CONFIGS[method]))]
    for text in arguments[2:]:
        name = text.partition("=")[0].removeprefix("--").replace("-", "_")
        if text.startswith("--") and name not in [*known, "help", "resume"]:
            if "--resume" in arguments and name in {f.name for f in dataclasses.fields(CONFIGS[method])}:
                raise LabError(f"{name} cannot be given again when a run resumes: it keeps its own. "
                               f"While it trains, live knobs change with python -m lab control RUN {name}=VALUE.")
            raise unknown(f"knob of {method}", name, known)


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error that the user can mend is one message on stderr and exit code 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        _check_names(arguments)
        if arguments[:1] == ["train"] and "--resume" in arguments:
            resume(tyro.cli(Resume, args=[a for a in arguments[1:] if a != "--resume"], prog="python -m lab train --resume"))
        else:
            tyro.extras.subcommand_cli_from_dict(COMMANDS, args=arguments, prog="python -m lab",
                                                 description="A lab in which language models learn from preferences.",
                                                 config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes))
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
