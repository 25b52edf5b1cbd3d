"""What a task is called, prompts of the user's own, and the sentiment task, whose scores VADER's
own README publishes.
"""

import json
import math
import sys
from decimal import Decimal
from fractions import Fraction

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.small import small_model
from support.tiny import save, tokenizer

from lab.cli.main import main
from lab.config.methods import make_config
from lab.data.parsing import load_pairs
from lab.errors import LabError
from lab.recipes.generate_pairs import build_pairs
from lab.runs.folder import create
from lab.runs.metrics import METRICS
from lab.runs.queue import enqueue
from lab.runs.records import columns_of
from lab.serving.load import evaluate_run
from lab.tasks.base import Problem, problems_of_step, split_by_hash
from lab.tasks.prompting import as_messages, render_prompts
from lab.tasks.registry import TASKS, check_task, load_task, rule_of, task_of
from lab.tasks.rewards.answer_matching import (
    extract_answer,
    has_answer_tag,
    last_number,
    same_answer,
    same_number,
    same_value,
)
from lab.tasks.sentiment import compound_score, opening_split
from lab.training.driver import drive

QUICK = {
    "steps": 2,
    "batch_size": 8,
    "group_size": 4,
    "eval_prompts": 8,
    "eval_every": 0,
    "max_completion_tokens": 6,
}
FEELINGS = ["good", "great", "bad", "awful", "a", "the", "."]
SENTIMENT = TASKS["sentiment"]


def prompts(tmp_path, *rows, name="prompts.jsonl"):
    (tmp_path / name).write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    return str(tmp_path / name)


SUMS = [{"prompt": f"{i} + {i} =", "answer": str(2 * i), "level": i % 3} for i in range(40)]


# --- names
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "knobs, says",
    [
        ({"task": "chian"}, "Unknown task 'chian'. Did you mean 'chain'?.*FILE.*gym:NAME"),
        ({"task": "prompts.txt"}, r"Unknown task .*Accepted: FILE, "),
        ({"reward": "os.system"}, "Unknown reward 'os.system'.*MODULE:FUNCTION"),
        ({"reward": "os:system()"}, "Unknown reward"),
        ({"reward": "Answer"}, "Did you mean 'answer'"),
    ],
)
def test_a_name_that_can_mean_no_task_or_reward_makes_no_config(knobs, says):
    with pytest.raises(LabError, match=says):
        make_config("grpo", knobs)


@pytest.mark.parametrize(
    "method, knobs, says",
    [
        ("grpo", {"task": "nowhere.jsonl"}, "No data file at nowhere.jsonl"),
        (
            "grpo",
            {"reward": "lenght"},
            "Unknown reward of the task chain 'lenght'. Did you mean 'length'",
        ),
        (
            "ppo",
            {"task": "sentiment", "reward": "format"},
            "Unknown reward of the task sentiment 'format'.*positive, positive_penalised",
        ),
        (
            "dpo",
            {"task": "sentiment", "model": "m"},
            "ships no pairs.*build-pairs --task sentiment --model m",
        ),
        (
            "grpo",
            {"reward": "no_such_module:score"},
            "no module 'no_such_module' in .*, nor is one installed",
        ),
    ],
)
def test_what_a_run_would_miss_is_said_before_its_folder_is_made(
    tmp_path, capsys, method, knobs, says
):
    with pytest.raises(LabError, match=says):
        check_task(make_config(method, knobs))
    with pytest.raises(SystemExit):
        main(
            [
                "train",
                method,
                *(word for name, value in knobs.items() for word in (f"--{name}", value)),
                "--out",
                str(tmp_path / "run"),
            ]
        )
    assert not (tmp_path / "run").exists() and "error: " in capsys.readouterr().err


def test_answer_means_every_task_s_first_rule_and_methods_that_sample_take_any_rule_of_it():
    assert (
        rule_of(SENTIMENT, "answer") is SENTIMENT.rewards["positive"]
        and rule_of(TASKS["chain"], "answer") is TASKS["chain"].rewards["answer"]
    )
    for method in ("grpo", "ppo", "online_dpo"):
        check_task(
            make_config(method, {"task": "sentiment", "reward": "positive_penalised", "model": "m"})
        )
        with pytest.raises(
            LabError, match="embedded model .* cannot read the task sentiment.*--model"
        ):
            check_task(make_config(method, {"task": "sentiment"}))


@pytest.mark.parametrize(
    "knobs",
    [
        {"reward": "module:function"},
        {"task": "prompts.jsonl"},
        {"task": "gym:lcm"},
        {"task": "owner/name"},
    ],
)
def test_the_dashboard_s_form_can_name_neither_code_nor_a_file_of_prompts(tmp_path, knobs):
    with pytest.raises(LabError, match="only the command line takes"):
        enqueue("grpo", [QUICK | knobs], tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_list_of_tasks_names_each_with_its_rewards(capsys):
    main(["tasks"])
    printed = capsys.readouterr().out
    for word in (
        "chain",
        "--reward length",
        "sentiment",
        "--reward positive_penalised",
        "--reward math",
        "MODULE:FUNCTION",
        "gym:",
    ):
        assert word in printed


# --- prompts of the user's own
# ----------------------------------------------------------------------------------------


def test_every_row_is_in_one_half_a_tenth_of_the_prompts_is_held_out_and_columns_come_along(
    tmp_path,
):
    task = load_task(prompts(tmp_path, *SUMS))
    held_out, train = task.held_out(100), task.train_problems(36, 0, 1)
    assert len(held_out) == 4 and {p.prompt for p in held_out}.isdisjoint(p.prompt for p in train)
    assert sorted(p.prompt for p in held_out + train) == sorted(row["prompt"] for row in SUMS)
    assert all(
        p.columns["level"] == int(p.prompt.split()[0]) % 3 and p.answer == p.columns["answer"]
        for p in train
    )
    assert task.held_out(2) == held_out[:2]


def test_the_split_depends_on_the_prompts_and_not_on_their_order(tmp_path):
    one, other = (
        load_task(prompts(tmp_path, *SUMS)),
        load_task(prompts(tmp_path, *reversed(SUMS), name="b.jsonl")),
    )
    assert one.held_out(9) == other.held_out(9)


def test_an_epoch_gives_every_problem_once_and_updates_depend_on_their_arguments_alone():
    problems = [Problem(str(i)) for i in range(10)]
    epoch = [p for step in range(1, 6) for p in problems_of_step(problems, 2, 7, step)]
    assert sorted(p.prompt for p in epoch) == sorted(p.prompt for p in problems)
    assert (
        problems_of_step(problems, 2, 7, 3) == epoch[4:6]
        and problems_of_step(problems, 25, 7, 1)[:20].count(Problem("3")) == 2
    )
    assert problems_of_step(problems, 10, 8, 1) != problems_of_step(problems, 10, 7, 1)


def test_rows_that_share_a_prompt_stay_on_one_side():
    train, held_out = split_by_hash(
        [Problem("a", str(i)) for i in range(5)] + [Problem("b", str(i)) for i in range(5)], 1
    )
    assert len(train) == len(held_out) == 5 and len({p.prompt for p in train}) == 1


@pytest.mark.parametrize(
    "rows, says",
    [
        ([{"prompt": "a"}, {"text": "b"}], "line 2 has no 'prompt'"),
        ([{"prompt": "a"}, {"prompt": ""}], "line 2: 'prompt' is empty"),
        ([{"prompt": "a", "answer": "1"}, {"prompt": "b"}], "line 2 has no 'answer'"),
        (
            [{"prompt": "a", "answer": "1"}, {"prompt": "b", "answer": " "}],
            "line 2 has no 'answer'",
        ),
        ([{"prompt": "a"}, {"prompt": "a"}], "has one prompt, but takes at least two"),
    ],
)
def test_unfit_prompts_are_named_with_their_line(tmp_path, rows, says):
    with pytest.raises(LabError, match=says):
        load_task(prompts(tmp_path, *rows))


def test_without_answers_nothing_is_right_or_wrong_and_a_reward_is_asked_for(tmp_path):
    task = load_task(prompts(tmp_path, {"prompt": "a"}, {"prompt": "b"}))
    assert task.score(Problem("a"), "x").answer is None
    with pytest.raises(LabError, match="--reward module:function"):
        rule_of(task, "answer")


@pytest.mark.parametrize(
    "completion, answer, has_tags",
    [
        ("42", "42", False),
        (" 42\n", "42", False),
        ("so <answer> 42 </answer>.", "42", True),
        ("<answer>1</answer> no <answer>2</answer>", "2", False),
        ("<answer></answer>", "", False),
        ("42</answer>", "42</answer>", False),
        ("<answer>42", "<answer>42", False),
        ("</answer>42<answer>", "</answer>42<answer>", False),
    ],
)
def test_the_answer_is_the_text_in_the_last_tags_or_the_whole(completion, answer, has_tags):
    assert (extract_answer(completion), has_answer_tag(completion)) == (answer, has_tags)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("part", ["<answer>", "</answer>", "<answer></answer>", "<"])
def test_a_completion_made_to_stall_the_search_for_tags_does_not(part):
    extract_answer(part * 50_000)
    assert not has_answer_tag(part * 50_000)


@pytest.mark.parametrize(
    "gold, completion, same",
    [
        ("1/2", "0.5", True),
        ("0.5", "1/2", True),
        (r"\frac{1}{2}", "It is 0.5.", True),
        ("$\\frac{1}{2}$", "<answer>1/2</answer>", True),
        ("42", "First 41, then 42.", True),
        ("42", "41", False),
        ("1,000", "1000", True),
        ("2x+1", "<answer>1+2x</answer>", True),
        ("2x+1", "2", False),
        ("x^2", "<answer>x^2</answer>", True),
        ("-3", "-3", True),
        ("-3", "3", False),
        ("42", "", False),
        ("42", "forty-two", False),
    ],
)
def test_math_compares_values_and_not_texts(gold, completion, same):
    pytest.importorskip("math_verify")
    assert same_value(gold, completion) is same


@pytest.mark.parametrize(
    "text, number",
    [
        ("82 - 24 = 58", 58),
        ("82-24", 24),
        ("82 - 24 =", None),
        ("82 - 24 =\n", None),
        ("It is -12.", -12),
        ("(3)-12", 12),
        ("= −12", -12),
        ("1,000", 1000),
        ("half: 1/2", Fraction(1, 2)),
        ("0.5 of it", Fraction(1, 2)),
        ("1/0", None),
        ("none", None),
        ("", None),
        ("58", 58),
        ("58.", 58),
        ("x2", 2),
    ],
)
def test_the_last_number_that_is_written_out(text, number):
    assert last_number(text) == number


@pytest.mark.parametrize(
    "gold, right, wrong",
    [
        (
            "5",
            [
                "5",
                " 5\n",
                "5.0",
                "5.",
                "The answer is 5.",
                "<answer>5</answer>",
                "2+3=5\n#### 5",
                "#### 5",
                "It has 5 apples.\n#### 5 apples",
                "so $\\boxed{5}$.",
                "\\boxed{\\text{5}}",
                "#### 5\n\nQuestion: 7 and 8?",
                "First 3, then 2, so **5**",
                "2 + 3 = 5",
                "$5",
                "<answer>5 apples</answer>",
                "<answer>\\boxed{5}</answer> of 9",
                "#### 1. Add\nThe answer is 5",
                "=5",
                "5%",
                "It is *5*",
                "10/2 is 5",
                "5e0",
            ],
            [
                "",
                "five",
                "4",
                "-5",
                "55",
                "0.5",
                ".5",
                "1,5",
                "5 or 6",
                "<answer>4</answer> 5",
                "#### 4\n5",
                "\\boxed{4} 5",
                "0+5=",
                "0 + 5 = ",
                "0+5",
                "0 + 5",
                "10-5",
                "10 × 5",
                "1\\cdot 5",
                "0+5=?",
                "Is it 5?",
                "\\frac{1}{5}",
                "2^5",
                "10^{5}",
                "####",
                "<answer></answer>5",
                "\\boxed{}",
                "1/5",
                "5/0",
                "5e1",
                "\\boxed{5 + 5",
                "5 + 5",
            ],
        ),
        ("2.0", ["2", "2.0", "2.00", "is 2"], ["2.1", "20", "2.0.1"]),
        ("2", ["2.0", "#### 2.0"], ["2.000001", "0.2"]),
        (
            "1,000",
            ["1000", "1,000", "1,000.00", "\\boxed{1{,}000}", "#### 1000"],
            ["1", "000", "1,001"],
        ),
        ("1000", ["1,000"], ["1,00"]),
        ("-3", ["-3", "−3", "x = -3", "#### -3"], ["3", "10-3", "(1)-3"]),
        ("0", ["0", "0.0", "0%"], ["", "1", "00x1"]),
        ("+4", ["4", "+4"], ["-4"]),
        ("0.1", ["0.1", ".1", "0.10", "1/10", "0.10000000149", "1e-1"], ["0.2", "1", "0.1001"]),
        (".5", ["0.5", ".5"], ["5"]),
        ("1e-05", ["0.00001", "1e-5"], ["5", "0"]),
        ("1/2", ["1/2", "<answer>1/2</answer>"], ["0.5", "is 1/2"]),
        ("007", ["007"], ["7", "is 007"]),
        ("3, 4", ["3, 4"], ["4", "34"]),
        ("1,2", ["1,2"], ["12", "2"]),
        (
            "Paris",
            ["Paris", "<answer> Paris </answer>"],
            ["paris", "It is Paris", "#### Paris", "Paris."],
        ),
        ("$5", ["$5"], ["5"]),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_number_is_right_by_its_value_and_any_other_answer_by_its_text(gold, right, wrong):
    assert (
        [text for text in right if not same_answer(gold, text)]
        == []
        == [text for text in wrong if same_answer(gold, text)]
    )


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "part",
    [
        "#### ",
        "####",
        "#### 1 a b\n",
        "\\boxed{",
        "{",
        "1",
        "1,",
        ".1",
        "1e",
        "1/",
        "1 + ",
        "}{",
        " ",
        "5 \n",
    ],
)
def test_a_completion_made_to_stall_the_search_for_a_number_does_not(part):
    assert not same_answer("7", part * 20_000)


def test_behind_the_mark_of_gsm8k_is_the_answer_of_a_row_and_may_be_of_a_completion(tmp_path):
    said = "He buys 4+3=<<4+3=7>>7 and eats 2.\n#### 5\n"
    task = load_task(
        prompts(
            tmp_path,
            {"prompt": "a", "answer": said},
            {"prompt": "b", "answer": "It is so.\n#### 1,234"},
            {"prompt": "c", "answer": "Of two, one. #### B"},
            {"prompt": "d", "answer": "#### 1. Add\nthem"},
            {"prompt": "e", "answer": "####"},
        )
    )
    gold = {prompt: task.problem(prompt).answer for prompt in "abcde"}
    assert (
        gold == {"a": "5", "b": "1,234", "c": "B", "d": "#### 1. Add\nthem", "e": "####"}
        and task.problem("a").columns["answer"] == said
    )
    assert [
        task.score(task.problem("a"), text).answer
        for text in (said, "5", "The answer is 5.", "7", "")
    ] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert [
        task.score(task.problem("b"), text).answer for text in ("1234", "#### 1,234", "234")
    ] == [1.0, 1.0, 0.0]
    assert [
        task.score(task.problem("c"), text).answer
        for text in ("B", "Hm.\n#### B", "#### A", "Not B")
    ] == [1.0, 1.0, 0.0, 0.0]
    assert rule_of(task, "answer")([task.problem("a")] * 2, ["#### 5", "#### 6"], seed=0) == [
        1.0,
        0.0,
    ]


def test_a_column_of_floats_holds_numbers_and_its_gaps_are_named(tmp_path):
    rows = [{"prompt": f"{value!r}", "answer": value} for value in (2.0, 0.5, -3.0, 1e-07, 1e21)]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    task = load_task(str(tmp_path / "a.parquet"))
    assert [task.problem(row["prompt"]).answer for row in rows] == [
        "2",
        "0.5",
        "-3",
        "0.0000001",
        "1" + 21 * "0",
    ]
    assert (
        task.score(task.problem("2.0"), "The answer is 2.").answer
        == task.score(task.problem("0.5"), ".5").answer
        == 1.0
    )
    parquet.write_table(
        pa.table({"prompt": ["a", "b"], "answer": pa.array([0.1, 0.3], pa.float32())}),
        tmp_path / "b.parquet",
    )
    assert (
        load_task(str(tmp_path / "b.parquet"))
        .score(load_task(str(tmp_path / "b.parquet")).problem("a"), "0.1")
        .answer
        == 1.0
    )
    parquet.write_table(
        pa.table({"prompt": ["a", "b"], "answer": [Decimal("2.00"), Decimal("3.50")]}),
        tmp_path / "c.parquet",
    )
    assert load_task(str(tmp_path / "c.parquet")).problem("a").answer == "2"
    parquet.write_table(
        pa.table({"prompt": ["a", "b"], "answer": [2.0, float("nan")]}), tmp_path / "d.parquet"
    )
    with pytest.raises(LabError, match="row 2 has no 'answer'"):
        load_task(str(tmp_path / "d.parquet"))


def test_the_problem_said_again_has_the_right_value_and_not_the_right_number():
    pytest.importorskip("math_verify")
    for said, value, number in (
        ("82 - 24 =", True, False),
        ("82 - 24", True, False),
        ("82 - 24 = 58", True, True),
        ("<answer>58</answer>", True, True),
        ("57", False, False),
    ):
        assert (same_value("58", said), same_number("58", said)) == (value, number)
    with pytest.raises(LabError, match="'2x' is no number"):
        same_number("2x", "2")


def test_a_gold_answer_that_is_no_mathematics_is_named():
    pytest.importorskip("math_verify")
    with pytest.raises(LabError, match="'' is no answer that math-verify can read"):
        same_value("", "1")


def test_the_rule_math_decides_what_is_right_in_evaluations_too(tmp_path):
    pytest.importorskip("math_verify")
    source = prompts(
        tmp_path, {"prompt": "half", "solution": "1/2"}, {"prompt": "two", "solution": 2}
    )
    text, value = (
        task_of(make_config("grpo", {"task": source, "reward": rule}))
        for rule in ("answer", "math")
    )
    half = next(p for p in text.train_problems(1, 0, 1) + text.held_out(1) if p.prompt == "half")
    assert (text.score(half, "0.5").answer, value.score(half, "0.5").answer) == (0.0, 1.0)
    assert rule_of(value, "math")([half, half], ["0.5", "2"], seed=0) == [1.0, 0.0]


# --- what the model is given
# ------------------------------------------------------------------------------------------


def said(model, problem):
    """The text from which the policy goes on."""
    return model.decode(render_prompts(model, [problem])[0])


SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]


def test_a_conversation_goes_through_the_chat_template_and_is_shown_and_split_by_what_it_says(
    tmp_path,
):
    task = load_task(
        prompts(tmp_path, {"prompt": SAID, "answer": "4"}, {"prompt": [SAID[1]], "answer": "4"})
    )
    problem = task.problem("Be brief.\n2 + 2?")
    assert problem.answer == "4" and task.problem("2 + 2?").answer == "4"
    assert (
        said(tokenizer(), problem)
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(LabError, match="is a conversation, but the model has no chat template"):
        render_prompts(tokenizer(template=None), [problem])


def test_a_request_is_a_user_s_message_to_a_model_with_a_template_and_plain_text_to_another():
    problem = Problem("2 + 2?", messages=(SAID[1],))
    assert (
        said(tokenizer(), problem) == "<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert as_messages(tokenizer(), problem, "4") == (
        [SAID[1]],
        [{"role": "assistant", "content": "4"}],
    )
    assert said(tokenizer(template=None), problem) == "2 + 2?" and as_messages(
        tokenizer(template=None), problem, "4"
    ) == ("2 + 2?", "4")


def test_a_model_that_cannot_read_the_prompts_is_told_so(tmp_path):
    folder = create(tmp_path / "run", make_config("grpo", QUICK | {"task": "sentiment"}))
    with pytest.raises(
        LabError,
        match=(
            "The model's vocabulary lacks something in the prompt 'The .*--model that knows its words"
        ),
    ):
        drive(folder)


def test_pairs_of_an_instruct_model_by_a_reward_of_one_s_own_are_conversations_that_it_trains_on(
    tmp_path, monkeypatch
):
    source, model = (
        prompts(tmp_path, *({"prompt": [{"role": "user", "content": str(i)}]} for i in range(20))),
        save(tmp_path / "model"),
    )
    (tmp_path / "longest.py").write_text(
        "def first(completions, **rest): return [len(said['content']) for said, in completions]"
    )
    monkeypatch.chdir(tmp_path)
    drawn = build_pairs(
        tmp_path / "pairs.jsonl",
        model=model,
        count=5,
        device="cpu",
        task=source,
        reward="longest:first",
        max_tokens=6,
    )
    pairs = load_pairs(tmp_path / "pairs.jsonl")
    assert drawn["pairs"] == 5 and all(
        len(p.chosen[0]["content"]) > len(p.rejected[0]["content"]) for p in pairs
    )
    drive(
        create(
            tmp_path / "run",
            make_config(
                "dpo",
                {
                    "model": model,
                    "task": source,
                    "data": str(tmp_path / "pairs.jsonl"),
                    "pairs": 0,
                    "steps": 1,
                    "batch_size": 4,
                    "eval_prompts": 2,
                    "max_completion_tokens": 6,
                    "device": "cpu",
                },
            ),
        )
    )


# --- sentiment
# --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, score",
    [  # README of vaderSentiment 3.3.2
        ("VADER is smart, handsome, and funny.", 0.8316),
        ("VADER is smart, handsome, and funny!", 0.8439),
        ("VADER is very smart, handsome, and funny.", 0.8545),
        ("VADER is VERY SMART, handsome, and FUNNY.", 0.9227),
        ("VADER is not smart, handsome, nor funny.", -0.7424),
        ("The book was good.", 0.4404),
        ("At least it isn't a horrible book.", 0.431),
        ("Today SUX!", -0.5461),
        ("", 0.0),
    ],
)
def test_the_gold_reward_is_vader_s_compound_score(text, score):
    assert compound_score(text) == score
    assert SENTIMENT.rewards["positive"]([Problem("x")], [text], seed=0) == [score]
    assert SENTIMENT.score(Problem("x"), text).answer == float(score > 0)


def test_repetition_and_emptiness_are_seen_and_can_be_penalised():
    texts = ["good good good good", "good", "", " . "]  # the first has 3 bigrams, 1 of them new
    facts = SENTIMENT.task_metrics([Problem("x")] * 4, texts)
    assert facts == pytest.approx(
        {
            "reward": (compound_score(texts[0]) + compound_score("good")) / 4,
            "repetition": (2 / 3) / 4,
            "distinct_2": 1 / 3,
            "empty": 0.5,
        }
    )
    assert SENTIMENT.rewards["positive_penalised"](
        [Problem("x")] * 4, texts, seed=0
    ) == pytest.approx([compound_score(texts[0]) - 2 / 3, compound_score("good"), -1, -1])


def test_openings_are_neutral_different_and_split_for_good():
    train, held_out = opening_split()
    assert len(train) == 608 and len(held_out) == 256 == len(SENTIMENT.held_out(1000))
    assert len({p.prompt for p in train + held_out}) == 864
    assert [p.prompt for p in train + held_out if compound_score(p.prompt)] == []
    assert (
        SENTIMENT.train_problems(8, 1, 2)
        == SENTIMENT.train_problems(8, 1, 2)
        != SENTIMENT.train_problems(8, 1, 3)
    )
    assert SENTIMENT.remark(held_out[0]) == "" and "+0.44" in SENTIMENT.remark(
        SENTIMENT.problem("This good film")
    )


@pytest.mark.parametrize(
    "name, package",
    [
        ("vaderSentiment.vaderSentiment", "vaderSentiment"),
        ("math_verify", "math-verify"),
        ("reasoning_gym", "reasoning-gym"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(name, package, monkeypatch):
    from lab.tasks import reasoning_gym, sentiment
    from lab.tasks.rewards import answer_matching

    load = {
        "vaderSentiment": sentiment.sentiment_analyser,
        "math-verify": answer_matching._library,
        "reasoning-gym": reasoning_gym.library,
    }[package]
    load.cache_clear()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(LabError, match=f"python -m pip install {package}"):
        load()
    load.cache_clear()


@pytest.fixture(scope="module")
def critic_of_films(tmp_path_factory):
    return small_model(
        tmp_path_factory.mktemp("model"),
        FEELINGS + [word for p in opening_split()[0] for word in p.prompt.split()],
    )


def test_pairs_are_sampled_from_the_model_itself_the_better_chosen(tmp_path, critic_of_films):
    counts = build_pairs(
        tmp_path / "pairs.jsonl",
        model=critic_of_films,
        count=700,
        device="cpu",
        task="sentiment",
        max_tokens=6,
    )
    pairs = load_pairs(tmp_path / "pairs.jsonl")
    assert len(pairs) == 700 and all(
        compound_score(p.chosen) > compound_score(p.rejected) for p in pairs
    )
    trained_on = {p.prompt for p in opening_split()[0]}
    assert {p.prompt for p in pairs} <= trained_on
    assert counts["reward_chosen"] == pytest.approx(
        sum(compound_score(p.chosen) for p in pairs) / 700
    )
    assert counts["reward_rejected"] < 0 < counts["reward_chosen"] and counts["empty_chosen"] == 0


@pytest.mark.parametrize("method", ["grpo", "ppo", "online_dpo"])
def test_any_model_learns_sentiment_and_only_what_the_task_measures_is_in_the_record(
    tmp_path, critic_of_films, method
):
    knobs = {k: v for k, v in QUICK.items() if k != "group_size" or method != "ppo"} | {
        "task": "sentiment",
        "model": critic_of_films,
    }
    folder = create(tmp_path / "run", make_config(method, knobs | {"device": "cpu"}))
    drive(folder)
    columns = columns_of(folder.history())
    assert set(columns) <= set(METRICS)
    assert {
        "gold/accuracy",
        "gold/reward",
        "gold/repetition",
        "gold/distinct_2",
        "gold/empty",
        "reward",
    } <= set(columns)
    assert "gold/scratchpad_share" not in columns and "reward/missing" not in columns
    if method == "grpo":
        measured = evaluate_run(folder, prompts=512, samples=1, seed=0, device="cpu")
        assert (
            measured["prompts"] == 256
            and -1 <= measured["reward"] <= 1
            and "scratchpad_share" not in measured
        )


def test_grpo_hacks_the_gold_reward_by_repeating_itself_which_the_record_shows_and_the_penalty_prevents(
    tmp_path, critic_of_films
):
    found = {}
    for rule in ("positive", "positive_penalised"):
        knobs = QUICK | {
            "task": "sentiment",
            "model": critic_of_films,
            "reward": rule,
            "steps": 20,
            "batch_size": 64,
            "learning_rate": 2e-2,
            "eval_prompts": 64,
        }
        folder = create(tmp_path / rule, make_config("grpo", knobs | {"device": "cpu"}))
        drive(folder)
        columns = columns_of(folder.history())
        found[rule] = {
            name: (columns[f"gold/{name}"][1][0], columns[f"gold/{name}"][1][-1])
            for name in ("reward", "repetition", "distinct_2")
        }
    for rule in found:
        assert found[rule]["reward"][1] > found[rule]["reward"][0] + 0.3
    assert (
        found["positive"]["repetition"][1]
        > 0.5
        > 0.2
        > found["positive_penalised"]["repetition"][1]
    )
    assert found["positive"]["distinct_2"][1] < 0.2 < found["positive"]["distinct_2"][0]


def test_a_file_of_prompts_with_answers_trains_and_is_evaluated_on_its_held_out_rows(tmp_path):
    source = prompts(tmp_path, *SUMS)
    model = small_model(tmp_path / "model", [str(i) for i in range(80)] + ["+", "="])
    folder = create(
        tmp_path / "run",
        make_config("grpo", QUICK | {"task": source, "model": model, "device": "cpu"}),
    )
    drive(folder)
    rows = [row for row in folder.samples() if row.get("held_out")]
    assert {row["prompt"] for row in rows} <= {p.prompt for p in load_task(source).held_out(9)}
    assert math.isfinite(columns_of(folder.history())["gold/accuracy"][1][-1])
