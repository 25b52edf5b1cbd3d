"""The recorded runs of the page Play: a fork of a checkpoint is the run itself, number by number, and
with a changed setting it is the run in which a visitor had moved that setting.
"""

import json

import pytest

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import playground
from lab.runs.control import Control
from lab.runs.folder import RunFolder
from lab.runs.fork import (
    RECORDINGS_FOLDER,
    UPDATES_BETWEEN_EVALUATIONS,
    Origin,
    fork,
    fork_points,
    nearest_fork_point,
    origin_of,
    twin,
)
from lab.runs.records import Event
from lab.storage.jsonl import append_rows
from lab.training.driver import drive
from lab.training.loop import prepare, train

SMALL = {
    "dpo": {"batch_size": 4, "pairs": 32},
    "grpo": {"batch_size": 8, "group_size": 4},
    "ppo": {"batch_size": 8},
}
SHARED = {"steps": 4, "eval_every": 1, "eval_prompts": 10, "max_completion_tokens": 16}
CHANGES = {"dpo": {"beta": 0.5}, "grpo": {"group_size": 2}, "ppo": {"learning_rate": 0.01}}


def metrics(rows):
    return {row["step"]: row["metrics"] for row in rows if row["type"] == "step"}


@pytest.fixture(scope="module", params=list(SMALL))
def recording(request, tmp_path_factory):
    """Method, whole run and recording of a small run with a checkpoint at update 2."""
    out, method = tmp_path_factory.mktemp("recorded"), request.param
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(playground.FORK_POINTS, method, (2,))
        patch.setitem(playground.SETTINGS, method, SMALL[method] | SHARED)
        row = playground.record_run(out, method, "cpu")
    assert (row["steps"], row["fork_points"]) == (4, [0, 2])
    return method, RunFolder(out / "runs" / method), out / "recorded" / method


def test_a_fork_without_a_change_goes_on_as_the_recorded_run_did_to_the_last_digit(
    recording, tmp_path
):
    _, whole, recorded = recording
    run = fork(recorded, 2, {}, tmp_path / "run", 2)
    assert run.state == "queued" and run.status()["step"] == 2
    drive(run)
    went, goes = metrics(whole.history()), metrics(run.history())
    assert list(goes) == [0, 1, 2, 3, 4]
    assert {step: goes[step] for step in (3, 4)} == {step: went[step] for step in (3, 4)}


def test_a_fork_with_a_change_is_the_run_whose_setting_was_moved_there(recording, tmp_path):
    method, _, recorded = recording
    control, moved = Control(), {}
    for record in train(prepare(make_config(method, SMALL[method] | SHARED)), control):
        if row := metrics([record.row()]):
            moved |= row
            if list(row) == [2]:
                for knob, value in CHANGES[method].items():
                    control.set(knob, value)
    run = fork(recorded, 2, CHANGES[method], tmp_path / "run", 2)
    drive(run)
    goes = metrics(run.history())
    assert {step: goes[step] for step in (3, 4)} == {step: moved[step] for step in (3, 4)}
    changes = [row for row in run.history() if row.get("kind") == "changed"]
    assert [(row["step"], row["detail"]["knob"], row["detail"]["to"]) for row in changes] == [
        (2, knob, value) for knob, value in CHANGES[method].items()
    ]


def test_a_twin_is_the_run_up_to_a_change_and_goes_on_without_it(recording, tmp_path):
    method, whole, recorded = recording
    run = fork(recorded, 2, CHANGES[method], tmp_path / "run", 2)
    change = {"knob": "learning_rate", "from": run.config.learning_rate, "to": 0.05}
    append_rows(run.path / "metrics.jsonl", [Event(3, "changed", change, "later").row()])
    drive(run)  # The change at update 3 is made again, as in a run that is resumed.
    later, first = (twin(recorded, run, at, tmp_path / f"before-{at}") for at in (3, 2))
    for other in (later, first):
        assert origin_of(other.path) == Origin(recorded.name, 2, is_twin=True)
        drive(other)
    goes, went = metrics(run.history()), metrics(whole.history())
    without = metrics(later.history())
    assert without[3] == goes[3] and without[4] != goes[4]
    assert [row["detail"]["knob"] for row in later.history() if row.get("kind") == "changed"] == [
        *CHANGES[method]
    ]
    assert {step: metrics(first.history())[step] for step in (3, 4)} == {
        step: went[step] for step in (3, 4)
    }


def test_a_fork_is_evaluated_soon_after_a_change_then_rarely_and_as_often_when_it_is_resumed(
    recording, tmp_path
):
    method, _, recorded = recording
    change = {"knob": "learning_rate", "from": 0.0005, "to": 0.001}
    evaluated = []
    for name, stop_at in (("whole", None), ("resumed", 7)):
        run = fork(recorded, 2, {}, tmp_path / name, 9)
        append_rows(run.path / "metrics.jsonl", [Event(5, "changed", change, "later").row()])
        if stop_at:
            drive(run, until=lambda state, stop_at=stop_at: state.step == stop_at)
        drive(run)
        rows = metrics(run.history())
        assert list(rows) == [*range(12)]
        evaluated.append([step for step, row in rows.items() if "gold/kl" in row])
    # Updates 1 and 2 after the fork; 1, 2 and 4 after the change; 10 by the rhythm; the last one.
    last = 10 in evaluated[0]
    assert last == (UPDATES_BETWEEN_EVALUATIONS[method] == 10)
    assert evaluated[0] == evaluated[1] == [0, 1, 2, 3, 4, 6, 7, 9, *[10] * last, 11]


def test_a_run_that_is_no_fork_has_no_twin(recording, tmp_path):
    _, whole, recorded = recording
    assert origin_of(whole.path) is None
    with pytest.raises(LabError, match="is no fork of a recorded run"):
        twin(recorded, whole, 2, tmp_path / "twin")
    assert not (tmp_path / "twin").exists()


def test_a_fork_of_the_first_update_is_a_new_run_with_the_setting(recording, tmp_path):
    method, _, recorded = recording
    run = fork(recorded, 0, CHANGES[method], tmp_path / "run", 3)
    own = {"steps": 3, "device": "cpu", "eval_every": UPDATES_BETWEEN_EVALUATIONS[method]}
    assert to_dict(run.config) == to_dict(
        make_config(method, SMALL[method] | SHARED | CHANGES[method] | own)
    )
    assert run.history() == [] and not (run.path / "checkpoint").exists()


def test_a_recording_is_small_and_holds_eight_samples_of_every_evaluation(recording):
    _, whole, recorded = recording
    run = RunFolder(recorded)
    samples = run.samples()
    assert len(samples) == 5 * 8 and all(row["held_out"] for row in samples)
    assert [row["index"] for row in samples] == [*range(8)] * 5
    held_out = [row for row in whole.samples() if row.get("held_out") and row["step"] == 4]
    assert [row["completion"] for row in samples[-8:]] == [
        row["completion"] for row in held_out[:8]
    ]
    assert from_dict(json.loads((recorded / "config.json").read_text())) == whole.config
    assert not {"adapter", "checkpoint", "log.txt"} & {path.name for path in recorded.iterdir()}


def test_a_fork_names_what_it_does_not_accept(recording, tmp_path):
    method, _, recorded = recording
    for step, changes, words in (
        (3, {}, f"{method} has no checkpoint of update 3. It can fork at 0, 2."),
        (2, {"seed": 1}, "seed is fixed once a run has started"),
        (2, {"learning_rate": -1.0}, "learning_rate"),
    ):
        with pytest.raises(LabError) as error:
            fork(recorded, step, changes, tmp_path / "run", 2)
        assert words in str(error.value) and not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_makes_no_run(recording, tmp_path):
    _, _, recorded = recording
    state = recorded / "checkpoint-2" / "state.pt"
    data = state.read_bytes()
    try:
        state.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(LabError, match="is damaged: its SHA-256"):
            fork(recorded, 2, {}, tmp_path / "run", 2)
    finally:
        state.write_bytes(data)
    assert not (tmp_path / "run").exists()


def test_the_nearest_of_the_fork_points_is_the_earlier_of_two():
    assert [nearest_fork_point([0, 10, 20], step) for step in (0, 5, 6, 15, 16, 99)] == [
        0, 0, 10, 10, 20, 20,
    ]  # fmt: skip


def test_the_lab_ships_fifteen_fork_points_of_four_runs_and_their_first_update_is_the_recorded_one(
    tmp_path,
):
    shipped = RECORDINGS_FOLDER
    assert {path.name: fork_points(path) for path in shipped.iterdir()} == {
        method: [0, *points] for method, points in playground.FORK_POINTS.items()
    }
    assert sum(len(fork_points(path)) for path in shipped.iterdir()) == 15
    for method in playground.FORK_POINTS:
        step = playground.FORK_POINTS[method][-1]
        run = fork(shipped / method, step, {}, tmp_path / method, 1)
        drive(run)
        recorded = metrics(RunFolder(shipped / method).history())[step + 1]
        goes = metrics(run.history())[step + 1]
        names = ("loss", "grad_norm", "learning_rate")
        # The recording has five digits, and another CPU or version of torch adds in another order.
        assert [goes[name] for name in names] == pytest.approx(
            [recorded[name] for name in names], rel=1e-3
        )
