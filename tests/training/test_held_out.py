"""Own data without a task: a part of its prompts is held out, never trained on, and judged by the
method's own loss; with a task nothing has changed.
"""

import json
import math
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from support.elements import opened, texts
from support.tiny import save

from lab.cli import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.dashboard.components import text as words
from lab.data.batching import collate, encode_examples
from lab.engine.token_logprobs import completion_logps, reference_implementation, score
from lab.errors import LabError
from lab.figures.run_curves import METRIC_PANELS, RunCurves, default_panels
from lab.figures.training_curves import training_curves
from lab.models.adapters import adapter_disabled
from lab.runs.folder import RunFolder, create
from lab.runs.metrics import METRICS
from lab.runs.records import columns_of
from lab.runs.summary import summarise
from lab.serving.load import evaluate_run
from lab.serving.side_by_side import PolicyWithReference
from lab.tasks.registry import task_of
from lab.training.driver import drive
from lab.training.loop import prepare
from lab.training.methods.offline import load_preferences, rows_of

QUICK = {
    "steps": 4,
    "batch_size": 4,
    "eval_every": 2,
    "eval_prompts": 8,
    "max_completion_tokens": 4,
    "device": "cpu",
    "learning_rate": 1e-2,
}
SHAPES = {
    "pairs": lambda i: {
        "prompt": f"prompt {i}",
        "chosen": "yes" * (1 + i % 3),
        "rejected": "no" * (1 + i % 4),
    },
    "judged": lambda i: {"prompt": f"prompt {i}", "completion": f"text {i}", "label": i % 2 == 0},
    "completions": lambda i: {"prompt": f"prompt {i}", "completion": f"text {i}"},
    "talks": lambda i: {
        "prompt": [{"role": "user", "content": f"{i}"}],
        "chosen": [{"role": "assistant", "content": f"yes {i}"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    },
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture
def data(tmp_path):
    def data(shape="pairs", count=40):
        path = tmp_path / f"{shape}.jsonl"
        path.write_text("".join(json.dumps(SHAPES[shape](i)) + "\n" for i in range(count)), "utf-8")
        return str(path)

    return data


def steps(folder):
    return [row for row in folder.history() if row["type"] == "step"]


def log(folder):
    return (folder.path / "log.txt").read_text("utf-8")


# What is meant where nothing is said.


def test_without_own_data_nothing_said_means_chain_and_2000_pairs_and_with_it_all_rows_and_a_part_of_them():
    assert [
        (c.task, c.pairs) for c in (make_config("dpo"), make_config("dpo", {"data": "mine.jsonl"}))
    ] == [("chain", 2000), ("", 0)]
    assert make_config("grpo").task == "chain"
    said = make_config("sft", {"data": "mine.jsonl", "task": "chain", "pairs": 50})
    assert (said.task, said.pairs) == ("chain", 50) and from_dict(to_dict(said)) == said
    unsaid = make_config("sft", {"data": "mine.jsonl"})
    assert from_dict(json.loads(json.dumps(to_dict(unsaid)))) == unsaid


def test_a_config_of_an_earlier_version_means_what_it_meant(model, data):
    before = {
        k: v
        for k, v in to_dict(make_config("dpo", {"model": model, "data": data(count=30)})).items()
        if k != "truncation_mode"
    }
    run = prepare(from_dict(before | {"task": "chain", "pairs": 20}))
    train, held = rows_of(run)
    assert (
        [p.prompt for p in train] == [f"prompt {i}" for i in range(20)]
        and held == []
        and run.config.truncation_mode == "keep_start"
    )


def test_rows_that_pairs_cuts_off_are_told(tmp_path, model, data):
    folder = create(
        tmp_path / "run",
        make_config("dpo", QUICK | {"model": model, "data": data(count=30), "pairs": 20}),
    )
    assert len(
        sum(rows_of(drive(folder)), [])
    ) == 20 and "has 30 rows, of which pairs takes the first 20. Use --pairs 0 for all." in log(
        folder
    )


# The split.


def test_a_tenth_of_the_prompts_is_held_out_by_hash_and_no_row_of_them_is_trained_on(
    tmp_path, model
):
    rows = [SHAPES["pairs"](i % 40) | {"chosen": f"yes {i}"} for i in range(120)]
    splits = []
    for name, found in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in found), "utf-8")
        (tmp_path / name).rename(path := tmp_path / f"{name}.jsonl")
        train, held = rows_of(
            prepare(make_config("dpo", {"model": model, "data": str(path), "device": "cpu"}))
        )
        assert (
            len(train) == 108
            and len(held) == 12
            and {p.prompt for p in train}.isdisjoint(p.prompt for p in held)
        )
        splits.append({p.prompt for p in held})
    assert splits[0] == splits[1] and len(splits[0]) == 4


@pytest.mark.parametrize(
    "method, count, held",
    [
        ("dpo", 1, 0),
        ("dpo", 2, 1),
        ("dpo", 3, 1),
        ("sft", 2, 1),
        ("kto", 3, 0),
        ("kto", 4, 2),
        ("dpo", 400, 8),
    ],
)
def test_of_few_rows_one_is_held_out_where_enough_are_left_and_never_more_prompts_than_eval_prompts(
    tmp_path, model, data, method, count, held
):
    folder = create(
        tmp_path / "run",
        make_config(method, QUICK | {"model": model, "data": data(count=count), "steps": 1}),
    )
    run = drive(folder)
    assert (len(rows_of(run)[1]), len(rows_of(run)[0])) == (held, count - held)
    assert ("eval/loss" in steps(folder)[-1]["metrics"]) == bool(held)
    assert (f"{held} of {count} rows" if held else "too few prompts to hold any out") in log(folder)


NEAR = ["What is {}*4?", "what is  {}*4", "What is {}*4 ?", "“WHAT” is {}*4…"]
"""Ways to write the same prompt."""


@pytest.mark.parametrize("shape", ["pairs", "talks"])
def test_with_a_share_all_ways_to_write_a_prompt_stay_on_one_side(tmp_path, model, shape):
    path = tmp_path / "mine.jsonl"
    prompts = [way.format(i) for i in range(40) for way in NEAR]
    rows = [
        SHAPES[shape](i)
        | {"prompt": prompt if shape == "pairs" else [{"role": "user", "content": prompt}]}
        for i, prompt in enumerate(prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")

    def numbers(rows):
        found = [row.prompt if shape == "pairs" else row.prompt[0]["content"] for row in rows]
        return [int("".join(filter(str.isdigit, text.partition("*")[0]))) for text in found]

    config = {"model": model, "data": str(path), "device": "cpu"}
    train, held = map(numbers, rows_of(prepare(make_config("dpo", config | {"eval_share": 0.05}))))
    assert set(train).isdisjoint(held) and len(set(held)) == 2 and len(held) == 8
    exact = [set(numbers(rows)) for rows in rows_of(prepare(make_config("dpo", config)))]
    assert exact[0] & exact[1], "without eval_share prompts are compared exactly, as before"


def test_a_share_that_leaves_nothing_or_has_nothing_to_share_is_an_error(model, data):
    config = {"model": model, "data": data(count=1), "device": "cpu", "eval_share": 0.1}
    with pytest.raises(LabError, match="has 1 different prompts, and both sides need 1"):
        rows_of(prepare(make_config("dpo", config)))
    for wrong in ({"eval_share": 0.1}, config | {"task": "chain"}):
        with pytest.raises(LabError, match="eval_share is 0.1, but is for your own data"):
            make_config("dpo", wrong)


def test_the_kl_on_held_out_prompts_is_0_before_the_first_update_and_grows(tmp_path, model, data):
    folder = create(tmp_path / "run", make_config("dpo", QUICK | {"model": model, "data": data()}))
    run = drive(folder)
    found = [row["metrics"].get("eval/kl") for row in steps(folder)]
    assert found[0] == pytest.approx(0.0, abs=1e-6) and found[1] is None and found[4] > 1e-4
    held = evaluate_run(folder, prompts=8, samples=1, seed=0, device="cpu")
    assert found[4] == pytest.approx(
        held["kl"], rel=1e-3
    )  # The adapter is stored and loaded again.
    assert run.step == 4


def test_where_the_held_out_rows_alone_fit_nothing_is_left_to_train_on(tmp_path, model):
    path, long = tmp_path / "mine.jsonl", "p" * 60
    short = next(
        text
        for text in map(str, range(100))
        if sha256(text.encode()).digest() < sha256(long.encode()).digest()
    )
    path.write_text(
        "".join(
            json.dumps(SHAPES["pairs"](0) | {"prompt": prompt}) + "\n" for prompt in (short, long)
        ),
        "utf-8",
    )
    with pytest.raises(
        LabError, match="All rows of .* that fit are held out, so none is left to train on"
    ):
        drive(
            create(
                tmp_path / "run",
                make_config("dpo", QUICK | {"model": model, "data": str(path), "max_length": 40}),
            )
        )


# What is measured, by hand.


def by_hand(run, method):
    """The method's metrics on the held-out rows from the model's own log-probabilities and the
    formulas of the papers.
    """
    held, beta = rows_of(run)[1], getattr(run.config, "beta", 0.0)

    def batch(texts):
        return collate(
            encode_examples(run.tokenizer, texts, run.config.max_length, "row"),
            run.tokenizer.pad_token_id,
        )

    def ratio(texts):
        with adapter_disabled(run.model):
            frozen = completion_logps(run.model, batch(texts))
        return completion_logps(run.model, batch(texts)) - frozen

    if method == "sft":
        tokens = batch([(row.prompt, row.completion) for row in held])
        logps = reference_implementation(run.model, tokens).logps
        return {"eval/loss": -(logps.sum() / tokens.completion_mask.sum()).item()}
    chosen, rejected = (
        [(row.prompt, getattr(row, side)) for row in held] for side in ("chosen", "rejected")
    )
    if method == "reward_model":
        good, bad = score(run.model, batch(chosen)), score(run.model, batch(rejected))
    else:
        good, bad = beta * ratio(chosen), beta * ratio(rejected)
    margin = good - bad
    loss = {"ipo": (margin / beta - 1 / (2 * beta)) ** 2 if beta else margin}.get(
        method, -torch.nn.functional.logsigmoid(margin)
    )
    return {
        "eval/loss": loss.mean().item(),
        "eval/rewards/margins": margin.mean().item(),
        "eval/rewards/accuracies": (margin > 0).float().mean().item(),
    }


@pytest.mark.parametrize(
    "method, shape",
    [
        ("dpo", "pairs"),
        ("dpo", "talks"),
        ("ipo", "pairs"),
        ("reward_model", "pairs"),
        ("sft", "completions"),
    ],
)
def test_loss_margin_and_accuracy_on_the_held_out_rows_are_those_worked_out_by_hand(
    tmp_path, model, data, method, shape
):
    folder = create(
        tmp_path / "run",
        make_config(method, QUICK | {"model": model, "data": data(shape), "micro_batches": 2}),
    )
    run = drive(folder)
    found = [row["metrics"] for row in steps(folder)]
    assert [("eval/loss" in row) for row in found] == [True, False, True, False, True]
    with torch.no_grad():
        for name, value in by_hand(run, method).items():
            assert found[-1][name] == pytest.approx(value, rel=1e-4, abs=1e-6)
    assert found[-1]["eval/loss"] != found[0]["eval/loss"] and not any(
        name.startswith("gold/") for row in found for name in row
    )
    assert {name for row in found for name in row} <= set(METRICS)
    if method == "sft":
        assert found[-1]["eval/perplexity"] == pytest.approx(math.exp(found[-1]["eval/loss"]))


@pytest.mark.parametrize("shape", ["judged", "pairs"])
def test_kto_measures_its_loss_and_the_margin_between_both_kinds(tmp_path, model, data, shape):
    folder = create(
        tmp_path / "run", make_config("kto", QUICK | {"model": model, "data": data(shape)})
    )
    drive(folder)
    first, last = steps(folder)[0]["metrics"], steps(folder)[-1]["metrics"]
    assert first["eval/loss"] == pytest.approx(0.5, abs=1e-6)  # π = π_ref costs λ/2.
    assert (
        last["eval/loss"] != first["eval/loss"]
        and last["eval/rewards/margins"]
        == last["eval/rewards/chosen"] - last["eval/rewards/rejected"]
    )


def test_measuring_changes_nothing_of_the_training(tmp_path, model, data):
    source, found = data(), []
    for every in (1, 0):
        folder = create(
            tmp_path / f"run{every}",
            make_config("kto", QUICK | {"model": model, "data": source, "eval_every": every}),
        )
        drive(folder)
        found.append(
            [
                {k: v for k, v in row["metrics"].items() if not k.startswith("eval/")}
                for row in steps(folder)
            ]
        )
    assert found[0] == found[1]


def test_some_held_out_prompts_are_answered(tmp_path, model, data):
    folder = create(
        tmp_path / "run", make_config("dpo", QUICK | {"model": model, "data": data("talks")})
    )
    run = drive(folder)
    shown = [row for row in folder.samples() if row["step"] == 4]
    assert [row["prompt"] for row in shown] == [
        p.prompt for p in task_of(run.config).held_out(8)
    ] and all(row["held_out"] for row in shown)
    assert {row["prompt"] for row in shown} == {row.prompt[0]["content"] for row in rows_of(run)[1]}


def test_with_a_task_its_own_evaluation_stands_and_all_rows_are_trained_on(tmp_path):
    rows = [
        {"prompt": f"{i % 9 + 1}+{i // 9 + 1}=", "chosen": "7", "rejected": "8"} for i in range(20)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    folder = create(
        tmp_path / "run",
        make_config(
            "dpo",
            QUICK
            | {"data": str(tmp_path / "mine.jsonl"), "task": "chain", "max_completion_tokens": 8},
        ),
    )
    run = drive(folder)
    assert (
        len(load_preferences(run)) == 20
        and "gold/accuracy" in steps(folder)[0]["metrics"]
        and "eval/loss" not in steps(folder)[0]["metrics"]
    )


# Where it is shown.


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    root = tmp_path_factory.mktemp("runs")
    path = root / "mine.jsonl"
    path.write_text("".join(json.dumps(SHAPES["pairs"](i)) + "\n" for i in range(40)), "utf-8")
    for method in ("dpo", "sft"):
        drive(
            create(
                root / f"own-{method}",
                make_config(method, QUICK | {"model": model, "data": str(path)}),
            )
        )
    return root


def test_eval_talk_and_the_list_of_runs_take_such_a_run(finished, capsys):
    run, last = (
        RunFolder(finished / "own-dpo"),
        steps(RunFolder(finished / "own-dpo"))[-1]["metrics"],
    )
    result = evaluate_run(run, prompts=3, samples=1, seed=0, device="cpu")
    assert result["held-out rows"] == 4 and "gold/accuracy" not in result
    assert all(
        result[name] == pytest.approx(last[name], rel=1e-4, abs=1e-6)
        for name in ("eval/loss", "eval/rewards/margins", "eval/rewards/accuracies")
    )
    said = PolicyWithReference.of(run, "cpu").answer()
    assert (
        said["prompt"] == task_of(run.config).held_out(1)[0].prompt
        and said["policy"]["right"] is None
    )
    main.main(["runs", "--root", str(finished)])
    first = steps(run)[0]["metrics"]["eval/loss"]
    assert f"held-out loss {first:.2f} -> {last['eval/loss']:.2f}" in capsys.readouterr().out
    assert summarise(run).held_out == (first, last["eval/loss"]) and summarise(run).gold is None


def test_the_curves_stand_where_gold_accuracy_would(finished):
    shown = [
        RunCurves(name, name, name, columns_of(RunFolder(finished / f"own-{name}").history()))
        for name in ("dpo", "sft")
    ]
    assert default_panels(shown[:1])[:3] == [
        "eval/rewards/accuracies",
        "eval/rewards/margins",
        "eval/loss",
    ]
    assert default_panels(shown[1:])[:2] == ["eval/loss", "eval/perplexity"]
    assert {name for name in METRICS if name.startswith("eval/")} <= set(METRIC_PANELS)
    assert {"lines+markers", "lines"} == {
        trace.mode for trace in training_curves(shown, ["eval/loss"]).data
    }


def test_the_pages_show_such_a_run(finished, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(finished))
    monkeypatch.setattr(
        "lab.dashboard.components.live_chart.live_chart_element", lambda **data: None
    )  # AppTest knows no browser elements.
    train = opened(Path(__file__).parents[2] / "app.py", run="own-dpo")
    assert "loss on held-out rows 0.693" in texts(
        train
    ) and "what becomes of the length" not in texts(train)
    table = opened("runs.page", run="own-dpo").dataframe(key="table").value.set_index("run")
    assert (
        table.loc["own-dpo", "held-out loss"].startswith("0.693 → ")
        and table.loc[["own-dpo"], "gold after"].isna().all()
    )
    assert (
        "task" not in table.loc["own-dpo", "settings"]
        and "pairs" not in table.loc["own-dpo", "settings"]
    )


def test_the_page_talk_offers_held_out_prompts_of_the_data(finished, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(finished))
    monkeypatch.setattr(
        "lab.dashboard.pages.talk.answers.answer_pair",
        lambda *asked: (_ for _ in ()).throw(LabError("not now")),
    )
    monkeypatch.setattr(
        "lab.dashboard.pages.talk.page.inference_worker",
        lambda: type("Worker", (), {"warm": lambda self: None})(),
    )
    app = opened("talk.page", run="own-dpo")
    asked = task_of(RunFolder(finished / "own-dpo").config).held_out(12)
    assert app.selectbox(key="prompt").options == [p.prompt for p in asked] and len(asked) == 4


def test_the_command_of_such_a_run_names_what_was_said(finished):
    config = to_dict(RunFolder(finished / "own-dpo").config)
    said = words.train_command(config, "runs/dpo")
    assert f"--data {config['data']}" in said and "--task" not in said and "--pairs" not in said
    assert "--task chain" in words.train_command(
        config | {"task": "chain"}, "runs/dpo"
    ) and "--pairs 7" in words.train_command(config | {"pairs": 7}, "runs/dpo")
