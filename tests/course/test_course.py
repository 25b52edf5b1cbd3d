"""The course's checks: each reference against numbers worked by hand, each known mistake against
its message, and what learners hand in.
"""

import csv
import io
import json
import math
import traceback
from pathlib import Path

import pytest
import torch
from PIL import Image

from lab.cli.main import main
from lab.course.build_notebooks import notebooks, read_notebook
from lab.course.check import check
from lab.course.checker import grade
from lab.course.exercise import RandomInputs
from lab.course.exercises import registry
from lab.course.exercises.registry import EXERCISES
from lab.course.grading.report import progress_sheet
from lab.course.run_from_notebook import curves, runs_folder, train
from lab.course.static_images import PALETTE_COLOURS, with_palette
from lab.course.widgets import PLOTLY_MIME, bundle, with_sliders
from lab.errors import LabError
from lab.figures.lines import line_figure
from lab.runs.folder import RunFolder
from lab.runs.records import columns_of
from lab.runs.trash import trashed_runs
from lab.tasks.registry import TASKS


def t(*values):
    return torch.tensor(values, dtype=torch.float64)


def same(found, expected):
    one, other = (
        torch.as_tensor(found, dtype=torch.float64),
        torch.as_tensor(expected, dtype=torch.float64),
    )
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=2e-6)


ONE = torch.ones(1, 2, dtype=torch.bool)
LOG2, LOG3 = math.log(2), math.log(3)

HAND_WORKED = {  # exercise: (inputs, what a reader gets with pencil and paper)
    "my_score": (("<think>7+5=12</think>12", "12"), 1.0),
    "my_confidence_interval": ((t(1, 2, 3), 4.302653), (2.0, 4.302653 / math.sqrt(3))),
    "my_sft_loss": (
        (t(-9, -1, -2, -9, -3, -9).view(2, 3), torch.tensor([[0, 1, 1], [0, 1, 0]]).bool()),
        2.0,
    ),
    "my_bradley_terry": ((t(LOG3, 0), t(0, 0)), (0.75, 0.5)),
    "my_reward_model_loss": ((t(LOG3, 0), t(0, 0)), (math.log(4 / 3), LOG2)),
    "my_kl_shaped_rewards": (
        (t(5), t(-1, -1, -9)[None], t(-2, -3, 0)[None], torch.tensor([[True, True, False]]), 0.1),
        ((-0.1, 4.8, 0.0),),
    ),
    "my_gae": ((t(0, 1), t(0.5, 0.8), 1.0, 0.5), (0.4, 0.2)),
    "my_whiten": (
        (t(1, 2, 3, 50)[None], torch.tensor([[True, True, True, False]])),
        ((-1 / 1.0001, 0.0, 1 / 1.0001, 0.0),),
    ),
    "my_objective": (
        (t(0.5, 0.5), t(0.25, 0.75), t(2, 0), 1.0),
        1 - (0.5 * LOG2 + 0.5 * math.log(2 / 3)),
    ),
    "my_log_partition": ((t(0.5, 0.5), t(LOG3, 0), 1.0), LOG2),
    "my_optimal_policy": ((t(0.5, 0.5), t(2 * LOG3, 0), 2.0), (0.75, 0.25)),
    "my_implied_reward": ((t(0.75, 0.25), t(0.25, 0.75), 0.1), (0.1 * LOG3, -0.1 * LOG3)),
    "my_completion_mask": (
        (torch.tensor([[5, 6, 7, 1, 1], [5, 6, 7, 8, 1]]), torch.tensor([1, 3]), 1),
        ((0, 1, 1, 1, 0), (0, 0, 0, 1, 1)),
    ),
    "my_sequence_logps": (
        (t(-1, -2, -3, -4)[None], torch.tensor([[False, True, True, False]])),
        (-5.0,),
    ),
    "my_dpo_loss": ((t(-10, -5), t(-20, -5), t(-15, -5), t(-15, -5), 0.1), (0.31326169, LOG2)),
    "my_dpo_gradient_weight": (
        (t(-10, -5), t(-20, -5), t(-15, -5), t(-15, -5), 0.1),
        (0.02689414, 0.05),
    ),
    "my_ipo_loss": ((t(-10), t(-12), t(-11), t(-11), 0.1), (9.0,)),
    "my_ipo_token_mean": ((t(-4), t(-6), t(-6), t(-6), t(2), t(4), 0.25), (1.0,)),
    "my_kto_loss": (
        (t(-10, -10), t(-20, -20), torch.tensor([True, False]), t(0).squeeze(), 0.1, 1.0, 2.0),
        (0.26894142, 2 * 0.73105858),
    ),
    "my_kto_z": (
        (t(9, 1, 8, 9, 9, 3, 2, 9, 9).view(3, 3), torch.zeros(3, 3, dtype=torch.float64)),
        2.0,
    ),
    "my_desirable_weight": ((20, 100, 0.8, 1.25), 5.0),
    "my_ratio": ((t(-1)[None], t(-1 - LOG2)[None]), ((2.0,),)),
    "my_clipped_surrogate": (
        (t(math.log(1.5), math.log(1.5))[None], t(0, 0)[None], t(1, -1)[None], 0.2),
        ((-1.2, 1.5),),
    ),
    "my_kl_estimate": ((t(-1, -1), t(-2, -1), "k3"), (math.exp(-1), 0.0)),
    "my_exact_kl": ((t(0, 0)[None], t(0, LOG3)[None]), (0.14384104,)),
    "my_leave_one_out": ((t(1, 0, 0, 0), 4), (1, -1 / 3, -1 / 3, -1 / 3)),
    "my_group_advantages": (
        (t(1, 0, 0, 0, 1, 1, 1, 1), 4),
        (0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, 0, 0, 0, 0),
    ),
    "my_dead_group_rate": ((0.5, 4), 0.125),
    "my_reduction": (
        (
            t(1, 1, 4, 0).view(2, 2),
            torch.tensor([[True, True], [True, False]]),
            "sequence_mean",
            10,
        ),
        2.5,
    ),
    "my_pass_at_k": ((4, 1, 2), 0.5),
    "my_steps_reward": (("<think>7+5=12;90+15=5;3-4=99;2*4=7</think>7", "8"), 0.75),
    "my_short_reward": (("<think>7+5=12;12*3=36;36-4=32</think>32", "32"), 1 - 19 / 40),
    "my_hinge_loss": (
        (t(-10, -5, -9), t(-12, -5, -30), t(-11, -5, -9), t(-9, -5, -9), 0.1),
        (0.6, 1.0, 0.0),
    ),
    "my_smoothed_loss": (
        (t(-10, -5), t(-20, -5), t(-15, -5), t(-15, -5), 0.1),
        (0.75 * 0.31326169 + 0.25 * 1.31326169, LOG2),
    ),
    "my_holm": (([0.01, 0.04, 0.03],), (0.03, 0.06, 0.06)),
    "my_paired_difference": ((t(2, 4, 6), t(1, 2, 3), 4.302653), (2.0, 4.302653 / math.sqrt(3))),
    "my_relative_cost": ((t(1, 3), t(2, 4)), 62.5),
    "my_reward": (("<think>1+1=2</think>3", "2"), 0.2),
    "my_merged_weight": (
        (t(1, 0, 0, 1).view(2, 2), t(1, 2)[None], t(3, 4)[:, None], 2.0),
        ((7.0, 12.0), (8.0, 17.0)),
    ),
    "my_lora_layer": (
        (t(1, 1)[None, None], t(1, 0, 0, 1).view(2, 2), t(1, 2)[None], t(3, 4)[:, None], 2.0),
        (((19.0, 25.0),),),
    ),
    "my_token_logps": ((t(0, 0, 9, 9).view(1, 2, 2), torch.tensor([[0, 1]])), ((0.0, -LOG2),)),
    "my_next_token": ((t(0, LOG3, 0, LOG3).view(2, 2), 1.0, t(0.2, 0.3)), (0, 1)),
    "my_dpo_batch_loss": (
        (t(-1, -2, -3, -9).view(2, 2), t(-1, -1, -2, -2).view(2, 2), ONE.expand(2, 2), 1.0),
        math.log1p(math.exp(-7)),
    ),
    "my_grpo_batch_loss": (
        (t(-1, -3).view(2, 1), torch.ones(2, 1, dtype=torch.bool), t(1, 0), 2),
        -1 / (2 * (math.sqrt(0.5) + 1e-4)),
    ),
}
ALL_MISTAKES = [
    (name, mistake.name) for name, exercise in EXERCISES.items() for mistake in exercise.mistakes
]


def test_there_are_at_least_25_exercises_three_mistakes_each_and_the_table_names_them_all():
    assert len(EXERCISES) >= 25
    assert min(len(exercise.mistakes) for exercise in EXERCISES.values()) >= 3
    table = registry.__doc__.splitlines()
    for name, exercise in EXERCISES.items():
        assert any(
            line.startswith(f"| {exercise.notebook:02d} ") and name in line for line in table
        ), name
    assert {exercise.notebook for exercise in EXERCISES.values()} >= set(range(10))


def test_the_documentation_counts_the_notebooks_and_the_functions():
    words = {10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen", 14: "fourteen"}
    root = Path(__file__).parents[2]
    course = (root / "docs" / "course.md").read_text("utf-8")
    assert f"{len(EXERCISES)} in the whole course" in course
    for name in ("README.md", "docs/index.md", "docs/course.md"):
        assert f"{words[len(notebooks())]} notebooks" in (root / name).read_text("utf-8"), name
    for path in notebooks():
        title = read_notebook(path).cells[0].source.splitlines()[0].partition(" · ")[2]
        assert f"| {path.name[:2]} " in course and f"| {title} |" in course, title


@pytest.mark.parametrize("name", HAND_WORKED)
def test_the_reference_gives_what_is_worked_by_hand(name):
    inputs, expected = HAND_WORKED[name]
    found = EXERCISES[name].reference(*inputs)
    assert all(map(same, found, expected)) if isinstance(found, tuple) else same(found, expected)


def test_a_line_of_preferences_is_json_as_the_lab_reads_it_and_no_other_exercise_lacks_an_oracle():
    assert json.loads(EXERCISES["my_preference_line"].reference("1+1=", 'say "2"', "3")) == {
        "prompt": "1+1=",
        "chosen": 'say "2"',
        "rejected": "3",
    }
    assert set(EXERCISES) - set(HAND_WORKED) == {"my_preference_line"}
    reference = EXERCISES["my_reduction"].reference
    losses, mask, _, longest = HAND_WORKED["my_reduction"][0]
    assert same(reference(losses, mask, "token_mean", longest), 2.0) and same(
        reference(losses, mask, "fixed_length", longest), 0.3
    )
    estimate = EXERCISES["my_kl_estimate"].reference
    assert same(estimate(t(-1), t(-2), "k1"), (1.0,)) and same(estimate(t(-1), t(-2), "k2"), (0.5,))


@pytest.mark.parametrize("name", EXERCISES)
def test_the_reference_passes_its_own_check_and_one_that_is_merely_close_does_not(name):
    exercise = EXERCISES[name]
    assert grade(exercise, exercise.reference, 7).passed
    assert grade(exercise, lambda *inputs: None, 7).mistake == "not written"

    def close(*inputs):
        value = exercise.reference(*inputs)
        if isinstance(value, str):
            return value.replace("chosen", "Chosen")
        if isinstance(value, tuple):
            return tuple(v * 1.001 for v in value)
        return (
            ~value
            if isinstance(value, torch.Tensor) and value.dtype == torch.bool
            else value * 1.001
        )

    verdict = grade(exercise, close, 7)
    known = {mistake.name for mistake in exercise.mistakes}
    assert not verdict.passed and verdict.mistake not in known, verdict


@pytest.mark.parametrize(("name", "mistake"), ALL_MISTAKES)
def test_every_known_mistake_is_called_by_its_name(name, mistake):
    exercise = EXERCISES[name]
    wrong = next(known for known in exercise.mistakes if known.name == mistake)
    for seed in (0, 1):
        verdict = grade(exercise, wrong.function, seed)
        assert (verdict.passed, verdict.mistake, verdict.message) == (False, mistake, wrong.message)


def test_random_inputs_differ_between_seeds_and_repeat_for_one():
    first, again, other = (
        EXERCISES["my_dpo_loss"].inputs(RandomInputs(seed, 0)) for seed in (1, 1, 2)
    )
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], other[0])
    for number in range(20):
        mask = RandomInputs(3, number).mask(3, 9)
        assert (
            not mask[:, 0].any() and mask.sum(1).min() >= 2 and len(set(mask.sum(1).tolist())) == 3
        )


def dpo(pw, pl, qw, ql, beta):
    return -torch.nn.functional.logsigmoid(beta * ((pw - qw) - (pl - ql)))


def test_what_is_no_known_mistake_gets_a_message_that_shows_the_input():
    def said(function):
        verdict = grade(EXERCISES["my_dpo_loss"], function, 5)
        assert not verdict.passed
        return verdict.message

    assert "not written" in said(lambda *a: (_ for _ in ()).throw(NotImplementedError()))
    assert "returns nothing yet" in said(lambda *a: None)
    assert "gives a dict" in said(lambda *a: {"loss": dpo(*a)})
    assert "shape (4,), but should give (B,) losses, one for each pair, here (5,)" in said(
        lambda *a: dpo(*a)[1:]
    )
    assert "NaN" in said(lambda *a: dpo(*a) * float("nan"))
    assert "takes (logps, beta)" in said(lambda logps, beta: logps)
    unlisted = grade(EXERCISES["my_sequence_logps"], lambda p, m: (p.exp() * m).sum(1), 5)
    assert "The check does not know this mistake" in unlisted.message
    assert unlisted.mistake == "other"

    def stops(pw, pl, qw, ql, beta):
        return pw.no_such_method()

    text = said(stops)
    assert (
        "AttributeError" in text
        and ", `return pw.no_such_method()`" in text
        and "  chosen_logps = [" in text
        and "  beta = 0." in text
    )


def test_a_function_that_writes_into_its_inputs_is_judged_by_what_it_returns():
    def careless(pw, pl, qw, ql, beta):
        pw -= qw
        return -torch.nn.functional.logsigmoid(beta * (pw - (pl - ql)))

    assert grade(EXERCISES["my_dpo_loss"], careless, 0).passed


# --- check, progress, sheets
# ------------------------------------------------------------------------------------------


def my_dpo_loss(pw, pl, qw, ql, beta):
    return dpo(pw, pl, qw, ql, 1.0)


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    path = tmp_path / "class" / "ada" / "progress.jsonl"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("LAB_COURSE", str(path))
    return path


def test_check_says_what_is_wrong_and_records_it(recorded, capsys):
    check(my_dpo_loss)
    check("my_dpo_loss", dpo)
    check("my_dpo_loss", dpo, recorded=False)
    line_figure = capsys.readouterr().out.splitlines()
    assert line_figure[0] == "Not yet: β is missing inside the sigmoid: −log σ(β·h)."
    assert line_figure[1].startswith("Right: my_dpo_loss agrees with the lab on 6 random inputs")
    rows = [json.loads(line) for line in recorded.read_text().splitlines()]
    assert [(row["check"], row["passed"], row["mistake"]) for row in rows] == [
        ("my_dpo_loss", False, "β forgotten"),
        ("my_dpo_loss", True, ""),
    ]


def test_an_exercise_that_does_not_exist_is_named_with_its_nearest(recorded):
    with pytest.raises(LabError, match="Did you mean 'my_dpo_loss'"):
        check("my_dpo_los", dpo)
    with pytest.raises(LabError, match="takes a function"):
        check("my_dpo_loss")


def test_progress_that_cannot_be_written_stops_nobody(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("LAB_COURSE", str(tmp_path / "missing" / "progress.jsonl"))
    check(my_dpo_loss)
    assert "could not be recorded" in capsys.readouterr().out
    monkeypatch.setenv("LAB_COURSE", "")
    check(my_dpo_loss)
    assert "recorded" not in capsys.readouterr().out


def test_the_sheet_of_a_class_has_a_row_for_every_folder_whatever_is_in_its_file(
    recorded, tmp_path, capsys
):
    check(my_dpo_loss)
    check("my_dpo_loss", dpo)
    check("my_ratio", lambda p, o: p - o)
    other = tmp_path / "class" / "bob"
    other.mkdir()
    (other / "progress.jsonl").write_text(
        '{"time": "2026-01-02T03:04:05", "prediction": "Which?", "value": "a"}\nnot'
        ' json\n[1]\n{"check": 3}\n{"time": "20'
    )
    capsys.readouterr()
    main(["course", "report", str(tmp_path / "class")])
    ada, bob = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (ada["folder"], ada["passed"], ada["my_dpo_loss"], ada["my_ratio"], ada["my_gae"]) == (
        "ada",
        "0",
        "not confirmed (2)",
        "exp forgotten (1)",
        "",
    )
    assert (bob["folder"], bob["passed"], bob["predictions"], bob["last used"]) == (
        "bob",
        "0",
        "1",
        "2026-01-02T03:04:05",
    )
    with pytest.raises(LabError, match=r"no progress\.jsonl"):
        progress_sheet(other / "nothing", [])


# --- figures, sliders, runs
# -------------------------------------------------------------------------------------------


def parabola(beta, group_size=2):
    return line_figure(
        [0, 1, 2],
        {"loss": ("ipo", [beta * x**2 + group_size for x in range(3)])},
        "h",
        "loss",
        marks={"end": beta},
    )


def test_a_slider_redraws_the_curve_and_what_marks_it():
    box = with_sliders(parabola, {"beta": (0.5, 1.0, 2.0), "group_size": (2, 4)})
    beta, group, figure = box.children
    assert (beta.description, group.description, beta.value, group.value) == ("β", "G", 1.0, 4)
    assert list(figure.data[0].y) == [4, 5, 8]
    beta.value = 2.0
    assert list(figure.data[0].y) == [4, 6, 12] and figure.layout.shapes[0].x0 == 2.0
    group.value = 2
    assert list(figure.data[0].y) == [2, 4, 10]


def test_what_is_displayed_has_the_figure_and_its_words():
    data = bundle(parabola(1.0), "A parabola.")
    assert data["text/plain"] == "A parabola." and data[PLOTLY_MIME]["data"][0]["y"] == [
        2.0,
        3.0,
        6.0,
    ]
    assert data[PLOTLY_MIME]["layout"]["paper_bgcolor"] == "white"


def png(colours):
    picture, out = Image.new("RGB", (len(colours), 40)), io.BytesIO()
    picture.putdata(colours * 40)
    picture.save(out, "PNG")
    return out.getvalue()


def test_a_picture_keeps_its_colours_where_they_are_few_and_comes_close_where_they_are_many():
    for colours, off in (
        ([(255, 255, 255), (0, 114, 178), (213, 94, 0)], 0),
        ([(level, 255 - level, 40) for level in range(256)], 3),
    ):
        small = Image.open(io.BytesIO(with_palette(png(colours)))).convert("RGB")
        assert small.size == (len(colours), 40) and len(small.getcolors()) <= PALETTE_COLOURS
        found = [small.getpixel((place, 20)) for place in range(len(colours))]
        assert (
            max(abs(a - b) for one, other in zip(found, colours) for a, b in zip(one, other)) <= off
        )


def test_a_run_from_a_notebook_is_a_run_like_any_other_and_is_not_trained_twice(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setenv("LAB_FAST", "1")
    run = train("dpo", beta=0.2, pairs=64)
    assert run.path == tmp_path / "course-dpo-beta0.2-pairs64" and run.state == "finished"
    assert (run.config.beta, run.config.steps, run.config.eval_prompts) == (0.2, 3, 8)
    rows = run.history()
    assert train("dpo", beta=0.2, pairs=64).history() == rows
    with pytest.raises(LabError, match="another config"):
        train("dpo", name=run.name, beta=0.3)
    assert len(curves({"one": run}, ["loss", "gold/accuracy"]).data) == 2
    assert [line.name for line in curves(run, ["loss"]).data] == [run.name]


def longer_is_better(completion, answer):
    return len(completion) / 64


@pytest.mark.parametrize("word", ["reward", "scored_by"])
def test_a_reward_of_ones_own_pays_and_stands_in_the_run_and_the_task_keeps_its_rule(
    tmp_path, monkeypatch, word
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setenv("LAB_FAST", "1")
    before = dict(TASKS["chain"].rewards)
    run = train("grpo", group_size=4, **{word: longer_is_better})
    assert run.name == "course-grpo-longer_is_better-groupsize4"
    rows = [row for row in run.samples() if "reward" in row]
    assert rows and all(row["reward"] == pytest.approx(len(row["completion"]) / 64) for row in rows)
    noted = json.loads((run.path / "own_functions.json").read_text("utf-8"))
    assert "len(completion) / 64" in noted["reward"]["source"]
    assert TASKS["chain"].rewards == before


def test_a_run_of_ones_own_function_trains_anew_and_the_one_before_is_in_the_trash(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setenv("LAB_FAST", "1")
    first = train("dpo", loss=my_dpo_loss, pairs=64)
    rows = first.history()
    assert first.name == "course-dpo-my_dpo_loss-pairs64" and first.state == "finished"
    again = train("dpo", loss=lambda *inputs: -my_dpo_loss(*inputs), name=first.name, pairs=64)
    assert again.name == first.name and trashed_runs(tmp_path) == [first.name]
    one, other = (columns_of(history)["loss"][1][0] for history in (rows, again.history()))
    assert one == pytest.approx(-other) and one > 0.1
    assert "DPO with lambda, 3 updates" in capsys.readouterr().out
    with pytest.raises(LabError, match="another config"):
        train("dpo", name=first.name, pairs=64)
    with pytest.raises(LabError, match="Did you mean"):
        train("dpo", los=my_dpo_loss)
    with pytest.raises(LabError, match="function of your own for dpo 'gae'"):
        train("dpo", gae=my_dpo_loss)


@pytest.mark.parametrize(
    ("method", "place", "value", "words"),
    [
        ("dpo", "loss", torch.ones(2, 3), "loss is a Tensor of shape (2, 3), but takes a function"),
        ("dpo", "loss", None, "loss is None, but takes a function"),
        ("grpo", "advantages", 0.5, "advantages is 0.5, but takes a function"),
        ("kto", "reference_point", "my_z", "reference_point is 'my_z', but takes a function"),
        ("grpo", "reward", 1.0, "reward is 1.0, but takes a function"),
        ("ppo", "gae", dict, "gae is the class dict, but takes a function"),
    ],
)
def test_the_result_of_a_function_in_its_place_is_refused_with_the_call_that_is_meant(
    tmp_path, monkeypatch, method, place, value, words
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError) as caught:
        train(method, **{place: value})
    assert str(caught.value).startswith(words)
    own = "my_dpo_loss" if place == "loss" else f"my_{place}"
    assert f'train("{method}", {place}={own})' in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_text_in_the_place_of_a_reward_function_is_refused_before_a_run_is_made(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match="'my_reward'.*without quotes: reward=my_reward"):
        train("grpo", reward="my_reward")
    assert not list(tmp_path.iterdir())


def test_an_exception_of_a_learners_function_leads_to_its_line_in_a_few_frames(
    tmp_path, monkeypatch
):
    def my_loss(pw, pl, qw, ql, beta):
        return divided(pw)

    def divided(values):
        return values / no_such_name  # noqa: F821

    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match="stopped at update 1 with NameError") as caught:
        train("dpo", loss=my_loss, pairs=64)
    own, cause = traceback.extract_tb(caught.tb), caught.value.__cause__
    assert [frame.name for frame in own][1:] == ["train"]
    assert [frame.name for frame in traceback.extract_tb(cause.__traceback__)] == [
        "my_loss",
        "divided",
    ]
    run = next(tmp_path.glob("course-dpo*"))
    assert RunFolder(run).state == "failed" and "own_tensor" in (run / "log.txt").read_text("utf-8")


def test_a_tensor_that_a_learners_function_changes_in_place_is_named(tmp_path, monkeypatch):
    def my_loss(pw, pl, qw, ql, beta):
        share = torch.sigmoid(beta * ((pw - qw) - (pl - ql)))
        share *= 2
        return -share.log()

    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    with pytest.raises(LabError, match="through my_loss stopped at update 1.*in place") as caught:
        train("dpo", loss=my_loss, pairs=64)
    assert [frame.name for frame in traceback.extract_tb(caught.tb)][1:] == ["train"]


def test_a_curve_carries_the_name_of_its_function(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    monkeypatch.setenv("LAB_FAST", "1")
    own = train("dpo", loss=my_dpo_loss, pairs=64)
    other = train("dpo", loss=my_dpo_loss, name="again", pairs=64)
    plain = train("dpo", pairs=64)
    names = [line.name for line in curves([own, plain], ["loss"]).data]
    assert names == ["my_dpo_loss", "course-dpo-pairs64"]
    names = [line.name for line in curves([own, other], ["loss"]).data]
    assert names == [own.name, "again"]


def test_runs_of_a_notebook_lie_where_the_dashboard_looks(tmp_path, monkeypatch):
    monkeypatch.delenv("LAB_RUNS")
    (tmp_path / "lab" / "notebooks").mkdir(parents=True)
    (tmp_path / "lab" / "app.py").touch()
    monkeypatch.chdir(tmp_path / "lab" / "notebooks")
    assert runs_folder() == tmp_path / "lab" / "runs"
    monkeypatch.setenv("LAB_RUNS", "elsewhere")
    assert str(runs_folder()) == "elsewhere"
