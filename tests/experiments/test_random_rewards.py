"""Random rewards with an active clip: the arms differ only where they should."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab.config.methods import make_config
from lab.errors import LabError
from lab.experiments import logged_runs, random_rewards, random_rewards_smollm2
from lab.experiments.random_rewards import PLAN, arms, compare_arms

TINY = replace(
    PLAN,
    settings={"batch_size": 16, "group_size": 4, "learning_rate": 0.005},
    updates=4,
    bin=2,
    test_prompts=(4, 12),
)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs in this process, by the tiny plan."""
    monkeypatch.setattr(logged_runs, "ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))
    monkeypatch.setattr(random_rewards, "PLAN", TINY)


def test_the_arms_cross_two_rewards_with_three_ways_to_update():
    found = {name: make_config("grpo", settings) for name, settings in arms().items()}
    assert {(c.reward, c.updates_per_rollout, c.epsilon_high) for c in found.values()} == {
        (reward, updates, high)
        for reward in ("random", "answer")
        for updates, high in ((1, 0.2), (4, 0.2), (4, 10.0))
    }
    assert found["random.free"].epsilon == 1.0  # No ratio is below 0.


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The tiny experiment with 2 seeds: its table, its folder and its logged rows by key."""
    out = tmp_path_factory.mktemp("random")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logged_runs, "ProcessPoolExecutor", lambda *a, **k: ThreadPoolExecutor(1))
        patch.setattr(random_rewards, "PLAN", TINY)
        table = random_rewards.run_experiment(out, 2, "cpu", 1)
    rows = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    return table, out, {row["key"]: row for row in rows}


def test_tokens_are_clipped_only_where_a_rollout_is_reused_and_a_clip_is_on(measured):
    _, _, rows = measured
    for reward in ("random", "answer"):
        for seed in (3000, 3001):
            assert rows[f"{reward}.once-{seed}"]["clipped"] == 0
            # Without the clip a ratio above 11 is still cut: a rare token that became likely.
            clip, free = (
                rows[f"{reward}.{name}-{seed}"]["clipped_later"] for name in ("clip", "free")
            )
            assert free < clip / 2
    clipped = rows["random.clip-3000"]
    # Three of the four updates reuse the rollout; the first clips nothing.
    assert clipped["clipped"] == pytest.approx(clipped["clipped_later"] * 3 / 4)


def test_the_arms_of_four_updates_sample_a_quarter_of_the_rollouts(measured):
    _, _, rows = measured
    once, clip = rows["random.once-3000"]["sampled"], rows["random.clip-3000"]["sampled"]
    assert 2 < once / clip < 8
    assert rows["base-3000"]["sampled"] == 0 and rows["base-3000"]["kl"] == 0


def test_the_table_has_accuracy_of_the_test_prompts_and_a_second_call_makes_no_run(
    measured, monkeypatch
):
    table, out, rows = measured
    (row,) = [one for one in table["rows"] if one["arm"] == "answer.clip"]
    right = [rows[f"answer.clip-{seed}"]["right"] for seed in (3000, 3001)]
    assert [len(one) for one in right] == [8, 8]
    assert row["gold/accuracy"]["mean"] == pytest.approx("".join(right).count("1") / 16, abs=1e-4)
    assert row["updates"] == [2, 4] and len(row["curves"]["clipped"]["mean"]) == 2
    assert "random reward, 4 updates, clip 0.2 − random reward, 4 updates, no clip" in (
        (out / "report.md").read_text("utf-8")
    )
    monkeypatch.setattr(random_rewards, "measure_arm", lambda *a: pytest.fail("made again"))
    assert random_rewards.run_experiment(out, 2, "cpu", 1)["rows"] == table["rows"]


def test_the_family_holds_every_arm_against_the_base_and_the_clip_against_its_absence():
    digits = {"base": ["1000", "0100"], "random.clip": ["1110", "1101"]}
    runs = {
        name: [{"right": one} for one in digits.get(name, ["1100", "0110"])]
        for name in ("base", *arms())
    }
    found = compare_arms(TINY, runs)
    assert len(found) == 6 + 2 * 2
    by_pair = {(one["first"], one["second"]): one["mean"] for one in found}
    assert by_pair["random.clip", "base"] == pytest.approx(6 / 8 - 2 / 8)
    assert by_pair["random.clip", "random.free"] == pytest.approx(6 / 8 - 4 / 8)
    assert by_pair["answer.clip", "answer.once"] == 0


def test_the_plan_for_the_language_model_is_accepted_and_differs_in_its_settings_alone():
    for settings in arms().values():
        made = make_config("grpo", random_rewards_smollm2.PLAN.settings | settings)
        assert made.model == "smollm2-135m" and made.batch_size == 128
    assert random_rewards_smollm2.render_report is random_rewards.render_report


def test_one_seed_has_no_interval_and_is_refused(tmp_path):
    with pytest.raises(LabError, match="at least two seeds"):
        random_rewards.run_experiment(tmp_path, 1, "cpu", 1)
