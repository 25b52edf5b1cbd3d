"""The best evaluation by a named metric: its adapter stays, and a run without progress stops early."""

import json
import math

import pytest
from support.tiny import save

from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.training.best_adapter import is_better
from lab.training.driver import drive

QUICK = {
    "steps": 6,
    "batch_size": 4,
    "eval_every": 2,
    "eval_prompts": 8,
    "max_completion_tokens": 4,
    "checkpoint_every": 2,
    "device": "cpu",
    "learning_rate": 3e-2,
}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    rows = [
        {"prompt": f"prompt {i}", "chosen": "yes" * (1 + i % 3), "rejected": "no" * (1 + i % 4)}
        for i in range(40)
    ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return {"model": save(folder / "model"), "data": str(path)}


def trained(path, own, **settings):
    folder = create(path, make_config("dpo", QUICK | own | settings))
    drive(folder)
    return folder


def metrics(folder):
    return {row["step"]: row["metrics"] for row in folder.history() if row["type"] == "step"}


def notes(folder):
    return [row["detail"]["message"] for row in folder.history() if row.get("kind") == "noted"]


def weights(path):
    return (path / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def all_kept(tmp_path_factory, own):
    return trained(tmp_path_factory.mktemp("all") / "run", own, keep="all")


def test_all_keeps_the_adapter_of_every_evaluation_and_changes_no_number(tmp_path, own, all_kept):
    names = sorted(path.name for path in (all_kept.path / "adapters").iterdir())
    assert names == ["step-0", "step-2", "step-4", "step-6"]
    assert weights(all_kept.path / "adapters" / "step-6") == weights(all_kept.path / "adapter")
    plain = trained(tmp_path / "plain", own)
    assert metrics(plain) == metrics(all_kept)
    assert weights(plain.path / "adapter") == weights(all_kept.path / "adapter")
    assert not (plain.path / "best.json").exists() and not (plain.path / "adapters").exists()


@pytest.mark.parametrize(
    ("metric", "pick"),
    [("", min), ("eval/loss", min), ("eval/kl", min), ("eval/logps/rejected", max)],
)
def test_best_leaves_the_adapter_of_the_evaluation_that_the_metric_prefers(
    tmp_path, own, all_kept, metric, pick
):
    values = {
        step: row[metric or "eval/loss"]
        for step, row in metrics(all_kept).items()
        if "eval/loss" in row
    }
    best = pick(values, key=lambda step: values[step])
    folder = trained(tmp_path / "run", own, keep="best", best_metric=metric)
    assert weights(folder.path / "adapter") == weights(all_kept.path / "adapters" / f"step-{best}")
    assert notes(folder)[-1] == (
        f"{metric or 'eval/loss'} was best at update {best}: {values[best]:.4g}. adapter/ is that of"
        " this update."
    )


def test_without_progress_the_run_stops_early_and_can_go_on(tmp_path, own, all_kept):
    settings = {"keep": "best", "best_metric": "eval/kl", "patience": 2}  # The KL is 0 at first.
    folder = trained(tmp_path / "run", own, **settings)
    assert folder.state == "stopped" and max(metrics(folder)) == 4
    assert "2 evaluations after it were no better, so the run stopped early" in notes(folder)[-1]
    drive(RunFolder(folder.path))
    assert folder.state == "finished" and metrics(folder) == metrics(all_kept)
    assert weights(folder.path / "adapter") == weights(all_kept.path / "adapters" / "step-0")
    assert "stopped early" not in notes(folder)[-1]


def test_a_metric_that_the_run_does_not_measure_is_an_error_with_the_nearest_one(tmp_path, own):
    with pytest.raises(LabError, match="Unknown best_metric 'eval/los'. Did you mean 'eval/loss'"):
        trained(tmp_path / "run", own, best_metric="eval/los", patience=1)
    with pytest.raises(LabError, match="Unknown best_metric 'loss'"):
        make_config("dpo", {"best_metric": "loss"})


@pytest.mark.parametrize(
    ("metric", "value", "best", "better"),
    [
        ("eval/loss", 0.5, 0.6, True),
        ("eval/loss", 0.6, 0.6, False),
        ("gold/accuracy", 0.5, 0.6, False),
        ("gold/accuracy", 0.7, 0.6, True),
        ("eval/kl", 1.0, 2.0, True),
        ("eval/logps/chosen", -3.0, -4.0, True),
        ("gold/accuracy", math.nan, None, False),
        ("gold/accuracy", 0.0, None, True),
    ],
)
def test_which_value_is_better(metric, value, best, better):
    assert is_better(metric, value, best) is better
