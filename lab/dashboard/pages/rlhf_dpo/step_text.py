"""What happens at each step of an update, in words with the recorded numbers."""

from typing import Any

from lab.config.number_text import signed_number


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
            f"The policy writes {len(row['tokens'])} tokens after the prompt `{row['prompt']}`:"
            f" `{row['completion']}`. The whole rollout has {row['completions']} completions with"
            f" {row['rollout_tokens']:,} tokens."
        ),
        "score": (
            "The reward model gives the completion the score"
            f" {unsigned_number(row['score'])}. Its log-probability is"
            f" {unsigned_number(sum(row['logps']))} nats under the policy and"
            f" {unsigned_number(sum(row['reference']))} nats under the reference. β ="
            f" {row['beta']:g} times the difference,"
            f" {unsigned_number(row['score'] - sum(row['rewards']))}, is subtracted from the score."
        ),
        "value": (
            "The critic predicts the final score at every token. It predicts"
            f" {unsigned_number(row['values'][0])} before the first token,"
            f" {unsigned_number(row['values'][1])} after `{row['tokens'][0]}` and"
            f" {unsigned_number(row['values'][-1])} before the last token."
        ),
        "advantage": (
            "The advantage of a token says how much better the result became than the critic had"
            f" predicted (generalized advantage estimation, GAE, with λ = {row['lam']:g}). `{token}`"
            f" has the advantage {signed_number(row['advantages'][best])}. Every other token has one"
            f" between {signed_number(min(others))} and {signed_number(max(others))}. The update"
            " makes tokens with a positive advantage more likely."
        ),
        "update": (
            f"After {row['minibatches']} updates, the log-probability of `{token}` has changed from"
            f" {unsigned_number(row['logps'][best])} to {unsigned_number(row['after'][best])} nats."
            " The critic's prediction at the start has changed from"
            f" {unsigned_number(row['values'][0])} to {unsigned_number(row['values_after'][0])}. The"
            " ratio of a token's probability to its probability before the updates is"
            f" {last['ratio']:.2f} on average. The clip stops"
            f" {last['clip_ratio/region_mean']:.1%} of the tokens.".replace("%", " %")
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
            "DPO generates nothing. It reads a pair that the base model wrote before training."
            f" `{row['chosen'].removesuffix('<eos>')}` is chosen and"
            f" `{row['rejected'].removesuffix('<eos>')}` is rejected. The batch has"
            f" {row['pairs']} pairs."
        ),
        "score": (
            "Policy and reference read both completions. The chosen one has log π ="
            f" {unsigned_number(chosen)} and log π_ref = {unsigned_number(ref_chosen)} nats. The"
            f" rejected one has {unsigned_number(rejected)} and {unsigned_number(ref_rejected)}"
            " nats. The differences take the place of a reward, so DPO needs no reward model."
        ),
        "value": (
            "DPO does nothing here. It has no critic, because it compares the two completions with"
            " each other."
        ),
        "advantage": (
            f"The margin h, the difference of both log-ratios, is {unsigned_number(row['margin'])}"
            f" nats. The loss −log σ(β·h) is then {row['loss']:.3f} at β = {row['beta']:g}. Its"
            " gradient pushes the chosen completion up and the rejected one down, with the weight"
            f" {row['weight']:.3f}."
        ),
        "update": (
            "After one update, log π of the chosen completion has changed from"
            f" {unsigned_number(chosen)} to {unsigned_number(chosen_after)} nats, and log π of the"
            f" rejected one from {unsigned_number(rejected)} to {unsigned_number(rejected_after)}"
            f" nats. The loss of this pair is now {row['loss_after']:.3f}."
        ),
    }[step]
