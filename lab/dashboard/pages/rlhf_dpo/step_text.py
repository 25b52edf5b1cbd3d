"""What happens at each step of an update, in words with the recorded numbers."""

from typing import Any

from lab.figures.groups import signed_number


def unsigned_number(value: float) -> str:
    """A number with two decimals and a typographic minus, without a plus."""
    return f"{value:.2f}".replace("-", "−")


def ppo_step_text(step: str, row: dict[str, Any]) -> str:
    """What happens in RLHF at a step, with the recorded numbers. `row`: the recorded update."""
    best = max(range(len(row["tokens"])), key=lambda i: row["advantages"][i])
    others = [a for i, a in enumerate(row["advantages"]) if i != best]
    token, last = row["tokens"][best], row["metrics"]["last"]
    return {
        "generate": (
            f"The policy writes {len(row['tokens'])} tokens after `{row['prompt']}`:"
            f" `{row['completion']}`. The whole rollout has {row['completions']} completions,"
            f" {row['rollout_tokens']:,} tokens."
        ),
        "score": (
            f"The reward model gives the completion {unsigned_number(row['score'])}. Under the reference it"
            f" has log π_ref = {unsigned_number(sum(row['reference']))} nats, under the policy"
            f" {unsigned_number(sum(row['logps']))}: at β = {row['beta']:g} the difference takes"
            f" {unsigned_number(row['score'] - sum(row['rewards']))} away from the score."
        ),
        "value": (
            f"Before the first token the critic expects {unsigned_number(row['values'][0])}; after"
            f" `{row['tokens'][0]}` it expects {unsigned_number(row['values'][1])}, and before the last token"
            f" {unsigned_number(row['values'][-1])}."
        ),
        "advantage": (
            f"What came minus what was expected, token by token (GAE, λ = {row['lam']:g}):"
            f" `{token}` was worth {signed_number(row['advantages'][best])}, every other token between"
            f" {signed_number(min(others))} and {signed_number(max(others))}. The update makes tokens above zero"
            " more likely."
        ),
        "update": (
            f"{row['minibatches']} updates later log π of `{token}` is {unsigned_number(row['after'][best])}"
            f" instead of {unsigned_number(row['logps'][best])}, and the critic expects"
            f" {unsigned_number(row['values_after'][0])} at the start instead of {unsigned_number(row['values'][0])}."
            f" The ratio stays at {last['ratio']:.3f} on average;"
            f" {last['clip_ratio/region_mean']:.1%} of the tokens are clipped.".replace("%", " %")
        ),
    }[step]


def dpo_step_text(step: str, row: dict[str, Any]) -> str:
    """What happens in DPO at a step, with the recorded numbers. `row`: the recorded update."""
    (chosen, rejected), (ref_chosen, ref_rejected), (chosen_after, rejected_after) = (
        row["logps"],
        row["reference"],
        row["after"],
    )
    return {
        "generate": (
            "Nothing is generated: a pair is read that the base model wrote before training,"
            f" `{row['chosen'].removesuffix('<eos>')}` before"
            f" `{row['rejected'].removesuffix('<eos>')}`, one of {row['pairs']} in the batch."
        ),
        "score": (
            f"Policy and reference read both. Chosen: log π = {unsigned_number(chosen)}, log π_ref ="
            f" {unsigned_number(ref_chosen)}. Rejected: {unsigned_number(rejected)} and"
            f" {unsigned_number(ref_rejected)} nats. The log-ratios are the reward: nobody else is asked."
        ),
        "value": "Nothing: there is no critic. The pair is its own baseline.",
        "advantage": (
            f"The margin h is {unsigned_number(row['margin'])} nats, so the loss −log σ(β·h) is"
            f" {row['loss']:.3f} at β = {row['beta']:g}, and its gradient pulls chosen up and"
            f" rejected down with weight {row['weight']:.3f}."
        ),
        "update": (
            f"One update later log π of the chosen completion is {unsigned_number(chosen_after)} instead of"
            f" {unsigned_number(chosen)}, of the rejected one {unsigned_number(rejected_after)} instead of"
            f" {unsigned_number(rejected)}; the pair's loss is {row['loss_after']:.3f}."
        ),
    }[step]
