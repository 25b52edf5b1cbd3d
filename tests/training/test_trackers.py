"""Trackers get what metrics.jsonl gets, under the names of TRL, and never stop a run."""

import importlib.util
import re
import sqlite3
import struct
from pathlib import Path

import pytest

import lab.training.trackers as trackers
from lab.config.methods import METHODS, make_config
from lab.config.record_settings import TRACKER_NAMES
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.runs.trl_names import lab_metrics, lab_name, trl_metrics, trl_name
from lab.training.driver import drive

SMALL = {
    "steps": 3,
    "batch_size": 4,
    "eval_prompts": 4,
    "eval_every": 0,
    "lora_rank": 2,
    "device": "cpu",
}
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
    )


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))


def trained(path, method="dpo", **settings):
    folder = create(path, make_config(method, SMALL | settings))
    drive(folder)
    return folder


def metrics(folder):
    return {row["step"]: row["metrics"] for row in folder.history() if row["type"] == "step"}


def notes(folder):
    return [row["detail"]["message"] for row in folder.history() if row.get("kind") == "noted"]


# --- the real packages
# -------------------------------------------------------------------------------------------------------------


@needs("tensorboard")
def test_the_reader_of_tensorboard_finds_every_metric_at_its_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = trained(tmp_path / "run", report_to="tensorboard")
    drive(RunFolder(folder.path), 4)  # A resumed run goes on in the same place.
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    written = {
        (tag, point.step): point.value
        for tag in events.Tags()["scalars"]
        for point in events.Scalars(tag)
    }
    assert {step for tag, step in written if tag == "train/loss"} == {1, 2, 3, 4}
    for step, values in metrics(folder).items():
        for name, value in values.items():
            tag = ("eval/" if name.startswith("gold/") else "train/") + name
            assert written[tag, step] == pytest.approx(value, rel=1e-6)  # float32 on disk
    assert notes(folder) == []


def records_of_wandb(path):
    """The records of an offline run: a header of 7 bytes, then LevelDB's log of blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pending = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        pending += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # A whole record, or the last part of one.
            record = Record()
            record.ParseFromString(pending)
            yield record
            pending = b""


@needs("wandb")
def test_without_a_login_wandb_records_offline_and_the_run_says_so(tmp_path):
    folder = trained(tmp_path / "run", report_to="wandb")
    (note,) = notes(folder)
    assert "wandb is not logged in" in note and "wandb sync" in note
    (path,) = folder.path.glob("wandb/offline-run-*/*.wandb")
    rows, config = {}, {}
    for record in records_of_wandb(path):
        values = {
            item.key or "/".join(item.nested_key): item.value_json for item in record.history.item
        }
        if values:
            rows[int(values["_step"])] = values
        config |= {item.key: item.value_json for item in record.run.config.update}
    assert config["beta"] == "0.1" and config["method"] == '"dpo"'
    for step, values in metrics(folder).items():
        for name, value in values.items():
            tag = ("eval/" if name.startswith("gold/") else "train/") + name
            assert float(rows[step][tag]) == pytest.approx(value, rel=1e-12)


@needs("trackio")
def test_trackio_keeps_the_run_on_this_machine(tmp_path):
    import trackio.utils

    folder = trained(tmp_path / "run", report_to="trackio")
    database = sqlite3.connect(Path(trackio.utils.TRACKIO_DIR) / "alignment-lab.db")
    rows = database.execute(
        "select step, metrics from metrics where run_name = 'run' order by step"
    ).fetchall()
    database.close()
    losses = dict(rows)
    assert set(losses) == {0, 1, 2, 3}
    loss = float(re.search(r'"train/loss":\s*([-\d.e]+)', str(losses[3])).group(1))
    assert loss == pytest.approx(metrics(folder)[3]["loss"], rel=1e-12)
    assert notes(folder) == []


# --- a tracker never stops a run
# -------------------------------------------------------------------------------------------------------------


def test_a_tracker_that_is_not_installed_is_a_note_and_changes_no_number(tmp_path, monkeypatch):
    plain = trained(tmp_path / "plain")
    monkeypatch.setattr(trackers, "is_installed", lambda name: False)
    tracked = trained(tmp_path / "tracked", report_to="tensorboard,wandb")
    assert notes(tracked) == [
        f"{name} is not installed, so it gets no metrics; the run goes on. To have it: pip install"
        f" {name}"
        for name in ("tensorboard", "wandb")
    ]
    assert tracked.state == "finished" and metrics(tracked) == metrics(plain)


class Broken:
    note = ""

    def __init__(self, folder, config, step):
        self.steps = []
        STARTED.append(self)

    def log(self, step, metrics):
        self.steps.append(step)
        if step == 1:
            raise ConnectionError("the server\nis away")

    def close(self):
        raise AssertionError("A tracker that failed is not closed.")


STARTED: list[Broken] = []


def test_a_tracker_that_fails_on_the_way_gets_no_more_and_the_run_goes_on(tmp_path, monkeypatch):
    STARTED.clear()
    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Broken)
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    folder = trained(tmp_path / "run", report_to="tensorboard")
    assert STARTED[0].steps == [0, 1] and folder.state == "finished" and len(metrics(folder)) == 4
    (note,) = notes(folder)
    assert note.startswith("tensorboard failed (ConnectionError: the server is away)")


def test_a_tracker_that_fails_at_the_start_or_at_the_end_is_noted(tmp_path, monkeypatch):
    class Refuses(Broken):
        def __init__(self, folder, config, step):
            raise PermissionError("no key")

    class EndsBadly(Broken):
        def log(self, step, metrics):
            pass

        def close(self):
            raise TimeoutError("too slow")

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Refuses)
    monkeypatch.setitem(trackers.TRACKERS, "wandb", EndsBadly)
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    folder = trained(tmp_path / "run", report_to="tensorboard,wandb")
    (note,) = notes(folder)
    assert note.startswith("tensorboard failed (PermissionError: no key)")
    assert "wandb failed (TimeoutError: too slow)" in (folder.path / "log.txt").read_text("utf-8")
    assert folder.state == "finished"


# --- names
# -------------------------------------------------------------------------------------------------------------

OWN = {
    "train/completion_tokens",
    "train/seconds",
    "train/frac_reward_zero_std",
    "train/gold/rollout_accuracy",
    "train/ratio",
    "train/kl_per_completion",
}
"""What the lab measures and TRL does not."""


@needs("trl")
@pytest.mark.parametrize("method", ["dpo", "kto", "grpo", "reward_model"])
def test_the_names_of_a_batch_are_those_that_trl_logs(tmp_path, monkeypatch, method):
    source = Path(importlib.util.find_spec("trl").origin).parent / "trainer"
    trainer = (source / f"{method.removesuffix('_model')}_trainer.py").read_text("utf-8")
    known = set(re.findall(r'_metrics\[(?:mode|"train")\]\["([^"]+)"\]', trainer))
    known |= {"loss", "grad_norm", "learning_rate"}  # Those of transformers' Trainer.
    sent = {}

    class Keeps(Broken):
        def log(self, step, metrics):
            sent.update(metrics)

        def close(self):
            pass

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Keeps)
    monkeypatch.setattr(trackers, "is_installed", lambda name: True)
    group = {"group_size": 2} if method == "grpo" else {}
    trained(tmp_path / "run", method, report_to="tensorboard", steps=1, **group)
    train = {name for name in sent if name.startswith("train/")} - OWN
    if method == "reward_model":  # TRL logs the scores of a batch together.
        train -= {"train/rewards/chosen", "train/rewards/rejected"}
    assert {name.removeprefix("train/") for name in train} <= known
    assert {"train/loss", "train/grad_norm", "train/learning_rate"} < train


@pytest.mark.parametrize(
    ("method", "own", "name"),
    [
        ("dpo", "rewards/margins", "train/rewards/margins"),
        ("dpo", "eval/rewards/margins", "eval/rewards/margins"),
        ("kto", "kto/z", "train/kl"),
        ("kto", "eval/kl", "eval/kl_per_completion"),
        ("reward_model", "eval/rewards/accuracies", "eval/accuracy"),
        ("grpo", "gold/accuracy", "eval/gold/accuracy"),
        ("grpo", "gold/rollout_accuracy", "train/gold/rollout_accuracy"),
        ("dpo", "agreement/own", "eval/agreement/own"),
    ],
)
def test_a_name_and_the_way_back(method, own, name):
    assert trl_name(method, own) == name and lab_name(method, name) == own


def test_the_kl_of_grpo_is_nats_per_token_as_in_trl():
    own = {"kl": 0.6, "completions/mean_length": 12.0, "loss": 0.5}
    sent = trl_metrics("grpo", own)
    assert sent["train/kl"] == pytest.approx(0.05) and sent["train/kl_per_completion"] == 0.6
    assert lab_metrics("grpo", sent) == own
    assert lab_metrics("grpo", {"kl": 0.05, "completions/mean_length": 12.0})[
        "kl"
    ] == pytest.approx(0.6)
    assert lab_metrics("grpo", {"kl": 0.05}) == {"kl_per_token": 0.05}


def test_every_tracker_that_the_setting_takes_exists():
    assert tuple(trackers.TRACKERS) == TRACKER_NAMES
    assert make_config("dpo", {"report_to": "tensorboard,trackio"}).report_to
    for wrong in ("tensorbord", "wandb,", "wandb tensorboard"):
        with pytest.raises(LabError, match="Unknown report_to"):
            make_config("dpo", {"report_to": wrong})
    assert all(make_config(method).report_to == "" for method in METHODS)
