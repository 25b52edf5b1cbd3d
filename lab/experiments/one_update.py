"""One update of RLHF and one of DPO, number by number: what every model of the algorithm said, and
what it takes in memory.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lab.algorithms.advantages import gae, kl_shaped_rewards
from lab.algorithms.logprobs import sequence_logps
from lab.algorithms.losses import dpo
from lab.config.methods import METHODS, make_config
from lab.config.run_config import config_as
from lab.data.batching import Tokens
from lab.engine.token_logprobs import token_statistics
from lab.experiments.arms import Log, device_name, keep_plan, reward_model_run
from lab.experiments.process_pool import map_cached, rounded, write_table
from lab.models.loading import adapter_disabled, fitting_threads
from lab.profiling.profiler import cycle
from lab.training.loop import prepare, update
from lab.training.methods.ppo import PPOConfig, minibatch
from lab.training.state import TrainState

# Updates before the one that is written down, so that critic and policy have learnt something but
# not all.
BEFORE = 10

REWARD_MODEL_SETTINGS: dict[str, Any] = {}
KNOBS: dict[str, dict[str, Any]] = {"ppo": {}, "dpo": {}}
"""What differs from the defaults of the reward model and of the methods."""


def size(weights: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind `weights`, each counted once."""
    return sum({w.untyped_storage()._cdata: w.untyped_storage().nbytes() for w in weights}.values())


def memory_of(run: TrainState) -> dict[str, dict[str, int]]:
    """Bytes that each model of the algorithm has for itself: weights, and gradients with optimizer
    state where it trains.

    What it shares with the policy counts as the policy's: the reference is the policy with its
    adapter off, and in PPO's shared layout critic and reward model are adapters on the policy's
    base.
    """
    networks: dict[str, list[torch.Tensor]] = {
        "policy": [
            w
            for name, w in run.model.named_parameters()
            if ".critic." not in name and ".reward." not in name
        ],
        "reference": list(run.frozen_reference.parameters()) if run.frozen_reference else [],
    }
    for name, scalar in (("reward model", run.reward_model), ("critic", run.critic)):
        if scalar:
            own = (
                [w for _, w in scalar.named_parameters()]
                if scalar.model is run.model
                else [*scalar.model.parameters(), scalar.head]
            )
            networks[name] = own
    vectors = [vector for group in run.vectors.values() for vector in group]
    return {
        name: {
            "weights": size(weights),
            "training": sum(
                size([v.whole.grad, *run.optimizer.state[v.whole].values()])
                for v in vectors
                if any(w is v.parts[0] for w in weights)
            ),
        }
        for name, weights in networks.items()
    }


def advanced(method: str, knobs: dict[str, Any], updates: int) -> tuple[TrainState, Any]:
    """A run after that many updates, and its batches."""
    run = prepare(make_config(method, {"eval_every": 0, "eval_prompts": 2} | knobs))
    batches = METHODS[method].batches(run)
    for _ in range(updates):
        update(run, METHODS[method], next(batches))
    return run, batches


@torch.no_grad()
def under_policy(run: TrainState, tokens: Tokens) -> torch.Tensor:
    """Token log-probabilities (B, T) of the present policy, or of the reference within `reference`."""
    return token_statistics(run.model, tokens).logps


def tokens_of(run: TrainState, ids: torch.Tensor) -> list[str]:
    """The text of every token."""
    return [run.tokenizer.decode([i]) for i in ids.tolist()]


def ppo_update(judge: str, seed: int, device: str) -> dict[str, Any]:
    """A rollout of PPO and the updates on it, followed for its first completion that thinks."""
    knobs = KNOBS["ppo"] | {"seed": seed, "device": device, "reward_from": judge}
    run, batches = advanced("ppo", knobs, BEFORE)
    with fitting_threads(run.model):
        pieces = next(batches)
        config, rollout = config_as(run.config, PPOConfig), run.rollout
        row = next((i for i, text in enumerate(rollout.texts) if "think" in text), 0)
        mask, ids = rollout.completion_mask[row], rollout.ids[row : row + 1]
        tokens = Tokens(ids, mask[None])
        with adapter_disabled(run.model):
            frozen = under_policy(run, tokens)
        before, scores = under_policy(run, tokens), rollout.rewards[row : row + 1]
        shaped = kl_shaped_rewards(scores, before, frozen, mask[None], beta=config.beta)
        raw, _ = gae(
            shaped,
            rollout.values[row : row + 1],
            mask[None],
            gamma=config.gamma,
            lam=config.gae_lambda,
        )
        lists = {
            "logps": before[0],
            "reference": frozen[0],
            "rewards": shaped[0],
            "values": rollout.values[row],
            "raw_advantages": raw[0],
            "advantages": rollout.advantages[row],
        }
        kept = {name: values[mask].tolist() for name, values in lists.items()}
        first = update(run, METHODS["ppo"], pieces)
        last = first
        for _ in range(cycle(config) - 1):
            last = update(run, METHODS["ppo"], next(batches))
        kept["after"] = under_policy(run, tokens)[0][mask].tolist()
        with torch.no_grad():
            kept["values_after"] = run.critic.values(tokens)[0][mask].tolist()
    separate, _ = advanced("ppo", knobs | {"model_layout": "separate", "batch_size": 8}, 1)
    return {
        "name": "ppo",
        "updates_before": BEFORE,
        "beta": config.beta,
        "gamma": config.gamma,
        "lam": config.gae_lambda,
        "epsilon": config.epsilon,
        "learning_rate": config.learning_rate,
        "prompt": rollout.prompts[row],
        "completion": rollout.texts[row],
        "gold": rollout.gold[row].item(),
        "score": scores.item(),
        "tokens": tokens_of(run, ids[0][mask]),
        **kept,
        "minibatch": (
            1
            + next(
                k
                for k in range(config.minibatches)
                if row in minibatch(rollout, seed, BEFORE + 1, 0, k, config.minibatches)
            )
        ),
        "minibatches": config.minibatches,
        "completions": len(rollout.texts),
        "rollout_tokens": int(rollout.completion_mask.sum()),
        "metrics": {"first": first, "last": last},
        "memory": {"shared": memory_of(run), "separate": memory_of(separate)},
    }


def pulled(logps: list[float], frozen: list[float], beta: float) -> tuple[float, float, float]:
    """Of a pair with summed log-probabilities (chosen, rejected) under policy and reference: the
    margin h, the DPO loss, and the weight of its gradient, which is how hard one update pulls log π
    of the chosen up and that of the rejected down.
    """
    policy = torch.tensor(logps, requires_grad=True)
    (chosen, rejected), reference_logps = policy.split(1), torch.tensor(frozen).split(1)
    losses, metrics = dpo(chosen, rejected, *reference_logps, beta=beta)
    losses.sum().backward()
    return metrics["rewards/margins"].item() / beta, losses.item(), -policy.grad[0].item()


def dpo_update(seed: int, device: str) -> dict[str, Any]:
    """An update of DPO, followed for the first pair of its batch."""
    run, batches = advanced("dpo", KNOBS["dpo"] | {"seed": seed, "device": device}, BEFORE)
    with fitting_threads(run.model):
        (piece,) = next(batches)
        ids, mask, count = piece.tokens.ids, piece.tokens.completion_mask, piece.total

        def sums() -> list[float]:
            return sequence_logps(under_policy(run, piece.tokens), mask)[[0, count]].tolist()

        before, frozen = (
            sums(),
            [piece.reference_chosen[0].item(), piece.reference_rejected[0].item()],
        )
        margin, cost, weight = pulled(before, frozen, run.config.beta)
        metrics = update(run, METHODS["dpo"], [piece])
        after = sums()
    prompt, chosen = (
        "".join(tokens_of(run, part))
        for part in (ids[0][: int(mask[0].nonzero()[0])], ids[0][mask[0]])
    )
    rejected = "".join(tokens_of(run, ids[count][mask[count]]))
    return {
        "name": "dpo",
        "updates_before": BEFORE,
        "beta": run.config.beta,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "logps": before,
        "reference": frozen,
        "margin": margin,
        "loss": cost,
        "weight": weight,
        "after": after,
        "loss_after": pulled(after, frozen, run.config.beta)[1],
        "pairs": count,
        "metrics": metrics,
        "memory": {"shared": memory_of(run)},
    }


def one_update(
    out: Path, seeds: int, device: str, jobs: int, say: Log = lambda text: None
) -> dict[str, Any]:
    """Write down an update of each method for the first seed in `out`/table.json and report.md; an
    interrupted call goes on where it stopped.
    """
    keep_plan(out, {"experiment": "one_update", "device": device})
    judges = {
        seed: str(reward_model_run(out, REWARD_MODEL_SETTINGS, seed, device))
        for seed in range(seeds)
    }
    found = map_cached(
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
            rounded({"seed": int(name.rpartition("-")[2])} | row, 5) for name, row in found.items()
        ],
    }
    write_table(out, table, report(table))
    return table


def report(table: dict[str, Any]) -> str:
    """What the models said, as Markdown."""
    lines = [
        "# One update",
        "",
        f"`{table['command']}` on {table['device']}, after {BEFORE} updates.",
        "",
    ]
    for row in table["rows"]:
        if row["name"] == "ppo":
            said = (
                f"score {row['score']:.2f}; values {row['values'][0]:.2f} →"
                f" {row['values'][-1]:.2f}; log π {sum(row['logps']):.2f} → {sum(row['after']):.2f}"
                f" nats over {len(row['tokens'])} tokens"
            )
        else:
            said = "; ".join(f"log π {a:.2f} → {b:.2f}" for a, b in zip(row["logps"], row["after"]))
        memory = ", ".join(
            f"{name} {part['weights'] + part['training']:,}"
            for name, part in row["memory"]["shared"].items()
        )
        lines.append(f"- {row['name']}, seed {row['seed']}: {said}. Bytes: {memory}.")
    return "\n".join(lines) + "\n"
