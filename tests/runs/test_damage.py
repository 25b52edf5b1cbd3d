"""A run folder in any state: every reader reads it or says in one line what is wrong, and the runs
beside it are read as before.
"""

import json
import os
import random
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest
from support.elements import opened, texts

from lab.cli import main
from lab.config.methods import make_config
from lab.dashboard.pages.grpo.group_source import runs_with_groups
from lab.dashboard.pages.runs import page as page_runs
from lab.dashboard.state.run_cache import RunRecord
from lab.errors import LabError
from lab.models import adapter_files
from lab.runs.catalogue import list_runs
from lab.runs.damage import damage, damaged_runs
from lab.runs.folder import RunFolder, create
from lab.runs.row_schemas import metrics_row, sample_row
from lab.runs.sample_index import SampleIndex
from lab.runs.summary import summaries
from lab.runs.trash import discard, restore, trashed_runs
from lab.serving.load import load_run
from lab.storage import jsonl
from lab.training.driver import drive
from lab.training.heads import load_trained_reward_model
from lab.training.resume import load_checkpoint, missing_records
from lab.training.resume import open_for_training as resumed

TINY = {
    "steps": 3,
    "batch_size": 8,
    "group_size": 4,
    "eval_prompts": 4,
    "eval_every": 0,
    "checkpoint_every": 1,
    "max_completion_tokens": 12,
    "device": "cpu",
}
FILES = [
    "config.json",
    "status.json",
    "metrics.jsonl",
    "samples.jsonl",
    "control.jsonl",
    "log.txt",
    "data.json",
    "checkpoint/state.pt",
    "checkpoint/SHA256SUMS",
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "adapter/vocabulary.json",
    "adapter/SHA256SUMS",
]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A finished GRPO run, with a command that it answered in its files."""
    folder = create(tmp_path_factory.mktemp("sound") / "run", make_config("grpo", TINY))
    drive(folder)
    jsonl.append_rows(
        folder.path / "control.jsonl", [{"id": "x", "action": "set", "knob": "beta", "value": 0.5}]
    )
    return folder.path


@pytest.fixture
def root(tmp_path, monkeypatch, sound):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path / "runs"))
    shutil.copytree(sound, tmp_path / "runs" / "whole")
    return tmp_path / "runs"


def flipped(data, seed):
    at = random.Random(seed).randrange(8 * len(data)) if data else 0
    return (
        data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]
        if data
        else b""
    )


def a_folder(path):
    path.unlink()
    path.mkdir()


DAMAGES = {
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(random.Random(0).randbytes(500)),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "list": lambda path: path.write_bytes(b"[1, 2]\n"),
    "text": lambda path: path.write_bytes(b'"run"\n'),
    "null": lambda path: path.write_bytes(b"null\n"),
    "deep": lambda path: path.write_bytes(b"[" * 100_000 + b"\n"),
    "no keys": lambda path: path.write_bytes(b'{"a": {}}\n{}\n'),
    "other types": lambda path: path.write_bytes(
        b'{"type": "step", "step": "x", "method": [], "state": 5, "pid": "y", "index": 0, "metrics": 3}\n'
    ),
    "huge": lambda path: path.write_bytes(
        b'{"type": "step", "step": 1e999, "metrics": {"loss": '
        + b"9" * 500
        + b'}, "state": "running", "pid": '
        + b"9" * 50
        + b', "format": 1e999}\n'
    ),
    "half a line in front": lambda path: path.write_bytes(b'{"type": "st\n' + path.read_bytes()),
    "gone": os.unlink,
    "folder": a_folder,
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
}
DAMAGES |= {
    f"flip {seed}": partial(
        lambda seed, path: path.write_bytes(flipped(path.read_bytes(), seed)), seed
    )
    for seed in range(4)
}


def fine(act):
    """What `act` returns, or its one line; any other error is one of the test."""
    try:
        return act()
    except LabError as error:
        assert "\n" not in str(error) and len(str(error)) < 1500
        return str(error)


def read_everything(path):
    folder = RunFolder(path)
    fine(lambda: folder.config)
    (
        folder.state,
        folder.history(),
        folder.samples(),
        folder.read(),
        missing_records(folder, 3),
        damage(folder),
    )
    index = SampleIndex(path / "samples.jsonl")
    index.refresh()
    assert all(row["step"] <= step for step in index.steps() for row in index.at(step))
    record = fine(lambda: RunRecord(folder))
    if not isinstance(record, str):
        record.snapshot(), record.samples(), record.samples_at(2)
    fine(lambda: load_checkpoint(folder))
    fine(lambda: resumed(folder, 5))


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_read_or_refused_in_one_line_by_every_reader(root, capsys, file):
    for kind, act in DAMAGES.items():
        shutil.rmtree(root / "bad", ignore_errors=True)
        shutil.copytree(root / "whole", root / "bad")
        act(root / "bad" / file)
        read_everything(root / "bad")
        assert "whole" in [run.name for run in list_runs(root)] and "whole" in [
            s.name for s in summaries(list_runs(root))
        ], kind
        main.main(["runs"])
        out = capsys.readouterr().out
        assert (
            "whole                    grpo          finished     step 3/3" in out and "bad" in out
        ), (kind, out)
        assert runs_with_groups().keys() >= {"whole"}


@pytest.mark.parametrize(
    "file, name",
    [
        (file, name)
        for file in FILES
        if file.startswith("adapter") or file == "config.json"
        for name in DAMAGES
    ],
)
def test_no_command_uses_a_damaged_adapter_or_config(root, file, name):
    shutil.copytree(root / "whole", root / "bad")
    DAMAGES[name](root / "bad" / file)
    found = fine(lambda: load_run(RunFolder(root / "bad"), "cpu"))
    changed = (root / "bad" / file).exists() and (root / "bad" / file).is_file()
    if (
        file in ("adapter/adapter_config.json", "adapter/adapter_model.safetensors")
        and name != "half a line in front"
        or changed
        and file.startswith("adapter/vocab")
    ):
        assert isinstance(found, str) and str(root / "bad") in found, name


@pytest.mark.parametrize("change", ["flip", "half", "pickle", "empty"])
def test_a_checkpoint_that_changed_on_the_disk_is_refused_and_the_run_stays_as_it_was(root, change):
    state = root / "whole" / "checkpoint" / "state.pt"
    data = state.read_bytes()
    for seed in range(20 if change == "flip" else 1):
        state.write_bytes(
            {
                "flip": flipped(data, seed),
                "half": data[: len(data) // 2],
                "pickle": b"\x80\x04cos\nsystem\n.",
                "empty": b"",
            }[change]
        )
        before = (root / "whole" / "status.json").read_bytes()
        with pytest.raises(LabError, match=r"state\.pt is damaged: its SHA-256 is not"):
            drive(RunFolder(root / "whole"), steps=5)
        assert (root / "whole" / "status.json").read_bytes() == before
    (root / "whole" / "checkpoint" / "SHA256SUMS").unlink()  # As in a run of an older lab.
    if change != "flip":
        with pytest.raises(LabError, match=r"no checkpoint of this lab, or is damaged"):
            drive(RunFolder(root / "whole"), steps=5)


def test_one_flipped_bit_anywhere_in_the_weights_or_the_shape_of_an_adapter_is_noticed(root):
    for name in (adapter_files.ADAPTER_WEIGHTS, adapter_files.ADAPTER_CONFIG):
        path = root / "whole" / "adapter" / name
        data = path.read_bytes()
        for seed in range(50):
            path.write_bytes(flipped(data, seed))
            with pytest.raises(LabError, match="is damaged"):
                adapter_files.require_adapter(path.parent)
        path.write_bytes(data)
    adapter_files.require_adapter(root / "whole" / "adapter")


def test_an_adapter_without_checksums_loads_and_a_pickled_one_does_not(root):
    folder = root / "whole" / "adapter"
    (folder / "SHA256SUMS").unlink()
    load_run(RunFolder(root / "whole"), "cpu")
    (folder / adapter_files.ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(LabError, match="pickled"):
        load_run(RunFolder(root / "whole"), "cpu")


def test_an_adapter_whose_weights_have_other_names_is_refused_though_no_checksum_tells(root):
    path = root / "whole" / "adapter" / adapter_files.ADAPTER_WEIGHTS
    (path.parent / "SHA256SUMS").unlink()
    data = path.read_bytes()
    assert data.count(b"q_proj.lora_A") == 2
    path.write_bytes(data.replace(b"q_proj.lora_A", b"q_prxj.lora_A", 1))
    with pytest.raises(LabError, match="missing adapter keys"):
        load_run(RunFolder(root / "whole"), "cpu")


def test_a_damaged_reward_model_is_refused_in_one_line(root, tmp_path):
    knobs = {
        "steps": 1,
        "batch_size": 4,
        "pairs": 8,
        "eval_every": 0,
        "eval_prompts": 4,
        "device": "cpu",
    }
    run = drive(create(root / "rm", make_config("reward_model", knobs)))
    path = root / "rm" / "adapter" / adapter_files.ADAPTER_WEIGHTS
    path.write_bytes(flipped(path.read_bytes(), 3))
    with pytest.raises(LabError, match="is damaged: its SHA-256"):
        load_trained_reward_model("rm", make_config("ppo"), run.tokenizer, run.device)


def test_lists_name_what_is_damaged_and_what_a_newer_lab_made(root, capsys):
    for name, text in (
        ("torn", "{ torn"),
        ("newer", '{"format": 4, "method": "grpo", "steps": 1, "sampler": {}}'),
        ("alchemy", '{"method": "alchemy"}'),
        ("list", "[]"),
    ):
        create(root / name, make_config("dpo"))
        (root / name / "config.json").write_text(text)
    (root / "a-model").mkdir()
    (root / "a-model" / "config.json").write_text(
        '{"architectures": ["LlamaForCausalLM"], "model_type": "llama"}'
    )
    a_folder(root / "whole" / "samples.jsonl")
    found = damaged_runs(root)
    assert found.keys() == {"torn", "newer", "alchemy", "list", "whole"}
    assert (
        "made by a newer lab (format 4; this one reads up to 3)" in found["newer"]
        and "samples.jsonl is no file" in found["whole"]
    )
    main.main(["runs"])
    out = capsys.readouterr().out
    assert (
        out.count("damaged: ") == 5 and "a-model" not in out and "Unknown method 'alchemy'" in out
    )
    with pytest.raises(LabError, match="made by a newer lab"):
        drive(RunFolder(root / "newer"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["config.json", "status.json", "metrics.jsonl", "samples.jsonl"])
def test_a_pipe_in_the_place_of_a_file_is_damage_and_nobody_waits_for_it(root, name, capsys):
    for run in ("odd", "other"):
        create(root / run, make_config("dpo"))
        jsonl.append_rows(root / run / "samples.jsonl", [{"step": 0, "index": 0}])
    (root / "odd" / name).unlink(missing_ok=True)
    os.mkfifo(root / "odd" / name)

    def wait_no_longer(*signal_and_frame):
        raise AssertionError(f"A reader waits for a pipe beside or in the place of {name}")

    before = signal.signal(signal.SIGALRM, wait_no_longer)
    signal.alarm(60)  # Without it a reader that opens the pipe would wait for ever.
    try:
        folder = RunFolder(root / "odd")
        (folder.path / "adapter").mkdir()
        os.mkfifo(folder.path / "adapter" / adapter_files.ADAPTER_WEIGHTS)
        (folder.path / "adapter" / "SHA256SUMS").write_text(
            f"{'0' * 64}  {adapter_files.ADAPTER_WEIGHTS}\n"
        )
        with pytest.raises(LabError, match="cannot be read: it is a pipe or a device"):
            adapter_files.require_adapter(folder.path / "adapter")
        assert name in damage(folder)
        assert folder.history() == [] and folder.status()["step"] == 0
        folder.samples()
        main.main(["runs"])
        with pytest.raises(LabError, match=name):
            drive(folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    out = capsys.readouterr().out
    assert "other " in out and f"damaged: {root / 'odd' / name}" in out


def test_what_may_not_be_read_is_damaged_and_hides_nothing_else(sound, capsys):
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        for name in ("whole", "config", "metrics", "folder"):
            shutil.copytree(sound, root / name)
        root.chmod(0o755)
        (root / "config" / "config.json").chmod(0)
        (root / "metrics" / "metrics.jsonl").chmod(0)
        (root / "folder").chmod(0)
        if os.geteuid() == 0:
            os.seteuid(65534)
        try:
            found = damaged_runs(root)
            main.main(["runs", "--root", str(root)])
            read_everything(root / "metrics")
        finally:
            if os.getuid() == 0:
                os.seteuid(0)
            (root / "folder").chmod(0o700)
        assert found.keys() == {"config", "metrics", "folder"} and all(
            "ermission denied" in reason for reason in found.values()
        )
        assert "whole " in capsys.readouterr().out


def test_a_damaged_run_can_be_deleted_and_brought_back(root):
    (root / "whole" / "config.json").write_text("{ torn")
    place = discard(root, "whole")
    assert damaged_runs(root) == {} and trashed_runs(root) == [place]
    assert restore(root, place) == "whole" and list(damaged_runs(root)) == ["whole"]
    with pytest.raises(LabError, match="There is no run"):
        discard(root, "nowhere")


@pytest.mark.timeout(600)
def test_every_page_that_lists_runs_shows_the_sound_ones_and_says_what_is_wrong_with_the_others(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(page_runs, "SHIPPED_RUNS_FOLDER", tmp_path / "none")
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )
    for number, act in enumerate(DAMAGES.values()):
        for file in ("config.json", "metrics.jsonl", "samples.jsonl", "status.json"):
            name = f"{file.partition('.')[0]}-{number}"
            shutil.copytree(root / "whole", root / name)
            act(root / name / file)
    readable, found = [run.name for run in list_runs(root)], damaged_runs(root)
    assert len(found) >= 14 and len(readable) > 50
    for page in ("runs", "train"):
        for start in range(0, len(readable), 30):  # Eight are shown at a time.
            app = opened(page, run=readable[start : start + 8])
            assert "damaged" in texts(app, "warning") and "config\\-0" in texts(app, "warning")
    assert "whole" in opened("runs.page").dataframe[0].value["run"].tolist()
    for page in ("grpo", "dpo"):
        opened(page)
    for name in [name for name in readable if name.startswith("samples")][::5]:
        opened("grpo.page", **{"from": f"run {name}"})


def test_rows_of_every_shape_are_made_whole_or_passed_over():
    step = {
        "type": "step",
        "step": 1,
        "metrics": {"loss": 1.0, "kl": None, "odd": "x"},
        "seconds": 1.0,
        "tokens": 2,
    }
    assert metrics_row(step) == step | {
        "metrics": {"loss": 1.0, "kl": None},
        "phases": {},
        "generated": 0,
    }
    assert metrics_row(step | {"metrics": {"loss": float("inf")}})["metrics"] == {"loss": None}
    assert metrics_row({"type": "event", "step": 1, "kind": "started"}) == {
        "type": "event",
        "step": 1,
        "kind": "started",
        "detail": {},
        "id": "",
    }
    for odd in (
        {},
        {"type": "step"},
        step | {"step": True},
        step | {"step": -1},
        step | {"step": 1.5},
        step | {"metrics": []},
        step | {"seconds": "1"},
        step | {"tokens": None},
        {"type": "event", "step": 1},
        {"type": "event", "step": 1, "kind": "changed", "detail": {"knob": 3}},
        {"type": "event", "step": 1, "kind": "failed"},
        {"type": "event", "step": 1, "kind": "changed", "detail": {"knob": "beta"}},
        {"type": "event", "step": 1, "kind": "changed", "detail": {"knob": "beta", "to": 1}},
        {"type": "event", "step": 1, "kind": "changed", "detail": {"knob": "beta", "to": []}},
    ):
        assert metrics_row(odd) is None, odd
    sample = {
        "step": 1,
        "index": 0,
        "prompt": "1+1=",
        "completion": "\ud800",
        "reward": float("nan"),
    }
    assert sample_row(sample) == sample | {"completion": "?", "reward": None}
    for odd in (
        {},
        sample | {"index": "0"},
        sample | {"completion": 3},
        sample | {"reward": "much"},
        sample | {"step": None},
        sample | {"gold": {}},
    ):
        assert sample_row(odd) is None, odd


def test_missing_records_are_named_when_a_run_goes_on(root, capsys):
    path = root / "whole" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    torn = [
        line
        for line in lines
        if json.loads(line).get("step") != 2 or b'"step": 2, "metrics"' not in line
    ]
    path.write_bytes(b"".join(torn) + b"\x00\x00\n")
    said = []
    drive(RunFolder(root / "whole"), steps=4, report=lambda record, run: said.append(record))
    assert (
        said[0].kind == "resumed"
        and "metrics.jsonl lacks 1 of the records up to step 3: 2." in said[0].detail["message"]
    )
    assert "lacks 1 of the records" in (root / "whole" / "log.txt").read_text()
    path.write_bytes(b"".join(lines[:3]))
    assert (
        "lacks 3 of the records up to step 4: 2 to 4."
        in missing_records(RunFolder(root / "whole"), 4)
        and missing_records(RunFolder(root / "whole"), 1) == ""
    )
