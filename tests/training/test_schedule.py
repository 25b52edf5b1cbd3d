"""The learning rate of every update: its warm-up, its schedule, and what a resume or a live change
does to it.
"""

import math
from pathlib import Path

import pytest
import torch
from transformers import get_scheduler

import lab
from lab.cli.main import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.config.optimizer_settings import learning_rate_factor, warmup_updates
from lab.errors import LabError
from lab.runs.control import Control
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.training.driver import drive
from lab.training.loop import prepare, train

ASSETS = Path(lab.__file__).parent / "assets"
QUICK = {
    "batch_size": 4,
    "pairs": 24,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "device": "cpu",
}


def of_transformers(kind, warmup, steps):
    """The factors of transformers' own scheduler before each of `steps` updates, and after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, warmup, steps)
    factors = []
    for _ in range(steps + 1):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(
    "kind, theirs",
    [("constant", "constant_with_warmup"), ("linear", "linear"), ("cosine", "cosine")],
)
def test_the_learning_rate_is_that_of_transformers(kind, theirs, warmup):
    config = make_config("dpo", {"steps": 11, "lr_scheduler_type": kind, "warmup_steps": warmup})
    factors = [learning_rate_factor(config, k) for k in range(1, 12)]
    expected = of_transformers(theirs, warmup, 11)
    assert factors[warmup:] == pytest.approx(expected[warmup:-1], rel=1e-12, abs=1e-15)
    # In the warm-up update k has the factor that transformers has one update later: the first
    # update of transformers has the learning rate 0.
    assert factors[:warmup] == pytest.approx(expected[1 : warmup + 1], rel=1e-12)


def test_a_warm_up_by_ratio_is_rounded_up():
    config = make_config("grpo", {"steps": 25, "warmup_ratio": 0.1})
    assert warmup_updates(config) == math.ceil(2.5) == 3
    assert [learning_rate_factor(config, k) for k in (1, 3, 4)] == [1 / 3, 1.0, 1.0]


def test_a_config_without_the_new_settings_keeps_its_learning_rate():
    old = to_dict(make_config("dpo", {"warmup_steps": 7}))
    for name in ("lr_scheduler_type", "warmup_ratio"):
        del old[name]
    config = from_dict(old | {"format": 3})
    for step in range(1, 200):
        assert learning_rate_factor(config, step) == min(1.0, step / 7)


@pytest.mark.parametrize(
    "path", sorted(ASSETS.glob("runs/*/config.json")), ids=lambda path: path.parent.name
)
def test_every_recorded_run_has_the_learning_rates_that_it_recorded(path):
    folder = RunFolder(path.parent)
    recorded = [r["metrics"] for r in folder.history() if r["type"] == "step" and r["step"]]
    assert recorded
    for step, metrics in enumerate(recorded, 1):
        expected = folder.config.learning_rate * learning_rate_factor(folder.config, step)
        assert metrics["learning_rate"] == pytest.approx(expected, rel=1e-5)  # Five digits.


@pytest.mark.parametrize(
    "knobs, words",
    [
        ({"warmup_steps": 2, "warmup_ratio": 0.1}, "a run has one warm-up"),
        ({"steps": 5, "warmup_steps": 5, "lr_scheduler_type": "linear"}, "no step left"),
        ({"steps": 5, "warmup_ratio": 0.9, "lr_scheduler_type": "cosine"}, "takes 5 of 5 steps"),
        ({"lr_scheduler_type": "cosin"}, "cosine"),
        ({"warmup_ratio": 1.5}, "a number from 0 to 1"),
    ],
)
def test_a_schedule_without_steps_is_refused(knobs, words):
    with pytest.raises(LabError, match=words):
        make_config("dpo", knobs)


def rates(folder):
    return [
        row["metrics"]["learning_rate"]
        for row in folder.history()
        if row["type"] == "step" and row["step"]
    ]


def test_a_resumed_run_continues_the_schedule(tmp_path):
    knobs = QUICK | {"steps": 5, "lr_scheduler_type": "cosine", "warmup_steps": 1}
    whole, halved = (create(tmp_path / n, make_config("dpo", knobs)) for n in ("whole", "halved"))
    drive(whole)
    drive(halved, until=lambda run: run.step >= 3)
    assert len(rates(halved)) == 3
    drive(RunFolder(halved.path))
    metrics = [
        [row["metrics"] for row in folder.history() if row["type"] == "step"]
        for folder in (whole, halved)
    ]
    assert metrics[0] == metrics[1]
    assert rates(whole) == pytest.approx(
        [5e-4 * f for f in (1, 1, 0.853553390593, 0.5, 0.146446609407)], rel=1e-9
    )


def test_a_live_change_scales_the_schedule():
    run, control = (
        prepare(make_config("dpo", QUICK | {"steps": 4, "lr_scheduler_type": "linear"})),
        Control(),
    )
    seen = []
    for record in train(run, control):
        if isinstance(record, StepRecord) and record.step:
            seen.append(record.metrics["learning_rate"])
            if record.step == 2:
                control.set("learning_rate", 1e-3)
    assert seen == pytest.approx([5e-4, 3.75e-4, 5e-4, 2.5e-4], rel=1e-12)


def test_the_command_line_and_its_errors_know_the_schedule(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["train", "dpo", "--help"])
    assert "--lr-scheduler-type" in capsys.readouterr().out
    out = ["--out", str(tmp_path / "r"), "--steps", "3"]
    with pytest.raises(SystemExit):
        main(["train", "dpo", *out, "--lr-scheduler-type", "linear", "--warmup-steps", "9"])
    assert "has no step left" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()
