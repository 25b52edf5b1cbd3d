"""KL divergence from the policy to the reference, in nats: exact over the vocabulary, or estimated
from sampled tokens.
"""

import torch
from torch.nn.functional import pad

from lab.algorithms.logprobs import next_token_logits
from lab.errors import LabError, unknown

KL_ESTIMATORS = ("k1", "k2", "k3")


def exact_kl(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """Return, for each token, the KL between the next-token distributions of policy and reference.

    KL(π‖π_ref)_t = Σ_v π_v·(log π_v − log π_ref,v)

    Summed over a completion sampled from π it is an unbiased estimate of the KL between whole
    completions, with less variance than any estimate from the sampled tokens alone. Shapes:
    (B, T, V) twice → (B, T); entry 0 is 0. Units: nats. Raises `LabError` when the shapes differ.
    Anchor: π = (1/2, 1/2) against π_ref = (1/4, 3/4) gives ½·log 2 + ½·log ⅔ = 0.143841; the other
    direction gives 0.130812.
    """
    if logits.ndim != 3 or logits.shape != reference_logits.shape:
        raise LabError(
            f"logits are {tuple(logits.shape)} and reference_logits"
            f" {tuple(reference_logits.shape)}; both take (B, T, V)."
        )
    log_p = next_token_logits(logits).log_softmax(-1)
    log_q = next_token_logits(reference_logits).log_softmax(-1)
    return pad((log_p.exp() * (log_p - log_q)).sum(-1), (1, 0))


def kl_estimate(
    token_logps: torch.Tensor, reference_token_logps: torch.Tensor, estimator: str
) -> torch.Tensor:
    """Return estimates of KL(π‖π_ref) from tokens sampled from π (Schulman,
    http://joschu.net/blog/kl-approx.html).

    k1 = −x;  k2 = x²/2;  k3 = eˣ − x − 1;  x = log π_ref − log π

    k3 is GRPO's (arXiv 2402.03300, Eq. 4). As a number, k1 and k3 are unbiased and k2 is biased; k2
    and k3 are never negative. As a term of a loss, the mean gradient matters: that of k1 is 0, that
    of k2 is the gradient of KL(π‖π_ref), that of k3 the gradient of KL(π_ref‖π), for tokens sampled
    from π itself (compare arXiv 2510.01555, https://arxiv.org/abs/2510.01555). The sign of x
    matters: at x = −4, k3 is 3.018; with x of the wrong sign it is 49.598. Shapes: any, equal.
    Units: nats. Raises `LabError` when the shapes differ or the estimator is unknown.
    Anchor: log π = −1, log π_ref = −2, so x = −1: k1 = 1, k2 = 0.5, k3 = e⁻¹ = 0.367879.
    """
    if estimator not in KL_ESTIMATORS:
        raise unknown("KL estimator", estimator, list(KL_ESTIMATORS))
    if token_logps.shape != reference_token_logps.shape:
        raise LabError(
            f"token_logps are {tuple(token_logps.shape)} and reference_token_logps"
            f" {tuple(reference_token_logps.shape)}; both take one shape."
        )
    x = reference_token_logps - token_logps
    if estimator == "k1":
        return -x
    if estimator == "k2":
        return x**2 / 2
    return torch.expm1(x) - x  # Eq. 4
