"""The objectives, each once: pure functions of tensors that return unreduced losses and detached metrics of the same shape.

The curve on the screen, the training loop, the notebooks and the tests all call these functions.
"""

import torch
from torch.nn.functional import logsigmoid

from lab.errors import LabError
from lab.logps import kl_estimate

Metrics = dict[str, torch.Tensor]


def _same_shape(dimensions: int, **tensors: torch.Tensor) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(s) != dimensions for s in shapes.values()):
        raise LabError(f"{', '.join(f'{n} {s}' for n, s in shapes.items())}: all take one shape of {dimensions} dimension{'s' * (dimensions > 1)}.")


def _pair_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> Metrics:
    chosen, rejected = chosen.detach(), rejected.detach()
    return {"rewards/chosen": chosen, "rewards/rejected": rejected, "rewards/margins": chosen - rejected,
            "rewards/accuracies": (chosen > rejected).to(chosen.dtype)}


def sft(token_logps: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    """Negative log-likelihood of each token: −log π(y_t | x, y_<t). Shapes: (B, T) → (B, T). Units: nats. Anchor: p = 1/2 costs 0.693147."""
    return -token_logps, {}


def reward_model(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    """Bradley-Terry likelihood of a preference, arXiv 2203.02155, Eq. 1 (https://arxiv.org/abs/2203.02155).

    loss = −log σ(r_w − r_l)

    Shapes: (B,), (B,) → (B,). Units: nats. Raises `LabError` when the shapes differ.
    Anchor: equal rewards cost log 2 = 0.693147; a lead of 1 costs 0.313262.
    """
    _same_shape(1, chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    losses = -logsigmoid(chosen_rewards - rejected_rewards)  # Eq. 1
    return losses, _pair_metrics(chosen_rewards, rejected_rewards)


def dpo(chosen_logps: torch.Tensor, rejected_logps: torch.Tensor, reference_chosen_logps: torch.Tensor,
        reference_rejected_logps: torch.Tensor, *, beta: float) -> tuple[torch.Tensor, Metrics]:
    """Direct Preference Optimization, arXiv 2305.18290, Eq. 7 (https://arxiv.org/abs/2305.18290).

    loss = −log σ(β·h),  h = [log π(y_w) − log π_ref(y_w)] − [log π(y_l) − log π_ref(y_l)]

    Shapes: four (B,), summed over completion tokens, end token included → (B,). Units: nats. Raises `LabError` when shapes differ.
    Anchor: π = π_ref costs log 2 = 0.693147 for every β; h = 10 at β = 0.1 costs 0.313262.
    """
    _same_shape(1, chosen_logps=chosen_logps, rejected_logps=rejected_logps, reference_chosen_logps=reference_chosen_logps,
                reference_rejected_logps=reference_rejected_logps)
    chosen, rejected = chosen_logps - reference_chosen_logps, rejected_logps - reference_rejected_logps
    losses = -logsigmoid(beta * (chosen - rejected))  # Eq. 7
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {"logps/chosen": chosen_logps.detach(), "logps/rejected": rejected_logps.detach()}


def ipo(chosen_logps: torch.Tensor, rejected_logps: torch.Tensor, reference_chosen_logps: torch.Tensor,
        reference_rejected_logps: torch.Tensor, *, beta: float) -> tuple[torch.Tensor, Metrics]:
    """Identity Preference Optimization on whole sequences, arXiv 2310.12036, Eq. 17 (https://arxiv.org/abs/2310.12036).

    loss = (h − 1/(2β))²,  h as in `dpo`; β is the paper's τ

    Shapes: four (B,) sums over completion tokens → (B,). Units: nats². Raises `LabError` when shapes differ.
    Anchor: π = π_ref costs (1/(2β))², 25 at β = 0.1; h = 5 at β = 0.1 costs 0.
    """
    _same_shape(1, chosen_logps=chosen_logps, rejected_logps=rejected_logps, reference_chosen_logps=reference_chosen_logps,
                reference_rejected_logps=reference_rejected_logps)
    chosen, rejected = chosen_logps - reference_chosen_logps, rejected_logps - reference_rejected_logps
    losses = (chosen - rejected - 1 / (2 * beta)) ** 2  # Eq. 17
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {"logps/chosen": chosen_logps.detach(), "logps/rejected": rejected_logps.detach()}


def ipo_token_mean(chosen_logps: torch.Tensor, rejected_logps: torch.Tensor, reference_chosen_logps: torch.Tensor, reference_rejected_logps: torch.Tensor,
                   chosen_lengths: torch.Tensor, rejected_lengths: torch.Tensor, *, beta: float) -> tuple[torch.Tensor, Metrics]:
    """IPO on means over tokens, the form that its authors confirmed to TRL (https://github.com/huggingface/trl/pull/1265).

    loss = (h̄ − 1/(2β))²,  h̄ = `ipo` with every sum divided by its completion's length

    The target 1/(2β) is now nats per token: 5 at β = 0.1, far more than a token can give; use a larger β than for `ipo`.
    Logged rewards are β times the means, so that the margin is the one in the loss.
    Shapes: six (B,); lengths count completion tokens, end token included → (B,). Units: (nats per token)².
    Anchor: sums −4 against −6 over lengths 2 and 4 (references −6 and −6): h̄ = 1 − 0, so β = 0.5 costs 0.
    """
    sums = ipo(chosen_logps / chosen_lengths, rejected_logps / rejected_lengths, reference_chosen_logps / chosen_lengths,
               reference_rejected_logps / rejected_lengths, beta=beta)
    return sums[0], sums[1] | {"logps/chosen": chosen_logps.detach(), "logps/rejected": rejected_logps.detach()}


def kto_reference_point(mismatched_logps: torch.Tensor, mismatched_reference_logps: torch.Tensor) -> torch.Tensor:
    """KTO's reference point z, arXiv 2402.01306, §4.1 (https://arxiv.org/abs/2402.01306): the KL estimated on mismatched pairs.

    z = max(0, mean over the batch of log π(y'|x) − log π_ref(y'|x)),  y' the completion of another prompt

    Shapes: (M,), (M,) → a detached scalar. Units: nats. Raises `LabError` when M < 2.
    Anchor: ratios 1 and 2 give 1.5; ratios −1 and 0 give 0.
    """
    _same_shape(1, mismatched_logps=mismatched_logps, mismatched_reference_logps=mismatched_reference_logps)
    if len(mismatched_logps) < 2:
        raise LabError(f"KTO's reference point z is a mean over a batch and takes at least 2 examples, but got {len(mismatched_logps)}. Raise batch_size.")
    return (mismatched_logps - mismatched_reference_logps).mean().clamp(min=0).detach()


def kto(logps: torch.Tensor, reference_logps: torch.Tensor, desirable: torch.Tensor, z: torch.Tensor, *, beta: float, desirable_weight: float,
        undesirable_weight: float) -> tuple[torch.Tensor, Metrics]:
    """Kahneman-Tversky Optimization, arXiv 2402.01306, Eq. 7-8 (https://arxiv.org/abs/2402.01306).

    loss = λ_D·(1 − σ(β(r − z))) if desirable, λ_U·(1 − σ(β(z − r))) if not,  r = log π(y|x) − log π_ref(y|x)

    Shapes: logps, reference_logps (B,), desirable (B,) bool, z a scalar from `kto_reference_point` → (B,). Units: λ.
    "rewards/chosen" is NaN for undesirable and "rewards/rejected" for desirable examples, so that each averages its own kind.
    Anchor: r = z costs 0.5·λ; r − z = 10 at β = 0.1 costs 0.268941·λ_D.
    """
    _same_shape(1, logps=logps, reference_logps=reference_logps, desirable=desirable)
    ratio = logps - reference_logps
    gain = torch.sigmoid(beta * torch.where(desirable, ratio - z, z - ratio))  # Eq. 7
    weight = torch.where(desirable, desirable_weight, undesirable_weight)
    losses = weight * (1 - gain)  # Eq. 8, with λ in place of the constant λ_y
    reward, other = (beta * ratio).detach(), torch.full_like(ratio, float("nan")).detach()
    return losses, {"rewards/chosen": torch.where(desirable, reward, other), "rewards/rejected": torch.where(desirable, other, reward),
                    "logps/chosen": torch.where(desirable, logps.detach(), other), "logps/rejected": torch.where(desirable, other, logps.detach())}


def grpo(token_logps: torch.Tensor, old_token_logps: torch.Tensor, reference_token_logps: torch.Tensor | None, advantages: torch.Tensor,
         completion_mask: torch.Tensor, *, beta: float, epsilon: float, epsilon_high: float, kl_estimator: str) -> tuple[torch.Tensor, Metrics]:
    """Group Relative Policy Optimization per token, arXiv 2402.03300, Eq. 3 (https://arxiv.org/abs/2402.03300).

    loss_t = −min(ρ_t·A, clip(ρ_t, 1−ε, 1+ε_high)·A) + β·kl_t,  ρ_t = exp(log π_t − log π_old,t)

    `kl_estimator` is k1, k2, k3 (Eq. 4) or k3_corrected, which is ρ·k3. With one update per rollout ρ is exactly 1: the loss
    sums to about 0 while its gradient does not vanish. The reductions below turn token losses into one number.
    Shapes: token tensors (B, T), advantages (B,), completion_mask (B, T) → (B, T), 0 outside the mask. Metrics are NaN there.
    Raises `LabError` when shapes differ, or β > 0 comes without reference log-probabilities.
    Anchor: ρ = 1.5, A = 1, ε_high = 0.2 costs −1.2; ρ = 0.5, A = −1, ε = 0.2 costs 0.8; ρ = 1.5, A = −1 costs 1.5.
    """
    _same_shape(2, token_logps=token_logps, old_token_logps=old_token_logps, completion_mask=completion_mask)
    _same_shape(1, advantages=advantages, completions=token_logps[:, 0])
    ratio, advantage = (token_logps - old_token_logps).exp(), advantages[:, None]
    losses = -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantage)  # Eq. 3
    if beta:
        if reference_token_logps is None:
            raise LabError(f"beta is {beta}, so the KL term needs reference_token_logps (B, T), but got None.")
        kl = kl_estimate(token_logps, reference_token_logps, kl_estimator.removesuffix("_corrected"))  # Eq. 4
        losses = losses + beta * (ratio * kl if kl_estimator == "k3_corrected" else kl)
    clipped = ((ratio < 1 - epsilon) & (advantage < 0)) | ((ratio > 1 + epsilon_high) & (advantage > 0))
    outside = ~completion_mask.bool()
    metrics = {"ratio": ratio, "clip_ratio/region_mean": clipped.to(ratio.dtype)}
    return losses.masked_fill(outside, 0.0), {n: m.detach().masked_fill(outside, float("nan")) for n, m in metrics.items()}


def batch_mean(losses: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Mean over examples: (B,) → scalar. A piece of a batch is divided by the batch's `total`, so that pieces add up to the whole."""
    return losses.sum() / (len(losses) if total is None else total)


def sequence_mean(losses: torch.Tensor, completion_mask: torch.Tensor, total_sequences: int | None = None) -> torch.Tensor:
    """GRPO's reduction (Eq. 3): mean over the tokens of each completion, then over completions: (B, T) → scalar.

    Each completion weighs the same, so a token of a long one weighs less: wrong answers are pushed down less when they are
    long (arXiv 2503.20783). Anchor: token losses (1, 1) and (4) give (1 + 4) / 2 = 2.5.
    """
    per_sequence = (losses * completion_mask).sum(1) / completion_mask.sum(1).clamp(min=1)
    return per_sequence.sum() / (len(losses) if total_sequences is None else total_sequences)


def token_mean(losses: torch.Tensor, completion_mask: torch.Tensor, total_tokens: int | None = None) -> torch.Tensor:
    """DAPO's reduction (arXiv 2503.14476, Eq. 12): mean over all tokens: (B, T) → scalar. Anchor: (1, 1) and (4) give 6 / 3 = 2."""
    return (losses * completion_mask).sum() / (completion_mask.sum() if total_tokens is None else total_tokens)


def fixed_length(losses: torch.Tensor, completion_mask: torch.Tensor, max_length: int, total_sequences: int | None = None) -> torch.Tensor:
    """Dr. GRPO's reduction (arXiv 2503.20783): sum over tokens, divided by completions · the longest allowed length: (B, T) → scalar.

    Anchor: (1, 1) and (4) with max_length 10 give 6 / 20 = 0.3.
    """
    return (losses * completion_mask).sum() / (max_length * (len(losses) if total_sequences is None else total_sequences))
