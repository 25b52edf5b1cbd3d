"""Token log-probabilities, entropy and KL of a batch: under the policy, with gradient, and under
the reference.

`reference_implementation` computes all logits and passes them to `lab.algorithms.logprobs`.
`token_statistics` computes the same numbers faster. If it knows the model's last layer, it uses
`lab.engine.chunked_logprobs`, which never holds all logits; if it knows the whole architecture, it
also computes the hidden states by the fast path of `lab.engine.llama`.
"""

from contextlib import nullcontext
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from lab.algorithms.kl import exact_kl
from lab.algorithms.logprobs import sequence_logps, token_entropy, token_logps
from lab.data.batching import TokenBatch, last_token
from lab.engine.chunked_logprobs import TokenStatistics, chunked_token_statistics
from lab.engine.cuda_graphs import hidden_states
from lab.engine.decode_any_model import base_of
from lab.engine.llama import decoder_of
from lab.engine.truncation import EXCLUDED_LOGIT, Truncation
from lab.models.adapters import adapter_disabled, reference_adapter
from lab.models.device import autocast
from lab.models.full_weights import has_initial_weights
from lab.models.fused_weights import FAST_PATH_ARCHITECTURES
from lab.models.loading import backbone_of

Network = PeftModel | PreTrainedModel
LINEAR_HEAD_ARCHITECTURES = (*FAST_PATH_ARCHITECTURES, "gpt2", "gpt_neox")
"""Model types whose logits are the hidden states times a matrix. Others scale, cap or shift them."""


def token_statistics(
    model: Network,
    tokens: TokenBatch,
    *,
    temperature: float = 1.0,
    reference: Network | None = None,
    entropy: bool = False,
    truncation: Truncation | None = None,
) -> TokenStatistics:
    """Return per-token statistics of the completions, as padded batches (B, T) in nats that are 0
    elsewhere: `logps`, with gradient where enabled, and with `entropy` the entropy.

    With a `reference` there are also `reference_logps` and the exact `kl`, a sum over the
    vocabulary, without gradient. `model` itself as the reference means `model` with its adapter
    off; another network is a reference with weights of its own. Log-probabilities are those at
    `temperature`, the sampling temperature, over the tokens that `truncation` leaves.
    """
    decoder = decoder_of(model)
    if truncation or (decoder is None and not _has_frozen_linear_head(model)):
        return reference_implementation(
            model,
            tokens,
            temperature=temperature,
            reference=reference,
            entropy=entropy,
            truncation=truncation,
        )
    packed = tokens.scored
    reference_states = None
    if reference is not None:
        # A decoder gets the adapter, or None, as an argument.
        own_reference = reference is model and decoder is None
        with (
            torch.no_grad(),
            adapter_disabled(_own_reference(model)) if own_reference else nullcontext(),
        ):
            reference_states = predictor_states(reference, reference_adapter(reference), tokens)
    states = predictor_states(model, active_adapter_name(model), tokens)
    statistics = chunked_token_statistics(
        states,
        lm_head_weight(model).to(states.dtype),
        packed.target_ids,
        temperature,
        reference=reference_states,
        entropy=entropy,
    )

    def padded(values: torch.Tensor | None) -> torch.Tensor | None:
        return None if values is None else packed.pad_packed(values)

    return TokenStatistics(
        packed.pad_packed(statistics.logps),
        padded(statistics.entropy),
        padded(statistics.reference_logps),
        padded(statistics.kl),
    )


def predictor_states(model: Network, adapter: str | None, tokens: TokenBatch) -> torch.Tensor:
    """Return the hidden states (M, H) of the tokens before the M completion tokens, in the order of
    `tokens.scored`, under `adapter`, which must be the active one.
    """
    decoder, packed = decoder_of(model), tokens.scored
    if decoder is None:
        return padded_hidden_states(model, tokens, adapter).flatten(0, 1)[
            packed.target_flat_positions - 1
        ]
    return hidden_states(decoder, adapter, packed, packed.predictor_indices)


def _has_frozen_linear_head(model: Network) -> bool:
    """Return whether the logits are known to be the hidden states times one frozen matrix."""
    base = base_of(model)
    head = base.get_output_embeddings()
    return (
        not has_initial_weights(base)  # Policy and reference have heads of their own.
        and base.config.model_type in LINEAR_HEAD_ARCHITECTURES
        and type(head) is torch.nn.Linear
        and head.bias is None
        and not head.weight.requires_grad
    )


def reference_implementation(
    model: Network,
    tokens: TokenBatch,
    *,
    temperature: float = 1.0,
    reference: Network | None = None,
    entropy: bool = False,
    truncation: Truncation | None = None,
) -> TokenStatistics:
    """Return what `token_statistics` returns, by the model's own forward pass, with all logits in
    memory. Tests compare the fast path with it; architectures with another last layer and truncated
    distributions take it.
    """
    ids, mask = tokens.ids, tokens.completion_mask
    logits, kept = _logits(model, ids), None
    if truncation:
        kept = truncation.kept_with(logits / temperature, ids)
        logits = logits.masked_fill(~kept, EXCLUDED_LOGIT)
    statistics = TokenStatistics(token_logps(logits, ids, temperature) * mask)
    with torch.no_grad():
        if entropy:
            scaled = logits if temperature == 1 else logits / temperature
            statistics.entropy = token_entropy(scaled) * mask
        if reference is not None:
            with adapter_disabled(_own_reference(model)) if reference is model else nullcontext():
                reference_logits = _logits(reference, ids)
            if kept is not None:
                reference_logits = reference_logits.masked_fill(~kept, EXCLUDED_LOGIT)
            statistics.reference_logps = token_logps(reference_logits, ids, temperature) * mask
            statistics.kl = exact_kl(logits / temperature, reference_logits / temperature) * mask
    return statistics


def _own_reference(model: Network) -> PeftModel:
    """Return `model` as one that `adapter_disabled` makes the reference: with an adapter, or with a copy
    of its initial weights.
    """
    if not isinstance(model, PeftModel) and not has_initial_weights(model):
        name = type(model).__name__
        raise TypeError(
            f"A {name} has no adapter to turn off, so it cannot be its own reference. Give a"
            " PeftModel, or another network as the reference."
        )
    return cast(PeftModel, model)


def _logits(model: Network, ids: torch.Tensor) -> torch.Tensor:
    """Return next-token logits (B, T, V) of right-padded `ids` (B, T). Causal attention never sees
    the padding, so it needs no mask.
    """
    with autocast(ids.device):
        return model(input_ids=ids, use_cache=False).logits


def completion_logps(model: Network, tokens: TokenBatch) -> torch.Tensor:
    """Return the summed log-probabilities (B,) of the completions in nats, with gradient where
    enabled.
    """
    return sequence_logps(token_statistics(model, tokens).logps, tokens.completion_mask)


def padded_hidden_states(model: Network, tokens: TokenBatch, adapter: str | None) -> torch.Tensor:
    """Return hidden states (B, T, H) after the last norm under `adapter`, up to each row's last
    completion token; on the fast path they are 0 after it.
    """
    decoder = decoder_of(model)
    if decoder is None:
        with autocast(tokens.ids.device):
            backbone = backbone_of(base_of(model))
            return backbone(input_ids=tokens.ids, use_cache=False).last_hidden_state
    packed = tokens.packed
    states = hidden_states(decoder, adapter, packed)
    padded = states.new_zeros(packed.rows * packed.width, states.shape[1]).index_copy(
        0, packed.flat_positions, states
    )
    return padded.view(packed.rows, packed.width, -1)


def score(model: PeftModel, tokens: TokenBatch) -> torch.Tensor:
    """Return scalar rewards (B,) in float32 of a model with a scalar head in place of the
    vocabulary, read at each completion's last token.
    """
    states = padded_hidden_states(model, tokens, active_adapter_name(model))[
        torch.arange(len(tokens.ids), device=tokens.ids.device), last_token(tokens)
    ]
    head = base_of(model).score
    assert isinstance(head, torch.nn.Module)
    with autocast(states.device):
        return head(states).squeeze(-1).float()


def active_adapter_name(model: Network) -> str | None:
    """Return the name of the active adapter, or None where adapters are off (the reference)."""
    layer = next((m for m in model.modules() if isinstance(m, LoraLayer)), None)
    return None if layer is None or layer.disable_adapters else layer.active_adapters[0]


def lm_head_weight(model: Network) -> torch.Tensor:
    """Return the matrix (V, H) that turns hidden states into logits."""
    head = base_of(model).get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    return head.weight.detach()
