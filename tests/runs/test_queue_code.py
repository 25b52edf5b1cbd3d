"""The queue and code of the user's own: no run that calls it is taken, and none is started."""

import pytest

from lab.config.methods import make_config
from lab.errors import LabError
from lab.runs import queue
from lab.runs.folder import RunFolder, create


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(queue, "max_running", lambda: 1)
    monkeypatch.setattr(queue, "spawn_worker", lambda root: pytest.fail("nothing waits"))


def states(root):
    return {path.name: RunFolder(path).state for path in root.iterdir() if path.name[0] != "."}


@pytest.mark.parametrize(
    "knobs", [{"reward": "own:reward"}, {"task": "prompts.jsonl"}], ids=["reward", "file"]
)
def test_a_word_that_the_command_line_alone_takes_is_refused_before_any_run_is_made(
    tmp_path, one_core, knobs
):
    with pytest.raises(LabError, match="only the command line takes"):
        queue.enqueue("grpo", [{}, knobs], tmp_path)
    assert states(tmp_path) == {}


def test_a_reward_that_the_task_does_not_know_is_refused_before_any_run_is_made(tmp_path, one_core):
    with pytest.raises(LabError, match="reward"):
        queue.enqueue("grpo", [{}, {"task": "sentiment", "reward": "scratchpad"}], tmp_path)
    assert states(tmp_path) == {}


def test_a_queued_run_whose_reward_is_code_fails_and_the_next_one_has_its_turn(
    tmp_path, one_core, monkeypatch
):
    monkeypatch.setattr(queue, "max_running", lambda: 2)
    started = []
    monkeypatch.setattr("lab.runs.launch.subprocess.Popen", lambda *a, **k: started.append(a[0]))
    monkeypatch.setattr("lab.runs.launch.threading.Thread.start", lambda thread: None)
    create(tmp_path / "a", make_config("grpo", {"reward": "own:reward"}), "queued")
    create(tmp_path / "b", make_config("grpo"), "queued")
    assert queue.start_ready_runs(tmp_path) is False
    assert [command[-1] for command in started] == [str(tmp_path / "b")]
    assert RunFolder(tmp_path / "a").state == "failed"
    assert "code of your own" in RunFolder(tmp_path / "a").status()["message"]
