"""What wrong and few pairs do: the experiment, and its words."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab.analysis.data_quality import judged_changes
from lab.experiments import arms, data_quality


def row(method, data, final, early, late):
    return {"method": method, "data": data, "final": final, "early": early, "late": late}


def test_differences_are_taken_seed_by_seed_and_judged_together():
    table = {
        "rows": [
            row("dpo", "clean", [0.8, 0.9, 0.7], [0.8, 0.9, 0.7], [0.8, 0.9, 0.7]),
            row("dpo", "64 pairs", [0.3, 0.41, 0.2], [0.5, 0.6, 0.4], [0.3, 0.41, 0.2]),
        ]
    }
    words = judged_changes(table)
    assert words["dpo", "clean"].keys() == {"longer"}
    assert words["dpo", "clean"]["longer"].word == "not told apart"
    small = words["dpo", "64 pairs"]
    assert small["data"].difference.mean == pytest.approx((-0.5 - 0.49 - 0.5) / 3)
    assert small["longer"].difference.mean == pytest.approx((-0.2 - 0.19 - 0.2) / 3)
    assert {one.word for one in small.values()} == {"lower"}
    assert {one.family_size for one in small.values()} == {3}


def test_the_table_holds_every_arm_and_the_looks_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(arms, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1))
    monkeypatch.setattr(arms, "EVALUATION_PROMPTS", 4)
    monkeypatch.setattr(data_quality, "METHODS", ("dpo",))
    monkeypatch.setattr(
        data_quality, "DATA_SETS", {"clean": {}, "swapped 30 %": {"label_noise": 0.3}}
    )
    monkeypatch.setattr(data_quality, "UPDATES", 2)
    monkeypatch.setattr(data_quality, "LOOK_EVERY", 1)
    monkeypatch.setattr(data_quality, "EARLY_LOOK", 1)
    monkeypatch.setattr(data_quality, "HELD_OUT_PROMPTS", 4)
    table = data_quality.run_experiment(tmp_path, 2, "cpu", 1)
    assert [(r["method"], r["data"], r["pairs"]) for r in table["rows"]] == [
        ("dpo", "clean", 2000),
        ("dpo", "swapped 30 %", 2000),
    ]
    for one in table["rows"]:
        assert one["steps"] == [0, 1, 2]
        last = [point[-1] for point in one["gold/accuracy"].values()]
        assert last[0] == pytest.approx(sum(one["late"]) / 2, abs=1e-3)  # Four digits are kept.
        assert len(one["early"]) == len(one["final"]) == 2
    assert json.loads((tmp_path / "table.json").read_text()) == json.loads(json.dumps(table))
    assert "| DPO | swapped 30 % |" in (tmp_path / "report.md").read_text()
