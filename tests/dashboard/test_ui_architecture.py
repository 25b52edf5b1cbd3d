"""RLHF beside DPO, step by step: the recorded update, its words, its picture, and the experiment
that records it.
"""

import json
import re
from functools import partial
from html import unescape
from xml.etree import ElementTree

import pytest
import torch
from support.elements import opened

from lab.config.methods import METHODS, make_config
from lab.dashboard.components.svg_diagram import Arrow, Box, svg
from lab.dashboard.pages.rlhf_dpo.architectures import LAYOUT_LABELS, STEP_LABELS, recorded_updates
from lab.dashboard.pages.rlhf_dpo.diagrams import (
    DPO_ARROWS,
    LIT_ELEMENTS,
    PPO_ARROWS,
    dpo_boxes,
    megabytes_text,
    ppo_boxes,
)
from lab.dashboard.pages.rlhf_dpo.step_text import dpo_step_text, ppo_step_text
from lab.experiments import one_update
from lab.figures.ppo_credit import critic_credit_figure
from lab.training.loop import prepare, train_step

PAGE = "from lab.dashboard.pages.rlhf_dpo.architectures import architectures_section\narchitectures_section()\n"


open_page = partial(opened, PAGE)


def diagram(app):
    """What the browser gets: the step at which the diagram stands, and all its steps."""
    (data,) = (
        data
        for e in app.get("bidi_component")
        for data in json.loads(e.proto.json)
        if data.get("key") == "architectures"
    )
    return data["at"], data["steps"]


@pytest.mark.parametrize("step", STEP_LABELS)
def test_every_step_says_in_numbers_what_both_do(step):
    found = recorded_updates()
    at, steps = diagram(open_page(step=step))
    assert [one["name"] for one in steps] == list(STEP_LABELS) and steps[at]["name"] == step
    said = unescape(re.sub("<code>|</code>", "`", steps[at]["html"]))
    assert ppo_step_text(step, found["ppo"]) in said and dpo_step_text(step, found["dpo"]) in said
    assert steps[at]["html"].count("<svg") == 2


def test_the_bars_have_the_lengths_of_the_bytes():
    for layout in LAYOUT_LABELS:
        _, steps = diagram(open_page(layout=layout))
        shares = [float(share) for share in re.findall("--share:([0-9.e-]+);", steps[0]["html"])]
        ppo, dpo = (
            sum(sum(part.values()) for part in recorded_updates()[name]["memory"][kept].values())
            for name, kept in (("ppo", layout), ("dpo", "shared"))
        )
        assert shares == [1.0, pytest.approx(dpo / ppo, rel=1e-3)]  # four digits are sent


def test_the_layout_changes_the_bytes_of_rlhf_alone():
    memory = recorded_updates()["ppo"]["memory"]
    for layout in LAYOUT_LABELS:
        text = diagram(open_page(layout=layout))[1][0]["html"]
        weights = sum(part["weights"] for part in memory[layout].values())
        assert (
            f"4 models, {megabytes_text(weights)} of weights" in text
            and "2 models, 1.46 MB" in text
        )
    assert (
        memory["separate"]["reference"]["weights"] > memory["shared"]["reference"]["weights"] == 0
    )


@pytest.mark.parametrize("value", ["", "6", "<b>", "GENERATE"])
def test_an_address_that_names_no_step_shows_the_first(value):
    assert diagram(open_page(step=value, layout=value))[0] == 0


def test_what_is_lit_is_there():
    found = recorded_updates()
    for boxes, arrows, place in (
        (ppo_boxes(found["ppo"], "shared"), PPO_ARROWS, 0),
        (dpo_boxes(found["dpo"]), DPO_ARROWS, 1),
    ):
        names = {thing.name for thing in (*boxes, *arrows)}
        assert len(names) == len(boxes) + len(arrows) and all(
            LIT_ELEMENTS[step][place] <= names for step in STEP_LABELS
        )


def test_a_picture_is_valid_escapes_its_words_and_moves_only_what_is_lit():
    boxes = [Box("a", 0, 0, 100, 50, "<script>", ("x & y",)), Box("b", 200, 0, 100, 50, "b")]
    text = svg(
        boxes,
        [Arrow("go", ((100, 25), (200, 25)), "to"), Arrow("back", ((200, 40), (100, 40)))],
        {"go", "a"},
        (300, 60),
        "light",
    )
    root = ElementTree.fromstring(text)
    assert [t.text for t in root.iter("{http://www.w3.org/2000/svg}text")] == [
        "to",
        "<script>",
        "x & y",
        "b",
    ]
    assert text.count('class="moving"') == 1 and "prefers-reduced-motion: reduce" in text
    assert "infinite" not in text  # each frame paints the whole diagram
    head = [
        tuple(map(float, p.split(",")))
        for p in re.findall(r'polygon points="([^"]*)"', text)[1].split()
    ]
    assert head[-1] == (200, 25) and all(x == 190 for x, _ in head[:2])


def test_the_figure_shows_value_advantage_and_score_of_every_token():
    figure = critic_credit_figure(["a", "b"], [0.5, 0.8], [0.4, 0.2], 1.0)
    assert [list(trace.y) for trace in figure.data] == [[0.4, 0.2], [0.5, 0.8], [1.0, 1.0]]
    assert list(figure.layout.xaxis.ticktext) == ["a", "b"]


def test_the_recorded_numbers_agree_with_each_other():
    ppo, dpo = recorded_updates()["ppo"], recorded_updates()["dpo"]
    lists = (
        "tokens",
        "logps",
        "reference",
        "rewards",
        "values",
        "raw_advantages",
        "advantages",
        "after",
        "values_after",
    )
    assert len({len(ppo[name]) for name in lists}) == 1
    for t, r in enumerate(ppo["rewards"]):  # Eq. 2 of arXiv 2203.02155, by hand
        expected = -ppo["beta"] * (ppo["logps"][t] - ppo["reference"][t]) + (
            ppo["score"] if t == len(ppo["rewards"]) - 1 else 0
        )
        assert r == pytest.approx(expected, abs=1e-4)
    h = (dpo["logps"][0] - dpo["reference"][0]) - (dpo["logps"][1] - dpo["reference"][1])
    assert dpo["margin"] == pytest.approx(h, abs=1e-4)


def test_a_pair_is_pulled_as_hard_as_the_derivative_of_its_loss_says():
    margin, loss, weight = one_update.pair_gradient([0.0, -10.0], [0.0, 0.0], 0.1)
    assert (margin, loss) == (pytest.approx(10.0), pytest.approx(0.313262, abs=1e-6))
    assert weight == pytest.approx(0.1 * 0.268941, abs=1e-6)  # β·σ(−1)


def test_memory_counts_shared_weights_once_and_what_trains_with_gradient_and_two_moments():
    run = prepare(make_config("dpo", {"pairs": 16, "eval_prompts": 2, "device": "cpu"}))
    train_step(run, METHODS["dpo"], next(METHODS["dpo"].batches(run)))
    found = one_update.memory_of(run)
    lora = sum(w.numel() for w in run.model.parameters() if w.requires_grad)
    assert (
        found["policy"]["training"] == 3 * 4 * lora + 4
    )  # gradient and two moments of the one vector, and AdamW's step count, float32
    assert found["reference"] == {"weights": 0, "training": 0}
    assert one_update.storage_bytes([torch.zeros(3), torch.zeros(2)]) == 20
    whole = torch.zeros(8)
    assert one_update.storage_bytes([whole, whole[:2]]) == 32


def test_the_experiment_follows_one_completion_and_one_pair(tmp_path, monkeypatch):
    from concurrent.futures import ThreadPoolExecutor

    from lab.experiments import process_pool

    monkeypatch.setattr(
        process_pool, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1)
    )
    monkeypatch.setattr(one_update, "UPDATES_BEFORE", 0)
    monkeypatch.setattr(one_update, "REWARD_MODEL_SETTINGS", {"steps": 1, "pairs": 32})
    monkeypatch.setattr(
        one_update, "METHOD_SETTINGS", {"ppo": {"batch_size": 4}, "dpo": {"pairs": 32, "steps": 1}}
    )
    table = one_update.run_experiment(tmp_path, 1, "cpu", 1)
    ppo, dpo = table["rows"]
    assert ppo["logps"] == pytest.approx(ppo["reference"], abs=1e-5) and ppo["values"] == [
        0.0
    ] * len(ppo["tokens"])  # nothing is learnt yet
    assert dpo["margin"] == pytest.approx(0.0, abs=1e-5) and dpo["loss"] == pytest.approx(
        0.693147, abs=1e-4
    )
    assert "Bytes: policy" in (tmp_path / "report.md").read_text()
