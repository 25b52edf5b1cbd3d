"""One update of RLHF and one of DPO, number by number: the outputs of every model of the algorithm,
and its memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lab.algorithms.advantages import gae, kl_shaped_rewards
from lab.algorithms.logprobs import sequence_logps
from lab.algorithms.losses import dpo_loss
from lab.config.methods import METHODS, make_config
from lab.data.batching import TokenBatch
from lab.engine.token_logprobs import token_statistics
from lab.experiments.arms import device_name, record_plan, reward_model_run
from lab.experiments.process_pool import map_cached, round_significant, write_table
from lab.experiments.protocol import Log
from lab.models.adapters import adapter_disabled
from lab.models.loading import fitting_threads
from lab.profiling.profiler import updates_per_rollout
from lab.training.loop import prepare, train_step
from lab.training.method_state import PPOState
from lab.training.methods.dpo import DPOConfig
from lab.training.methods.ppo import PPOConfig, minibatch
from lab.training.rollout import PPORollout
from lab.training.state import TrainState

UPDATES_BEFORE = 10
"""Updates before the recorded one: critic and policy have then learnt something, but not all."""

REWARD_MODEL_SETTINGS: dict[str, Any] = {}
METHOD_SETTINGS: dict[str, dict[str, Any]] = {"ppo": {}, "dpo": {}}
"""Knobs of the reward model and of the methods that differ from their defaults."""


def storage_bytes(weights: Iterable[torch.Tensor]) -> int:
    """Returns the bytes of the storages behind `weights`; a shared storage counts once."""
    storages = [weight.untyped_storage() for weight in weights]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def memory_of(run: TrainState) -> dict[str, dict[str, int]]:
    """Returns the bytes that each model of the algorithm holds alone: its weights, and for a
    trained model gradients and optimizer state.

    Weights that a model shares with the policy count as the policy's. So a reference that is the
    policy without its adapter has none, and in PPO's shared layout critic and reward model are
    adapters on the policy's base.
    """
    state = run.method_state
    frozen_reference = state.frozen_reference if isinstance(state, PPOState) else None
    networks: dict[str, list[torch.Tensor]] = {
        "policy": [
            w
            for name, w in run.model.named_parameters()
            if ".critic." not in name and ".reward." not in name
        ],
        "reference": list(frozen_reference.parameters()) if frozen_reference else [],
    }
    for name, scalar in state.heads().items():
        networks[name] = (
            [w for _, w in scalar.named_parameters()]
            if scalar.model is run.model
            else [*scalar.model.parameters(), scalar.head]
        )
    vectors = [vector for group in run.flat_params.values() for vector in group]
    return {
        name: {
            "weights": storage_bytes(weights),
            "training": sum(
                storage_bytes(_training_tensors(run, vector.flat))
                for vector in vectors
                if any(weight is vector.views[0] for weight in weights)
            ),
        }
        for name, weights in networks.items()
    }


def _training_tensors(run: TrainState, parameter: torch.Tensor) -> list[torch.Tensor]:
    """Returns the gradient of a parameter and its optimizer state."""
    gradient = [] if parameter.grad is None else [parameter.grad]
    return [*gradient, *run.optimizer.state[parameter].values()]


def run_after(method: str, knobs: dict[str, Any], updates: int) -> tuple[TrainState, Any]:
    """Trains a run for `updates` updates. Returns it with the iterator of its further batches."""
    run = prepare(make_config(method, {"eval_every": 0, "eval_prompts": 2} | knobs))
    batches = METHODS[method].batches(run)
    for _ in range(updates):
        train_step(run, METHODS[method], next(batches))
    return run, batches


@torch.no_grad()
def policy_token_logps(run: TrainState, tokens: TokenBatch) -> torch.Tensor:
    """Returns the log-probabilities (B, T) of the tokens under the present policy."""
    return token_statistics(run.model, tokens).logps


def token_texts(run: TrainState, ids: torch.Tensor) -> list[str]:
    """Returns the text of every token."""
    return [str(run.tokenizer.decode([i])) for i in ids.tolist()]


def ppo_update(judge: str, seed: int, device: str) -> dict[str, Any]:
    """Makes a rollout of PPO and all updates on it. Returns the numbers of its first completion
    that thinks; `judge` is the folder of the reward model.
    """
    knobs = METHOD_SETTINGS["ppo"] | {"seed": seed, "device": device, "reward_from": judge}
    run, batches = run_after("ppo", knobs, UPDATES_BEFORE)
    config = run.config
    assert isinstance(config, PPOConfig)
    with fitting_threads(run.model):
        micro_batches = next(batches)
        rollout = run.rollout
        assert isinstance(rollout, PPORollout)
        row = next((i for i, text in enumerate(rollout.texts) if "think" in text), 0)
        mask, ids = rollout.completion_mask[row], rollout.ids[row : row + 1]
        tokens = TokenBatch(ids, mask[None])
        numbers = _rollout_numbers(run, config, row, tokens)
        first = last = train_step(run, METHODS["ppo"], micro_batches)
        for _ in range(updates_per_rollout(config) - 1):
            last = train_step(run, METHODS["ppo"], next(batches))
        numbers["after"] = policy_token_logps(run, tokens)[0][mask].tolist()
        with torch.no_grad():
            numbers["values_after"] = PPOState.of(run).critic.values(tokens)[0][mask].tolist()
    separate, _ = run_after("ppo", knobs | {"model_layout": "separate", "batch_size": 8}, 1)
    minibatches = [
        minibatch(rollout, seed, UPDATES_BEFORE + 1, 0, k, config.minibatches)
        for k in range(config.minibatches)
    ]
    settings, gold = ("beta", "gamma", "epsilon", "learning_rate"), rollout.gold
    assert gold is not None  # A reward model scores.
    return {
        "name": "ppo",
        "updates_before": UPDATES_BEFORE,
        **{name: getattr(config, name) for name in settings},
        "lam": config.gae_lambda,
        "prompt": rollout.prompts[row],
        "completion": rollout.texts[row],
        "gold": gold[row].item(),
        "score": rollout.rewards[row].item(),
        "tokens": token_texts(run, ids[0][mask]),
        **numbers,
        "minibatch": 1 + next(k for k, rows in enumerate(minibatches) if row in rows),
        "minibatches": config.minibatches,
        "completions": len(rollout.texts),
        "rollout_tokens": int(rollout.completion_mask.sum()),
        "metrics": {"first": first, "last": last},
        "memory": {"shared": memory_of(run), "separate": memory_of(separate)},
    }


def _rollout_numbers(
    run: TrainState, config: PPOConfig, row: int, tokens: TokenBatch
) -> dict[str, list[float]]:
    """Returns the numbers of every token of a rollout's completion `row` before the updates."""
    rollout = run.rollout
    assert isinstance(rollout, PPORollout)
    mask = tokens.completion_mask
    with adapter_disabled(run.model):
        reference = policy_token_logps(run, tokens)
    policy, values = policy_token_logps(run, tokens), rollout.values[row : row + 1]
    score = rollout.rewards[row : row + 1]
    rewards = kl_shaped_rewards(score, policy, reference, mask, beta=config.beta)
    raw_advantages, _ = gae(rewards, values, mask, gamma=config.gamma, lam=config.gae_lambda)
    by_token = {
        "logps": policy[0],
        "reference": reference[0],
        "rewards": rewards[0],
        "values": values[0],
        "raw_advantages": raw_advantages[0],
        "advantages": rollout.advantages[row],
    }
    return {name: numbers[mask[0]].tolist() for name, numbers in by_token.items()}


def pair_gradient(
    logps: list[float], reference: list[float], beta: float
) -> tuple[float, float, float]:
    """Returns for one pair the margin h, the DPO loss and the weight of its gradient.

    `logps` and `reference` are the summed log-probabilities (chosen, rejected) under policy and
    reference. The weight is the size of the gradient with respect to log π of the chosen, which
    rises, and of the rejected completion, which falls.
    """
    policy = torch.tensor(logps, requires_grad=True)
    (chosen, rejected), reference_logps = policy.split(1), torch.tensor(reference).split(1)
    losses, metrics = dpo_loss(chosen, rejected, *reference_logps, beta=beta)
    losses.sum().backward()
    assert policy.grad is not None
    return metrics["rewards/margins"].item() / beta, losses.item(), -policy.grad[0].item()


def dpo_update(seed: int, device: str) -> dict[str, Any]:
    """Makes an update of DPO and returns the numbers of the first pair of its batch."""
    run, batches = run_after(
        "dpo", METHOD_SETTINGS["dpo"] | {"seed": seed, "device": device}, UPDATES_BEFORE
    )
    assert isinstance(run.config, DPOConfig)
    beta = run.config.beta
    with fitting_threads(run.model):
        (piece,) = next(batches)
        ids, mask, count = piece.tokens.ids, piece.tokens.completion_mask, piece.total

        def sums() -> list[float]:
            return sequence_logps(policy_token_logps(run, piece.tokens), mask)[[0, count]].tolist()

        before = sums()
        frozen = [piece.reference_chosen[0].item(), piece.reference_rejected[0].item()]
        margin, loss, weight = pair_gradient(before, frozen, beta)
        metrics = train_step(run, METHODS["dpo"], [piece])
        after = sums()
    prompt, chosen = (
        "".join(token_texts(run, token_ids))
        for token_ids in (ids[0][: int(mask[0].nonzero()[0])], ids[0][mask[0]])
    )
    rejected = "".join(token_texts(run, ids[count][mask[count]]))
    return {
        "name": "dpo",
        "updates_before": UPDATES_BEFORE,
        "beta": beta,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "logps": before,
        "reference": frozen,
        "margin": margin,
        "loss": loss,
        "weight": weight,
        "after": after,
        "loss_after": pair_gradient(after, frozen, beta)[1],
        "pairs": count,
        "metrics": metrics,
        "memory": {"shared": memory_of(run)},
    }


def run_experiment(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Records one update of PPO and one of DPO for every seed (`ExperimentCode`)."""
    record_plan(out, {"experiment": "one_update", "device": device})
    judges = {
        seed: str(reward_model_run(out, REWARD_MODEL_SETTINGS, seed, device))
        for seed in range(seeds)
    }
    updates = map_cached(
        out,
        ppo_update,
        {f"ppo-{seed}": (judge, seed, device) for seed, judge in judges.items()},
        jobs,
        say,
    ) | map_cached(out, dpo_update, {f"dpo-{seed}": (seed, device) for seed in judges}, jobs, say)
    table = {
        "command": f"python -m lab experiment one_update --seeds {seeds}",
        "device": device_name(device),
        "torch": torch.__version__.partition("+")[0],
        "seeds": seeds,
        "rows": [
            round_significant({"seed": int(name.rpartition("-")[2])} | row, 5)
            for name, row in updates.items()
        ],
    }
    write_table(out, table, render_report(table))
    return table


def render_report(table: dict[str, Any]) -> str:
    """Returns the main numbers of every update as Markdown."""
    lines = [
        "# One update",
        "",
        f"`{table['command']}` on {table['device']}, after {UPDATES_BEFORE} updates.",
        "",
    ]
    for row in table["rows"]:
        if row["name"] == "ppo":
            numbers = (
                f"score {row['score']:.2f}; values {row['values'][0]:.2f} →"
                f" {row['values'][-1]:.2f}; log π {sum(row['logps']):.2f} → {sum(row['after']):.2f}"
                f" nats over {len(row['tokens'])} tokens"
            )
        else:
            numbers = "; ".join(
                f"log π {a:.2f} → {b:.2f}" for a, b in zip(row["logps"], row["after"])
            )
        memory = ", ".join(
            f"{name} {model['weights'] + model['training']:,}"
            for name, model in row["memory"]["shared"].items()
        )
        lines.append(f"- {row['name']}, seed {row['seed']}: {numbers}. Bytes: {memory}.")
    return "\n".join(lines) + "\n"
