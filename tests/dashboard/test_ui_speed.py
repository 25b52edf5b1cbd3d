"""What the Train page reads and sends."""

import os
import subprocess
import sys

import pytest
from streamlit.testing.v1 import AppTest

from lab.config.methods import make_config
from lab.dashboard.components import live_chart
from lab.dashboard.state import run_cache
from lab.dashboard.state.run_cache import RunRecord
from lab.dashboard.state.run_selection import snapshot_curves
from lab.figures.run_curves import default_panels
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

APP = os.path.join(os.path.dirname(__file__), "..", "..", "app.py")
EVERY_STEP = (
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "loss",
    "grad_norm",
    "kl",
    "entropy",
    "learning_rate",
    "ratio",
    "completions/mean_length",
    "completions/clipped_ratio",
    "clip_ratio/region_mean",
)
HELD_OUT = ("gold/accuracy", "gold/scratchpad_share", "gold/kl", "gold/mean_length", "gold/format")


def rows(first, last):
    return [
        StepRecord(
            i,
            dict.fromkeys(EVERY_STEP + (HELD_OUT if i % 5 == 0 else ()), i * 37 % 101 / 100),
            0.5 * i,
            100 * i,
        ).row()
        for i in range(first, last)
    ]


def stored(root, name, steps, state="finished"):
    folder = create(root / name, make_config("grpo", {"steps": 10_000}))
    append_rows(folder.path / "metrics.jsonl", rows(0, steps))
    folder.write_status(state, steps)
    return folder


@pytest.mark.parametrize("weight", [0.0, 0.9])
def test_a_tick_of_six_runs_of_two_thousand_points_reads_one_row_and_sends_only_what_can_be_seen(
    tmp_path, monkeypatch, weight
):
    read, parsed = RunFolder.read, []

    def noted_read(folder, offset=0):
        rows, end = read(folder, offset)
        parsed.append(len(rows))
        return rows, end

    monkeypatch.setattr(RunFolder, "read", noted_read)
    records = {f"r{i}": RunRecord(stored(tmp_path, f"r{i}", 2000)) for i in range(6)}
    ticks = []
    for step in range(2000, 2007):
        parsed.clear()
        append_rows(
            tmp_path / "r0" / "metrics.jsonl", rows(step, step + 1)
        )  # one trains, five have ended
        snapshots = {name: record.snapshot() for name, record in records.items()}
        curves = snapshot_curves(snapshots)
        sent = live_chart.payload(curves, snapshots, default_panels(curves), "", "seconds", weight)
        ticks.append(sum(parsed))
    assert ticks == [6 * 2000 + 1] + [1] * 6
    assert sum(len(run["traces"]) for run in sent["runs"]) < 1_500_000


@pytest.mark.timeout(600)
def test_a_hundred_stored_runs_of_five_thousand_steps_open_without_being_read(
    tmp_path, monkeypatch
):
    first = stored(tmp_path, "grpo-1", 5000)
    for i in range(2, 101):
        folder = create(tmp_path / f"grpo-{i}", make_config("grpo", {"steps": 10_000, "seed": i}))
        os.link(first.path / "metrics.jsonl", folder.path / "metrics.jsonl")
        folder.write_status("finished", 5000)
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )
    read = []

    def noted_read(folder, offset=0):
        if offset == 0:
            read.append(folder.name)
        return whole_read(folder, offset)

    whole_read = RunFolder.read
    monkeypatch.setattr(RunFolder, "read", noted_read)
    for shown in ("", "grpo-7", "grpo-7,grpo-8,grpo-9,grpo-10"):
        app = AppTest.from_file(APP, default_timeout=60)
        app.query_params["run"] = shown
        run_cache.run_record.clear()
        read.clear()
        app.run()
        assert not app.exception and len(app.multiselect(key="run").options) >= 100
        stored_runs = [name for name in read if (tmp_path / name).is_dir()]
        assert sorted(stored_runs) == sorted(shown.split(",")) if shown else not stored_runs


def test_the_formulas_are_loaded_behind_the_first_page_or_behind_the_start_of_a_server():
    """In a process of its own, in which nothing has loaded torch."""
    script = """
import sys
from streamlit.testing.v1 import AppTest
from lab.dashboard.state import actions
actions.prepare_training = lambda: None  # no process that outlives the test
app = AppTest.from_file("app.py", default_timeout=60).run()
assert not app.exception
assert "torch" not in sys.modules and "lab.dashboard.pages.dpo.page" not in sys.modules
from lab.dashboard.pages import preload
preload.start_preload().join()
loaded = {"torch", "lab.analysis.group_statistics", "lab.analysis.derivation"}
assert loaded <= set(sys.modules) and "transformers" not in sys.modules
begun = []
preload.preload_later = begun.append
import asyncio
async def begin():
    async with preload.pages_imported(None):
        assert begun == [preload.DELAY_AFTER_START], "a server without visitors loads them too"
asyncio.run(begin())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=os.path.dirname(APP),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
