"""The optimizers, against torch.optim on the same gradients, matrix by matrix."""

import io
import sys
from types import SimpleNamespace

import pytest
import torch

from lab.config.json_format import from_dict, to_dict
from lab.config.methods import METHODS, make_config
from lab.errors import LabError
from lab.runs.records import StepRecord
from lab.training import optimizers
from lab.training.checkpoints import make_checkpoint
from lab.training.loop import prepare, train

QUICK = {
    "steps": 3,
    "batch_size": 4,
    "pairs": 24,
    "eval_every": 0,
    "eval_prompts": 4,
    "max_completion_tokens": 8,
    "learning_rate": 1e-2,
    "device": "cpu",
}


def weights_of(run):
    return {
        name: weight.detach().clone()
        for group in run.trainable_parameters().values()
        for name, weight in group.items()
    }


def trained(config):
    run = prepare(config)
    for _ in train(run):
        pass
    return weights_of(run)


def trained_by_torch(config, optimizer_of):
    """The weights after the updates of `config`, made by torch's optimizer on every matrix alone."""
    run = prepare(config)
    method = METHODS["dpo"]
    weights = [w for group in run.trainable_parameters().values() for w in group.values()]
    optimizer = optimizer_of(weights)
    batches = method.batches(run)
    for step in range(1, config.steps + 1):
        optimizer.zero_grad()
        for piece in next(batches):
            method.loss(run, piece)[0].backward()
        torch.nn.utils.clip_grad_norm_(weights, config.max_grad_norm)
        optimizer.step()
        run.step = step
    return weights_of(run)


def agree(ours, theirs, **tolerance):
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], **tolerance)


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_is_that_of_torch(decay):
    config = make_config("dpo", QUICK | {"weight_decay": decay})
    theirs = trained_by_torch(
        config, lambda weights: torch.optim.AdamW(weights, lr=1e-2, weight_decay=decay)
    )
    agree(trained(config), theirs, rtol=1e-5, atol=1e-7)  # The norm adds up in another order.


def test_weight_decay_changes_the_update():
    without, with_decay = (
        trained(make_config("dpo", QUICK | {"weight_decay": decay})) for decay in (0.0, 0.3)
    )
    name = next(name for name in without if "lora_A" in name)
    # Three updates at 0.01 take away about 3 · 0.01 · 0.3 of a weight.
    assert with_decay[name].norm() < 0.995 * without[name].norm()


def test_the_default_update_is_bit_for_bit_that_of_adamw_without_decay(monkeypatch):
    def before(config, device, weights, flat_params):
        groups = [{"params": [vector.flat for vector in g]} for g in flat_params.values()]
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=0.0, fused=False)

    config = make_config("dpo", QUICK)
    ours = trained(config)
    monkeypatch.setattr("lab.training.loop.new_optimizer", before)
    theirs = trained(config)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_muon_is_that_of_torch():
    config = make_config("dpo", QUICK | {"optimizer": "muon", "weight_decay": 0.1})
    theirs = trained_by_torch(
        config, lambda weights: torch.optim.Muon(weights, lr=1e-2, weight_decay=0.1)
    )
    # Muon orthogonalises in bfloat16, so a rounding of the norm may move an entry by 2⁻⁸ of it.
    agree(trained(config), theirs, rtol=1e-2, atol=2e-4)


@pytest.mark.parametrize("method", ["dpo", "ppo", "reward_model"])
def test_a_run_with_muon_continues_from_its_checkpoint(method):
    knobs = QUICK | {"optimizer": "muon", "weight_decay": 0.1, "steps": 4}
    if method == "ppo":
        del knobs["pairs"]
        knobs["batch_size"] = 8
    config = make_config(method, knobs)
    straight = prepare(config)
    rows = [r.metrics for r in train(straight) if isinstance(r, StepRecord)]
    broken = prepare(config)
    for record in train(broken):
        if isinstance(record, StepRecord) and record.step == 2:
            break
    file = io.BytesIO()
    torch.save(make_checkpoint(broken), file)
    file.seek(0)
    resumed = prepare(config, torch.load(file, weights_only=True))
    rest = [r.metrics for r in train(resumed) if isinstance(r, StepRecord)]
    assert rest == rows[3:]
    agree(weights_of(straight), weights_of(resumed), rtol=0, atol=0)


def test_eight_bits_need_a_gpu():
    with pytest.raises(LabError, match="needs a CUDA device, but this run is on the cpu"):
        prepare(make_config("dpo", QUICK | {"optimizer": "adamw_8bit"}))


def test_eight_bits_need_bitsandbytes_and_get_the_vectors(monkeypatch):
    config = make_config("dpo", QUICK | {"optimizer": "adamw_8bit", "weight_decay": 0.2})
    gpu = torch.device("cuda")
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(LabError, match="pip install bitsandbytes"):
        optimizers.require_optimizer(config, gpu)
    monkeypatch.setattr(optimizers, "find_spec", lambda name: object())
    optimizers.require_optimizer(config, gpu)
    made = []
    stand_in = SimpleNamespace(optim=SimpleNamespace(AdamW8bit=lambda *a, **k: made.append((a, k))))
    monkeypatch.setitem(sys.modules, "bitsandbytes", stand_in)
    run = prepare(make_config("dpo", QUICK))
    optimizers.new_optimizer(config, gpu, run.trainable_parameters(), run.flat_params)
    ((groups,), options), *rest = made
    assert not rest and options == {"lr": 1e-2, "weight_decay": 0.2}
    assert groups[0]["params"][0] is run.flat_params["learning_rate"][0].flat


def test_muon_needs_a_torch_that_has_it_and_matrices(monkeypatch):
    config = make_config("dpo", QUICK | {"optimizer": "muon"})
    weights = {"learning_rate": {"scale": torch.nn.Parameter(torch.zeros(5))}}
    with pytest.raises(LabError, match=r"moves matrices only, but scale has the shape \(5,\)"):
        optimizers.new_optimizer(config, torch.device("cpu"), weights, {})
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(LabError, match="torch has from 2.9 on"):
        prepare(config)


def test_a_config_from_before_these_settings_has_adamw_without_decay():
    old = to_dict(make_config("grpo", {}))
    for name in ("optimizer", "weight_decay"):
        del old[name]
    config = from_dict(old | {"format": 3})
    assert (config.optimizer, config.weight_decay) == ("adamw", 0.0)
    with pytest.raises(LabError, match="adamw_8bit"):
        make_config("dpo", {"optimizer": "adamw8bit"})
