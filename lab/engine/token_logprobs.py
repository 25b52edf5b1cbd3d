"""How likely the tokens of a batch are: under the policy, with gradient, and under the reference.

Three ways to the same numbers: `plain` asks the model for all logits and `lab.algorithms.logprobs`
for the rest; `likelihoods` takes `lab.engine.chunked_logprobs` instead, which never holds them all,
where the model's last layer is known, and before it the fast path of `lab.engine.llama` where the
whole architecture is.
"""

from contextlib import nullcontext

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from lab.algorithms.logprobs import exact_kl, sequence_logps, token_entropy, token_logps
from lab.data.batching import TokenBatch, last_token
from lab.engine.chunked_logprobs import PerToken, per_token
from lab.engine.cuda_graphs import hidden_states
from lab.engine.llama import ARCHITECTURES, decoder_of
from lab.models.adapters import adapter_disabled
from lab.models.device import autocast
from lab.models.loading import backbone_of

Network = PeftModel | PreTrainedModel
PLAIN_HEADS = (*ARCHITECTURES, "gpt2", "gpt_neox")  # Others scale, cap or shift their logits.


def token_statistics(
    model: Network,
    tokens: TokenBatch,
    *,
    temperature: float = 1.0,
    against: Network | None = None,
    entropy: bool = False,
) -> PerToken:
    """Per completion token of `tokens`, as padded batches (B, T) that are 0 elsewhere, in nats:
    `logps` with gradient where enabled; `entropy` if asked for.

    `against` is the reference: `model` itself stands for it with the adapter off, another network
    for a copy of its own. Then `reference_logps` and the vocabulary-exact `kl` come too, without
    gradient. Log-probabilities are those at `temperature`, the one that sampled.
    """
    decoder = decoder_of(model)
    if decoder is None and not _ends_in_a_matrix(model):
        return plain(model, tokens, temperature=temperature, against=against, entropy=entropy)
    packed = tokens.scored
    frozen = None
    if against is not None:
        with (
            torch.no_grad(),
            adapter_disabled(model) if against is model and decoder is None else nullcontext(),
        ):  # A decoder is told which adapter acts.
            frozen = predictor_states(against, None, tokens)
    states = predictor_states(model, adapter_of(model), tokens)
    found = per_token(
        states,
        head_of(model).to(states.dtype),
        packed.targets,
        temperature,
        reference=frozen,
        entropy=entropy,
    )
    return PerToken(
        *(
            None if part is None else packed.spread(part)
            for part in (found.logps, found.entropy, found.reference_logps, found.kl)
        )
    )


def predictor_states(model: Network, adapter: str | None, tokens: TokenBatch) -> torch.Tensor:
    """Hidden states (M, H) of the tokens before the completion tokens, in the order of
    `tokens.scored`, under `adapter`, which acts on `model` now.
    """
    decoder, packed = decoder_of(model), tokens.scored
    if decoder is None:
        return states_of(model, tokens, adapter).flatten(0, 1)[packed.homes - 1]
    return hidden_states(decoder, adapter, packed, packed.predictors)


def _ends_in_a_matrix(model: Network) -> bool:
    """Whether logits are the hidden states times one matrix that does not train, and nothing else,
    as far as this lab knows the architecture.
    """
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    head = whole.get_output_embeddings()
    return (
        whole.config.model_type in PLAIN_HEADS
        and type(head) is torch.nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )


def plain(
    model: Network,
    tokens: TokenBatch,
    *,
    temperature: float = 1.0,
    against: Network | None = None,
    entropy: bool = False,
) -> PerToken:
    """`likelihoods` by the model's own forward pass, with all logits in memory: the oracle, and the
    path of architectures with another last layer.
    """
    ids, mask = tokens.ids, tokens.completion_mask
    logits = _logits(model, ids)
    found = PerToken(token_logps(logits, ids, temperature) * mask)
    with torch.no_grad():
        if entropy:
            found.entropy = (
                token_entropy(logits if temperature == 1 else logits / temperature) * mask
            )
        if against is not None:
            if against is model:
                with adapter_disabled(model):
                    frozen = _logits(model, ids)
            else:
                frozen = _logits(against, ids)
            found.reference_logps = token_logps(frozen, ids, temperature) * mask
            found.kl = exact_kl(logits / temperature, frozen / temperature) * mask
    return found


def _logits(model: Network, ids: torch.Tensor) -> torch.Tensor:
    """Next-token logits (B, T, V) of right-padded `ids` (B, T); causal attention never sees the
    padding, so it needs no mask.
    """
    with autocast(ids.device):
        return model(input_ids=ids, use_cache=False).logits


def completion_logps(model: Network, tokens: TokenBatch) -> torch.Tensor:
    """Summed log-probabilities (B,) of the completions in nats, with gradient where enabled."""
    return sequence_logps(token_statistics(model, tokens).logps, tokens.completion_mask)


def states_of(model: Network, tokens: TokenBatch, adapter: str | None) -> torch.Tensor:
    """Hidden states after the last norm (B, T, H) under `adapter`, up to each row's last completion
    token; 0 beyond it.
    """
    decoder = decoder_of(model)
    if decoder is None:
        with autocast(tokens.ids.device):
            whole = model.get_base_model() if isinstance(model, PeftModel) else model
            return backbone_of(whole)(input_ids=tokens.ids, use_cache=False).last_hidden_state
    packed = tokens.packed
    states = hidden_states(decoder, adapter, packed)
    cells = states.new_zeros(packed.rows * packed.width, states.shape[1]).index_copy(
        0, packed.cells, states
    )
    return cells.view(packed.rows, packed.width, -1)


def score(model: PeftModel, tokens: TokenBatch) -> torch.Tensor:
    """Scalar rewards (B,) in float32 of a model with a scalar head in place of the vocabulary, read
    at each completion's last token.
    """
    states = states_of(model, tokens, adapter_of(model))[
        torch.arange(len(tokens.ids), device=tokens.ids.device), last_token(tokens)
    ]
    with autocast(states.device):
        return model.get_base_model().score(states).squeeze(-1).float()


def adapter_of(model: Network) -> str | None:
    """The adapter that acts on `model` now, or None where it is the reference."""
    layer = next((m for m in model.modules() if isinstance(m, LoraLayer)), None)
    return None if layer is None or layer.disable_adapters else layer.active_adapters[0]


def head_of(model: Network) -> torch.Tensor:
    """The matrix (V, H) that makes logits of hidden states."""
    whole = model.get_base_model() if isinstance(model, PeftModel) else model
    return whole.get_output_embeddings().weight.detach()
