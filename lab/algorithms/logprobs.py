"""From logits to log-probabilities, entropy and KL; everything in float32 (float64 stays float64),
everything in nats.

One convention: entry t of a per-token tensor (B, T) belongs to token t of `ids` and was computed
from the tokens before it, so it lines up with `ids` and `completion_mask`. Entry 0 is 0, for
nothing comes before the first token.
"""

import torch
from torch.nn.functional import pad

from lab.errors import LabError, unknown

KL_ESTIMATORS = ("k1", "k2", "k3")


def _predicting(logits: torch.Tensor) -> torch.Tensor:
    """The logits that predict tokens 1 … T−1, in at least float32: (B, T, V) → (B, T − 1, V),
    without a copy where none is needed.
    """
    return logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))


def token_logps(logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of each token given those before it, at the temperature that sampled it.

    log p(ids_t | ids_<t) = z[ids_t] − logsumexp(z),  z = logits_{t−1} / temperature

    Shapes: logits (B, T, V), ids (B, T) → (B, T); entry 0 is 0. Units: nats.
    Raises `LabError` when the shapes do not fit or the temperature is not positive.
    Anchor: two equal logits give −log 2 = −0.693147.
    """
    if logits.ndim != 3 or logits.shape[:2] != ids.shape:
        raise LabError(
            f"logits are {tuple(logits.shape)} and ids {tuple(ids.shape)}, but take (B, T, V) and"
            " (B, T)."
        )
    if not temperature > 0:
        raise LabError(f"temperature is {temperature}, but takes a number above 0.")
    z = _predicting(logits)
    z = z if temperature == 1 else z / temperature
    return pad(z.gather(-1, ids[:, 1:, None]).squeeze(-1) - z.logsumexp(-1), (1, 0))


def sequence_logps(token_logps: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """Log-probability of each completion, its end token included, prompt and padding left out.

    log π(y|x) = Σ_t log p(ids_t | ids_<t) over the tokens in the mask

    Shapes: (B, T), (B, T) → (B,). Units: nats. Raises `LabError` when the shapes differ.
    Anchor: token log-probabilities −1, −2, −3, −4 with mask 0, 1, 1, 0 give −5.
    """
    if token_logps.ndim != 2 or token_logps.shape != completion_mask.shape:
        raise LabError(
            f"token_logps are {tuple(token_logps.shape)} and completion_mask"
            f" {tuple(completion_mask.shape)}; both take (B, T)."
        )
    return token_logps.masked_fill(~completion_mask.bool(), 0.0).sum(1)


def token_entropy(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of the distribution that each token was drawn from.

    H_t = −Σ_v p_v·log p_v,  p = softmax(logits_{t−1})

    Shapes: (B, T, V) → (B, T); entry 0 is 0. Units: nats. Raises `LabError` for another number of
    dimensions. Anchor: four equal logits give log 4 = 1.386294.
    """
    if logits.ndim != 3:
        raise LabError(f"logits are {tuple(logits.shape)}, but take (B, T, V).")
    log_p = _predicting(logits).log_softmax(-1)
    return pad(-(log_p.exp() * log_p).sum(-1), (1, 0))


def exact_kl(logits: torch.Tensor, reference_logits: torch.Tensor) -> torch.Tensor:
    """KL from the policy to the reference of the next-token distributions, over the whole
    vocabulary.

    KL(π‖π_ref)_t = Σ_v π_v·(log π_v − log π_ref,v)

    Summed over a completion that was sampled from π it is an unbiased estimate of the KL between
    whole completions, with less variance than any estimate from the sampled tokens alone. Shapes:
    (B, T, V) twice → (B, T); entry 0 is 0. Units: nats. Raises `LabError` when the shapes differ.
    Anchor: π = (1/2, 1/2) against π_ref = (1/4, 3/4) gives ½·log 2 + ½·log ⅔ = 0.143841; the other
    direction gives 0.130812.
    """
    if logits.ndim != 3 or logits.shape != reference_logits.shape:
        raise LabError(
            f"logits are {tuple(logits.shape)} and reference_logits"
            f" {tuple(reference_logits.shape)}; both take (B, T, V)."
        )
    log_p, log_q = (
        _predicting(logits).log_softmax(-1),
        _predicting(reference_logits).log_softmax(-1),
    )
    return pad((log_p.exp() * (log_p - log_q)).sum(-1), (1, 0))


def kl_estimate(
    token_logps: torch.Tensor, reference_token_logps: torch.Tensor, estimator: str
) -> torch.Tensor:
    """Estimates of KL(π‖π_ref) from tokens sampled from π (Schulman,
    http://joschu.net/blog/kl-approx.html).

    k1 = −x;  k2 = x²/2;  k3 = eˣ − x − 1, which is GRPO's (arXiv 2402.03300, Eq. 4);  x = log π_ref
    − log π

    As a number, k1 and k3 are unbiased, k2 is not; k2 and k3 are never negative. As a term of a
    loss, what counts is the mean gradient: that of k1 is 0, of k2 that of KL(π‖π_ref), of k3 that
    of KL(π_ref‖π). The sign of x matters: at x = −4, k3 is 3.018; with x of the wrong sign it is
    49.598. Shapes: any, equal. Units: nats. Raises `LabError` when the shapes differ or the
    estimator is unknown. Anchor: log π = −1, log π_ref = −2, so x = −1: k1 = 1, k2 = 0.5, k3 = e⁻¹
    = 0.367879.
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
