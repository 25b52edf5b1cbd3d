"""The command line: train, steer, evaluate, list and question runs. torch is imported only by the
commands that compute.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lab.analysis.diagnose import diagnose
from lab.cli.arguments import (
    Device,
    OutFile,
    OutFolder,
    Run,
    checked,
    one_line,
    require_known_option,
    require_texts,
    shown,
)
from lab.cli.measure import MEASURING, one_of_the_methods
from lab.cli.models_and_data import OWN
from lab.config.input_checks import SEED, TALK, Range, require_writable
from lab.config.methods import (
    CONFIGS,
    change,
    make_config,
    method_of,
    names_code,
    read,
    require_code,
    to_dict,
)
from lab.errors import LabError, unknown
from lab.runs import catalogue as run_catalogue
from lab.runs import folder as runs
from lab.runs.control import new_command
from lab.runs.damage import damaged_runs
from lab.runs.records import columns_of
from lab.runs.states import EventKind
from lab.runs.summary import summaries
from lab.storage.paths import runs_root
from lab.storage.pipes import tolerate_closed_output
from lab.tasks.registry import catalogue, check_task


def train(method: Any) -> None:
    """Train a LoRA adapter with one method. Ctrl-C stops after the present update and keeps
    everything; `--resume --out RUN` goes on.
    """
    knobs = vars(method).copy()
    name, out = type(method).__name__, knobs.pop("out")
    if _follows():
        return
    config = make_config(name, knobs)
    check_task(config)
    _drive(runs.create(Path(out) if out else run_catalogue.new_path(name), config))


def resume(
    method: Annotated[Literal[("", *CONFIGS)], tyro.conf.Positional] = "",
    /,
    *,
    out: Path,
    steps: Annotated[int | None, Range(int, 1, 1_000_000)] = None,
    reward: str = "",
) -> None:
    """Continue a run from its checkpoint, along the same trajectory.

    Args:
        method: Its method; may be left out.
        out: Folder of the run.
        steps: Updates in all; left out, the run keeps its number.
        reward: Only for a run whose reward is code of your own: MODULE:FUNCTION again, since a
        folder names no code by itself.
    """
    if _follows():
        return
    folder = run_catalogue.open_run(str(out))
    own = method_of(folder.config)
    if method and method != own:
        raise LabError(
            f"{out} is a run of {own}, not {method}. Leave the method out, or name {own}."
        )
    require_code(folder.config, reward)
    _drive(folder, steps)


def _follows() -> bool:
    """Take part in a run as one of several processes, unless this one leads or was started alone."""
    from lab.distributed.collectives import env_rank

    if not env_rank():
        return False
    from lab.training.driver import follow_rank_zero

    follow_rank_zero()
    return True


def _drive(folder: runs.RunFolder, steps: int | None = None) -> None:
    from lab.profiling.out_of_memory import expected_memory
    from lab.training.driver import drive
    from lab.training.progress_bar import Progress

    progress = Progress(sys.stdout)
    try:
        run = drive(folder, steps, progress.show, expected_memory=expected_memory)
    finally:
        progress.close()
    rows = folder.history()
    for text in diagnose(
        to_dict(run.config), columns_of(rows), [row for row in rows if row["type"] == "event"]
    ):
        print(text)
    print(
        f"{folder.path} is {folder.state} after {run.step} updates in {run.timer.training_seconds:.1f} s. Measure it: python -m lab eval {folder.path}"
    )


def evaluate(
    run: Run,
    /,
    json: bool = False,
    prompts: Annotated[int, Range(int, 1, 10_000)] = 512,
    samples: Annotated[int, Range(int, 1, 1024)] = 4,
    seed: Annotated[int, SEED] = 0,
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

    folder = run_catalogue.open_run(run)
    if names_code(folder.config) and not reward:
        print(
            f"The reward {folder.config.reward} is code and is not called. To measure it as well: --reward {folder.config.reward}",
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


def list_runs(root: Path | None = None) -> None:
    """List the runs of a folder.

    Args:
        root: The folder that holds the runs; left out, the one that LAB_RUNS names, or runs.
    """
    root = root or runs_root()
    if root.exists() and not root.is_dir():
        raise LabError(
            f"root is '{root}', which is no folder. Give the folder that holds the runs."
        )
    wrong, found = damaged_runs(root), summaries(run_catalogue.list_runs(root))
    if not found and not wrong:
        print(f"No runs in {root}/ yet. Start one: python -m lab train grpo")
    for s in sorted(found, key=lambda s: s.name):
        if s.name not in wrong:
            word, ends = ("gold", s.gold) if s.gold else ("held-out loss", s.held_out)
            measured = f"{word} {ends[0]:.2f} -> {ends[1]:.2f}" if ends else ""
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(s.started))
            print(
                f"{s.name:24} {s.config['method']:13} {s.state:12} step {s.step}/{s.config['steps']:<6} {measured:29} {when}"
            )
    for name, reason in wrong.items():
        print(f"{name:24} damaged: {reason}")


def control(run: Run, order: str, /) -> None:
    """Steer a running training and wait for its answer.

    Args:
        run: Name or folder of the run.
        order: KNOB=VALUE (such as beta=0.2), pause, continue or stop.
    """
    folder = run_catalogue.open_run(run)
    knob, is_setting, text = order.partition("=")
    if not is_setting and order not in ("pause", "continue", "stop"):
        raise unknown("order", order, ["pause", "continue", "stop", "KNOB=VALUE"])
    value = read(type(folder.config), knob, text) if is_setting else None
    if is_setting:
        change(folder.config, knob, value)
    answer = folder.ask(new_command("set", knob, value) if is_setting else new_command(order))
    detail = answer["detail"]
    if answer["kind"] == EventKind.REJECTED:
        raise LabError(detail["message"])
    print(
        f"step {answer['step']}: {answer['kind']}"
        + (
            f" {detail['knob']} from {detail['from']} to {detail['to']}"
            if answer["kind"] == EventKind.CHANGED
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

    run_queue(root or runs_root())


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
    said = PolicyWithReference.of(run_catalogue.open_run(run), device).answer(
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
            f"{name:10} {side['text']}   {({True: 'right', False: 'wrong', None: ''})[side['right']]}   log π {sum(side['policy_logps']):.2f}, log π_ref {sum(side['reference_logps']):.2f}{counted}"
        )


def build_talk(run: Run, /, out: OutFolder = None, device: Device = "auto") -> None:
    """Ship a trained policy with its answers to the first held-out prompts, for the page Talk.

    Args:
        run: Name or folder of the run.
        out: Folder to write; left out, the lab's own recorded GRPO run.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.recipes.record_chat import record_chat
    from lab.serving.side_by_side import RECORDED_RUN

    folder = out or RECORDED_RUN
    require_writable("out", folder, folder=True)
    print(record_chat(run_catalogue.open_run(run), folder, device))


def course(
    order: Literal["report", "handout", "build"],
    folder: Path = Path("notebooks"),
    /,
    only: str = "",
) -> None:
    """The notebooks: collect what learners have done, make copies for a class, or execute them all.

    Args:
        order: report prints a CSV with a row for every learner's folder in FOLDER: which checks
        passed, at which call. handout writes the notebooks
            without their solutions into FOLDER. build executes the lab's own notebooks and writes
            what they show.
        folder: Where learners' folders lie, or where copies go.
        only: Number of the one notebook to build, such as 03; left out, all of them.
    """
    if order == "report":
        from lab.course.exercises.registry import EXERCISES
        from lab.course.progress import progress_sheet

        print(progress_sheet(folder, list(EXERCISES)), end="")
    elif order == "handout":
        from lab.course.handout import handout

        require_writable("folder", folder, folder=True)
        for path in handout(folder):
            print(path)
    else:
        from lab.course.build_notebooks import build_notebooks, notebooks

        chosen = [path for path in notebooks() if path.name.startswith(only)]
        if not chosen:
            raise unknown("notebook", only, [path.name[:2] for path in notebooks()])
        build_notebooks(chosen)


def build_base(
    out: OutFolder = None,
    seed: Annotated[int, SEED] = 0,
    steps: Annotated[int, Range(int, 1, 1_000_000)] = 1500,
    device: Device = "auto",
) -> None:
    """Train the embedded base model from a seed.

    Args:
        out: Where to write it; left out, the lab's own base is replaced.
        seed: Seeds weights and data.
        steps: Optimizer updates.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.recipes import pretrain_base

    folder = out or pretrain_base.EMBEDDED
    require_writable("out", folder, folder=True)
    print(json.dumps(pretrain_base.build_base(folder, seed, steps, device), indent=2))


def build_pairs(
    out: OutFile = None,
    task: str = "chain",
    reward: str = "answer",
    model: str = "embedded",
    count: Annotated[int, Range(int, 1, 1_000_000)] = 4000,
    seed: Annotated[int, SEED] = 0,
    max_tokens: Annotated[int, Range(int, 1, 8192)] = 64,
    device: Device = "auto",
    template_options: str = "",
) -> None:
    """Sample preference pairs from a base model: the chosen completion has the higher reward (is
    right), the rejected one the lower (is wrong).

    Args:
        out: JSONL file to write; left out, the lab's own pairs are replaced, and those of another
        task go to runs/pairs-TASK.jsonl.
        task: chain, sentiment, gym:NAME or prompts of your own.
        reward: Rule of the task, or MODULE:FUNCTION; answer is its ground truth.
        model: Base model to sample from.
        count: Number of pairs.
        seed: Seeds prompts and noise.
        max_tokens: Longest completion in tokens.
        device: auto, cpu, cuda or cuda:N.
        template_options: Options of the model's chat template, such as enable_thinking=false.
    """
    from lab.recipes import generate_pairs

    if out and out.suffix != ".jsonl":
        raise LabError(
            f"out is '{out}', but takes a file that ends in .jsonl; the counts go beside it, into one that ends in .json."
        )
    path = out or generate_pairs.pairs_path(task)
    require_writable("out", path, folder=False)
    print(
        json.dumps(
            generate_pairs.build_pairs(
                path, model, count, seed, device, task, reward, max_tokens, template_options
            ),
            indent=2,
        )
    )


def tasks() -> None:
    """List the tasks: what they ask for, and the rewards that they name."""
    for name, text in catalogue():
        print(f"{name:32} {text}")


train.__annotations__["method"] = one_of_the_methods(writes=True)
COMMANDS = {
    "train": train,
    "eval": evaluate,
    "runs": list_runs,
    "control": control,
    "talk": talk,
    "queue": queue,
    **MEASURING,
    "course": course,
    "tasks": tasks,
    "build-base": build_base,
    "build-pairs": build_pairs,
    "build-talk": build_talk,
    **OWN,
}


def _check_names(arguments: list[str]) -> None:
    """Name the nearest valid command, method, knob or option for one that does not exist; tyro
    checks the rest.
    """
    if not arguments:
        raise LabError(
            f"No command is given. Give one of {', '.join(COMMANDS)}; python -m lab --help says what each does."
        )
    if not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise unknown("command", arguments[0], list(COMMANDS))
    new_command, words = arguments[0], [word for word in arguments[1:] if word != "--resume"]
    if new_command not in ("train", "resources"):
        if new_command in COMMANDS:
            require_known_option(new_command, COMMANDS[new_command], words)
        return
    method, resumed = (
        words[0] if words and not words[0].startswith("-") else "",
        len(words) < len(arguments) - 1,
    )
    if method and method not in CONFIGS:
        raise unknown("method", method, list(CONFIGS))
    if not (method or resumed):
        return
    knobs = {
        f.name
        for kind in ([CONFIGS[method]] if method else CONFIGS.values())
        for f in dataclasses.fields(kind)
    }
    known = ["out", "steps", "reward"] if resumed else ["out", *knobs]
    for text in words:
        name = text.partition("=")[0].removeprefix("--").replace("-", "_")
        if text.startswith("--") and name not in [*known, "help"]:
            if resumed and name in knobs:
                raise LabError(
                    f"{name} cannot be given again when a run resumes: it keeps its own. While it trains, live knobs change with python -m lab control RUN {name}=VALUE."
                )
            raise unknown(f"knob of {method or 'a run that resumes'}", name, known)


def parse(arguments: list[str]) -> Callable[[], None]:
    """The command that `arguments` ask for, bound to them and checked, but not run; raise
    `LabError` for what it does not take.
    """
    require_texts(arguments)
    _check_names(arguments)
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
    if arguments[:1] == ["train"] and "--resume" in arguments:
        prog = "python -m lab train --resume"
        with one_line(prog):
            return tyro.cli(
                checked(resume), args=[a for a in arguments[1:] if a != "--resume"], prog=prog
            )
    if arguments[0] in COMMANDS:
        prog = f"python -m lab {arguments[0]}"
        with one_line(prog):
            return tyro.cli(
                checked(COMMANDS[arguments[0]]), args=arguments[1:], prog=prog, config=config
            )
    with one_line("python -m lab"):
        return tyro.extras.subcommand_cli_from_dict(
            {name: checked(new_command) for name, new_command in COMMANDS.items()},
            args=arguments,
            prog="python -m lab",
            description="A lab in which language models learn from preferences.",
            config=config,
        )


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error that the user can mend is one line on stderr and exit code 2. A
    reader that goes away, as in `| head`, ends nothing.
    """
    _speak_utf8()
    with tolerate_closed_output():
        _run(sys.argv[1:] if arguments is None else arguments)


def _run(arguments: list[str]) -> None:
    try:
        parse(arguments)()
    except BrokenPipeError:
        raise
    except (LabError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        raise SystemExit(2) from None


def _speak_utf8() -> None:
    """Read UTF-8 whatever the locale, bytes that are none as lone surrogates; write what the
    terminal has no sign for as an escape.
    """
    for stream, options in (
        (sys.stdin, {"encoding": "utf-8", "errors": "surrogateescape"}),
        (sys.stdout, {"errors": "backslashreplace"}),
        (sys.stderr, {"errors": "backslashreplace"}),
    ):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(**options)
