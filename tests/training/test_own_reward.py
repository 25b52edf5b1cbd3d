"""A reward of the user's own: TRL's signature, what it may break, and what the record says of it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from support.tiny import save, tokenizer

from lab.algorithms.advantages import dead_groups, group_advantages, impute_missing_rewards
from lab.cli.main import main
from lab.config.json_format import from_dict, to_dict
from lab.config.methods import make_config
from lab.config.user_code import names_code, require_offered
from lab.errors import LabError
from lab.runs.folder import RunFolder, create
from lab.runs.launch import start_training
from lab.runs.records import columns_of
from lab.tasks.base import Problem
from lab.tasks.registry import TASKS, extra_metrics, task_of, with_reward
from lab.tasks.rewards.user_reward import UserReward
from lab.training.checkpoints import make_checkpoint
from lab.training.driver import drive
from lab.training.loop import prepare
from lab.training.methods.online_dpo import choose
from lab.training.resume import load_checkpoint, save_checkpoint
from lab.training.rollout import Rollout

MODULE = """
import os, sys, time

def length(prompts, completions, answer, **columns):
    assert len(prompts) == len(completions) == len(answer)
    print("what a reward prints goes elsewhere")
    return [len(text) / 10 for text in completions]

def columns(prompts, completions, level, **rest):
    return [float(l) for l in level]

def raises_on_x(completions, **rest):
    return [1 / (text != "x") for text in completions]

def none_on_x(completions, **rest):
    return [None if text == "x" else 1 for text in completions]

def never(**rest):
    raise KeyError("nothing here")

def slow_on_x(completions, **rest):
    while "x" in completions:
        pass
    return [1.0] * len(completions)

def always_slow(completions, **rest):
    time.sleep(60)

def lines_on_x(completions, **rest):
    if "x" in completions:
        raise KeyboardInterrupt("one\\n  two")
    return [1.0] * len(completions)

def dies(**rest):
    os._exit(7)

def leaves(**rest):
    sys.exit("no")

def short(completions, **rest):
    return [1.0] * (len(completions) - 1)

def nan(completions, **rest):
    return [float("nan")] * len(completions)

def words(completions, **rest):
    return ["1.0"] * len(completions)

def one(completions, **rest):
    return 1.0

def last_words(prompts, completions, **rest):
    return [
        float(len(p[-1]["content"]) + len(c[0]["content"]))
        if c[0]["role"] == "assistant" and len(c) == 1
        else None
        for p, c in zip(prompts, completions)
    ]

def tokens(completion_ids, **rest):
    return [float(sum(ids)) for ids in completion_ids]

def progress(completions, trainer_state, **rest):
    return [trainer_state.global_step + trainer_state.max_steps / 1000] * len(completions)

def names(completions, **rest):
    expected = ["answer", "completion_ids", "level", "log_extra", "log_metric", "prompts"]
    return [float(sorted(rest) == [*expected, "trainer_state"])] * len(completions)

def logs(completions, log_extra, log_metric, **rest):
    log_extra("seen", completions)
    for text in completions:
        log_metric("letters", len(text))
    return [1.0] * len(completions)

async def later(completions, **rest):
    import asyncio
    await asyncio.sleep(0)
    return [float(len(text)) for text in completions]

class Awaited:
    loop = None

    async def __call__(self, completions, **rest):
        import asyncio
        first, Awaited.loop = Awaited.loop, asyncio.get_running_loop()
        return [float(first in (None, Awaited.loop))] * len(completions)

awaited = Awaited()

async def fails_later(completions, **rest):
    raise KeyError("later")

async def slow_later(completions, **rest):
    import asyncio
    await asyncio.sleep(60)

def nothing(completions, **rest):
    return [None] * len(completions)

def none_on_even(prompts, completions, **rest):
    return [None if int(p) % 2 == 0 else 1.0 for p in prompts]

not_a_function = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(n):
    return [Problem(f"{i}", "64", {"level": i}) for i in range(n)]


def ask(function, texts, seconds=20.0, module="my_rewards"):
    return UserReward(f"{module}:{function}", seconds)(problems(len(texts)), texts)


def known(values):
    return [None if math.isnan(v) else v for v in values]


# --- what it is called with
# -------------------------------------------------------------------------------------------


def test_it_gets_prompts_completions_and_columns_by_keyword_one_value_per_completion(here):
    assert ask("length", ["abc", ""]) == [0.3, 0.0]
    assert ask("columns", ["a", "b", "c"]) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize(
    "function, says",
    [
        ("short", "returned 1 values for 2 completions"),
        ("nan", "returned nan for the completion 'a'"),
        ("words", "returned '1.0' for the completion 'a'"),
        ("one", "returned float, not a list"),
        ("missing", "module my_rewards has no function missing"),
        ("not_a_function", "has no function not_a_function"),
        (
            "never",
            r"no reward to any of 2 completions: KeyError: 'nothing here' \(my_rewards.py, line"
            r" \d+\)"
            ".*prompts=, completions=, level=, answer=.*trainer_state=",
        ),
        ("fails_later", r"KeyError: 'later' \(my_rewards.py, line \d+\)"),
        ("leaves", "no reward to any of 2 completions: SystemExit: no"),
        ("dies", "its process ended with exit code 7"),
    ],
)
def test_a_reward_that_never_works_ends_the_run_and_the_message_says_what_came_back(
    here, function, says
):
    with pytest.raises(LabError, match=says):
        ask(function, ["a", "b"])


def test_a_module_that_cannot_be_imported_is_told_with_its_own_error(here):
    with pytest.raises(
        LabError,
        match="broken:f cannot be used: ModuleNotFoundError: No module named 'no_such_package'",
    ):
        ask("f", ["a"], module="broken")


def test_conversations_come_as_messages_and_text_as_text(here):
    talk = Problem(
        "a\nbc",
        "",
        {},
        ({"role": "system", "content": "a"}, {"role": "user", "content": "bc"}),
        allow_plain_text=False,
    )
    assert UserReward("my_rewards:last_words", 20)([talk, talk], ["xyz", ""]) == [5.0, 2.0]
    request = Problem(
        "bc", "64", {}, ({"role": "user", "content": "bc"},)
    )  # A text that models with a template are asked as a message.
    assert UserReward("my_rewards:length", 20)([request], ["abc"]) == [0.3]
    with pytest.raises(LabError, match="my_rewards:nan returned nan for the completion 'xyz'"):
        UserReward("my_rewards:nan", 20)([talk], ["xyz"])


def test_it_is_told_tokens_progress_and_ways_to_log_as_trl_tells_them(here):
    def asked(function, **rest):
        return UserReward(f"my_rewards:{function}", 20, steps=50)(
            problems(2), ["a", "bcd"], ids=[[7, 1], [8, 9, 1]], **rest
        )

    assert asked("tokens") == [8.0, 18.0] and asked("names") == [1.0, 1.0]
    assert asked("progress", step=3) == [3.05, 3.05]
    reward = UserReward("my_rewards:logs", 20)
    assert reward(problems(2), ["a", "bcd"]) == [1.0, 1.0] and reward.metrics == {"letters": 2.0}


def test_no_column_of_the_data_takes_the_place_of_what_trl_gives(here):
    odd = Problem(
        "p",
        "64",
        {"level": 1}
        | dict.fromkeys(
            ["prompts", "completion", "completion_ids", "trainer_state", "log_extra", "log_metric"],
            "no",
        ),
    )
    assert UserReward("my_rewards:names", 20)([odd], ["a"], ids=[[1]]) == [1.0]


def test_an_async_function_is_awaited_always_in_one_loop_and_within_its_time(here):
    assert ask("later", ["abc", ""]) == [3.0, 0.0]
    reward = UserReward("my_rewards:awaited", 20)
    assert [reward(problems(1), ["a"]) for _ in range(3)] == [[1.0]] * 3
    with pytest.raises(LabError, match="took longer than the 0.5 s"):
        ask("slow_later", ["a"], seconds=0.5)


# --- what it may break
# ------------------------------------------------------------------------------------------------


def test_only_the_completion_on_which_it_raises_goes_without_a_reward(here, capfd):
    assert known(ask("raises_on_x", ["a", "x", "b"])) == [1.0, None, 1.0]
    assert "no reward for 1 of 3 completions: ZeroDivisionError" in capfd.readouterr().err


def test_whatever_the_function_raises_is_one_line(here, capfd):
    assert known(ask("lines_on_x", ["a", "x"])) == [1.0, None]
    (line,) = capfd.readouterr().err.splitlines()
    assert "KeyboardInterrupt: one two (my_rewards.py, line" in line


def test_none_is_no_reward(here):
    assert known(ask("none_on_x", ["x", "a"])) == [None, 1.0]


def test_none_for_every_completion_is_an_answer_however_often_as_in_trl(here, capfd):
    reward = UserReward("my_rewards:nothing", 20)
    assert [known(reward(problems(2), ["a", "b"])) for _ in range(4)] == [[None, None]] * 4
    assert capfd.readouterr().err.count("no reward for 2 of 2 completions: it returned None") == 1


def test_a_held_out_part_without_a_reward_has_no_mean(here):
    task = with_reward(
        TASKS["chain"], "my_rewards:none_on_even", UserReward("my_rewards:none_on_even", 20)
    )
    for prompts, mean in (("24", {}), ("23", {"reward": 1.0})):
        found = extra_metrics(task, [Problem(p, "1") for p in prompts], ["1", "2"], [[1], [2]])
        assert found == TASKS["chain"].task_metrics([Problem("1+1=")] * 2, ["1", "2"]) | mean
    assert TASKS["chain"].rewards.keys() < task.rewards.keys()


def test_a_call_that_takes_too_long_is_ended_and_the_next_one_is_answered(here, capfd):
    reward = UserReward("my_rewards:slow_on_x", 0.5)
    assert reward(problems(1), ["a"]) == [1.0]
    assert known(reward(problems(2), ["a", "x"])) == [None, None]
    said = capfd.readouterr().err
    assert (
        "no reward for 2 of 2 completions: it took longer than the 0.5 s of reward_seconds" in said
        and "slow_on_x" in said
    )
    assert reward(problems(1), ["b"]) == [1.0]


def test_three_calls_in_a_row_without_a_reward_end_the_run(here):
    reward = UserReward("my_rewards:raises_on_x", 20)
    reward(problems(1), ["a"])
    for _ in range(2):
        assert known(reward(problems(1), ["x"])) == [None]
    with pytest.raises(
        LabError, match="gave no reward to any of 1 completions again: ZeroDivisionError"
    ):
        reward(problems(1), ["x"])


def test_no_process_is_left_when_the_reward_is_gone(here):
    reward = UserReward("my_rewards:length", 20)
    reward(problems(1), ["a"])
    process = reward._process.process
    del reward
    assert process.poll() is not None


# --- what a completion without a reward means
# --------------------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_grpo_leaves_a_completion_without_a_reward_out_of_its_group(scale):
    whole = torch.tensor([1.0, 0.0, 0.0, 3.0, 1.0, 2.0])
    with_gap = torch.tensor([1.0, 0.0, 0.0, NAN, 3.0, 1.0, 2.0, NAN])
    expected = group_advantages(whole, 3, scale=scale).view(2, 3)
    found = group_advantages(with_gap, 4, scale=scale).view(2, 4)
    assert torch.allclose(found[:, :3], expected, rtol=1e-6) and found[:, 3].tolist() == [0.0, 0.0]


def test_a_group_is_dead_when_its_rewards_are_equal_or_fewer_than_two():
    assert dead_groups(torch.tensor([1.0, NAN, 1.0, NAN, 2.0, NAN, NAN, NAN, 1.0]), 3).tolist() == [
        True,
        True,
        True,
    ]
    assert dead_groups(torch.tensor([1.0, NAN, 0.0]), 3).tolist() == [False]
    assert group_advantages(torch.tensor([1.0, NAN, NAN]), 3, scale="group").tolist() == [
        0.0,
        0.0,
        0.0,
    ]


def test_ppo_takes_the_mean_of_the_others():
    assert impute_missing_rewards(torch.tensor([1.0, NAN, 0.0])).tolist() == [1.0, 0.5, 0.0]
    assert impute_missing_rewards(torch.tensor([NAN, NAN])).tolist() == [0.0, 0.0]


def test_online_dpo_pairs_none_of_them():
    rewards = torch.tensor([NAN, 1.0, 0.0, 2.0, NAN, 1.0, NAN, NAN, 1.0])
    rollout = Rollout(
        ids=torch.zeros(9, 1),
        completion_mask=torch.ones(9, 1),
        truncated=torch.zeros(9),
        rewards=rewards,
        gold=None,
        group_size=3,
        prompts=[],
        texts=[],
    )
    assert [rows.tolist() for rows in choose(rollout)] == [[1, 3], [2, 5]]


# --- in a run
# ---------------------------------------------------------------------------------------------------------

QUICK = {
    "steps": 2,
    "batch_size": 16,
    "group_size": 4,
    "eval_prompts": 4,
    "eval_every": 0,
    "max_completion_tokens": 8,
    "device": "cpu",
}


def test_a_run_shows_how_many_went_without_and_measures_the_reward_on_held_out_prompts(here):
    (here / "my_rewards.py").write_text(
        "def odd(completions, **rest):\n    return [None if len(t) % 2 else float(len(t)) for t in completions]\n"
    )
    folder = create(here / "run", make_config("grpo", QUICK | {"reward": "my_rewards:odd"}))
    drive(folder)
    columns = columns_of(folder.history())
    held_out = [
        len(row["completion"])
        for row in folder.samples()
        if row.get("held_out") and row["step"] == 0
    ]
    assert columns["gold/reward"][1][0] == pytest.approx(
        sum(n for n in held_out if n % 2 == 0) / sum(n % 2 == 0 for n in held_out)
    )
    assert len(columns["reward/missing"][1]) == 2 and all(
        0 < share < 1 for share in columns["reward/missing"][1]
    )
    assert all(
        row["reward"] is None
        for row in folder.samples()
        if not row.get("held_out") and len(row["completion"]) % 2
    )


@pytest.mark.parametrize("method", ["grpo", "ppo", "online_dpo"])
def test_a_run_goes_on_where_no_completion_has_a_reward(here, method):
    knobs = {
        name: value for name, value in QUICK.items() if name != "group_size" or method != "ppo"
    }
    drive(
        folder := create(
            here / "run", make_config(method, knobs | {"reward": "my_rewards:nothing", "steps": 4})
        )
    )
    assert (
        folder.state == "finished"
        and columns_of(folder.history())["reward/missing"][1] == [1.0] * 4
    )
    assert not {"reward", "gold/reward"} & columns_of(folder.history()).keys()


TALKS = [{"prompt": [{"role": "user", "content": f"{i}?"}]} for i in range(12)]
SEEN = """
import json
def f(prompts, completions, completion_ids, trainer_state, log_metric, **rest):
    with open("seen.jsonl", "a") as file:
        steps = trainer_state.global_step, trainer_state.max_steps
        row = [prompts, completions, completion_ids, *steps, sorted(rest)]
        file.write(json.dumps(row) + "\\n")
    log_metric("length/mean", sum(map(len, completion_ids)) / len(completions))
    return [float(len(c[0]["content"])) for c in completions]
"""


def test_a_run_on_conversations_hands_over_messages_and_the_sampled_tokens(here):
    (here / "seeing.py").write_text(SEEN)
    (here / "talks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in TALKS))
    knobs = QUICK | {
        "model": save(here / "model"),
        "task": "talks.jsonl",
        "reward": "seeing:f",
        "eval_prompts": 2,
        "batch_size": 8,
    }
    drive(folder := create(here / "run", make_config("grpo", knobs)))
    calls = [json.loads(line) for line in (here / "seen.jsonl").read_text().splitlines()]
    assert [call[3:] for call in calls] == [
        [step, 2, ["log_extra"]] for step in (0, 0, 1, 2)
    ]  # An evaluation, two rollouts, an evaluation.
    model = tokenizer()
    for prompts, completions, ids, *_ in calls:
        assert all(prompt in [row["prompt"] for row in TALKS] for prompt in prompts)
        for (message,), own in zip(completions, ids, strict=True):
            assert message == {
                "role": "assistant",
                "content": model.decode(own, skip_special_tokens=True),
            }
            assert model.eos_token_id not in own[:-1] and (
                own[-1] == model.eos_token_id or len(own) == 8
            )  # None is padded.
    columns = columns_of(folder.history())
    assert columns["length/mean"][1] == pytest.approx(
        [sum(map(len, call[2])) / 8 for call in calls[1:3]]
    )
    assert columns["reward"][1][0] == pytest.approx(
        sum(len(c[0]["content"]) for c in calls[1][1]) / 8
    )


@pytest.mark.parametrize("method", ["ppo", "online_dpo"])
def test_the_other_methods_that_sample_take_it_too(here, method):
    knobs = {
        name: value for name, value in QUICK.items() if name != "group_size" or method != "ppo"
    }
    drive(
        folder := create(
            here / "run", make_config(method, knobs | {"reward": "my_rewards:none_on_x"})
        )
    )
    assert folder.state == "finished"


def test_a_run_with_it_resumes_from_the_command_line_and_from_nowhere_else(here, capsys):
    command = [
        word
        for name, value in (QUICK | {"reward": "my_rewards:length", "steps": 1}).items()
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    main(["train", "grpo", *command, "--out", str(here / "run")])
    folder = RunFolder(here / "run")
    assert json.loads((folder.path / "config.json").read_text())["reward"] == "my_rewards:length"
    main(
        [
            "train",
            "--resume",
            "--out",
            str(here / "run"),
            "--steps",
            "2",
            "--reward",
            "my_rewards:length",
        ]
    )
    assert folder.state == "finished" and folder.history()[-1]["step"] == 2
    with pytest.raises(
        LabError,
        match=(
            "code of your own. Train it on the command line: python -m lab train --resume .* --reward my_rewards:length"
        ),
    ):
        start_training(folder)


@pytest.fixture
def downloaded(here):
    """A run of one update without code, and a module that would leave a mark when it is imported."""
    (here / "evil.py").write_text(
        "open('imported', 'w').close()\ndef f(completions, **rest): return [1.0] * len(completions)\n"
    )
    folder = create(here / "run", make_config("grpo", QUICK | {"steps": 1}))
    drive(folder)
    return folder


def rename_in_config(folder, reward):
    path = folder.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reward": reward, "steps": 2}))


def rename_in_checkpoint(folder, reward):
    held = load_checkpoint(folder)
    run = prepare(from_dict(held["config"]), held)
    run.config = replace(run.config, reward=reward)
    save_checkpoint(folder, make_checkpoint(run), folder.config)


@pytest.mark.parametrize(
    "places",
    [[rename_in_config], [rename_in_checkpoint], [rename_in_config, rename_in_checkpoint]],
    ids=["config", "checkpoint", "both"],
)
def test_a_folder_that_names_code_imports_none_on_its_own_say(here, downloaded, places, capsys):
    for rename in places:
        rename(downloaded, "evil:f")
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--resume", "--out", str(downloaded.path), "--steps", "2"])
    assert (
        "If you trust it, name it again: --reward evil:f" in capsys.readouterr().err
        and not (here / "imported").exists()
    )
    if rename_in_checkpoint in places:
        with pytest.raises(SystemExit, match="2"):
            main(
                [
                    "train",
                    "--resume",
                    "--out",
                    str(downloaded.path),
                    "--steps",
                    "2",
                    "--reward",
                    "my_rewards:length",
                ]
            )
        assert not (here / "imported").exists()


def test_a_run_that_names_code_is_measured_without_it_unless_the_command_line_names_it_too(
    here, downloaded, capsys
):
    rename_in_config(downloaded, "evil:f")
    command = ["eval", str(downloaded.path), "--prompts", "4", "--samples", "1", "--device", "cpu"]
    main(command)
    said = capsys.readouterr()
    assert (
        "--reward evil:f" in said.err
        and "reward " not in said.out
        and not (here / "imported").exists()
    )
    main([*command, "--reward", "evil:f"])
    assert (here / "imported").exists()


def test_nothing_is_imported_before_it_is_called_and_a_page_never_calls(here, monkeypatch):
    (here / "loud.py").write_text(
        "open('imported', 'w').close()\ndef f(completions, **rest): return [1.0] * len(completions)\n"
    )
    config = make_config("grpo", {"reward": "loud:f"})
    assert names_code(config) and from_dict(to_dict(config)) == config
    task = task_of(config)
    task.score(task.held_out(1)[0], "64")
    assert not (here / "imported").exists()
    with pytest.raises(LabError, match="only the command line takes"):
        require_offered(config)
    task.rewards["loud:f"](task.held_out(1), ["64"], seed=0)
    assert (here / "imported").exists()
