"""The report of a run, which is also its model card: what it says of runs that ended in each way, that
it is written at the end of a run, and that nothing in it can spoil a run.
"""

import errno
import json
import subprocess
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from support.run_folders import EVIL, recorded, sample

import lab
import lab.training.methods.dpo
from lab.cli import main
from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import create
from lab.runs.machine import Machine, read_machine, write_machine
from lab.runs.records import Event, StepRecord
from lab.runs.states import EventKind
from lab.serving import run_report
from lab.serving.model_card import block_curve, model_card
from lab.serving.run_report import report_at_end, report_page, write_report
from lab.storage.checksums import write_with_checksums
from lab.storage.jsonl import append_rows

PAIRS = [{"prompt": f"1+{n}=", "chosen": f"{1 + n}", "rejected": f"{3 + n}"} for n in range(6)]
SAMPLES = [
    sample(0, 0, "1+1=", held_out=True, gold=0.0, answer="2") | {"completion": "7"},
    sample(4, 0, "1+1=", held_out=True, gold=1.0, answer="2") | {"completion": "2"},
]


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, PAIRS)), "utf-8")
    return path


def with_adapter(folder, *names):
    for name in names or ("adapter",):
        files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}
        write_with_checksums(folder.path / name, files | {"README.md": b"a card of peft"})
    return folder


def section(text, title):
    """The lines of a section of a card."""
    return text.split(f"\n## {title}\n\n")[1].split("\n\n## ")[0]


def page_data(page):
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_a_card_tells_the_curves_the_samples_the_cost_and_the_command(tmp_path):
    folder = with_adapter(recorded(tmp_path, samples=SAMPLES))
    write_machine(folder.path, Machine("cuda", "H200", 2, 3 * 2**30, {"torch": "2.11.0"}))
    text = model_card(folder)
    assert "The run is finished: 4 of 4 updates are done. The adapter is that of update 4." in text
    assert "| gold accuracy (`gold/accuracy`) | 0 at 0 | 1 at 4 | 0 | 1 | ▁▃▅▆█ |" in text
    told = section(text, "Before and after")
    assert told.index("1+1=") < told.index("Before training (wrong)") < told.index("7")
    assert told.index("7") < told.index("After update 4 (right)") < told.rindex("2")
    assert "| update 2 | beta from 0.1 to 0.02 |" in section(text, "Changed while it trained")
    cost = section(text, "Cost")
    for line in ("training | 4.0 s", "tokens trained on | 4", "device | H200 (cuda), 2 processes"):
        assert f"| {line} |" in cost
    assert "3.00 GiB at most, allocated on the GPU, process 0 alone" in cost
    repeat = section(text, "Repeat the run")
    assert "alab train grpo --steps 4 --seed 7" in repeat.replace(
        "--seed 7 --steps 4", "--steps 4 --seed 7"
    )
    assert "changes that were made while it trained are not repeated" in repeat
    assert "| torch | 2.11.0 |" in section(text, "Versions")


@pytest.mark.parametrize(
    "model, base",
    [
        ("owner/base", "owner/base"),
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("embedded", None),
    ],
)
def test_the_hub_reads_the_metadata_of_a_card(tmp_path, model, base):
    folder = recorded(tmp_path, config={"model": model})
    card = ModelCard(model_card(folder), ignore_metadata_errors=False)
    assert card.data.base_model == base and card.data.library_name == "peft"
    assert {"lora", "grpo"} <= set(card.data.tags)
    assert card.data.datasets is None


def test_a_data_set_of_the_hub_is_named_and_a_file_is_not(tmp_path, pairs):
    def datasets(name, **settings):
        text = model_card(create(tmp_path / name, make_config("dpo", settings)))
        return yaml.safe_load(text.split("---")[1]).get("datasets")

    assert datasets("hub", data="owner/pairs:train") == ["owner/pairs"]
    assert datasets("file", data=str(pairs)) is None
    assert datasets("task") is None


@pytest.mark.parametrize(
    "state, message, told",
    [
        ("stopped", "", "The run was stopped after 4 of 9 updates."),
        (
            "failed",
            "dpo stopped at step 5: loss nan. See /secret/place/log.txt",
            "The run failed after 4 of 9 updates: dpo stopped at step 5: loss nan. See log.txt",
        ),
        ("interrupted", "", "The run was interrupted after 4 of 9 updates"),
        ("queued", "", "The run was not over when this was written: 4 of 9 updates were done."),
    ],
)
def test_both_files_say_how_a_run_ended(tmp_path, state, message, told):
    folder = recorded(tmp_path, config={"steps": 9})
    folder.write_status(state, 4, message)
    assert told in model_card(folder) and "It has left no adapter." in model_card(folder)
    (first, *_) = page_data(report_page(folder))["sections"]
    assert first["top"] and first["texts"][0].startswith(told)


def test_a_run_that_diverged_has_a_report_with_its_last_finite_values(tmp_path):
    folder = create(tmp_path / "wild", make_config("dpo", {"steps": 9}))
    rows = [StepRecord(i, {"loss": value}, 1.0, 1).row() for i, value in enumerate([0.7, 5.0])]
    rows.append(StepRecord(2, {"loss": float("nan"), "kl": float("inf")}, 1.0, 1).row())
    append_rows(folder.path / "metrics.jsonl", rows)
    folder.write_status("failed", 2, "loss nan")
    write_report(folder)
    text = (folder.path / "report.md").read_text("utf-8")
    assert "| loss (`loss`) | 0.7 at 0 | 5 at 1 | 0.7 | 5 | ▁█  |" in text
    assert "failed after 2 of 9 updates: loss nan" in (folder.path / "report.html").read_text()


def test_what_was_noted_and_diagnosed_is_told(tmp_path):
    folder = recorded(tmp_path)
    dead = [StepRecord(i, {"frac_reward_zero_std": 1.0}, 1.0, 1).row() for i in (5, 6)]
    note = Event(6, EventKind.NOTED, {"message": "/secret/pairs.jsonl has `<b>2</b>` rows"})
    append_rows(folder.path / "metrics.jsonl", [*dead, note.row()])
    text = model_card(folder)
    assert "- Every group of all 2 rollouts up to step 6 is dead" in text
    assert r"- pairs.jsonl has \`\<b\>2\</b\>\` rows" in section(text, "Notes")
    sections = {part["title"]: part for part in page_data(report_page(folder))["sections"]}
    assert sections["What the diagnosis says"]["texts"][0].startswith("Every group")
    assert sections["Notes"]["texts"] == ["pairs.jsonl has `<b>2</b>` rows"]


def test_no_text_of_a_run_becomes_markup_and_no_fence_ends_early(tmp_path):
    evil = f"```\n# stolen {EVIL}"
    folder = recorded(tmp_path, samples=[sample(0, 0, evil, held_out=True, gold=0.0)])
    fenced = section(model_card(folder), "Before and after").split("````text\n")
    assert len(fenced) == 3 and all(part.startswith(evil) for part in fenced[1:])
    page = report_page(folder)
    assert page.count("<script") == 2 and "<img" not in page


def test_no_folder_of_the_computer_is_in_a_report(tmp_path, pairs):
    folder = create(tmp_path / "mine", make_config("dpo", {"data": str(pairs), "steps": 3}))
    note = Event(0, EventKind.NOTED, {"message": f"'{pairs}' has rows; {pairs}: more"})
    step = StepRecord(0, {"loss": 0.7}, 1.0, 1)
    append_rows(folder.path / "metrics.jsonl", [step.row(), note.row()])
    folder.write_status("failed", 0, f"{pairs} is gone. Put {folder.path} back.")
    for path in write_report(folder):
        assert str(tmp_path) not in path.read_text("utf-8")
    assert "--data pairs.jsonl" in model_card(folder)


def test_the_card_lies_beside_both_adapters_with_its_checksum(tmp_path):
    folder = with_adapter(recorded(tmp_path, config={"keep": "best"}), "adapter", "adapter-best")
    best = {"metric": "gold/accuracy", "step": 3, "value": 0.75}
    (folder.path / "best.json").write_text(json.dumps(best))
    report, _ = write_report(folder)
    assert "The adapter is that of update 3." in report.read_text("utf-8")
    for name in ("adapter", "adapter-best"):
        place = folder.path / name
        assert (place / "README.md").read_bytes() == report.read_bytes()
        check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
        assert subprocess.run(check, cwd=place).returncode == 0
        assert (place / "SHA256SUMS").read_text().count("\n") == 3


def test_the_completions_after_training_are_those_of_the_adapter_that_is_left(tmp_path):
    at_best = sample(3, 0, "1+1=", held_out=True, gold=1.0) | {"completion": "two"}
    folder = recorded(tmp_path, samples=[SAMPLES[0], at_best, SAMPLES[1]], config={"keep": "best"})
    with_adapter(folder, "adapter-best")
    (folder.path / "best.json").write_text('{"metric": "gold/accuracy", "step": 3, "value": 1}')
    told = section(model_card(folder), "Before and after")
    assert "After update 3 (right):\n\n```text\ntwo" in told and "update 4" not in told


def test_every_setting_is_listed_once_those_first_that_are_not_defaults(tmp_path):
    lines = section(model_card(recorded(tmp_path)), "Settings").splitlines()[2:]
    names = [line.split(" | ")[0] for line in lines]
    assert len(set(names)) == len(names) and {"| seed", "| steps"} == set(names[:2])


def test_a_run_that_diverges_while_it_trains_leaves_its_report(tmp_path, pairs, monkeypatch):
    spec = lab.training.methods.dpo.SPEC

    def loss(run, batch):
        value, metrics = spec.loss(run, batch)
        return (value * float("nan") if run.step == 1 else value), metrics

    monkeypatch.setattr(lab.training.methods.dpo, "SPEC", replace(spec, loss=loss))
    out = tmp_path / "run"
    with pytest.raises(LabError, match="dpo stopped at step 2: loss nan"):
        lab.train(
            "dpo", data=str(pairs), steps=3, batch_size=2, eval_every=0, out=out, device="cpu"
        )
    text = (out / "report.md").read_text("utf-8")
    assert "The run failed after 1 of 3 updates: dpo stopped at step 2: loss nan" in text
    assert "It has left no adapter." in text and (out / "report.html").is_file()


def test_a_curve_of_blocks_has_its_lowest_and_its_highest_value():
    assert block_curve(([0, 1], [0.0, 1.0])) == "▁█" and block_curve(([0, 1], [2, 2])) == "▁▁"
    assert block_curve((range(3), [0.0, float("nan"), 7.0])) == "▁ █"
    assert block_curve(([0], [float("inf")])) == "" and block_curve(([], [])) == ""
    assert len(block_curve((range(1000), range(1000)))) == 24


def test_the_command_writes_a_report_of_an_old_run_also_into_another_folder(tmp_path, capsys):
    folder = recorded(tmp_path)
    assert read_machine(folder.path) is None
    main.main(["report", str(folder.path)])
    said = capsys.readouterr().out
    for name in ("report.md", "report.html"):
        path = folder.path / name
        assert f"{path}: {path.stat().st_size:,} bytes" in said
    assert "| memory | not recorded |" in (folder.path / "report.md").read_text("utf-8")
    main.main(["report", str(folder.path), "--out", str(tmp_path / "new" / "place")])
    copy = tmp_path / "new" / "place" / "report.md"
    assert copy.read_bytes() == (folder.path / "report.md").read_bytes()


def test_training_writes_the_report_at_its_end_and_says_where(tmp_path, pairs, capsys):
    out = tmp_path / "run"
    settings = ["--steps=2", "--batch-size=2", "--eval-every=1", "--max-completion-tokens=4"]
    main.main(["train", "dpo", f"--data={pairs}", f"--out={out}", "--device=cpu", *settings])
    assert f"Report: {out / 'report.html'}" in capsys.readouterr().out
    card = (out / "adapter" / "README.md").read_text("utf-8")
    assert card == (out / "report.md").read_text("utf-8") and str(tmp_path) not in card
    machine = read_machine(out)
    assert machine.device == "cpu" and machine.device_name and machine.peak_memory > 2**26
    assert machine.versions["torch"] and f"| torch | {machine.versions['torch']} |" in card
    assert "| eval/loss" not in card and "(`eval/loss`)" in card
    command = section(card, "Repeat the run").split("```")[1].split()
    assert main.parse([*command[1:], "--out", str(tmp_path / "again")])


def test_a_loop_that_is_left_early_leaves_a_report_of_a_stopped_run(tmp_path, pairs):
    training = lab.Training(
        "dpo",
        data=str(pairs),
        steps=3,
        batch_size=2,
        eval_every=0,
        out=tmp_path / "run",
        device="cpu",
    )
    for record in training:
        if record.step == 1:
            break
    text = (training.run.path / "report.md").read_text("utf-8")
    assert "stopped after 1 of 3 updates. The adapter is that of update 1." in text


def test_a_report_that_cannot_be_written_leaves_the_run_finished_and_says_so(
    tmp_path, monkeypatch, capsys
):
    folder = recorded(tmp_path)

    def full(path, data, durable=True):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_report, "replace_file", full)
    before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
    with run_report.reported(folder):
        pass
    said = capsys.readouterr().err
    assert "No space left on device" in said and "finished and complete" in said
    assert f"lab report {folder.path}" in said
    assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
    with pytest.raises(LabError, match="No space left on device"):
        write_report(folder)
    with pytest.raises(ZeroDivisionError), run_report.reported(folder):
        raise ZeroDivisionError  # The run's own error is the one that is raised.


def test_an_error_inside_the_report_is_told_and_not_raised(tmp_path, monkeypatch):
    folder = recorded(tmp_path)
    monkeypatch.setattr(run_report, "model_card", lambda folder: 1 / 0)
    assert "ZeroDivisionError" in report_at_end(folder)
    assert report_at_end(create(tmp_path / "new", make_config("dpo", {}))) == ""


def test_a_run_that_trains_all_weights_has_the_card_of_a_whole_model(tmp_path):
    config = {"lora_rank": 0, "model": "HuggingFaceTB/SmolLM2-135M-Instruct"}
    folder = recorded(tmp_path, config=config)
    assert "It has left no model." in model_card(folder)
    write_with_checksums(folder.path / "model", {"config.json": b"{}", "model.safetensors": b"w"})
    write_report(folder)
    text = (folder.path / "model" / "README.md").read_text("utf-8")
    data = ModelCard(text).data.to_dict()
    assert (data["library_name"], data["base_model_relation"]) == ("transformers", "finetune")
    assert "lora" not in data["tags"] and "peft" not in text.lower().split("## settings")[0]
    assert "All weights of HuggingFaceTB/SmolLM2-135M-Instruct" in text
    assert "AutoModelForCausalLM" in section(text, "How to use the model")
