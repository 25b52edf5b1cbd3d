"""Losses of the methods that learn from fixed examples: SFT, reward model, DPO, IPO and KTO.

Each is a pure function that returns unreduced losses and detached metrics of the same shape. The
training loop, the figures, the notebooks and the tests all call these functions. The margin h is

h = [log π(y_w|x) − log π_ref(y_w|x)] − [log π(y_l|x) − log π_ref(y_l|x)]

where w is the chosen and l the rejected completion of the prompt x.
"""

import torch
from torch.nn.functional import logsigmoid

from lab.algorithms.shapes import check_same_shape
from lab.errors import LabError

LossMetrics = dict[str, torch.Tensor]


def _pair_metrics(chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor) -> LossMetrics:
    """Return the rewards of each pair, their difference, and whether the chosen reward is higher."""
    chosen, rejected = chosen_rewards.detach(), rejected_rewards.detach()
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/margins": chosen - rejected,
        "rewards/accuracies": (chosen > rejected).to(chosen.dtype),
    }


def sft_loss(token_logps: torch.Tensor) -> tuple[torch.Tensor, LossMetrics]:
    """Return the negative log-likelihood of each token (arXiv 2203.02155, the first stage,
    https://arxiv.org/abs/2203.02155).

    loss_t = −log π(y_t | x, y_<t)

    Shapes: (B, T) → (B, T), prompt and padding included; the reduction masks them. Units: nats.
    Raises `LabError` for another number of dimensions.
    Anchor: a token of probability 1/2 costs log 2 = 0.693147.
    """
    check_same_shape(2, token_logps=token_logps)
    return -token_logps, {}


def reward_model_loss(
    chosen_rewards: torch.Tensor, rejected_rewards: torch.Tensor
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the negative log-likelihood of a preference under Bradley-Terry (arXiv 2203.02155, Eq. 1,
    https://arxiv.org/abs/2203.02155).

    loss = −log σ(r_w − r_l)

    Shapes: (B,), (B,) → (B,). Units: nats. Raises `LabError` when the shapes differ.
    Anchor: equal rewards cost log 2 = 0.693147; a lead of 1 costs 0.313262.
    """
    check_same_shape(1, chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    return -logsigmoid(chosen_rewards - rejected_rewards), _pair_metrics(
        chosen_rewards, rejected_rewards
    )  # Eq. 1


def dpo_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    *,
    beta: float | torch.Tensor,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss of Direct Preference Optimization for each pair (arXiv 2305.18290, Eq. 7,
    https://arxiv.org/abs/2305.18290).

    loss = −log σ(β·h)

    With `label_smoothing` ε, the share of labels that are taken to be wrong, it is conservative DPO
    (https://ericmitchell.ai/cdpo.pdf, Eq. 3): −(1 − ε)·log σ(β·h) − ε·log σ(−β·h).

    Shapes: four (B,), summed over completion tokens, end token included → (B,). Units: nats. Raises
    `LabError` when shapes differ. Anchor: π = π_ref costs log 2 = 0.693147 for every β; h = 10 at β
    = 0.1 costs 0.313262.
    """
    check_same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    chosen = chosen_logps - reference_chosen_logps
    rejected = rejected_logps - reference_rejected_logps
    logits = beta * (chosen - rejected)
    losses = -logsigmoid(logits)  # Eq. 7
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * logsigmoid(-logits)
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {
        "logps/chosen": chosen_logps.detach(),
        "logps/rejected": rejected_logps.detach(),
    }


def ipo_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    *,
    beta: float | torch.Tensor,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss of Identity Preference Optimization on whole completions for each pair (arXiv
    2310.12036, Eq. 17, https://arxiv.org/abs/2310.12036).

    loss = (h − 1/(2β))²;  β is the paper's τ

    This is the formula as printed, where π(y|x) is the probability of the whole completion. According
    to a comment in TRL 1.16, the authors say that the paper's results come from means per token:
    `ipo_token_mean_loss`. Shapes: four (B,), summed over completion tokens, end token included → (B,). Units: nats².
    Raises `LabError` when shapes differ. Anchor: π = π_ref costs (1/(2β))², which is 25 at β = 0.1;
    h = 5 at β = 0.1 costs 0 and has the margin β·h = 1/2.
    """
    check_same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
    )
    chosen = chosen_logps - reference_chosen_logps
    rejected = rejected_logps - reference_rejected_logps
    losses = (chosen - rejected - 1 / (2 * beta)) ** 2  # Eq. 17
    return losses, _pair_metrics(beta * chosen, beta * rejected) | {
        "logps/chosen": chosen_logps.detach(),
        "logps/rejected": rejected_logps.detach(),
    }


def ipo_token_mean_loss(
    chosen_logps: torch.Tensor,
    rejected_logps: torch.Tensor,
    reference_chosen_logps: torch.Tensor,
    reference_rejected_logps: torch.Tensor,
    chosen_lengths: torch.Tensor,
    rejected_lengths: torch.Tensor,
    *,
    beta: float,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the IPO loss on means over tokens, the variant that its authors confirmed to TRL
    (https://github.com/huggingface/trl/pull/1265).

    loss = (h̄ − 1/(2β))²;  h̄ is h with each log-probability divided by the length of its
    completion

    The target 1/(2β) is now in nats per token: 5 at β = 0.1, far more than a token can give; use a
    larger β than for `ipo_loss`. The logged rewards are β times the means, so that the logged margin
    is that of the loss; the metrics logps/… stay sums. Shapes: six (B,); lengths count completion tokens, end token
    included → (B,). Units: (nats per token)². Raises `LabError` when shapes differ. Anchor: sums −4
    and −6 over lengths 2 and 4, both references −6: h̄ = 2/2 − 0/4 = 1, so β = 0.5 costs 0 and β =
    0.25 costs 1.
    """
    check_same_shape(
        1,
        chosen_logps=chosen_logps,
        rejected_logps=rejected_logps,
        reference_chosen_logps=reference_chosen_logps,
        reference_rejected_logps=reference_rejected_logps,
        chosen_lengths=chosen_lengths,
        rejected_lengths=rejected_lengths,
    )
    losses, metrics = ipo_loss(
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
    """Return KTO's reference point, the KL term of arXiv 2402.01306v1, Eq. 7, estimated as in §4.1
    (https://arxiv.org/abs/2402.01306v1).

    z = max(0, mean over the batch of log π(y'|x) − log π_ref(y'|x));  each y' is the
    completion of another row

    Pass desirable and undesirable completions: from the desirable ones alone z is too large. Shapes:
    (M,), (M,) → a detached scalar: no gradient passes. Units: nats. Raises `LabError` when M < 2 or
    the shapes differ. Anchor: log-ratios 1 and 2 give 1.5; −1 and 0 give 0.
    """
    check_same_shape(
        1, mismatched_logps=mismatched_logps, mismatched_reference_logps=mismatched_reference_logps
    )
    if len(mismatched_logps) < 2:
        raise LabError(
            "KTO's reference point z is a mean over a batch and takes at least 2 examples, but got"
            f" {len(mismatched_logps)}. Raise batch_size."
        )
    return (mismatched_logps - mismatched_reference_logps).mean().clamp(min=0).detach()


def kto_loss(
    logps: torch.Tensor,
    reference_logps: torch.Tensor,
    desirable: torch.Tensor,
    z: torch.Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> tuple[torch.Tensor, LossMetrics]:
    """Return the loss of Kahneman-Tversky Optimization for each completion (arXiv 2402.01306v1, Eq. 7,
    https://arxiv.org/abs/2402.01306v1).

    loss = λ_D·(1 − σ(β(r − z))) if desirable, λ_U·(1 − σ(β(z − r))) if not;  r = log π(y|x) − log
    π_ref(y|x)

    Keep λ_D·n_D / (λ_U·n_U) in [1, 4/3] when there are more completions of one kind (Eq. 8). Shapes:
    logps, reference_logps (B,), desirable (B,) bool, z a scalar from `kto_reference_point` → (B,).
    Units: those of λ. The metrics …/chosen are NaN for undesirable examples and …/rejected for
    desirable ones, so that a nan-mean averages only the matching ones. Raises `LabError` when the
    shapes differ, desirable is not bool or z not a scalar.
    Anchor: r = z costs λ/2; r − z = 10 at β = 0.1 costs 0.268941·λ_D or 0.731059·λ_U.
    """
    check_same_shape(1, logps=logps, reference_logps=reference_logps, desirable=desirable)
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
