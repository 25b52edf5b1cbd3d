"""Truncated sampling: the tokens that top-k, top-p and min-p leave, by transformers' own functions.

The distribution that was sampled is the policy's, restricted to these tokens and divided by their
mass. Log-probabilities, entropy and KL in training are those of the restricted distribution, and the
reference is restricted to the same tokens.
"""

from dataclasses import dataclass
from typing import cast

import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lab.config.run_config import OnlineConfig

EXCLUDED_LOGIT = -1e9
"""The logit of a token that is left out. Its probability is exactly 0, and unlike that of −∞ its
product with the logarithm of that probability is 0 as well.
"""


@dataclass(frozen=True)
class Truncation:
    """Leaves the `top_k` most likely tokens (0: all), then the fewest most likely ones whose
    probabilities sum to at least `top_p`, then those at least `min_p` times as likely as the most
    likely one.
    """

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @torch.no_grad()
    def kept(self, logits: torch.Tensor) -> torch.Tensor:
        """Return which tokens are left (N, V) of `logits` (N, V), which are divided by the temperature.

        Anchor: probabilities 0.5, 0.3, 0.2 with top_p 0.7 leave the first two.
        """
        scores = logits.to(torch.promote_types(logits.dtype, torch.float32))
        no_ids = cast(torch.LongTensor, None)  # These processors look at scores alone.
        if self.top_k:
            scores = TopKLogitsWarper(self.top_k, EXCLUDED_LOGIT)(no_ids, scores)
        if self.top_p < 1:
            scores = TopPLogitsWarper(self.top_p, EXCLUDED_LOGIT)(no_ids, scores)
        if self.min_p:
            scores = MinPLogitsWarper(self.min_p, EXCLUDED_LOGIT)(no_ids, scores)
        return scores != EXCLUDED_LOGIT

    def restrict(
        self, logits: torch.Tensor, temperature: float | torch.Tensor = 1.0
    ) -> torch.Tensor:
        """Return `logits` (N, V) with `EXCLUDED_LOGIT` for the tokens that are left out."""
        return logits.masked_fill(~self.kept(logits / temperature), EXCLUDED_LOGIT)

    def kept_with(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return which tokens (B, T, V) are left for the token behind each of `ids` (B, T), that token
        itself always: a later update, or another rounding, may leave it out.
        """
        kept = self.kept(logits.flatten(0, 1)).view(logits.shape)
        kept[:, :-1].scatter_(2, ids[:, 1:, None], True)
        return kept


def truncation_of(config: OnlineConfig) -> Truncation | None:
    """Return the truncation of a run, None for the whole distribution."""
    truncation = Truncation(config.top_k, config.top_p, config.min_p)
    return None if truncation == Truncation() else truncation
