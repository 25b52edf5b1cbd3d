"""The number of updates that follows from epochs, rows and the batch size."""

import json

import pytest

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.training.driver import drive
from lab.training.loop import prepare

QUICK = {
    "batch_size": 4,
    "pairs": 10,
    "eval_every": 0,
    "eval_prompts": 4,
    "checkpoint_every": 2,
    "max_completion_tokens": 8,
    "device": "cpu",
}


def steps_of(method, **knobs):
    return prepare(make_config(method, QUICK | knobs)).config.steps


@pytest.mark.parametrize(
    "method, knobs, steps",
    [
        ("dpo", {"num_train_epochs": 3}, 6),  # ⌊10/4⌋ = 2 updates an epoch.
        ("dpo", {"num_train_epochs": 2.3, "batch_size": 2}, 12),  # ⌈2.3 · 5⌉
        ("sft", {"num_train_epochs": 1, "batch_size": 64}, 1),  # All rows in one batch.
        ("kto", {"num_train_epochs": 1}, 5),  # Ten pairs are twenty completions.
        ("reward_model", {"num_train_epochs": 2, "batch_size": 5}, 4),
        ("dpo", {"num_train_epochs": 3, "steps": 6}, 6),
    ],
)
def test_rows_and_batch_size_give_the_updates_of_an_epoch(method, knobs, steps):
    assert steps_of(method, **knobs) == steps


def test_another_number_of_steps_is_refused_with_both_numbers():
    with pytest.raises(LabError, match="steps is 7, but num_train_epochs 3 of 10 rows.*6 updates"):
        steps_of("ipo", num_train_epochs=3, steps=7)


def test_a_warm_up_that_is_longer_than_the_epochs_is_refused():
    with pytest.raises(LabError, match="takes 6 of 6 steps"):
        steps_of("dpo", num_train_epochs=3, warmup_steps=6, lr_scheduler_type="linear")
    # Before the data are read nothing says how many updates there are.
    make_config(
        "dpo", {"num_train_epochs": 300, "warmup_steps": 200, "lr_scheduler_type": "linear"}
    )


def test_the_methods_that_sample_have_no_epochs():
    with pytest.raises(LabError, match="num_train_epochs"):
        make_config("grpo", {"num_train_epochs": 1})


def test_a_run_writes_its_steps_resumes_and_is_extended(tmp_path):
    folder = create(tmp_path / "run", make_config("dpo", QUICK | {"num_train_epochs": 2}))
    run = drive(folder, until=lambda run: run.step >= 3)
    assert run.step == 3
    written = json.loads((folder.path / "config.json").read_text("utf-8"))
    assert (written["steps"], written["num_train_epochs"]) == (4, 2.0)
    assert any("4 updates" in str(row.get("detail")) for row in folder.history())
    assert drive(RunFolder(folder.path)).step == 4
    assert RunFolder(folder.path).state == "finished"
    assert drive(RunFolder(folder.path), steps=5).step == 5


def test_a_config_from_before_the_epochs_loads():
    old = to_dict(make_config("dpo", {"steps": 9}))
    del old["num_train_epochs"]
    assert from_dict(old | {"format": 3}).steps == 9
