"""Tasks of reasoning-gym: a generator written here whose problems can be counted, and the package
itself where it is installed.
"""

from importlib.util import find_spec

import pytest
from support.doubles_task import Doubles, doubles
from support.tiny import save

from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs.folder import create
from lab.runs.metrics import METRICS
from lab.runs.records import columns_of
from lab.tasks import base, reasoning_gym
from lab.tasks.registry import check_task, load_task, rule_of
from lab.training.driver import drive


def test_training_and_held_out_problems_share_no_prompt_even_when_there_are_few(monkeypatch):
    task = doubles(monkeypatch)
    held_out = [p.prompt for p in task.held_out(1000)]
    train = {p.prompt for step in range(30) for p in task.train_problems(8, 0, step)}
    assert (
        len(held_out) == len(set(held_out))
        and len(set(held_out) | train) == 40
        and train.isdisjoint(held_out)
    )
    assert (
        [p.prompt for p in task.held_out(5)]
        == held_out[:5]
        == [p.prompt for p in load_task("gym:doubles").held_out(5)]
    )


def test_problems_depend_on_seed_and_step_alone(monkeypatch):
    task = doubles(monkeypatch)
    assert (
        task.train_problems(8, 1, 2)
        == load_task("gym:doubles").train_problems(8, 1, 2)
        != task.train_problems(8, 1, 3)
    )
    assert task.train_problems(8, 2, 2) != task.train_problems(8, 1, 2)


def test_neighbouring_seeds_share_no_items(monkeypatch):
    class Numbered(Doubles):
        def __getitem__(self, place):
            return {"question": str(self.seed + place), "answer": "", "metadata": {}}

    task = doubles(monkeypatch, Numbered)
    seen = [
        p.prompt
        for seed in range(3)
        for step in range(20)
        for p in task.train_problems(16, seed, step)
    ]
    assert len(set(seen)) == len(seen)


def test_points_are_the_verifier_s_and_right_is_all_of_them(monkeypatch, capsys):
    task = doubles(monkeypatch)
    problem = task.train_problems(1, 0, 1)[0]
    texts = [
        problem.answer,
        f"I think <answer> {problem.answer} </answer>",
        "<answer>1</answer>",
        "none",
        "break",
        "nan",
        "1e99999",
        "1" * 20_000,
    ]
    assert rule_of(task, "answer")([problem] * 8, texts, seed=0) == [
        1.0,
        1.0,
        0.25,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ]
    assert rule_of(task, "format")([problem] * 8, texts, seed=0) == [
        0.0,
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
        0.0,
        0.0,
    ]
    assert [(s.answer, s.format) for s in (task.score(problem, t) for t in texts[:3])] == [
        (1.0, 0.0),
        (1.0, 1.0),
        (0.0, 1.0),
    ]
    assert (
        task.task_metrics([problem] * 8, texts) == {"reward": 2.25 / 8}
        and capsys.readouterr().out == ""
    )


def doubled(monkeypatch, truth):
    """The task of doubles with answers judged by `truth`, its first problem, and half of that one's
    answer.
    """
    pytest.importorskip(
        "math_verify", reason="math-verify is not installed: pip install -e '.[tasks]'"
    )
    doubles(monkeypatch)
    task = load_task(f"gym:doubles:truth={truth}")
    problem = task.train_problems(1, 0, 1)[0]
    return task, problem, int(problem.answer) // 2


def test_with_truth_math_the_value_of_a_free_form_answer_counts_and_nothing_goes_to_a_near_miss(
    monkeypatch,
):
    task, problem, half = doubled(monkeypatch, "math")
    texts = [
        f"2 * {half} = {problem.answer}",
        problem.answer,
        f"<answer>{2 * half}</answer>",
        f"2 * {half} = {problem.answer}1",
        "7 of them",
        "no idea",
    ]
    assert rule_of(task, "answer")([problem] * 6, texts, seed=0) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert [task.score(problem, t).answer for t in texts] == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert rule_of(load_task("gym:doubles:truth=number"), "answer")(
        [problem] * 4, [texts[0], f"2 * {half} =", texts[3], f"{2 * half}!"], seed=0
    ) == [1, 0, 0, 1]
    with pytest.raises(LabError, match="Did you mean 'math'"):
        load_task("gym:doubles:truth=maths")


def test_the_reward_math_pays_for_a_sum_said_again_and_the_number_that_is_written_decides_what_is_right(
    monkeypatch,
):
    task, problem, half = doubled(monkeypatch, "number")
    texts = [
        f"{half} + {half}",
        f"{half} + {half} = {problem.answer}",
        f"{half} + {half} = {problem.answer}1",
    ]
    assert rule_of(task, "math")([problem] * 3, texts, seed=0) == [1.0, 1.0, 0.0]
    assert [task.score(problem, text).answer for text in texts] == [0.0, 1.0, 0.0]


def test_the_control_pays_heads_or_tails_whatever_is_said(monkeypatch):
    task = doubles(monkeypatch)
    problem = task.train_problems(1, 0, 1)[0]
    paid = rule_of(task, "random")([problem] * 2000, [problem.answer, "no"] * 1000, seed=3)
    again, other = (
        rule_of(task, "random")([problem] * 2000, ["x"] * 2000, seed=seed) for seed in (3, 4)
    )
    assert set(paid) == {0.0, 1.0} and paid == again != other
    assert sum(paid[::2]) / 1000 == pytest.approx(0.5, abs=0.05) and sum(
        paid[1::2]
    ) / 1000 == pytest.approx(0.5, abs=0.05)  # three standard errors


def test_a_prompt_asks_for_the_tags_and_only_the_task_s_own_are_answered(monkeypatch):
    task = doubles(monkeypatch)
    problem = task.held_out(3)[2]
    assert "<answer>" in problem.prompt and task.problem(problem.prompt) == problem
    with pytest.raises(LabError, match="makes its own problems"):
        task.problem("2 * 50 =")


def test_a_name_that_is_near_is_suggested(monkeypatch):
    doubles(monkeypatch)
    with pytest.raises(LabError, match="Unknown task 'gym:doubels'. Near it: gym:do.*lists all 2"):
        check_task(make_config("grpo", {"task": "gym:doubels"}))


def test_a_run_on_it_records_points_accuracy_and_format(monkeypatch, tmp_path):
    doubles(monkeypatch)
    config = make_config(
        "grpo",
        {
            "task": "gym:doubles",
            "model": save(tmp_path / "model"),
            "steps": 2,
            "batch_size": 8,
            "group_size": 4,
            "eval_prompts": 4,
            "eval_every": 0,
            "max_completion_tokens": 6,
            "device": "cpu",
            "reward": "format",
        },
    )
    folder = create(tmp_path / "run", config)
    drive(folder)
    columns = columns_of(folder.history())
    assert {"gold/accuracy", "gold/reward", "gold/format"} <= set(columns) <= set(
        METRICS
    ) and "gold/scratchpad_share" not in columns


# --- the package itself
# -----------------------------------------------------------------------------------------------

real = pytest.mark.skipif(
    find_spec("reasoning_gym") is None,
    reason="reasoning-gym is not installed: pip install -e '.[tasks]'",
)


@real
@pytest.mark.parametrize(
    "name, entry, answers",
    [
        ("lcm", {"question": "", "answer": "36", "metadata": {}}, {"36": 1.0, "35": 0.0}),
        (
            "countdown",
            {"question": "", "answer": "", "metadata": {"numbers": [3, 5, 2], "target": 16}},
            {"(3+5)*2": 1.0, "3+5+2": 0.05, "2**3*5": 0.0, "16": 0.05},
        ),
        (
            "binary_matrix",
            {"question": "", "answer": "0 1\n1 2", "metadata": {}},
            {"0 1\n1 2": 1.0, "[[0,1],[1,2]]": 0.1, "[[0,1],[1,1]]": 0.0},
        ),
    ],
)
def test_a_known_answer_gets_its_points(name, entry, answers):
    task = load_task(f"gym:{name}")
    problem = base.Problem("", entry["answer"], {"entry": entry})
    assert {
        text: task.rewards["answer"]([problem], [text], seed=0)[0] for text in answers
    } == answers


@real
def test_settings_of_the_generator_follow_its_name_and_unfit_ones_are_named():
    task = load_task(
        "gym:chain_sum:min_terms=2,max_terms=2,max_digits=1,min_digits=1,allow_negation=False"
    )
    terms = [p.columns["entry"]["metadata"]["difficulty"] for p in task.train_problems(20, 0, 1)]
    assert all(t["num_terms"] == (2, 2) and t["num_digits"] == (1, 1) for t in terms)
    assert make_config("grpo", {"task": task.name}).task == task.name
    for text, says in (
        ("min_term=2", "Settings of chain_sum: min_terms, max_terms"),
        ("min_terms=0", "Settings of chain_sum"),
        ("min_terms=two", "chain_sum"),
    ):
        with pytest.raises(LabError, match=says):
            load_task(f"gym:chain_sum:{text}")


@real
@pytest.mark.parametrize(
    "name",
    [
        "binary_matrix",
        "n_queens",
        "spiral_matrix",
        "string_insertion",
        "countdown",
        "puzzle24",
        "coin_flip",
        "complex_arithmetic",
    ],
)
@pytest.mark.timeout(20)
def test_an_answer_is_never_run_and_never_takes_long(name, tmp_path):
    task = load_task(f"gym:{name}")
    problem, trace = task.train_problems(1, 0, 1)[0], tmp_path / "run"
    for text in (
        f"__import__('pathlib').Path('{trace}').touch()",
        f"open('{trace}', 'w')",
        "9**9**9**9",
        "1e999999999",
        "nan",
        "99999999!",
        "[" * 5000,
    ):
        assert task.rewards["answer"]([problem], [text], seed=0)[0] < 0.1
    assert not trace.exists()


@real
def test_every_task_that_is_listed_can_be_described_and_those_that_run_an_answer_are_not():
    assert len(reasoning_gym.task_names()) >= 100 and all(
        reasoning_gym.describe(name) for name in reasoning_gym.task_names()
    )
    assert not {"composite", "simple_integration", "game_of_life_halting"} & set(
        reasoning_gym.task_names()
    )


@real
@pytest.mark.parametrize(
    "name",
    ["chain_sum", "leg_counting", "acre", "word_ladder", "propositional_logic", "list_functions"],
)
def test_a_task_s_own_answers_are_right(name):
    task = load_task(f"gym:{name}")
    problems = task.train_problems(6, 0, 1)
    assert load_task(f"gym:{name}").train_problems(6, 0, 1) == problems
    assert [task.score(p, f"<answer>{p.answer}</answer>").answer for p in problems if p.answer] == [
        1.0
    ] * sum(bool(p.answer) for p in problems)
    assert {p.prompt for p in task.held_out(8)}.isdisjoint(p.prompt for p in problems)
