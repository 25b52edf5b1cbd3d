"""Runs and Train offer a run as one file, each run under its own name."""

from support.elements import opened


def labels(app):
    return {button.proto.label for button in app.get("download_button")}


def test_runs_shares_every_shown_run_and_train_the_one_in_focus():
    assert "Share" in labels(opened("runs", run="recorded:grpo"))
    both = labels(opened("runs", run=["recorded:grpo", "recorded:dpo"]))
    assert {"Share grpo (recorded)", "Share dpo (recorded)"} <= both
    assert "Share" in labels(opened("train", run="recorded:grpo"))
