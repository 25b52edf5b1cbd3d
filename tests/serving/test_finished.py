"""A finished adapter: merged against the policy's own logits, talked to through standard input,
published to a hub that is made up here.
"""

import io
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny import save, tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab.cli import main
from lab.config.methods import make_config
from lab.errors import LabError
from lab.models.loading import load_policy
from lab.runs.folder import create
from lab.serving.chat import chat
from lab.serving.export import merge, push
from lab.training.driver import drive

IDS = torch.arange(24).view(2, 12)


def trained(tmp_path, model, name="run"):
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "\n".join(
            json.dumps({"prompt": f"ask {n}", "chosen": "good", "rejected": "bad"})
            for n in range(4)
        ),
        "utf-8",
    )
    folder = create(
        tmp_path / name,
        make_config(
            "dpo",
            {
                "model": model,
                "data": str(data),
                "pairs": 0,
                "steps": 3,
                "batch_size": 4,
                "eval_every": 0,
                "eval_prompts": 2,
                "learning_rate": 0.1,
                "max_completion_tokens": 4,
                "device": "cpu",
            },
        ),
    )
    return folder, drive(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    root = tmp_path_factory.mktemp("finished")
    return trained(root, save(root / "model"))


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_merged_model_says_what_the_policy_says(tmp_path, kind):
    folder, run = trained(tmp_path, save(tmp_path / "model", kind))
    merge(folder, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with torch.no_grad():
        ours, base = (
            run.model(input_ids=IDS).logits,
            load_policy(folder.config, torch.device("cpu"))(input_ids=IDS).logits,
        )
        torch.testing.assert_close(plain(input_ids=IDS).logits, ours, rtol=1e-4, atol=1e-4)
        assert (ours - base).abs().max() > 0.01
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
        == tokenizer().chat_template
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "merged",
        "model",
        "pairs.jsonl",
        "run",
    ] and not list((tmp_path / "merged").glob("adapter*"))


def test_a_merged_model_has_the_dtype_of_its_base(tmp_path):
    model = save(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).save_pretrained(model)
    merge(trained(tmp_path, model)[0], tmp_path / "merged")
    assert {w.dtype for w in load_file(tmp_path / "merged" / "model.safetensors").values()} == {
        torch.bfloat16
    }


def test_a_merged_model_is_a_base_for_the_next_run(finished, tmp_path, capsys):
    main.main(["merge", str(finished[0].path), str(tmp_path / "merged")])
    assert f"--model {tmp_path / 'merged'}" in capsys.readouterr().out
    assert trained(tmp_path, str(tmp_path / "merged"))[1].step == 3


def test_merging_into_a_folder_that_exists_is_refused(finished, tmp_path):
    with pytest.raises(LabError, match=f"{tmp_path} exists already"):
        merge(finished[0], tmp_path)


# Talking.


def test_policy_and_reference_answer_side_by_side_and_remember_their_own_answers(
    finished, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "lab.serving.chat.prompt_ids",
        lambda tokenizer, prompts: seen.append([dict(m) for m in prompts[0]]) or [[5, 6]],
    )
    first, second, third = chat(
        finished[0], ["Hello\n", "  \n", "And?", "/reset", "Anew"], max_tokens=4, device="cpu"
    )
    assert first.keys() == {"reference", "policy"} and len(seen) == 6
    assert seen[2] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first["reference"]},
        {"role": "user", "content": "And?"},
    ]
    assert seen[3][1]["content"] == first["policy"] and seen[4] == seen[5] == [
        {"role": "user", "content": "Anew"}
    ]


def test_the_reference_is_the_base_and_the_same_seed_gives_the_same_answers(finished, tmp_path):
    def ask(folder, **options):
        return next(chat(folder, ["Hello"], max_tokens=12, device="cpu", **options))

    base = trained(tmp_path, finished[0].config.model)[0]
    (base.path / "adapter" / "adapter_model.safetensors").write_bytes(
        (finished[0].path / "adapter" / "adapter_model.safetensors").read_bytes()
    )
    assert ask(finished[0]) == ask(base) == ask(finished[0], seed=0) and ask(
        finished[0], seed=1
    ) != ask(finished[0])
    greedy = ask(finished[0], temperature=0)
    text = tokenizer().apply_chat_template(
        [{"role": "user", "content": "Hello"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    plain = AutoModelForCausalLM.from_pretrained(finished[0].config.model)
    theirs = plain.generate(**text, max_new_tokens=12, do_sample=False, pad_token_id=256)[
        0, text["input_ids"].shape[1] :
    ]
    assert greedy["reference"] == tokenizer().decode(theirs, skip_special_tokens=True)


def test_the_command_reads_lines_and_a_text_outside_of_the_vocabulary_ends_nothing(
    tmp_path, monkeypatch, capsys
):
    folder, _ = trained(tmp_path, save(tmp_path / "model", template=None))
    monkeypatch.setattr("sys.stdin", io.StringIO("Hello\nthere\n"))
    main.main(["chat", str(folder.path), "--max-tokens", "3", "--device", "cpu"])
    assert [
        line.split()[0]
        for line in capsys.readouterr().out.split("\n")
        if line.startswith(("reference", "policy"))
    ] == ["reference", "policy"] * 2
    recorded = Path("lab/assets/runs/grpo")
    answers = list(
        chat(
            type(folder)(recorded),
            ["Was ist das?", "1+2*3-4="],
            temperature=0,
            max_tokens=64,
            device="cpu",
        )
    )
    assert "vocabulary does not hold" in answers[0]["error"] and answers[1]["policy"].endswith(
        "</think>5"
    )


# Publishing.


class Hub:
    """A hub that keeps what it is given."""

    given: dict = {}

    def create_repo(self, name, private, exist_ok):
        Hub.given = {"name": name, "private": private}

    def upload_folder(self, repo_id, folder_path, commit_message):
        Hub.given |= {
            path.name: path.read_text("utf-8", errors="replace")
            for path in Path(folder_path).iterdir()
        }
        return f"hub/{repo_id}"


def with_base(finished, tmp_path, model):
    """A run like `finished` whose config names another base."""
    folder = create(tmp_path / "run", make_config("dpo", {"model": model, "beta": 0.3}))
    (folder.path / "adapter").mkdir()
    for path in (finished[0].path / "adapter").iterdir():
        (folder.path / "adapter" / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.mark.parametrize(
    "model, base",
    [("owner/base", "owner/base"), ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct")],
)
def test_an_adapter_is_published_private_with_a_base_that_others_can_load_and_its_knobs(
    finished, tmp_path, monkeypatch, capsys, model, base
):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    main.main(["push", str(with_base(finished, tmp_path, model).path), "me/mine"])
    assert (
        capsys.readouterr().out == "hub/me/mine\n"
        and Hub.given["name"] == "me/mine"
        and Hub.given["private"]
    )
    assert (
        json.loads(Hub.given["adapter_config.json"])["base_model_name_or_path"] == base
        and "adapter_model.safetensors" in Hub.given
    )
    assert (
        f"base_model: {base}\n" in Hub.given["README.md"]
        and "| beta | 0.3 |" in Hub.given["README.md"]
        and str(tmp_path) not in Hub.given["README.md"]
    )


def test_what_cannot_be_published_is_told_before_the_hub_is_asked(finished, tmp_path):
    with pytest.raises(LabError, match="'mine' is no name on the hub. Give owner/name"):
        push(finished[0], "mine")
    with pytest.raises(
        LabError,
        match="lies on this machine alone.*python -m lab merge .* OUT, then hf upload me/mine OUT",
    ):
        push(finished[0], "me/mine")
    with pytest.raises(LabError, match="has no adapter yet"):
        push(create(tmp_path / "new", make_config("dpo", {"model": "owner/base"})), "me/mine")


def test_a_hub_that_cannot_be_reached_is_called_so_and_the_adapter_stays(finished, tmp_path):
    with pytest.raises(
        LabError,
        match=(
            r"The hub did not take me/mine \(.*\)\. Go online and log in \(hf auth login\); the"
            r" adapter stays in"
        ),
    ):
        push(with_base(finished, tmp_path, "owner/base"), "me/mine")
