"""Two processes on the CPU that train one run together give the records of one process; a process that is lost ends the run clearly."""

import copy
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lab import parallel
from lab.cli import main
from lab.config import from_dict, make_config
from lab.control import Control
from lab.errors import LabError
from lab.metrics import StepRecord
from lab.rollout import Rollout
from lab.runs import RunFolder
from lab.train import checkpoint, prepare, train

ROOT = Path(__file__).parents[1]
SHARED = {"device": "cpu", "steps": 3, "eval_every": 0, "eval_prompts": 8, "batch_size": 16}
RUNS = {
    "dpo": {"pairs": 64, "micro_batches": 2}, "kto": {"pairs": 64},
    "grpo": {"group_size": 2, "scale": "batch", "max_completion_tokens": 24, "beta": 0.04, "updates_per_rollout": 2},
    "ppo": {"max_completion_tokens": 24, "kl_target": 1.0, "minibatches": 3},
}
LONG = ["train", "dpo", "--steps", "100000", "--eval-every", "0", "--eval-prompts", "2", "--checkpoint-every", "1", "--device", "cpu", "--pairs", "64"]
SCRIPT = """
import json, sys, torch
from lab import parallel
from lab.cli import main
sys.path.insert(0, "tests")
from test_parallel import LONG, RUNS, steered
with parallel.together():
    for method in RUNS:
        rows, held = steered(method)
        if parallel.rank() == 0:
            torch.save(held, f"{sys.argv[1]}/{method}.pt")
            with open(f"{sys.argv[1]}/{method}.json", "w") as file:
                json.dump(rows, file)
main([*LONG, "--out", f"{sys.argv[1]}/run"])
"""


def steered(method):
    """Metrics and tokens of every update of a run whose learning rate is changed after its first, and its checkpoint after the second."""
    run, control = prepare(make_config(method, SHARED | RUNS[method])), Control()
    rows, held = [], None
    for record in train(run, control):
        if isinstance(record, StepRecord):
            rows.append(record.metrics | {"tokens": record.tokens, "generated": record.generated})
            if record.step == 1 and parallel.rank() == 0:
                control.set("learning_rate", 1e-3)
            if record.step == 2:
                held = copy.deepcopy(checkpoint(run))
    return rows, held


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes left behind that trained each of `RUNS`, then began a long run through the command line, in which the second was killed."""
    folder = tmp_path_factory.mktemp("two")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first, second = (subprocess.Popen([sys.executable, "-W", "ignore", "-c", SCRIPT, str(folder)], cwd=ROOT, text=True, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, env=shared | {"RANK": str(i), "LOCAL_RANK": str(i)}) for i in range(2))
    try:
        until = time.monotonic() + 150
        while not (folder / "run" / "checkpoint" / "state.pt").is_file() and first.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        second.kill()
        said, other = first.communicate(timeout=60)[0], second.communicate()[0]
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
    return SimpleNamespace(folder=folder, code=first.returncode, said=said, other=other)


@pytest.fixture(scope="module")
def alone():
    return {method: steered(method)[0] for method in RUNS}


@pytest.mark.parametrize("method", RUNS)
def test_two_processes_with_half_the_batch_each_give_the_records_of_one(method, two, alone):
    both = json.loads((two.folder / f"{method}.json").read_text())
    for step, (one, other) in enumerate(zip(alone[method], both, strict=True)):
        if step == 1:  # Policy and reference are equal but for rounding, which alone decides who is ahead.
            one, other = ({n: v for n, v in row.items() if n != "rewards/accuracies"} for row in (one, other))
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5), f"step {step}"


@pytest.mark.parametrize("method", RUNS)
def test_a_checkpoint_of_two_processes_goes_on_in_one(method, two, alone):
    held = torch.load(two.folder / f"{method}.pt", weights_only=True)
    rest = [record.metrics for record in train(prepare(from_dict(held["config"]), held)) if isinstance(record, StepRecord)]
    assert rest == [pytest.approx({n: v for n, v in alone[method][3].items() if n not in ("tokens", "generated")}, rel=1e-4, abs=1e-5)]


def test_a_killed_process_ends_the_run_as_failed_and_the_run_can_go_on_without_it(two, capsys):
    run = RunFolder(two.folder / "run")
    assert two.code == 2 and run.state == "failed", two.said
    assert "of the 2 that train this run has ended" in run.status()["message"] and "--resume" in run.status()["message"]
    assert "step 0/100000" in two.said and not two.other
    done = torch.load(run.path / "checkpoint" / "state.pt", weights_only=True)["step"]
    main(["train", "--resume", "--out", str(run.path), "--steps", str(done + 1)])
    assert run.state == "finished" and f"after {done + 1} updates" in capsys.readouterr().out


@pytest.fixture
def third_of_three(monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: 3)
    monkeypatch.setattr(parallel, "rank", lambda: 2)


def test_a_batch_is_shared_in_order_and_one_that_cannot_be_is_refused(third_of_three):
    assert parallel.share([1, 2, 3, 4, 5, 6], "pairs") == [5, 6]
    with pytest.raises(LabError, match="batch of 16 pairs cannot be shared equally by 3 processes.*multiple of 3"):
        parallel.share(list(range(16)), "pairs")


def test_rows_of_the_whole_batch_are_found_where_they_lie(third_of_three):
    assert parallel.own([0, 4, 5, 8, 11], 4) == [0, 3]
    whole = torch.arange(12.0).reshape(6, 2)
    assert parallel.mine(whole, torch.zeros(2, 1)).tolist() == [[8.0], [10.0]]


def test_a_rollout_is_taken_apart_by_rows_and_prompts(third_of_three):
    rows = torch.arange(6)
    whole = Rollout(rows.reshape(6, 1), rows.reshape(6, 1) > 0, rows > 0, rows.float(), None, 2, ["a", "b", "c"], list("uvwxyz"),
                    facts={"kl": rows.float(), "kl_coefficient": torch.tensor(0.5)}, uses=1)
    part = Rollout.of(vars(whole), torch.device("cpu"))
    assert part.rewards.tolist() == [4.0, 5.0] and part.prompts == ["c"] and part.texts == ["y", "z"] and part.uses == 1
    assert part.facts["kl"].tolist() == [4.0, 5.0] and part.facts["kl_coefficient"] == 0.5


def test_alone_nothing_is_shared_and_nothing_is_waited_for():
    values = torch.ones(3)
    assert parallel.everyone(values) is values and parallel.share([1, 2, 3], "pairs") == [1, 2, 3] and parallel.total(4) == 4
    assert parallel.from_main(lambda: 5) == 5 and parallel.rank() == 0 and parallel.world() == 1


def test_a_rollout_out_of_a_checkpoint_lies_on_the_device_of_its_run():
    rows = torch.arange(4)
    state = Rollout(rows.reshape(4, 1), rows.reshape(4, 1) > 0, rows > 0, rows.float(), None, 2, ["a", "b"], list("wxyz"), facts={"ties": rows > 2}).state()
    there = Rollout.of(state, torch.device("meta"))  # Any device that is not the one where a checkpoint is read.
    assert {t.device.type for t in (there.ids, there.completion_mask, there.truncated, there.rewards, there.facts["ties"])} == {"meta"}
    assert (there.group_size, there.prompts, there.texts, there.gold) == (2, ["a", "b"], list("wxyz"), None)
