"""The commands for runs that exist: eval, runs, control, queue, talk, share, report, import."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

from lab.cli.arguments import Device, OutFile, OutFolder, Output, Run
from lab.cli.program import program
from lab.config.changes import change_setting, parse_setting
from lab.config.input_checks import SEED_RANGE, TALK, Range
from lab.config.user_code import names_code
from lab.errors import LabError, unknown
from lab.runs import catalogue
from lab.runs.control import new_command
from lab.runs.damage import damaged_runs
from lab.runs.summary import summaries
from lab.storage import paths
from lab.storage.jsonl import replace_file


def print_evaluation(
    run: Run,
    /,
    json: bool = False,
    prompts: Annotated[int, Range(int, 1, 10_000)] = 512,
    samples: Annotated[int, Range(int, 1, 1024)] = 4,
    seed: Annotated[int, SEED_RANGE] = 0,
    device: Device = "auto",
    reward: str = "",
) -> None:
    """Measure a trained run on held-out prompts.

    Args:
        run: Name or folder of the run.
        json: Print one JSON object instead of lines.
        prompts: Held-out prompts, the first of a fixed list.
        samples: Completions of each prompt; pass@k is given for k up to this.
        seed: Seeds the sampling noise.
        device: auto, cpu, cuda or cuda:N.
        reward: For a run whose reward is code of your own: MODULE:FUNCTION again. Left out, it is
        not called.
    """
    from lab.serving.load import evaluate_run

    folder = catalogue.open_run(run)
    own_reward = getattr(folder.config, "reward", "")
    if names_code(folder.config) and not reward:
        print(
            f"The reward {own_reward} is code and is not called. To measure it as well: --reward"
            f" {own_reward}",
            file=sys.stderr,
        )
    result = evaluate_run(
        folder, prompts=prompts, samples=samples, seed=seed, device=device, reward=reward
    )
    print(
        _json(result)
        if json
        else "\n".join(f"{name:26} {_shown(value)}" for name, value in result.items())
    )


def _json(value: Any) -> str:
    return json.dumps(value)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "  ".join(f"{k}: {v:.3f}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return " to ".join(f"{v:.3f}" for v in value)
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_runs(root: Path | None = None) -> None:
    """List the runs of a folder.

    Args:
        root: The folder that holds the runs; left out, the one that LAB_RUNS names, or runs.
    """
    root = root or paths.runs_root()
    if root.exists() and not root.is_dir():
        raise LabError(
            f"root is '{root}', which is no folder. Give the folder that holds the runs."
        )
    wrong, found = damaged_runs(root), summaries(catalogue.list_runs(root))
    if not found and not wrong:
        print(f"No runs in {root}/ yet. Start one: {program()} train grpo")
    for s in sorted(found, key=lambda s: s.name):
        if s.name not in wrong:
            word, ends = ("gold", s.gold) if s.gold else ("held-out loss", s.held_out)
            measured = f"{word} {ends[0]:.2f} -> {ends[1]:.2f}" if ends else ""
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.started))
            print(
                f"{s.name:24} {s.config['method']:13} {s.state:12} step"
                f" {s.step}/{s.config['steps']:<6} {measured:29} {when}"
            )
    for name, reason in wrong.items():
        print(f"{name:24} damaged: {reason}")


def control(run: Run, order: str, /) -> None:
    """Steer a running training and wait for its answer.

    Args:
        run: Name or folder of the run.
        order: SETTING=VALUE (such as beta=0.2), pause, continue or stop.
    """
    folder = catalogue.open_run(run)
    knob, is_setting, text = order.partition("=")
    if not is_setting and order not in ("pause", "continue", "stop"):
        raise unknown("order", order, ["pause", "continue", "stop", "SETTING=VALUE"])
    value = parse_setting(type(folder.config), knob, text) if is_setting else None
    if is_setting:
        change_setting(folder.config, knob, value)
    answer = folder.ask(new_command("set", knob, value) if is_setting else new_command(order))
    detail = answer["detail"]
    if answer["kind"] == "rejected":
        raise LabError(detail["message"])
    print(
        f"step {answer['step']}: {answer['kind']}"
        + (
            f" {detail['knob']} from {detail['from']} to {detail['to']}"
            if answer["kind"] == "changed"
            else ""
        )
    )


def queue(root: Path | None = None) -> None:
    """Start the runs that wait in the queue as cores become free; ends when none waits. The
    dashboard starts this by itself.

    Args:
        root: The folder that holds the runs; left out, the one that LAB_RUNS names, or runs.
    """
    from lab.runs.queue import run_queue

    run_queue(root or paths.runs_root())


def talk(
    run: str = "",
    prompt: str = "",
    /,
    seed: Annotated[int, TALK["seed"]] = 0,
    temperature: Annotated[float, TALK["temperature"]] = 1.0,
    max_tokens: Annotated[int, TALK["max_tokens"]] = 0,
    draws: Annotated[int, TALK["draws"]] = 32,
    json: bool = False,
    serve: bool = False,
    device: Device = "auto",
) -> None:
    """Let a trained policy and its reference answer one prompt with the same noise.

    Args:
        run: Name or folder of the run.
        prompt: What they answer; left out, the task's first held-out prompt.
        seed: Seeds the noise, which both draw from.
        temperature: 0 takes the likeliest token each time.
        max_tokens: Longest completion in tokens; 0 is the run's own limit.
        draws: Completions of each that are counted; 0 counts none.
        json: Print one JSON object instead of lines.
        serve: Answer requests from standard input, one JSON object a line, until it ends: what the
        dashboard starts.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.serving.side_by_side import PolicyWithReference
    from lab.serving.worker import serve_requests as answers

    if serve:
        for answer in answers(sys.stdin, device):
            print(_json(answer), flush=True)
        return
    said = PolicyWithReference.of(catalogue.open_run(run), device).answer(
        prompt, seed=seed, temperature=temperature, max_tokens=max_tokens, draws=draws
    )
    if json:
        print(_json(said))
        return
    print(
        f"{'prompt':10} {said['prompt']}"
        + (f"   gold answer {said['answer']}" if said["answer"] else "")
    )
    for name in ("reference", "policy"):
        side = said[name]
        counts = [
            f"{side['draws'][kind]} {words}"
            for kind, words in (("right", "right"), ("scratchpads", "think first"))
            if kind in side.get("draws", {})
        ]
        counted = f"   of {draws} draws {', '.join(counts)}" if counts else ""
        print(
            f"{name:10} {side['text']}  "
            f" {({True: 'right', False: 'wrong', None: ''})[side['right']]}   log π"
            f" {sum(side['policy_logps']):.2f}, log π_ref"
            f" {sum(side['reference_logps']):.2f}{counted}"
        )


def share(run: Run, /, out: OutFile = None) -> None:
    """Write a run as one HTML file: curves, changed settings, completions, and a button that replays it.
    The file opens without Python and without a network.

    Args:
        run: Name or folder of the run.
        out: The file; left out, the run's name with .html in this folder.
    """
    from lab.serving.share import share_page

    folder = catalogue.open_run(run)
    path = out or Path(f"{folder.path.resolve().name}.html")
    page = share_page(folder).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, page)
    print(f"{path}: {len(page):,} bytes")


def report(run: Run, /, out: OutFolder = None) -> None:
    """Write the report of a run, as its end does: report.md and report.html with curves, completions,
    diagnosis, cost, settings and the command that repeats it. The Markdown is also the model card
    README.md beside its adapters.

    Args:
        run: Name or folder of the run.
        out: Folder for the two files; left out, the run's own, and README.md is written too.
    """
    from lab.serving.run_report import write_report

    folder = catalogue.open_run(run)
    for path in write_report(folder, out):
        print(f"{path}: {path.stat().st_size:,} bytes")


def import_command(
    source: Path,
    /,
    *known: str,
    method: str = "",
    out: Annotated[Path | None, Output(folder=True, new=True)] = None,
) -> None:
    """Make a run folder of a run of TRL, verl or another trainer, so that the dashboard shows it beside
    your own runs. It can be looked at, but not continued.

    Args:
        source: The output folder of the other trainer, or one file: trainer_state.json of TRL, JSON
        lines with a step, such as verl's file logger writes, or event files of TensorBoard.
        known: What you know of its settings and its records do not hold, as SETTING=VALUE: model=NAME,
        beta=0.1.
        method: Its method; left out, the names of its metrics tell it.
        out: The new folder; left out, the name of the source in the folder of your runs.
    """
    from lab.config.methods import method_of
    from lab.runs.import_run import import_run

    folder = import_run(source, out, method, known)
    print(
        f"{folder.path} shows {folder.status()['step']} updates of {method_of(folder.config)}. Look at it:"
        f" {program()} app"
    )
