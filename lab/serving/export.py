"""What becomes of a finished adapter: merged into its base, talked to beside it, or published."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedTokenizerBase

from lab.config.input_checks import require_text
from lab.config.json_format import to_dict
from lab.config.methods import method_of
from lab.config.run_config import RunConfig
from lab.data.chat_template import prompt_text
from lab.data.encoding import prompt_ids, unknown
from lab.engine.sampler import sample
from lab.errors import LabError
from lab.models.download import SOURCES
from lab.models.loading import adapter_disabled, fitting_threads
from lab.models.lora import shares_weights
from lab.models.sources import model_source
from lab.models.tokenizer import load_tokenizer
from lab.runs.folder import RunFolder
from lab.serving.load import load_run

RESET = "/reset"


def merge(folder: RunFolder, out: Path) -> Path:
    """Write a run's policy as a plain model in Hugging Face's format to `out`, which must not
    exist; the sum W + BA is made in float32.

    The weights are stored in the dtype in which the base stores its own. Raises `LabError` where
    `out` exists or the run has no adapter.
    """
    if out.exists():
        raise LabError(f"{out} exists already. Give a folder that does not.")
    config, model = load_run(folder, "cpu")
    if shares_weights(model):
        raise LabError(
            f"Layers of '{config.model}' share weights, each with an adapter of its own, so no"
            " plain model holds their sum. Use the base with the adapter beside it:"
            f" PeftModel.from_pretrained(base, '{folder.path / 'adapter'}')."
        )
    whole = model.merge_and_unload()
    whole.to(AutoConfig.from_pretrained(model_source(config.model)).dtype or torch.float32)
    partial = out.with_name(f".{out.name}.partial")
    try:
        whole.save_pretrained(partial)
        load_tokenizer(config.model).save_pretrained(partial)
        os.replace(partial, out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise LabError(
            f"Could not write {out} ({error}). Free some disk space or give another folder."
        ) from error
    return out


def chat(
    folder: RunFolder,
    lines: Iterable[str],
    *,
    temperature: float = 0.7,
    max_tokens: int = 256,
    seed: int = 0,
    device: str = "auto",
) -> Iterator[dict[str, str]]:
    """Answer each line twice: {"reference": …, "policy": …}, by a run's policy and by its base,
    each going on from its own answers so far.

    With a chat template a line is what the user says; without one, each line is a text to be
    continued and nothing is remembered. `/reset` forgets what was said. The noise depends on seed,
    turn and text alone, so both draw alike until their distributions part. A line that cannot be
    read comes back as {"error": …}.
    """
    config, model = load_run(folder, device)
    tokenizer = load_tokenizer(config.model, config.template_options)
    said: dict[str, list[dict[str, str]]] = {"reference": [], "policy": []}
    for turn, line in enumerate(line.strip() for line in lines):
        if line == RESET:
            said = {name: [] for name in said}
        elif line:
            answers = {}
            try:
                require_text("the line", line)
                for name, before in said.items():
                    prompt = [*before, {"role": "user", "content": line}]
                    answers[name] = _answer(
                        model,
                        tokenizer,
                        prompt,
                        name,
                        step=turn,
                        max_tokens=max_tokens,
                        temperature=temperature,
                        seed=seed,
                    )
            except LabError as error:
                yield {"error": str(error)}
                continue
            for name, answer in answers.items():
                said[name] += [
                    {"role": "user", "content": line},
                    {"role": "assistant", "content": answer},
                ]
            yield answers


def _answer(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict[str, str]],
    name: str,
    **options: float,
) -> str:
    prompt = messages if tokenizer.chat_template else messages[-1]["content"]
    (ids,) = prompt_ids(tokenizer, [prompt])
    if unknown(tokenizer, ids, prompt_text(tokenizer, prompt)):
        raise LabError(
            "The model's vocabulary does not hold all of this text. Write in the signs that it was"
            " trained on."
        )
    with fitting_threads(model):
        if name == "policy":
            return sample(
                model, tokenizer, [ids], 1, device=model.device, stream="chat", **options
            ).texts[0]
        with adapter_disabled(model):
            return sample(
                model, tokenizer, [ids], 1, device=model.device, stream="chat", **options
            ).texts[0]


def push(folder: RunFolder, name: str, public: bool = False) -> str:
    """Publish a run's adapter on the hub as `name` (owner/name), private unless `public`; returns
    its address.

    The hub's own login is used (hf auth login). Raises `LabError` for a base that others could not
    load, and when the hub cannot be reached or refuses.
    """
    config, adapter = folder.config, folder.path / "adapter"
    if name.count("/") != 1 or not all(name.split("/")):
        raise LabError(f"'{name}' is no name on the hub. Give owner/name.")
    if not (adapter / "adapter_config.json").is_file():
        raise LabError(
            f"{folder.path} has no adapter yet: it is {folder.state}. Let it finish, or stop it:"
            f" python -m lab control {folder.path} stop"
        )
    base = SOURCES[config.model].hub if config.model in SOURCES else config.model
    if base == "embedded" or Path(base).is_dir():
        raise LabError(
            f"The base of this run, '{config.model}', lies on this machine alone, so nobody else"
            " could load the adapter. Merge the two and upload the folder: python -m lab merge"
            f" {folder.path} OUT, then hf upload {name} OUT"
        )
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory(prefix="alignment-lab-") as temporary:
        for file in ("adapter_config.json", "adapter_model.safetensors", "vocabulary.json"):
            if (adapter / file).is_file():
                shutil.copyfile(adapter / file, Path(temporary) / file)
        shape = json.loads((adapter / "adapter_config.json").read_text("utf-8")) | {
            "base_model_name_or_path": base
        }
        (Path(temporary) / "adapter_config.json").write_text(
            json.dumps(shape, indent=1, sort_keys=True) + "\n", "utf-8"
        )
        (Path(temporary) / "README.md").write_text(_card(config, base), "utf-8")
        try:
            api = HfApi()
            api.create_repo(name, private=not public, exist_ok=True)
            return str(
                api.upload_folder(
                    repo_id=name,
                    folder_path=temporary,
                    commit_message=f"{method_of(config)} adapter for {base}",
                )
            )
        except (
            Exception
        ) as error:  # No network, no login, no right to write there: the hub's client says which.
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise LabError(
                f"The hub did not take {name} ({first}). Go online and log in (hf auth login); the"
                f" adapter stays in {adapter}."
            ) from error


def _card(config: RunConfig, base: str) -> str:
    """What the hub shows of an adapter: its base, its method and every knob."""
    knobs = "\n".join(
        f"| {knob} | {value} |"
        for knob, value in to_dict(config).items()
        if knob not in ("data", "device")
    )
    return (
        f"---\nbase_model: {base}\nlibrary_name: peft\ntags:\n- lora\n-"
        f" {method_of(config)}\n---\n\nA LoRA adapter for {base}, trained by {method_of(config)}"
        f" with Alignment lab.\n\n| knob | value |\n| --- | --- |\n{knobs}\n"
    )
