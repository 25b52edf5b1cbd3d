"""The recipe of preference pairs: where they go, the command that makes them again, and how many
prompts they took.
"""

import json

import pytest

from lab.recipes import generate_pairs
from lab.recipes.generate_pairs import build_pairs, pairs_path
from lab.tasks.registry import TASKS


def test_pairs_of_a_task_without_shipped_pairs_go_into_the_folder_of_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("LAB_RUNS", str(tmp_path))
    assert pairs_path("chain") == TASKS["chain"].pairs_path
    assert pairs_path("my data/a_b-1.jsonl") == tmp_path / "pairs-my-data-a_b-1-jsonl.jsonl"


@pytest.mark.parametrize(
    ("settings", "options"),
    [({}, ""), ({"max_tokens": 32, "reward": "length"}, " --reward length --max-tokens 32")],
)
def test_the_record_beside_the_pairs_names_the_command_and_the_prompts(
    tmp_path, monkeypatch, settings, options
):
    monkeypatch.setattr(generate_pairs, "PROMPTS_PER_BATCH", 64)
    out = tmp_path / "pairs.jsonl"
    build = build_pairs(out, count=4, seed=3, device="cpu", **settings)
    assert build == json.loads((tmp_path / "pairs.json").read_text("utf-8"))
    command = "python -m lab build-pairs --model embedded --count 4 --seed 3"
    assert build["command"] == command + options
    first_batch = {problem.prompt for problem in TASKS["chain"].train_problems(64, 3, -1)}
    assert build["pairs"] == 4 and build["prompts"] == len(first_batch)
