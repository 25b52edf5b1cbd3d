"""The margin of pairs under a policy: which of two completions training has made more likely."""

from collections.abc import Sequence

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.algorithms.logprobs import sequence_logps
from lab.data.batching import collate, encode_examples
from lab.data.examples import Pair
from lab.data.token_rows import TextPair
from lab.engine.token_logprobs import token_statistics

PAIRS_AT_ONCE = 64


@torch.no_grad()
def pair_margins(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Pair],
    device: torch.device,
    max_length: int,
) -> torch.Tensor:
    """Returns h (P,) in nats of every pair: log π − log π_ref of the chosen completion, minus that of the
    rejected one. The reference is the policy with its adapter off.

    Raises `LabError`, with the number of the pair, for one that has more than `max_length` tokens or
    cannot be encoded.
    """
    texts: list[TextPair] = [
        (pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)
    ]
    examples = encode_examples(tokenizer, texts, max_length, "completion of eval_pairs")
    ratios = []
    for start in range(0, len(examples), 2 * PAIRS_AT_ONCE):
        batch = collate(examples[start : start + 2 * PAIRS_AT_ONCE], _pad_id(tokenizer)).to(device)
        statistics = token_statistics(model, batch, reference=model)
        assert statistics.reference_logps is not None  # With a reference there are some.
        ratios.append(
            sequence_logps(statistics.logps - statistics.reference_logps, batch.completion_mask)
        )
    chosen, rejected = torch.cat(ratios).view(-1, 2).unbind(1)
    return chosen - rejected


def _pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    pad_id = tokenizer.pad_token_id
    assert isinstance(pad_id, int)  # Loading a tokenizer makes sure of it.
    return pad_id
