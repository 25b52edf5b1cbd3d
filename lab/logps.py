"""From logits to log-probabilities, entropy and KL; everything in float32 (float64 stays float64), everything in nats.

One convention: entry t of a per-token tensor (B, T) belongs to token t of `ids` and was computed from the tokens before it,
so it lines up with `ids` and `completion_mask`. Entry 0 is 0, for nothing comes before the first token.
"""

import torch
from torch.nn.functional import pad

from lab.errors import LabError


def _wide(logits: torch.Tensor) -> torch.Tensor:
    """The logits that predict tokens 1 … T−1, in at least float32."""
    return logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))


def token_logps(logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """log p(ids_t | ids_<t) at the temperature that sampled them: gather(logits / temperature) − logsumexp.

    Shapes: logits (B, T, V), ids (B, T) → (B, T). Units: nats.
    Anchor: two equal logits give −log 2 = −0.693147.
    """
    if logits.shape[:2] != ids.shape:
        raise LabError(f"logits are {tuple(logits.shape)} and ids {tuple(ids.shape)}, but take (B, T, V) and (B, T).")
    scaled = _wide(logits) / temperature
    return pad(scaled.gather(-1, ids[:, 1:, None]).squeeze(-1) - scaled.logsumexp(-1), (1, 0))


def sequence_logps(token_logps: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """Summed log-probability of each completion: (B, T), (B, T) → (B,), in nats. Prompt and padding do not count."""
    if token_logps.shape != completion_mask.shape:
        raise LabError(f"token_logps are {tuple(token_logps.shape)} and completion_mask {tuple(completion_mask.shape)}; both take (B, T).")
    return (token_logps * completion_mask).sum(1)


def token_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy −Σ p log p of the distribution that each token was drawn from: (B, T, V) → (B, T), in nats.

    Anchor: four equal logits give log 4 = 1.386294.
    """
    log_p = _wide(logits).log_softmax(-1)
    return pad(-(log_p.exp() * log_p).sum(-1), (1, 0))


def exact_kl(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """KL(π‖π_ref) of the next-token distributions, over the whole vocabulary: (B, T, V) twice → (B, T), in nats.

    Summed over a completion that was sampled from π it is an unbiased estimate of the sequences' KL, with less variance
    than any estimate from the sampled tokens alone.
    Anchor: p = (1/2, 1/2) against q = (1/4, 3/4) gives ½·log 2 + ½·log ⅔ = 0.143841.
    """
    log_p, log_q = _wide(logits).log_softmax(-1), _wide(reference_logits).log_softmax(-1)
    return pad((log_p.exp() * (log_p - log_q)).sum(-1), (1, 0))


def kl_estimate(token_logps: torch.Tensor, reference_token_logps: torch.Tensor, estimator: str) -> torch.Tensor:
    """Estimates of KL(π‖π_ref) from tokens sampled from π, with x = log π_ref − log π (http://joschu.net/blog/kl-approx.html).

    k1 = −x, unbiased;  k2 = x²/2, biased;  k3 = eˣ − x − 1, unbiased and never negative (GRPO, arXiv 2402.03300, Eq. 4).
    As a loss term the gradient of k1 is 0 in expectation, of k2 that of KL(π‖π_ref), of k3 that of KL(π_ref‖π).

    Shapes: any, equal. Units: nats. Raises `LabError` for another estimator.
    Anchor: log π = −1, log π_ref = −2, so x = −1: k1 = 1, k2 = 0.5, k3 = e⁻¹ = 0.367879.
    """
    x = reference_token_logps - token_logps
    if estimator == "k1":
        return -x
    if estimator == "k2":
        return x**2 / 2
    if estimator == "k3":
        return torch.expm1(x) - x
    raise LabError(f"Unknown KL estimator '{estimator}'. Accepted: k1, k2, k3.")
