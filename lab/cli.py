"""The command line: train, steer, evaluate, list and question runs. torch is imported only by the commands that compute."""

import dataclasses
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from lab import runs
from lab.cli_measuring import MEASURING, one_of_the_methods
from lab.cli_own import OWN
from lab.config import CONFIGS, make_config, method_of, names_code, read, require_code, to_dict
from lab.control import command
from lab.diagnosis import diagnose
from lab.errors import LabError, unknown
from lab.metrics import columns_of
from lab.tasks import catalogue, check


@dataclass
class Resume:
    """Continue a run from its checkpoint, along the same trajectory."""

    out: Path
    """Folder of the run."""
    method: Annotated[Literal[("", *CONFIGS)], tyro.conf.Positional] = ""
    """Its method; may be left out."""
    steps: int | None = None
    """Updates in all; left out, the run keeps its number."""
    reward: str = ""
    """Only for a run whose reward is code of your own: MODULE:FUNCTION again, since a folder names no code by itself."""


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
    require_code(folder.config, asked.reward)
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
             device: str = "auto", reward: str = "") -> None:
    """Measure a trained run on held-out prompts.

    Args:
        run: Name or folder of the run.
        json: Print one JSON object instead of lines.
        prompts: Held-out prompts, the first of a fixed list.
        samples: Completions of each prompt; pass@k is given for k up to this.
        seed: Seeds the sampling noise.
        device: auto, cpu, cuda or cuda:N.
        reward: For a run whose reward is code of your own: MODULE:FUNCTION again. Left out, it is not called.
    """
    from lab.trained import evaluate_run

    folder = runs.find(run)
    if names_code(folder.config) and not reward:
        print(f"The reward {folder.config.reward} is code and is not called. To measure it as well: --reward {folder.config.reward}", file=sys.stderr)
    result = evaluate_run(folder, prompts=prompts, samples=samples, seed=seed, device=device, reward=reward)
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


train.__annotations__["method"] = one_of_the_methods(writes=True)
COMMANDS = {"train": train, "eval": evaluate, "runs": list_runs, "control": control, "talk": talk, "queue": queue, **MEASURING, "course": course,
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
    known = ["out", "steps", "reward"] if "--resume" in arguments else ["out", *(f.name for f in dataclasses.fields(CONFIGS[method]))]
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
