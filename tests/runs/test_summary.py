"""What a list of runs says of each, and the samples of any step: from pieces of the files, equal to
what reading them whole gives.
"""

import pytest

from lab.config.methods import make_config
from lab.runs.catalogue import list_runs
from lab.runs.folder import create
from lab.runs.records import Event, StepRecord
from lab.runs.sample_index import SampleIndex
from lab.runs.summary import summarise
from lab.storage.jsonl import append_rows, parse_rows


def write(folder, steps, every=5, pad=0):
    rows = [Event(0, "started").row()]
    for i in range(steps + 1):
        gold = {"gold/accuracy": i / 10_000} if i % every == 0 else {}
        rows.append(
            StepRecord(
                i, {"loss": 0.5} | gold, i * 0.5, i * 100, phases={"updating": "x" * pad}
            ).row()
        )
    append_rows(folder.path / "metrics.jsonl", rows)


def new(root, name="a", method="dpo", **knobs):
    return create(root / name, make_config(method, knobs))


@pytest.mark.parametrize(
    "steps, every, pad", [(0, 1, 0), (4, 5, 0), (400, 5, 0), (400, 399, 200), (3000, 2999, 0)]
)
def test_a_summary_is_what_the_whole_record_says(tmp_path, steps, every, pad):
    folder = new(tmp_path)
    write(folder, steps, every, pad)
    found, rows = summarise(folder), [row for row in folder.history() if row["type"] == "step"]
    gold = [row["metrics"]["gold/accuracy"] for row in rows if "gold/accuracy" in row["metrics"]]
    assert found.gold == (gold[0], gold[-1])
    assert (found.step, found.seconds, found.tokens) == (steps, steps * 0.5, steps * 100)


def test_a_run_without_a_record_and_one_with_a_torn_line_have_a_summary(tmp_path):
    assert summarise(new(tmp_path)).gold is None
    folder = new(tmp_path, "b")
    write(folder, 10)
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"type": "step", "st')
    assert summarise(folder).step == 10


def test_a_summary_follows_the_files(tmp_path):
    folder = new(tmp_path)
    write(folder, 10)
    assert (summarise(folder).step, summarise(folder).state) == (10, "interrupted")
    append_rows(
        folder.path / "metrics.jsonl", [StepRecord(11, {"gold/accuracy": 0.9}, 9.0, 1).row()]
    )
    folder.write_status("finished", 11)
    assert (summarise(folder).step, summarise(folder).gold, summarise(folder).state) == (
        11,
        (0.0, 0.9),
        "finished",
    )


def test_a_list_of_long_runs_parses_the_ends_of_each_record_once(tmp_path, monkeypatch):
    line = (
        b'{"type": "step", "step": %d, "metrics": {"gold/accuracy": 0.5, "loss": 0.5}, "seconds":'
        b' 1.0, "tokens": 10, "phases": {}}\n'
    )
    for i in range(20):
        folder = new(tmp_path, f"run-{i}")
        (folder.path / "metrics.jsonl").write_bytes(b"".join(line % step for step in range(5001)))
    parsed = []

    def noted_parse(block, schema):
        parsed.append(len(block))
        return parse_rows(block, schema)

    monkeypatch.setattr("lab.runs.summary.parse_rows", noted_parse)
    found = [summarise(run) for run in list_runs(tmp_path)]
    assert len(found) == 20 and {s.step for s in found} == {5000}
    assert len(parsed) == 40 and max(parsed) <= 4096  # Of 650 kB in each record.
    assert [summarise(run) for run in list_runs(tmp_path)] == found and len(parsed) == 40


def sample(step, index, held_out=False, text=""):
    return {
        "step": step,
        "index": index,
        "prompt": "1+1=",
        "completion": text or f"{step}/{index}",
    } | ({"held_out": True} if held_out else {})


def test_samples_of_any_step_are_those_of_the_latest_recorded_one_before(tmp_path):
    path = tmp_path / "samples.jsonl"
    append_rows(
        path,
        [
            sample(0, 0, True),
            sample(5, 0),
            sample(5, 1, True),
            sample(6, 0),
            sample(6, 1),
            sample(10, 0),
        ],
    )
    index = SampleIndex(path)
    index.refresh()
    assert index.steps() == [0, 5, 6, 10]
    assert [r["completion"] for r in index.at(4)] == ["0/0"]
    assert [r["completion"] for r in index.at(5)] == ["5/0", "5/1"]
    assert [r["completion"] for r in index.at(9)] == ["6/0", "6/1", "5/1"]
    assert index.at(-1) == []
    append_rows(path, [sample(15, 0, text="β\n")])
    index.refresh()
    assert [r["completion"] for r in index.at(99)][0] == "β\n"


def test_a_step_that_was_written_again_counts_as_written_last(tmp_path):
    path = tmp_path / "samples.jsonl"
    append_rows(path, [sample(1, 0), sample(2, 0), sample(3, 0)])
    index = SampleIndex(path)
    index.refresh()
    append_rows(path, [sample(2, 0, text="again")])
    index.refresh()
    assert index.steps() == [1, 2] and index.at(3)[0]["completion"] == "again"
    assert SampleIndex(tmp_path / "none").steps() == []
