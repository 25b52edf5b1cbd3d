"""The experiments with knobs and with reward models on the pages Choose and Measurements: their own
code makes the tables, of runs that are made up here.
"""

import json
import shutil

import pytest
from support.elements import opened, sent, texts, unfolded

from lab.analysis import recorded_results
from lab.config.methods import make_config
from lab.dashboard.pages.choose import reward_model_experiments
from lab.experiments import overoptimisation, sensitivity
from lab.experiments.registry import EXPERIMENTS
from lab.runs.folder import create
from lab.runs.records import StepRecord
from lab.storage.jsonl import append_rows

MOVED = {
    "ppo-learning_rate-low": -0.3,
    "ppo-learning_rate-high": 0.1,
    "dpo-beta-high": -0.2,
    "grpo-beta-low": 0.05,
    "ipo-beta-high": -0.01,
}


def moved(out, arms, seeds, *rest):
    """Every arm ends at 0.7 but for those in `MOVED`; the seeds lie 0.02 apart."""
    return {
        arm.name: [
            {"gold/accuracy": 0.69 + 0.02 * seed + MOVED.get(arm.name, 0.0)}
            for seed in range(seeds)
        ]
        for arm in arms
    }


def optimised(out, arms, seeds, *rest):
    """Every score rises from −1 to 3; only under PPO on 100 pairs gold accuracy turns, at update 30
    of 60.
    """
    for arm in arms:
        turning = arm.name == "ppo-pairs100"
        for seed in range(seeds):
            gold = [min(i, 60 - i if turning else i) / 60 for i in range(1, 61)]
            rows = [
                StepRecord(
                    i,
                    {"reward": i / 15 - 1, "gold/rollout_accuracy": gold[i - 1], "kl": i / 10},
                    0.1,
                    i,
                ).row()
                for i in range(1, 61)
            ]
            append_rows(
                create(out / f"{arm.name}-{seed}", make_config(arm.method)).path / "metrics.jsonl",
                rows,
            )
    return {arm.name: [{"gold/accuracy": 0.5, "kl": 6.0}] * seeds for arm in arms}


def ensembled(out, seeds, *rest):
    """PPO with an ensemble ends at 0.9 and 0.88, where one reward model ends at 0.5."""
    rollout = {"reward": 0.0, "gold/rollout_accuracy": 0.5, "kl": 1.0}
    return {
        ("ppo", "mean"): [
            {"gold/accuracy": 0.9 - 0.02 * seed, "kl": 1.0, "rollouts": [rollout] * 60}
            for seed in range(seeds)
        ]
    }


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The folder of recorded results, with both experiments in it."""
    out = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sensitivity, "run_arms", moved)
        patch.setattr(overoptimisation, "run_arms", optimised)
        patch.setattr(overoptimisation, "ensemble_runs", ensembled)
        patch.setattr(
            recorded_results,
            "RESULTS_FOLDER",
            shutil.copytree(recorded_results.RESULTS_FOLDER, out / "compare"),
        )
        for name in ("sensitivity", "overoptimisation"):
            EXPERIMENTS[name].code().run_experiment(out / name, 2, "cpu", 1)
            shutil.copy(out / name / "table.json", out / "compare" / f"{name}.json")
        yield {
            path.stem: json.loads(path.read_text("utf-8"))
            for path in (out / "compare").glob("*.json")
        }


@pytest.fixture(scope="module")
def settings(tables):
    return opened("evidence", show="Settings")


@pytest.fixture(scope="module")
def reward_models(tables):
    return opened("evidence", show="Reward models")


def test_every_knob_has_its_row_in_figure_table_and_words(settings, tables):
    data = sent(settings, "sensitivity")
    rows = tables["sensitivity"]["rows"]
    assert len(rows) == sum(len(knobs) for knobs in sensitivity.MOVED_KNOBS.values())
    assert data["figure"]["layout"]["yaxis"]["ticktext"][:2] == [
        "PPO, learning rate",
        "PPO, critic learning rate",
    ]
    low = next(
        t for t in data["figure"]["data"] if t.get("name") == "÷ 4" and t["x"][0] is not None
    )
    assert low["x"][0] == pytest.approx(0.4) and len(low["x"]) == len(rows)
    said = "The mean of PPO changes most (0.40) and that of KTO least (0.00);"
    assert said in texts(settings) and said in data["alt"]
    assert "PPO, learning rate: from 0.40 to 0.80;" in data["alt"]
    frame = next(e.value for e in unfolded(settings).dataframe if "spread" in e.value)
    assert frame.iloc[0].to_dict() == {
        "setting": "PPO, learning rate",
        "÷ 4": "0.40 ± 0.13",
        "default": "0.70 ± 0.13",
        "× 4": "0.80 ± 0.13",
        "spread": 0.4,
    }
    assert "python -m lab experiment sensitivity --seeds 2" in texts(settings)


def test_every_reward_model_has_its_column_in_figure_table_and_words(reward_models, tables):
    data = sent(reward_models, "overoptimisation")
    rows = tables["overoptimisation"]["rows"][:-1]  # The last one is the ensemble.
    assert len(rows) == len(overoptimisation.ONLINE_METHODS) * len(
        overoptimisation.REWARD_MODELS
    ) and len(data["figure"]["data"]) == 2 * len(rows)
    assert [note["text"] for note in data["figure"]["layout"]["annotations"]] == [
        f"<b>{model}</b>" for model in overoptimisation.REWARD_MODELS
    ]
    said = (
        "The largest fall is that of PPO with the reward model trained on 100 pairs: gold accuracy"
        " goes from 0.47 near update 28 to 0.03, and the score goes from −0.8 to 2.9."
    )
    assert said in texts(reward_models) and said in data["alt"]
    assert "In 1 of 12 combinations of method and reward model" in data["alt"]
    frame = next(
        e.value for e in unfolded(reward_models).dataframe if "best gold accuracy" in e.value
    )
    assert len(frame) == len(rows) and frame["best gold accuracy"].max() == pytest.approx(
        0.97, abs=0.005
    )
    assert "python -m lab experiment overoptimisation --seeds 2" in texts(reward_models)


def test_an_ensemble_stands_beside_one_reward_model_of_the_same_data(reward_models):
    data = sent(reward_models, "ensembles")
    assert [note["text"] for note in data["figure"]["layout"]["annotations"]] == [
        "<b>2,000 pairs</b>",
        "<b>4 × 2,000 pairs, mean</b>",
    ]
    # The differences are 0.40 and 0.38: mean 0.39, standard error 0.01, t = 12.71 with one degree.
    said = "PPO with mean +0.39 ± 0.13, better (2 seeds, seed by seed)."
    assert said in texts(reward_models) and said in data["alt"]
    assert "below its best in 0 of 1 cases with an ensemble" in texts(reward_models)


def test_ppo_is_judged_beside_every_other_method(settings):
    assert (
        "PPO's fall from the central setting to its worst one is larger than that of GRPO and"
        in (texts(settings))
    )


def test_on_a_telephone_no_panel_of_the_reward_models_touches_another(reward_models):
    data = sent(reward_models, "overoptimisation")
    layout, narrow = data["figure"]["layout"], data["narrow"]
    axes = [name for name in layout if name.startswith("yaxis")]
    spans = sorted(narrow[name]["domain"] for name in axes)
    assert (
        len(axes) == 8
        and all(before[1] < after[0] for before, after in zip(spans, spans[1:]))
        and 0 < spans[0][0]
        and spans[-1][1] < 1
    )
    assert [note["text"] for note in narrow["annotations"]] == [
        note["text"] for note in layout["annotations"]
    ]


def test_the_article_s_table_names_the_most_telling_knob(tables):
    assert (
        "0.40 with its learning rate ÷ 4 or × 4"
        in opened("choose", tab="The article's table").table[1].value.to_string()
    )


def test_without_a_fall_none_is_told():
    row = {
        "method": "ppo",
        "reward_model": "100 pairs",
        "best_gold": 0.5,
        "curve": {"gold": [0.2, 0.5]},
        "proxy_first": 0.0,
        "proxy_last": 1.0,
    }
    assert reward_model_experiments.reward_models_sentence([row]).startswith(
        "In 0 of 1 combinations"
    ) and "largest fall" not in reward_model_experiments.reward_models_sentence([row])
