"""Runs whose completions another engine samples: GRPO corrects for its probabilities, and a server that
is lost costs no update.
"""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from support.vllm_stand_in import stand_in

from lab.cli.main import main
from lab.config.methods import make_config
from lab.engine.samplers.base import LabSampler
from lab.errors import LabError
from lab.models.sources import EMBEDDED
from lab.runs.folder import RunFolder, create
from lab.runs.records import StepRecord
from lab.training.driver import drive
from lab.training.loop import prepare, train
from lab.training.resume import load_checkpoint

SMALL = {
    "batch_size": 8,
    "max_completion_tokens": 8,
    "eval_every": 0,
    "eval_prompts": 2,
    "checkpoint_every": 1,
    "device": "cpu",
}
DIFFERENCE = "sampling/sampling_logp_difference/mean"
RATIO = "sampling/importance_sampling_ratio/mean"


def updates(run):
    return [record.metrics for record in train(run) if isinstance(record, StepRecord)][1:]


@pytest.mark.parametrize(
    "method, settings",
    [
        ("grpo", {"group_size": 4, "reward": "random", "updates_per_rollout": 2}),
        ("online_dpo", {"group_size": 2, "reward": "random"}),
        ("ppo", {"minibatches": 1}),
    ],
)
def test_methods_learn_from_continuous_batching(method, settings):
    config = make_config(
        method, SMALL | {"steps": 2, "sampler": "transformers", "learning_rate": 1e-3} | settings
    )
    rows = updates(prepare(config))
    assert all(math.isfinite(row["loss"]) for row in rows)
    assert rows[0]["grad_norm"] > 0
    if method == "grpo":
        for row in rows:  # The engine's probabilities are those at the first update of the rollout.
            assert row[DIFFERENCE] < 1e-4
            assert row[RATIO] == pytest.approx(1, abs=1e-3)  # Of the sum over eight tokens.
    else:
        assert not {DIFFERENCE, RATIO} & set(rows[0])


@dataclass
class Shifted:
    """The lab's own sampler, which says that it sampled with log-probabilities `shift` nats lower."""

    shift: float

    def sample(self, model, tokenizer, request):
        completions = LabSampler().sample(model, tokenizer, request)
        mask = completions.completion_mask
        with torch.no_grad():
            scores = torch.log_softmax(model(input_ids=completions.ids).logits, -1)
        logps = torch.zeros(mask.shape)
        next_ids = completions.ids[:, 1:, None]
        logps[:, 1:] = scores[:, :-1].gather(2, next_ids)[..., 0] - self.shift
        return replace(completions, logps=logps * mask)


def first_update(sampler, **settings):
    config = make_config(
        "grpo", SMALL | {"steps": 1, "group_size": 4, "reward": "random", "beta": 0.0} | settings
    )
    run = prepare(config)
    run.sampler = sampler
    return updates(run)[0]


def test_the_gradient_has_the_weights_of_the_engines_probabilities():
    own = first_update(None)
    weighted = first_update(Shifted(0.25), importance_sampling_mode="token_truncate")
    assert weighted[RATIO] == pytest.approx(math.exp(0.25), rel=1e-4)
    assert weighted[DIFFERENCE] == pytest.approx(0.25, rel=1e-3)  # Differences of rounded numbers.
    assert weighted["grad_norm"] == pytest.approx(math.exp(0.25) * own["grad_norm"], rel=1e-4)
    capped = first_update(
        Shifted(0.25), importance_sampling_mode="token_truncate", importance_sampling_clip_max=1.1
    )
    assert capped["grad_norm"] == pytest.approx(1.1 * own["grad_norm"], rel=1e-4)
    uncorrected = first_update(Shifted(0.25), importance_sampling_mode="none")
    assert uncorrected["grad_norm"] == pytest.approx(own["grad_norm"], rel=1e-6)
    assert RATIO not in uncorrected and not {RATIO, DIFFERENCE} & set(own)


def test_completions_that_the_engine_found_far_less_likely_are_left_out_as_in_trl():
    masked = first_update(Shifted(2.0))  # exp(2) is above the limit 3, which is TRL's default.
    assert masked["grad_norm"] == 0 and masked[RATIO] == 0


def served_run(folder, server):
    return create(
        folder,
        make_config(
            "grpo",
            SMALL
            | {
                "steps": 4,
                "batch_size": 4,
                "group_size": 2,
                "reward": "random",
                "updates_per_rollout": 2,
                "learning_rate": 1e-2,
                "sampler": server.address,
            },
        ),
    )


def rows_of(folder):
    return {row["step"]: row["metrics"] for row in folder.history() if row["type"] == "step"}


def test_a_server_that_is_lost_costs_no_update(tmp_path, capsys):
    with stand_in(EMBEDDED) as server:
        whole = served_run(tmp_path / "whole", server)
        drive(whole)
        assert RunFolder(whole.path).state == "finished"
    with stand_in(EMBEDDED) as server:
        parts = served_run(tmp_path / "parts", server)

        def lose(record, run):
            if isinstance(record, StepRecord) and record.step == 2:
                server.stop()

        with pytest.raises(LabError, match="cannot be reached .*--resume"):
            drive(parts, report=lose)
    lost = RunFolder(parts.path)
    assert lost.state == "failed" and "cannot be reached" in lost.status()["message"]
    assert load_checkpoint(lost)["step"] == 2
    with stand_in(EMBEDDED) as server:
        resume = ["train", "--resume", "--out", str(parts.path), "--sampler"]
        with pytest.raises(SystemExit):
            main([*resume, "transformers"])
        assert "a resumed run keeps its sampler" in capsys.readouterr().err
        main([*resume, server.address])
    assert RunFolder(parts.path).state == "finished"
    expected, found = rows_of(whole), rows_of(RunFolder(parts.path))
    assert found.keys() == expected.keys() == {0, 1, 2, 3, 4}
    for step in (1, 2, 3, 4):
        assert found[step] == pytest.approx(expected[step], rel=1e-4, abs=1e-6)
        assert found[step][RATIO] == pytest.approx(1, abs=1e-3)
    assert found[1]["loss"] != found[3]["loss"]


def test_a_run_on_a_server_that_is_not_there_is_refused_before_it_begins(tmp_path, capsys):
    with stand_in(EMBEDDED) as server:
        address = server.address
    out = tmp_path / "run"
    with pytest.raises(SystemExit):
        main(["train", "grpo", "--sampler", address, "--device", "cpu", "--out", str(out)])
    assert "cannot be reached" in capsys.readouterr().err
    assert not out.exists()
