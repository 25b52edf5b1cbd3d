"""Runs of other trainers become folders that the lab shows and does not continue."""

import importlib.util
import json

import pytest

from lab.cli.main import main
from lab.errors import LabError
from lab.runs.catalogue import list_runs
from lab.runs.damage import damaged_runs
from lab.runs.folder import RunFolder
from lab.runs.import_run import import_run, method_of_names
from lab.runs.summary import summarise
from lab.serving.load import load_run
from lab.training.driver import drive

# The log of DPOTrainer of TRL 1.16.0 on the embedded model, two updates with an evaluation, rounded.
TRL_LOG = [
    {
        "entropy": 0.7728,
        "epoch": 0.125,
        "grad_norm": 8.9944,
        "learning_rate": 0.001,
        "logits/chosen": -0.5425,
        "logps/chosen": -1.8757,
        "logps/rejected": -9.3389,
        "loss": 0.6931,
        "num_tokens": 26.0,
        "rewards/accuracies": 0.0,
        "rewards/margins": 0.0,
        "step": 1,
    },
    {"epoch": 0.25, "learning_rate": 0.00075, "loss": 0.9157, "rewards/margins": -0.376, "step": 2},
    {
        "epoch": 0.25,
        "eval_loss": 0.3948,
        "eval_rewards/accuracies": 0.75,
        "eval_runtime": 0.5058,
        "eval_samples_per_second": 7.908,
        "step": 2,
    },
    {"epoch": 0.25, "total_flos": 0.0, "train_loss": 0.8984, "train_runtime": 8.755, "step": 2},
]


@pytest.fixture(autouse=True)
def empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", "runs")


def trl_folder(tmp_path, name="my dpo run"):
    for step, log in ((1, TRL_LOG[:1]), (2, TRL_LOG)):
        folder = tmp_path / name / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        state = {"global_step": step, "max_steps": 2, "log_history": log}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    return tmp_path / name


def steps_of(folder):
    return {row["step"]: row["metrics"] for row in folder.history() if row["type"] == "step"}


def test_a_run_of_trl_stands_beside_ones_own_with_the_labs_names(tmp_path, capsys):
    main(["import", str(trl_folder(tmp_path)), "beta=0.3", "model=owner/base"])
    assert "shows 2 updates of dpo" in capsys.readouterr().out
    (folder,) = list_runs()
    assert folder.name == "my-dpo-run" and folder.state == "finished" and damaged_runs() == {}
    assert steps_of(folder) == {
        1: {
            "entropy": 0.7728,
            "grad_norm": 8.9944,
            "learning_rate": 0.001,
            "logits/chosen": -0.5425,
            "logps/chosen": -1.8757,
            "logps/rejected": -9.3389,
            "loss": 0.6931,
            "num_tokens": 26.0,
            "rewards/accuracies": 0.0,
            "rewards/margins": 0.0,
        },
        2: {
            "learning_rate": 0.00075,
            "loss": 0.9157,
            "rewards/margins": -0.376,
            "eval/loss": 0.3948,
            "eval/rewards/accuracies": 0.75,
        },
    }
    config = folder.config
    assert (config.steps, config.learning_rate, config.beta) == (2, 0.001, 0.3)
    assert config.model == "owner/base" and not (folder.path / "run.yaml").exists()
    note = next(row for row in folder.history() if row.get("kind") == "noted")
    assert "only steps, learning_rate, beta, model are known" in note["detail"]["message"]
    assert summarise(folder).step == 2


def test_an_imported_run_is_refused_where_weights_are_needed(tmp_path, capsys):
    folder = import_run(trl_folder(tmp_path))
    for needs_weights in (drive, load_run):
        with pytest.raises(LabError, match="was imported from another trainer"):
            needs_weights(folder)
    with pytest.raises(SystemExit):
        main(["train", "--resume", "--out", str(folder.path)])
    assert "cannot be continued" in capsys.readouterr().err
    assert folder.state == "finished" and len(steps_of(folder)) == 2


def test_a_log_of_verl_gets_the_labs_names_units_and_seconds(tmp_path):
    path = tmp_path / "gsm8k.jsonl"
    lines = [
        {
            "step": step,
            "data": {
                "actor/pg_loss": 0.5 * step,
                "actor/kl_loss": 0.01,
                "actor/lr": 1e-6,
                "critic/rewards/mean": 0.25,
                "response_length/mean": 200.0,
                "timing_s/step": 30.0,
                "val-core/openai/gsm8k/acc/mean@1": 0.4,
                "training/epoch": 0,
            },
        }
        for step in (1, 2)
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    folder = import_run(path)
    assert folder.name == "gsm8k" and folder.config.learning_rate == 1e-6
    assert type(folder.config).__name__ == "GRPOConfig"
    second = steps_of(folder)[2]
    assert second["kl"] == pytest.approx(2.0)  # 0.01 nats a token, 200 tokens a completion
    assert (second["loss"], second["reward"], second["gold/accuracy"]) == (1.0, 0.25, 0.4)
    assert [row["seconds"] for row in folder.history() if row["type"] == "step"] == [30.0, 60.0]


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_event_files_of_tensorboard_are_read(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(tmp_path / "out" / "runs" / "today"))
    for step in (1, 2, 3):
        writer.add_scalar("train/loss", 1 / step, step, walltime=1000.0 + 5 * step)
        writer.add_scalar("train/kl", 0.5, step, walltime=1000.0 + 5 * step)
        writer.add_scalar("train/rewards/margins", 2.0, step, walltime=1000.0 + 5 * step)
    writer.add_scalar("eval/kl", 0.25, 3, walltime=1020.0)
    writer.close()
    folder = import_run(tmp_path / "out", tmp_path / "here")
    assert type(folder.config).__name__ == "KTOConfig"
    third = steps_of(folder)[3]
    assert third == pytest.approx(
        {"loss": 1 / 3, "kto/z": 0.5, "rewards/margins": 2.0, "eval/kto/z": 0.25}, rel=1e-6
    )
    seconds = [row["seconds"] for row in folder.history() if row["type"] == "step"]
    assert seconds == [0.0, 5.0, 15.0]


@pytest.mark.parametrize(
    ("names", "method"),
    [
        ({"train/loss", "train/rewards/margins"}, "dpo"),
        ({"loss", "rewards/margins", "kl"}, "kto"),
        ({"loss", "reward", "reward_std", "kl"}, "grpo"),
        ({"loss", "accuracy", "margin"}, "reward_model"),
        ({"loss", "entropy"}, "sft"),
        ({"actor/pg_loss", "critic/vf_loss"}, "ppo"),
        ({"objective/scores", "rewards/margins"}, "online_dpo"),
    ],
)
def test_the_names_of_the_metrics_tell_the_method(names, method):
    assert method_of_names(names) == method


def several(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text('{"step": 1, "loss": 1.0}\n')


def one(text, name="log.jsonl"):
    return lambda tmp_path: (tmp_path / name).write_text(text)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (lambda tmp_path: None, [], "holds no run that can be imported"),
        (lambda tmp_path: None, ["--method", "dpoo"], "Did you mean 'dpo'?"),
        (several, [], "holds several runs: a.jsonl, b.jsonl"),
        (one('{"step": 1, "loss": 1.0}\n{"step'), [], "log.jsonl, line 2 is no JSON"),
        (one('{"loss": 1.0}\n'), [], "a record whose step is None"),
        (one('{"step": 1, "text": "a"}\n'), [], "holds no metrics"),
        (one('{"step": 1, "speed": 2}\n'), [], "tell no method. Name it: --method"),
        (one('{"step": 1, "loss": 2}\n'), ["beta"], "Write SETTING=VALUE"),
        (one('{"step": 1, "loss": 2}\n'), ["betta=1"], "betta"),
        (one("[1]", "trainer_state.json"), [], "holds list, but takes an object"),
        (one("{}", "trainer_state.json"), [], "has no list log_history"),
    ],
)
def test_what_cannot_be_imported_is_one_line_and_makes_no_run(
    tmp_path, capsys, make, arguments, message
):
    make(tmp_path)
    with pytest.raises(SystemExit):
        main(["import", str(tmp_path), *arguments])
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_a_folder_that_exists_is_not_written_over(tmp_path):
    source = trl_folder(tmp_path)
    folder = import_run(source)
    with pytest.raises(LabError, match="exists"):
        import_run(source)
    assert RunFolder(folder.path).state == "finished"


def test_the_table_of_runs_calls_it_imported(tmp_path):
    from lab.dashboard.pages.runs.run_table import table_row

    row = table_row(summarise(import_run(trl_folder(tmp_path))), recorded=False)
    assert (row["kind"], row["method"], row["steps"]) == ("imported", "DPO", "2 of 2")
    assert row["held-out loss"] == "0.395 → 0.395"
