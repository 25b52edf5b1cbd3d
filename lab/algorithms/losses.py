"""The objectives, each once: pure functions of tensors that return unreduced losses and detached
metrics of the same shape.

The curve on the screen, the training loop, the notebooks and the tests all call these functions.
Written below as h: h = [log π(y_w|x) − log π_ref(y_w|x)] − [log π(y_l|x) − log π_ref(y_l|x)], with
w the chosen and l the rejected completion.
"""

import torch
from torch.nn.functional import logsigmoid

from lab.algorithms.logprobs import KL_ESTIMATORS, kl_estimate
from lab.errors import LabError, unknown

Metrics = dict[str, torch.Tensor]
KL_TERMS = (*KL_ESTIMATORS, "k3_corrected")


def _same_shape(dimensions: int, **tensors: torch.Tensor) -> None:
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(s) != dimensions for s in shapes.values()):
        raise LabError(
            f"{', '.join(f'{n} {s}' for n, s in shapes.items())}: all take the same shape,"
            f" {('(B,)', '(B, T)')[dimensions - 1]}."
        )


def _pair_metrics(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> Metrics:
    chosen, rejected = chosen_rewards.detach(), rejected_rewards.detach()
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(chosen.dtype),
    }


def sft(token_logps: torch.Tensor) -> tuple[torch.Tensor, Metrics]:
    """Maximum likelihood of each token, the first stage of arXiv 2203.02155
    (https://arxiv.org/abs/2203.02155).

    loss_t = −log π(y_t | x, y_<t)

    Shapes: (B, T) → (B, T), prompt and padding included: the reduction leaves them out. Units:
    nats. Raises `LabError` for another number of dimensions. Anchor: a token of probability 1/2
    costs log 2 = 0.693147.
    """
    _same_shape(2, token_logps=token_logps)
    return -token_logps, {}


def reward_model(
    chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor
) -> tuple[torch.Tensor, Metrics]:
    """Bradley-Terry likelihood of a preference, arXiv 2203.02155, Eq. 1
    (https://arxiv.org/abs/2203.02155).

    loss = −log σ(r_w − r_l)

    Shapes: (B,), (B,) → (B,). Units: nats. Raises `LabError` when the shapes differ.
    Anchor: equal rewards cost log 2 = 0.693147; a lead of 1 costs 0.313262.
    """
    _same_shape(1, chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return -logsigmoid(chosen_rewards - rejected_rewards), _pair_metrics(
        chosen_rewards, rejected_rewards
    )  # Eq. 1


def dpo(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    *,
    beta: float,
) -> tuple[torch.Tensor, Metrics]:
    """Direct Preference Optimization, arXiv 2305.18290, Eq. 7 (https://arxiv.org/abs/2305.18290).

    loss = −log σ(β·h)

    Shapes: four (B,), summed over completion tokens, end token included → (B,). Units: nats. Raises
    `LabError` when shapes differ. Anchor: π = π_ref costs log 2 = 0.693147 for every β; h = 10 at β
    = 0.1 costs 0.313262.
    """
    _same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    chosen, rejected = (
        chosen_logps - reference_chosen_logps,
        rejected_logps - reference_rejected_logps,
    )
    losses = -logsigmoid(beta * (chosen - rejected))  # Eq. 7
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {
        "logps/chosen": chosen_logps.detach(),
        "logps/rejected": rejected_logps.detach(),
    }


def ipo(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    *,
    beta: float,
) -> tuple[torch.Tensor, Metrics]:
    """Identity Preference Optimization on whole completions, arXiv 2310.12036, Eq. 17
    (https://arxiv.org/abs/2310.12036).

    loss = (h − 1/(2β))²;  β is the paper's τ

    Shapes: four (B,), summed over completion tokens, end token included → (B,). Units: nats².
    Raises `LabError` when shapes differ. Anchor: π = π_ref costs (1/(2β))², which is 25 at β = 0.1;
    h = 5 at β = 0.1 costs 0 and has the margin β·h = 1/2.
    """
    _same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    chosen, rejected = (
        chosen_logps - reference_chosen_logps,
        rejected_logps - reference_rejected_logps,
    )
    losses = (chosen - rejected - 1 / (2 * beta)) ** 2  # Eq. 17
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {
        "logps/chosen": chosen_logps.detach(),
        "logps/rejected": rejected_logps.detach(),
    }


def ipo_token_mean(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    *,
    beta: float,
) -> tuple[torch.Tensor, Metrics]:
    """IPO on means over tokens, the form that its authors confirmed to TRL
    (https://github.com/huggingface/trl/pull/1265).

    loss = (h̄ − 1/(2β))²;  h̄ is h with each log-probability divided by the length of its
    completion

    The target 1/(2β) is now in nats per token: 5 at β = 0.1, far more than a token can give; use a
    larger β than for `ipo`. The logged rewards are β times the means, so that the margin is the one
    in the loss; logps/… stay sums. Shapes: six (B,); lengths count completion tokens, end token
    included → (B,). Units: (nats per token)². Raises `LabError` when shapes differ. Anchor: sums −4
    and −6 over lengths 2 and 4, both references −6: h̄ = 2/2 − 0/4 = 1, so β = 0.5 costs 0 and β =
    0.25 costs 1.
    """
    _same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    losses, metrics = ipo(
        chosen_logps / chosen_lengths,
        rejected_logps / rejected_lengths,
        reference_chosen_logps / chosen_lengths,
        reference_rejected_logps / rejected_lengths,
        beta=beta,
    )  # Eq. 17 with means for sums
    return losses, metrics | {
        "logps/chosen": chosen_logps.detach(),
        "logps/rejected": rejected_logps.detach(),
    }


def kto_reference_point(
    mismatched_logps: torch.Tensor, mismatched_reference_logps: torch.Tensor
) -> torch.Tensor:
    """KTO's reference point, the KL term of arXiv 2402.01306v1, Eq. 7, estimated as in its §4.1
    (https://arxiv.org/abs/2402.01306v1).

    z = max(0, mean over the batch of log π(y'|x) − log π_ref(y'|x));  y' are the batch's
    completions, each beside another row's prompt

    Completions of both kinds belong to it: with the desirable ones alone z is too large. Shapes:
    (M,), (M,) → a detached scalar: no gradient passes. Units: nats. Raises `LabError` when M < 2 or
    the shapes differ. Anchor: log-ratios 1 and 2 give 1.5; −1 and 0 give 0.
    """
    _same_shape(
        1, mismatched_logps=mismatched_logps, mismatched_reference_logps=mismatched_reference_logps
    )
    if len(mismatched_logps) < 2:
        raise LabError(
            "KTO's reference point z is a mean over a batch and takes at least 2 examples, but got"
            f" {len(mismatched_logps)}. Raise batch_size."
        )
    return (mismatched_logps - mismatched_reference_logps).mean().clamp(min=0).detach()


def kto(
    logps: torch.Tensor,
    reference_logps: torch.Tensor,
    desirable: torch.Tensor,
    z: torch.Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[torch.Tensor, Metrics]:
    """Kahneman-Tversky Optimization, arXiv 2402.01306v1, Eq. 7
    (https://arxiv.org/abs/2402.01306v1).

    loss = λ_D·(1 − σ(β(r − z))) if desirable, λ_U·(1 − σ(β(z − r))) if not;  r = log π(y|x) − log
    π_ref(y|x)

    Keep λ_D·n_D / (λ_U·n_U) in [1, 4/3] when the kinds are unequal in number (Eq. 8). Shapes:
    logps, reference_logps (B,), desirable (B,) bool, z a scalar from `kto_reference_point` → (B,).
    Units: those of λ. Metrics are NaN where an example is of the other kind, so that each averages
    its own. Raises `LabError` when the shapes differ, desirable is not bool or z not a scalar.
    Anchor: r = z costs λ/2; r − z = 10 at β = 0.1 costs 0.268941·λ_D or 0.731059·λ_U.
    """
    _same_shape(1, logps=logps, reference_logps=reference_logps, desirable=desirable)
    if desirable.dtype != torch.bool or z.ndim:
        raise LabError(
            f"desirable is of {desirable.dtype} and z of shape {tuple(z.shape)}, but they take bool"
            " and a scalar."
        )
    ratio = logps - reference_logps
    gain = beta * torch.where(desirable, ratio - z, z - ratio)
    lost = torch.sigmoid(-gain)  # 1 − σ(gain), without the cancellation at a large gain
    losses = torch.where(desirable, desirable_weight * lost, undesirable_weight * lost)  # Eq. 7
    reward, logps, nan = (beta * ratio).detach(), logps.detach(), float("nan")
    return losses, {
        "rewards/chosen": reward.masked_fill(~desirable, nan),
        "rewards/rejected": reward.masked_fill(desirable, nan),
        "logps/chosen": logps.masked_fill(~desirable, nan),
        "logps/rejected": logps.masked_fill(desirable, nan),
    }


def grpo(
    token_logps: torch.Tensor,
    old_token_logps: torch.Tensor,
    reference_token_logps: torch.Tensor | None,
    advantages: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    beta: float,
    epsilon: float,
    epsilon_high: float,
    kl_estimator: str,
) -> tuple[torch.Tensor, Metrics]:
    """Group Relative Policy Optimization per token, arXiv 2402.03300, Eq. 3
    (https://arxiv.org/abs/2402.03300).

    loss_t = −min(ρ_t·A, clip(ρ_t, 1 − ε, 1 + ε_high)·A) + β·kl_t;  ρ_t = exp(log π_t − log π_old,t)

    The paper has ε_high = ε; DAPO raises it (arXiv 2503.14476, Eq. 10). `kl_estimator` is k1, k2,
    k3 (the paper's, Eq. 4) or k3_corrected, which is ρ·k3: its gradient is that of KL(π‖π_ref),
    where k3 gives KL(π_ref‖π). With one update per rollout ρ is exactly 1: each token costs −A,
    which `sequence_mean` averages to 0 over a group, while the gradient −A·∇log π does not vanish.
    Shapes: token tensors and completion_mask (B, T), advantages (B,) → (B, T), 0 outside the mask,
    whatever stands there. Metrics (B, T) are NaN outside. Units: those of A. Raises `LabError` when
    shapes differ, the estimator is unknown, or β is not 0 and there are no reference
    log-probabilities. Anchor: ρ = 1.5, A = 1, ε_high = 0.2 costs −1.2; ρ = 0.5, A = −1, ε = 0.2
    costs 0.8; ρ = 1.5, A = −1 costs 1.5, for nothing clips it.
    """
    if beta and reference_token_logps is None:
        raise LabError(
            f"beta is {beta}, so the KL term takes reference_token_logps (B, T), but there are"
            " none. Pass them, or set beta to 0."
        )
    reference = (
        {} if reference_token_logps is None else {"reference_token_logps": reference_token_logps}
    )
    _same_shape(
        2,
        token_logps=token_logps,
        old_token_logps=old_token_logps,
        completion_mask=completion_mask,
        **reference,
    )
    _same_shape(1, advantages=advantages, completions=token_logps[:, 0])
    if kl_estimator not in KL_TERMS:
        raise unknown("kl_estimator", kl_estimator, list(KL_TERMS))
    outside = ~completion_mask.bool()
    advantage = advantages[:, None]
    ratio = (token_logps - old_token_logps).masked_fill(outside, 0.0).exp()
    losses = -torch.minimum(
        ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantage
    )  # Eq. 3
    if beta:
        kl = kl_estimate(
            token_logps.masked_fill(outside, 0.0),
            reference_token_logps.masked_fill(outside, 0.0),
            kl_estimator.removesuffix("_corrected"),
        )  # Eq. 4
        losses = losses + beta * (ratio * kl if kl_estimator == "k3_corrected" else kl)  # Eq. 3
    clipped = ((ratio < 1 - epsilon) & (advantage < 0)) | (
        (ratio > 1 + epsilon_high) & (advantage > 0)
    )
    metrics = {"ratio": ratio.detach(), "clip_ratio/region_mean": clipped.to(ratio.dtype)}
    return losses.masked_fill(outside, 0.0), {
        name: value.masked_fill(outside, float("nan")) for name, value in metrics.items()
    }


def ppo(
    token_logps: torch.Tensor,
    old_token_logps: torch.Tensor,
    advantages: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    epsilon: float,
) -> tuple[torch.Tensor, Metrics]:
    """Proximal Policy Optimization per token, arXiv 1707.06347, Eq. 7
    (https://arxiv.org/abs/1707.06347), as a loss.

    loss_t = −min(ρ_t·A_t, clip(ρ_t, 1 − ε, 1 + ε)·A_t);  ρ_t = exp(log π_t − log π_old,t)

    Each token has an advantage of its own, where GRPO gives one to the whole completion. At the
    first update on a rollout ρ is exactly 1, so with whitened advantages the mean over tokens is 0,
    while the gradient is not. Shapes: four (B, T) → (B, T), 0 outside the mask, whatever stands
    there. Metrics (B, T) are NaN outside. Units: those of A. Raises `LabError` when shapes differ.
    Anchor: ρ = 1.5, A = 1, ε = 0.2 costs −1.2; ρ = 0.5, A = −1 costs 0.8; ρ = 1.5, A = −1 costs
    1.5, for nothing clips it.
    """
    _same_shape(
        2,
        token_logps=token_logps,
        old_token_logps=old_token_logps,
        advantages=advantages,
        completion_mask=completion_mask,
    )
    outside = ~completion_mask.bool()
    advantages = advantages.masked_fill(outside, 0.0)
    ratio = (token_logps - old_token_logps).masked_fill(outside, 0.0).exp()
    losses = -torch.minimum(
        ratio * advantages, ratio.clamp(1 - epsilon, 1 + epsilon) * advantages
    )  # Eq. 7
    clipped = ((ratio < 1 - epsilon) & (advantages < 0)) | (
        (ratio > 1 + epsilon) & (advantages > 0)
    )
    metrics = {
        "ratio": ratio.detach(),
        "clip_ratio/region_mean": clipped.to(ratio.dtype),
        "loss/policy": losses.detach(),
    }
    return losses, {
        name: value.masked_fill(outside, float("nan")) for name, value in metrics.items()
    }


def value_loss(
    values: torch.Tensor,
    old_values: torch.Tensor,
    returns: torch.Tensor,
    completion_mask: torch.Tensor,
    *,
    epsilon_value: float,
) -> tuple[torch.Tensor, Metrics]:
    """The critic's squared error, arXiv 1707.06347, Eq. 9, clipped as in arXiv 2005.12729, §3
    (https://arxiv.org/abs/2005.12729).

    loss_t = ½·max((V_t − R_t)², (V_old,t + clip(V_t − V_old,t, −ε_V, ε_V) − R_t)²)

    A value that has moved by more than ε_V towards its target since the rollout has no gradient.
    Shapes: four (B, T) → (B, T), 0 outside the mask. Metrics are NaN outside. Units: those of the
    reward, squared. Raises `LabError` when shapes differ. Anchor: V_old = 0, R = 1, ε_V = 0.2: V =
    0.1 costs 0.405, V = 0.5 costs ½·0.8² = 0.32 without a gradient, V = −0.5 costs 1.125.
    """
    _same_shape(
        2, values=values, old_values=old_values, returns=returns, completion_mask=completion_mask
    )
    outside = ~completion_mask.bool()
    error = (values - returns).masked_fill(outside, 0.0)
    clipped_error = (
        old_values + (values - old_values).clamp(-epsilon_value, epsilon_value) - returns
    ).masked_fill(outside, 0.0)
    losses = 0.5 * torch.maximum(error**2, clipped_error**2)  # Eq. 9
    return losses, {"loss/value": losses.detach().masked_fill(outside, float("nan"))}


def batch_mean(losses: torch.Tensor, total: int | None = None) -> torch.Tensor:
    """Mean over examples: Σ losses / B.

    A piece of a batch is divided by `total`, the number in the whole batch, so that the pieces add
    up to the whole. Shapes: (B,) → scalar. Raises `LabError` for another number of dimensions.
    Anchor: losses 1, 2, 6 give 3; the pieces (1, 2) and (6) with total 3 give 1 + 2.
    """
    _same_shape(1, losses=losses)
    return losses.sum() / (len(losses) if total is None else total)


def _masked(losses: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    _same_shape(2, losses=losses, completion_mask=completion_mask)
    return losses.masked_fill(~completion_mask.bool(), 0.0)


def sequence_mean(
    losses: torch.Tensor, completion_mask: torch.Tensor, total_sequences: int | None = None
) -> torch.Tensor:
    """GRPO's reduction, arXiv 2402.03300, Eq. 3: mean over the tokens of each completion, then over
    completions, (1/B)·Σ_i (1/|o_i|)·Σ_t.

    Every completion weighs the same, so a token of a long one weighs less: a wrong answer is pushed
    down less when it is long (arXiv 2503.20783). A piece of a batch is divided by `total_sequences`
    of the whole. Shapes: (B, T), (B, T) → scalar. Raises `LabError` when the shapes differ. Anchor:
    token losses (1, 1) and (4) give (1 + 4) / 2 = 2.5.
    """
    per_sequence = _masked(losses, completion_mask).sum(1) / completion_mask.sum(1).clamp(min=1)
    return per_sequence.sum() / (
        len(losses) if total_sequences is None else total_sequences
    )  # Eq. 3


def token_mean(
    losses: torch.Tensor, completion_mask: torch.Tensor, total_tokens: int | None = None
) -> torch.Tensor:
    """DAPO's reduction, arXiv 2503.14476, Eq. 12 (https://arxiv.org/abs/2503.14476): mean over all
    tokens, Σ_i Σ_t / Σ_i |o_i|.

    Every token weighs the same, so a long completion weighs more. A piece of a batch is divided by
    `total_tokens` of the whole. Shapes: (B, T), (B, T) → scalar. Raises `LabError` when the shapes
    differ. Anchor: token losses (1, 1) and (4) give 6 / 3 = 2.
    """
    total = completion_mask.sum().clamp(min=1) if total_tokens is None else total_tokens
    return _masked(losses, completion_mask).sum() / total  # Eq. 12


def fixed_length(
    losses: torch.Tensor,
    completion_mask: torch.Tensor,
    max_length: int,
    total_sequences: int | None = None,
) -> torch.Tensor:
    """Dr. GRPO's reduction, arXiv 2503.20783, §3.2 (https://arxiv.org/abs/2503.20783): a constant
    in place of the length, Σ_i Σ_t / (B·max_length).

    Neither length nor batch decides what a token weighs. A piece of a batch is divided by
    `total_sequences` of the whole. Shapes: (B, T), (B, T) → scalar; `max_length` is the longest
    completion allowed. Raises `LabError` when the shapes differ or max_length < 1. Anchor: token
    losses (1, 1) and (4) with max_length 10 give 6 / 20 = 0.3.
    """
    if max_length < 1:
        raise LabError(
            f"max_length is {max_length}, but takes the longest completion allowed, at least 1"
            " token."
        )
    return _masked(losses, completion_mask).sum() / (
        max_length * (len(losses) if total_sequences is None else total_sequences)
    )
