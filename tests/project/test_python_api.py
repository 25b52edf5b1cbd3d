"""`from lab import …`: the examples of README.md and docs/python-api.md run as they stand there."""

import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel

import lab
from lab.config.methods import METHODS
from lab.errors import LabError
from lab.models.loading import load_base

ROOT = Path(__file__).parents[2]


def examples(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.M | re.S)


PAGE = (ROOT / "docs" / "python-api.md").read_text("utf-8")
EXAMPLES = examples("docs/python-api.md")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAB_RUNS", "runs")


def test_the_first_example_is_short():
    lines = [line for line in EXAMPLES[0].splitlines() if line.strip()]
    assert lines[0].startswith("from lab import") and len(lines) <= 10


def test_the_example_of_the_readme_trains_an_adapter(capsys, tmp_path):
    (source,) = examples("README.md")
    exec(source, {})
    adapter = capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / adapter / "adapter_model.safetensors").is_file()


def test_the_examples_run_in_their_order_and_leave_an_adapter_that_peft_loads(capsys, tmp_path):
    names = {}
    for source in EXAMPLES:
        exec(source, names)
    out = capsys.readouterr().out
    adapter = re.search(r"^runs.*adapter$", out, re.M).group()
    assert re.search(r"^update 0: gold accuracy 0\.\d\d$", out, re.M)
    assert re.search(r"^update 10: gold accuracy 0\.\d\d$", out, re.M)
    assert re.search(r"^base: +\S", out, re.M) and re.search(r"^trained: +\S", out, re.M)
    assert "finished [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]" in out
    base = load_base("embedded", torch.device("cpu"))
    assert PeftModel.from_pretrained(base, tmp_path / adapter).peft_config
    lengths = [len(sample["completion"]) for sample in names["run"].samples() if "reward" in sample]
    rewards = [sample["reward"] for sample in names["run"].samples() if "reward" in sample]
    assert rewards == [-length for length in lengths] != []


def test_the_callback_sees_every_update_and_stops_the_run():
    seen = []

    def stop_after_two(record):
        seen.append(record.step)
        return record.step == 2

    run = lab.train("dpo", steps=50, eval_prompts=8, callback=stop_after_two)
    assert seen == [0, 1, 2] and run.state == "stopped"
    assert (run.path / "adapter" / "adapter_model.safetensors").is_file()


def test_of_several_callbacks_each_is_called_and_one_is_enough_to_stop():
    seen, events = [], []
    run = lab.train(
        "dpo",
        steps=50,
        eval_prompts=8,
        callback=[seen.append, lambda record: record.step == 1, seen.append],
        on_event=lambda event: events.append((event.step, event.kind)),
    )
    assert [record.step for record in seen] == [0, 0, 1, 1] and run.state == "stopped"
    assert events == [(0, "started"), (1, "stopped")]


def test_a_loop_makes_an_update_for_each_record_and_gives_the_numbers_of_train():
    whole = lab.train("ipo", steps=4, eval_prompts=8, eval_every=2)
    training, seen = lab.Training("ipo", steps=4, eval_prompts=8, eval_every=2), []
    for record in training:
        seen.append(record)
        assert training.run.state == "running"
        if record.step == 2:
            break
    assert training.run.state == "stopped" and [record.step for record in seen] == [0, 1, 2]
    assert (training.run.path / "adapter" / "adapter_model.safetensors").is_file()
    seen += list(training)
    assert [record.step for record in seen] == [0, 1, 2, 3, 4]
    assert training.run.state == "finished"
    steps = [row for row in whole.history() if row["type"] == "step"]
    assert [record.metrics for record in seen] == [row["metrics"] for row in steps]


def test_an_error_in_the_loop_stops_the_run_and_loses_nothing():
    training = lab.Training("dpo", steps=9, eval_prompts=8)
    with pytest.raises(ZeroDivisionError):
        for record in training:
            1 / (1 - record.step)
    assert training.run.state == "stopped" and training.run.status()["step"] == 1


def test_the_trained_policy_writes_what_the_lab_writes_with_it():
    run = lab.train("dpo", steps=3, eval_prompts=8, learning_rate=5e-3)
    model, tokenizer = lab.trained_policy(run, "cpu")
    prompt = tokenizer("3+4*2=", return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    text = tokenizer.decode(ids[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    answer = lab.PolicyWithReference.of(run, "cpu").answer("3+4*2=", temperature=0, max_tokens=24)
    assert text == answer["policy"]["text"] != ""


def test_an_error_of_the_callback_reaches_the_caller_and_the_record(tmp_path):
    def fails(record):
        raise RuntimeError("no disk for my plot")

    with pytest.raises(RuntimeError, match="no disk for my plot"):
        lab.train("dpo", steps=2, eval_prompts=8, out=tmp_path / "own", callback=fails)
    assert lab.RunFolder(tmp_path / "own").state == "failed"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ppoo",), "Unknown method 'ppoo'"),
        (("dpo", {"betta": 1.0}), "betta"),
        (("dpo", {"beta": -1.0}), "beta"),
        (("dpo", {"out": "."}), "cannot be the name of a run"),
    ],
)
def test_what_train_does_not_take_is_one_line_and_makes_no_run(tmp_path, arguments, message):
    settings = arguments[1] if len(arguments) > 1 else {}
    with pytest.raises(lab.LabError, match=message) as error:
        lab.train(arguments[0], **settings)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_every_public_name_is_on_the_page_and_an_unknown_one_is_an_attribute_error():
    for name in lab.__all__:
        assert getattr(lab, name) and name in PAGE
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = lab.trian
    assert set(re.findall(r'`"(\w+)"`', PAGE)) <= set(METHODS)


@pytest.mark.parametrize("value", [len, torch.ones(2), None])
def test_a_function_of_ones_own_is_refused_with_the_place_where_it_trains(value):
    with pytest.raises(LabError, match="loss can be a function.*lab.course.run_from_notebook"):
        lab.train("dpo", loss=value)
    with pytest.raises(LabError, match="advantages can be a function"):
        lab.Training("grpo", advantages=value)
