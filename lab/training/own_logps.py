"""Log-probabilities of completions by the learner's own mask and sum, from those of all tokens of the
rows: prompt and padding are there too, so that a wrong mask shows.
"""

from contextlib import nullcontext

import torch

from lab.algorithms.logprobs import sequence_logps, token_logps
from lab.config.hooks import COMPLETION_MASK, SEQUENCE_LOGPS
from lab.data.batching import TokenBatch
from lab.models.adapters import adapter_disabled
from lab.training.own_functions import own_tensor
from lab.training.state import TrainState


def all_token_logps(
    run: TrainState, tokens: TokenBatch, *, reference: bool = False
) -> torch.Tensor:
    """Return the log-probabilities (B, T) of all tokens in nats, by the policy with gradient, or by the
    reference.
    """
    with torch.no_grad() if reference else nullcontext():
        with adapter_disabled(run.model) if reference else nullcontext():
            return token_logps(run.model(input_ids=tokens.ids, use_cache=False).logits, tokens.ids)


def own_completion_logps(run: TrainState, tokens: TokenBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities (B,) of the completions by policy and by reference, with the run's own
    mask and sum; where one of the two is missing, with the lab's.
    """
    mask = tokens.completion_mask
    if COMPLETION_MASK.name in run.own:
        inputs = (tokens.ids, mask.int().argmax(1), run.tokenizer.eos_token_id)
        mask = own_tensor(run, COMPLETION_MASK, inputs, mask)

    def summed(logps: torch.Tensor) -> torch.Tensor:
        if SEQUENCE_LOGPS.name not in run.own:
            return sequence_logps(logps, mask)
        return own_tensor(run, SEQUENCE_LOGPS, (logps, mask), logps[:, 0])

    policy, reference = all_token_logps(run, tokens), all_token_logps(run, tokens, reference=True)
    return summed(policy), summed(reference)
