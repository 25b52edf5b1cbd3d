"""The experiment on the number of labels, at a size that a test can afford."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab.errors import LabError
from lab.experiments import process_pool, taste
from lab.figures.taste import taste_figure
from lab.taste.pools import load_pool, truth_of


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(
        process_pool, "ProcessPoolExecutor", lambda jobs, mp_context: ThreadPoolExecutor(1)
    )
    settings = taste.PLAN.settings | {"steps": 2, "batch_size": 4, "eval_prompts": 4}
    plan = replace(taste.PLAN, counts=(4, 6), noises=(0.0,), tested=8, settings=settings)
    monkeypatch.setattr(taste, "PLAN", plan)
    monkeypatch.setattr(taste, "GOAL_LABELS", 6)


def test_both_ways_share_the_first_labels_and_the_least_sure_pairs_follow_the_margins(
    tmp_path, monkeypatch
):
    trained = []
    original = taste._trained

    def spy(labelled, tested, *rest):
        trained.append(([pair.id for pair in labelled], [pair.id for pair in tested]))
        return original(labelled, tested, *rest)

    monkeypatch.setattr(taste, "_trained", spy)
    ids = [*load_pool("chain")]
    monkeypatch.setattr(
        taste, "_margins", lambda run, pairs: {pair.id: 1.0 + ids.index(pair.id) for pair in pairs}
    )
    table = taste.run_experiment(tmp_path, 2, "cpu", 1)
    assert len(trained) == 2 * 3
    for seed in (0, 1):  # First the least sure pairs of both seeds, then the random ones.
        (shared, tested), (least_sure, _) = trained[2 * seed : 2 * seed + 2]
        at_random, same_tested = trained[4 + seed]
        assert len(shared) == 4 and at_random[:4] == least_sure[:4] == shared
        assert len(at_random) == len(least_sure) == 6 and same_tested == tested
        assert not {*at_random, *least_sure} & {*tested} and len(tested) == 8
        assert all(truth_of(load_pool("chain")[own]) is not None for own in tested)
        free = [own for own in ids if own not in {*shared, *tested}]
        assert least_sure[4:] == free[:2]  # the margins rise with the place in the pool
    assert [row["pick"] for row in table["rows"]] == ["random", "uncertain"]
    assert (
        len(table["comparisons"]) == 2 and "| random, 0% |" in (tmp_path / "report.md").read_text()
    )
    again = taste.run_experiment(tmp_path, 2, "cpu", 1)  # It resumes: nothing trains anew.
    assert len(trained) == 2 * 3 and again == table
    assert {"commit", "code", "device", "torch"} <= table.keys()
    figure = taste_figure(table, 0.0)
    assert [list(trace.x) for trace in figure.data if trace.mode == "lines+markers"] == [[4, 6]] * 4
    with pytest.raises(LabError, match="at least two seeds"):
        taste.run_experiment(tmp_path / "one", 1, "cpu", 1)


def test_labels_needed_is_the_count_from_which_on_every_mean_reaches_the_goal(monkeypatch):
    monkeypatch.setattr(taste, "PLAN", replace(taste.PLAN, counts=(25, 50, 100)))
    assert taste.labels_needed([0.9, 0.7, 0.85]) == 100
    assert taste.labels_needed([0.8, 0.8, 0.9]) == 25
    assert taste.labels_needed([0.9, 0.9, 0.79]) is None


def test_the_ends_of_the_intervals_say_between_which_numbers_of_labels_the_goal_lies(monkeypatch):
    monkeypatch.setattr(taste, "PLAN", replace(taste.PLAN, counts=(25, 50, 100)))
    needed = taste.needed_range([0.6, 0.76, 0.84], [0.1, 0.05, 0.05])
    assert needed == {"mean": 100, "least": 50, "most": None}
    assert taste.needed_range([0.6, 0.9, 0.9], [0.0, 0.01, 0.01]) == {
        "mean": 50,
        "least": 50,
        "most": 50,
    }
