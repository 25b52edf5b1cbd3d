"""The chain task against answers worked out by hand, an evaluator written here, and completions
made to fool it.
"""

import hashlib
import inspect

import pytest

from lab.errors import LabError
from lab.tasks.base import Problem
from lab.tasks.chain import gold_answer, is_held_out, running_results, scratchpad
from lab.tasks.registry import TASKS

CHAIN = TASKS["chain"]
PROBLEM = Problem("7+5*3-4*2=", "64")
GOLD = "<think>7+5=12;12*3=36;36-4=32;32*2=64</think>64"


def results_by_hand(prompt):
    """From left to right modulo 100, in plain integers: the value after each operation, with the
    text of that operation.
    """
    value, texts, rest = int(prompt[0]), [], prompt[1:].rstrip("=")
    while rest:
        sign, digit, rest = rest[0], int(rest[1]), rest[2:]
        before = value
        value = {"+": before + digit, "-": before - digit, "*": before * digit}[sign]
        value = value - 100 * (value // 100)
        texts.append(f"{before}{sign}{digit}={value}")
    return value, texts


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("7+5*3-4*2=", "64"),  # 12, 36, 32, 64
        ("2+3*4=", "20"),  # left to right: 5, 20; by precedence it were 14
        ("1-2=", "99"),  # −1 wraps
        ("0-9-9-9=", "73"),  # 91, 82, 73
        ("1-3*9=", "82"),  # 98, 882
        ("9*9*9=", "29"),  # 81, 729
        ("9*9+9+9+1=", "0"),  # 81, 90, 99, 100
        ("5*0+7=", "7"),
        ("0*0=", "0"),
    ],
)
def test_the_answer_is_worked_out_from_left_to_right_modulo_100(prompt, expected):
    assert gold_answer(prompt) == expected


def test_the_scratchpad_writes_each_step_with_the_running_result_it_starts_from():
    assert running_results("7+5*3-4*2=") == ["7+5=12", "12*3=36", "36-4=32", "32*2=64"]
    assert scratchpad("7+5*3-4*2=") == GOLD
    assert scratchpad("0-9-9*9=") == "<think>0-9=91;91-9=82;82*9=38</think>38"
    assert scratchpad("9*9+9+9+1=") == "<think>9*9=81;81+9=90;90+9=99;99+1=0</think>0"


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "=",
        "7",
        "7=",
        "7+5",
        "7+5=\n",
        " 7+5=",
        "7 + 5=",
        "7+5==",
        "7/5=",
        "77+5=",
        "-7+5=",
        "7+-5=",
        "+",
        "7+5=12",
        "7+5=7+5=",
        "٧+5=",
        "７+５=",
        "7+5=\x00",
        "7÷5=",
        "x+5=",
    ],
)
def test_a_prompt_that_is_no_chain_raises_a_lab_error_that_shows_what_a_chain_is(prompt):
    for work_out in (running_results, gold_answer, scratchpad):
        with pytest.raises(LabError, match=r"is no chain.*such as 7\+5\*3-4="):
            work_out(prompt)


@pytest.fixture(scope="module")
def problems():
    return CHAIN.train_problems(500, 3, 1) + CHAIN.held_out(500)


def test_every_problem_carries_the_answer_and_scratchpad_of_an_evaluator_written_here(problems):
    for problem in problems:
        value, texts = results_by_hand(problem.prompt)
        assert problem.answer == gold_answer(problem.prompt) == str(value)
        assert running_results(problem.prompt) == texts
        assert scratchpad(problem.prompt) == f"<think>{';'.join(texts)}</think>{value}"


def test_every_right_answer_alone_or_after_its_steps_scores_one(problems):
    for problem in problems:
        value, texts = results_by_hand(problem.prompt)
        alone = CHAIN.score(problem, str(value))
        thought = CHAIN.score(problem, f"<think>{';'.join(texts)}</think>{value}")
        assert (alone.answer, alone.format, alone.scratchpad) == (1.0, 1.0, False)
        assert (thought.answer, thought.format, thought.scratchpad) == (1.0, 1.0, True)


def test_every_wrong_answer_is_well_formed_and_scores_no_answer():
    scores = [
        CHAIN.score(PROBLEM, text)
        for n in range(100)
        if n != 64
        for text in (str(n), f"<think>7+5=12</think>{n}")
    ]
    assert {(s.answer, s.format) for s in scores} == {(0.0, 1.0)}


def test_problems_have_three_to_six_operations_and_all_signs(problems):
    assert {(len(p.prompt) - 2) // 2 for p in problems} == {3, 4, 5, 6}
    assert set("".join(p.prompt for p in problems)) == set("0123456789+-*=")


HOSTILE = [
    "",
    " ",
    "\n",
    "\x00",
    "=64",
    "64=",
    "+64",
    "-36",
    "-64",
    "064",
    "0064",
    "640",
    "6 4",
    " 64",
    "64 ",
    "\t64",
    "64\n",
    "64\r\n",
    "\n64",
    "64\x00",
    "\x0064",
    "64\u200b",
    "\ufeff64",
    "64.",
    "64.0",
    "6.4e1",
    "0x40",
    "164",
    "64%",
    "64;",
    "64 64",
    "6464",
    "six four",
    "nan",
    "inf",
    "True",
    "None",
    "６４",
    "٦٤",
    "६४",
    "𝟔𝟒",
    "6４",
    "⁶⁴",
    "6" * 100_000,
    "64" * 50_000,
    "0" * 100_000 + "64",
    "9" * 5_000,
    "{answer}",
    "%s",
    "\\b64",
    ".*",
    "64|0",
    "(64)",
    '"64"',
    "<answer>64</answer>",
    "<think>",
    "</think>",
    "<think></think>",
    "<think>64",
    "64<think>",
    "64</think>",
    "</think>64",
    "<think>64</think>",
    "<think>7+5=12</think>",
    "<think></think>64",
    "<think> </think>64",
    "<think>\n\t</think>64",
    "<think>\u00a0</think>64",
    "<think>7+5=12</think>64\n",
    "<think>7+5=12</think>064",
    "<think>7+5=12</think> 64",
    " <think>7+5=12</think>64",
    "64<think>7+5=12</think>",
    "<think>7+5=12</think>64<think>7+5=12</think>",
    "<think>7+5=12</think><think>12*3=36</think>64",
    "<think>7+5=12</think>64<think>",
    "<think><think>7+5=12</think></think>64",
    "<think><think>7+5=12</think>64",
    "<think>7+5=12</think></think>64",
    "<think>7+5=12<think>64",
    "<think>7+5=12</think>64</think>64",
    "<think>7+5=12</think>6</think>4",
    "<think>7+5=12</think><eos>64",
    "<think>a<b</think>64",
    "<think>a>b</think>64",
    "<THINK>7+5=12</THINK>64",
    "<think >7+5=12</think>64",
    "<think/>64",
    "<think>7+5=12</ think>64",
    "<thinking>7+5=12</thinking>64",
    "think>7+5=12</think>64",
    "<<think>7+5=12</think>64",
    "＜think＞7+5=12＜/think＞64",
    "<think>7+5=12</think>６４",
    "<think>" * 20_000 + "64",
    "<think>" + "</think>" * 20_000 + "64",
    "<think></think>" * 20_000 + "64",
    "<think>" + "1" * 200_000 + "64",
    "<think>" + " " * 200_000 + "</think>64",
    "<think>" + " " * 200_000 + "64",
    "<" * 200_000 + "64",
    "\ud800",
    "64\udfff",
]


@pytest.mark.parametrize("completion", HOSTILE, ids=lambda text: ascii(text[:30])[1:-1])
@pytest.mark.timeout(20)
def test_a_completion_made_to_fool_the_checker_scores_no_answer_and_never_raises(completion):
    assert CHAIN.score(PROBLEM, completion).answer == 0.0


def test_a_scratchpad_may_hold_any_text_without_angle_brackets_because_only_the_answer_is_checked():
    for text in ("0", "wrong", "7+5=99;1+1=3", "two\nlines", "1" * 100_000):
        score = CHAIN.score(PROBLEM, f"<think>{text}</think>64")
        assert (score.answer, score.format, score.scratchpad) == (1.0, 1.0, True)


def test_format_is_one_exactly_for_an_answer_alone_or_after_one_closed_scratchpad():
    good = ["64", "0", "99", "7", GOLD, "<think>x</think>3"]
    bad = [
        "",
        "x",
        "100",
        "00",
        "07",
        "-1",
        "64\n",
        "<think>x</think>",
        "<think>x64",
        "<think></think>64",
        "x</think>64",
        "<think>x</think>100",
    ]
    assert [CHAIN.score(PROBLEM, text).format for text in good] == [1.0] * len(good)
    assert [CHAIN.score(PROBLEM, text).format for text in bad] == [0.0] * len(bad)


def test_a_completion_counts_as_thinking_when_it_opens_a_scratchpad_even_one_it_never_closes():
    assert [
        CHAIN.score(PROBLEM, text).scratchpad
        for text in (GOLD, "<think>7+5", "64", "64<think>", "")
    ] == [True, True, False, False, False]


def test_a_prompt_is_held_out_when_the_first_byte_of_its_sha256_is_below_16(problems):
    for problem in problems:
        assert is_held_out(problem.prompt) == (
            int(hashlib.sha256(problem.prompt.encode()).hexdigest()[:2], 16) < 16
        )


def test_train_and_held_out_problems_never_overlap():
    train = {
        p.prompt
        for seed in range(3)
        for step in range(20)
        for p in CHAIN.train_problems(100, seed, step)
    }
    held_out = {p.prompt for p in CHAIN.held_out(3000)}
    assert len(train) > 5000 and train.isdisjoint(held_out)
    assert not any(is_held_out(prompt) for prompt in train) and all(
        is_held_out(prompt) for prompt in held_out
    )


def test_held_out_problems_are_different_and_a_shorter_list_is_the_front_of_a_longer_one():
    many = CHAIN.held_out(2000)
    assert len({p.prompt for p in many}) == 2000
    assert CHAIN.held_out(7) == many[:7] and CHAIN.held_out(0) == []


def test_train_problems_depend_on_their_arguments_alone():
    first = CHAIN.train_problems(50, 1, 2)
    CHAIN.train_problems(10, 9, 9)
    assert CHAIN.train_problems(50, 1, 2) == first and CHAIN.train_problems(20, 1, 2) == first[:20]
    assert CHAIN.train_problems(50, 1, 3) != first and CHAIN.train_problems(50, 2, 2) != first


COMPLETIONS = ["64", "63", "064", GOLD, "<think>wrong</think>63", ""]
PROBLEMS = [PROBLEM] * len(COMPLETIONS)


@pytest.mark.parametrize(
    "name, expected",
    [
        ("answer", [1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ("format", [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]),
        ("length", [2 / 64, 2 / 64, 3 / 64, 47 / 64, 22 / 64, 0.0]),
        ("constant", [1.0] * 6),
    ],
)
def test_each_named_reward_by_hand(name, expected):
    assert CHAIN.rewards[name](PROBLEMS, COMPLETIONS, seed=0) == expected


def test_the_length_reward_is_full_at_64_characters_and_grows_no_more():
    assert CHAIN.rewards["length"](
        [PROBLEM] * 4, ["x" * 32, "x" * 63, "x" * 64, "x" * 1000], seed=0
    ) == [0.5, 63 / 64, 1.0, 1.0]


def test_each_completion_is_judged_by_its_own_problem():
    problems = [PROBLEM, Problem("1-2=", "99")]
    assert CHAIN.rewards["answer"](problems, ["64", "99"], seed=0) == [1.0, 1.0]
    assert CHAIN.rewards["answer"](problems, ["99", "64"], seed=0) == [0.0, 0.0]


def test_the_random_reward_is_a_fair_seeded_coin_blind_to_the_completion():
    flip = CHAIN.rewards["random"]
    right, wrong = (
        flip([PROBLEM] * 4000, ["64"] * 4000, seed=5),
        flip([PROBLEM] * 4000, ["63"] * 4000, seed=5),
    )
    assert right == wrong and set(right) == {0.0, 1.0}
    assert (
        abs(sum(right) / 4000 - 0.5) < 4 * 0.5 / 4000**0.5
    )  # Four standard deviations of a fair coin's mean.
    assert flip([PROBLEM] * 4000, ["64"] * 4000, seed=6) != right


def test_every_reward_has_help_and_gives_one_float_for_each_completion():
    assert (
        set(CHAIN.rewards)
        == set(CHAIN.reward_help)
        == {"answer", "format", "length", "graded", "constant", "random"}
    )
    for reward in CHAIN.rewards.values():
        assert inspect.signature(reward).parameters["seed"].kind is inspect.Parameter.KEYWORD_ONLY
        values = reward(PROBLEMS, COMPLETIONS, seed=1)
        assert len(values) == 6 and all(type(v) is float and 0.0 <= v <= 1.0 for v in values)
        assert reward([], [], seed=1) == []


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("36", 0.1 + 0.8 + 0.1 * (1 - 2 / 64)),
        ("48", 0.1 + 0.8 * 0.5 * (1 - 12 / 50) + 0.1 * (1 - 2 / 64)),
        ("86", 0.1 + 0.1 * (1 - 2 / 64)),  # 50 away: as far as an answer can be
        ("99", 0.1 + 0.8 * 0.5 * (1 - 37 / 50) + 0.1 * (1 - 2 / 64)),  # over 0: 99, 0, …, 36
        ("<think>7+5=12;12*3=36</think>36", 0.9 + 0.1 * (1 - 31 / 64)),
        ("<think>" + "1" * 60 + "</think>36", 0.9),
        ("036", 0.0),
        ("", 0.0),
    ],
)
def test_the_graded_reward_adds_form_closeness_and_brevity(completion, expected):
    (reward,) = CHAIN.rewards["graded"]([Problem("7+5*3=", "36")], [completion], seed=0)
    assert reward == pytest.approx(expected)


def test_no_wrong_completion_has_a_higher_graded_reward_than_a_right_one():
    problem = Problem("7+5*3=", "36")
    wrong = [str(number) for number in range(100) if number != 36]
    rewards = CHAIN.rewards["graded"](
        [problem] * 100, [*wrong, f"<think>{'1' * 99}</think>36"], seed=0
    )
    assert max(rewards[:-1]) < rewards[-1]
