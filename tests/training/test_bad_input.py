"""What a user can get wrong once a run has begun: one clear message, the state failed, and every
finished record kept.
"""

import errno
import json
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file
from support.tiny import save

import lab.training.driver
import lab.training.loop
import lab.training.methods.dpo
from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.runs.folder import create
from lab.training.driver import drive

QUICK = {
    "batch_size": 4,
    "eval_prompts": 8,
    "eval_every": 0,
    "max_completion_tokens": 16,
    "steps": 4,
    "pairs": 0,
}
GOOD = {"prompt": "1+2*3=", "chosen": "9", "rejected": "7"}


def new(tmp_path, method="dpo", **knobs):
    return create(
        tmp_path / "run",
        make_config(
            method, {k: v for k, v in QUICK.items() if k != "pairs" or method != "grpo"} | knobs
        ),
    )


def fails(folder, match):
    with pytest.raises(LabError, match=match):
        drive(folder)
    assert folder.state == "failed"
    event = folder.history()[-1]
    assert event["kind"] == "failed" and event["detail"]["message"] == folder.status()["message"]


def data(tmp_path, *rows):
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), "utf-8"
    )
    return str(path)


@pytest.mark.parametrize(
    "rows, says",
    [
        ([], "is empty"),
        ([GOOD, "{not json"], "line 2 is not JSON"),
        ([GOOD, GOOD | {"chosen": "7"}], "line 2: chosen equals rejected"),
        ([GOOD, {"prompt": "1+2*3=", "chosen": "9"}], "line 2 has no 'rejected'"),
        ([GOOD | {"chosen": "nine"}], "the model's vocabulary has no 'n'"),
    ],
)
def test_unfit_data_fails_with_file_and_line(tmp_path, rows, says):
    fails(new(tmp_path, data=data(tmp_path, *rows)), says)


def test_data_of_which_truncation_leaves_no_completion_is_refused(tmp_path):
    fails(
        new(tmp_path, data=data(tmp_path, GOOD), max_length=6),
        r"No row of .*pairs.jsonl is left to train on. .* Row 1: the prompt fills all 6 tokens",
    )


def test_kto_with_one_prompt_has_no_mismatched_pair(tmp_path):
    fails(new(tmp_path, "kto", data=data(tmp_path, GOOD)), "at least two prompts")


@pytest.mark.parametrize(
    "model, says",
    [
        ("./nowhere", "No model folder at './nowhere'"),
        ("some-owner/some-model", "Could not load 'some-owner/some-model'"),
    ],
)
def test_a_model_that_is_not_there_is_named_and_so_is_what_would_do(tmp_path, model, says):
    fails(new(tmp_path, model=model), says + ".*Give 'embedded', a folder")


def test_a_folder_without_a_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    fails(new(tmp_path, model=str(tmp_path / "empty")), "Could not load")


def test_a_loss_that_is_not_finite_keeps_the_run_and_says_step_method_and_last_metrics(
    tmp_path, monkeypatch
):
    def bad(run, piece):
        loss, metrics = spec.loss(run, piece)
        return (loss * float("inf") if run.step == 2 else loss), metrics

    spec = METHODS["dpo"]
    monkeypatch.setattr(lab.training.methods.dpo, "SPEC", replace(spec, loss=bad))
    folder = new(tmp_path, checkpoint_every=1)
    fails(
        folder,
        r"dpo stopped at step 3: loss (inf|nan).*weights are those of step 2.*rewards/margins"
        r".*Start again with a learning_rate below",
    )
    assert [r["step"] for r in folder.history() if r["type"] == "step"] == [0, 1, 2]
    monkeypatch.setattr(lab.training.methods.dpo, "SPEC", spec)
    assert drive(folder).step == 4 and folder.state == "finished"


def test_a_model_whose_weights_are_not_finite_is_the_reason_that_is_named(tmp_path):
    model = save(tmp_path / "model", template=None)
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    fails(
        new(tmp_path, model=model),
        r"dpo stopped at step 1: .*The weights of .* hold values that are not finite",
    )


def test_a_full_disk_stops_the_run_keeps_its_records_and_lets_it_go_on(tmp_path, monkeypatch):
    folder = new(tmp_path, checkpoint_every=1)
    write = lab.training.driver.jsonl.append_rows

    def full(path, rows):
        rows = list(rows)
        if path.name == "metrics.jsonl" and rows[0].get("step") == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, rows)

    monkeypatch.setattr(lab.training.driver.jsonl, "append_rows", full)
    with pytest.raises(
        LabError,
        match=r"no disk space left for .*Free some and go on: python -m lab train --resume",
    ):
        drive(folder)
    assert folder.state == "failed" and [
        r["step"] for r in folder.history() if r["type"] == "step"
    ] == [0, 1, 2]
    monkeypatch.setattr(lab.training.driver.jsonl, "append_rows", write)
    assert drive(folder).step == 4
    assert [r["step"] for r in folder.history() if r["type"] == "step"] == [0, 1, 2, 3, 4]
