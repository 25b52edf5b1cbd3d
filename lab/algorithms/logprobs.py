"""Log-probabilities and entropy of tokens, from logits; in float32 (float64 stays float64), in nats.

One convention: entry t of a per-token tensor (B, T) belongs to token t of `ids` and was computed
from the tokens before it, so it lines up with `ids` and `completion_mask`. Entry 0 is 0, since
nothing comes before the first token.
"""

import torch
from torch.nn.functional import pad

from lab.errors import LabError


def next_token_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return the logits that predict tokens 1 … T−1, in at least float32: (B, T, V) → (B, T − 1, V).
    A tensor that is float32 or float64 already is not copied.
    """
    return logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))


def token_logps(logits: torch.Tensor, ids: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-probability of each token given those before it, at the temperature that sampled it.

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
    z = next_token_logits(logits)
    z = z if temperature == 1 else z / temperature
    return pad(z.gather(-1, ids[:, 1:, None]).squeeze(-1) - z.logsumexp(-1), (1, 0))


def sequence_logps(token_logps: torch.Tensor, completion_mask: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of each completion: its end token counts, prompt and padding do not.

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
    """Return the entropy of the distribution that each token was drawn from.

    H_t = −Σ_v p_v·log p_v,  p = softmax(logits_{t−1})

    Shapes: (B, T, V) → (B, T); entry 0 is 0. Units: nats. Raises `LabError` for another number of
    dimensions. Anchor: four equal logits give log 4 = 1.386294.
    """
    if logits.ndim != 3:
        raise LabError(f"logits are {tuple(logits.shape)}, but take (B, T, V).")
    log_p = next_token_logits(logits).log_softmax(-1)
    return pad(-(log_p.exp() * log_p).sum(-1), (1, 0))
