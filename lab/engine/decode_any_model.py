"""Logits of the next token by a model's own forward pass, for rows that grow token by token: three
decoders with one interface.

`PaddedDecoder` reads prompts of all lengths together, padded on the left, and attention masks the
padding. A recurrent layer (Mamba, a short convolution, linear attention) would carry the padding
into its state, so `EqualLengthDecoder` takes prompts of one length, without padding. Where neither
is right, `RecomputingDecoder` keeps no cache and reads the whole row again for every token.
`lab.engine.fastest_decoder` chooses among them.
"""

import inspect
from typing import Any, ClassVar, Protocol, cast

import torch
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, PreTrainedModel

from lab.engine.allocator import NO_RECORD, Allocator


class NextTokenDecoder(Protocol):
    """Rows that grow token by token: `group` rows for each of `prompts`, lists of token ids.

    A class with `needs_equal_lengths` takes prompts of one length only.
    """

    needs_equal_lengths: ClassVar[bool]

    def __init__(
        self,
        model: PeftModel,
        prompts: list[list[int]],
        group: int,
        allocator: Allocator = NO_RECORD,
    ) -> None: ...

    def prefill(self) -> torch.Tensor:
        """Read the prompts; return the logits (R, V) of the next token."""

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read one more token (R,) of each row; return the logits (R, V) of the next token."""

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with the rows of these indices alone."""


def base_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """Return the model under its adapters."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def forward_accepts(model: PeftModel | PreTrainedModel, argument: str) -> bool:
    """Return whether the model's forward pass has an argument of that name."""
    return argument in inspect.signature(type(base_of(model)).forward).parameters


def _last_logits(model: PeftModel, **inputs: Any) -> torch.Tensor:
    """Return the logits (R, V) after the last token."""
    if forward_accepts(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    return model(**inputs).logits[:, -1]


def _position_ids(model: PeftModel, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"position_ids": positions} if forward_accepts(model, "position_ids") else {}


class _RegisteredCache(DynamicCache):
    """transformers' cache, which grows by copying; it registers every copy."""

    def __init__(self, allocator: Allocator, **options: Any) -> None:
        super().__init__(**options)
        self._allocator = allocator

    def update(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Append keys and values as the base class does."""
        keys, values = super().update(*args, **kwargs)
        self._allocator.register("cache", keys, values)
        return keys, values


class PaddedDecoder:
    """Prompts of any length, padded on the left and masked. Keys and values are cached; the `group`
    rows of a prompt get copies of its cache after the prefill.
    """

    needs_equal_lengths: ClassVar[bool] = False

    def __init__(
        self,
        model: PeftModel,
        prompts: list[list[int]],
        group: int,
        allocator: Allocator = NO_RECORD,
    ) -> None:
        width, device = max(map(len, prompts)), base_of(model).device
        self.model, self.group, self.cache = model, group, _RegisteredCache(allocator)
        self.ids = torch.tensor([[0] * (width - len(r)) + r for r in prompts], device=device)
        self.mask = torch.tensor(
            [[0] * (width - len(r)) + [1] * len(r) for r in prompts], device=device
        )

    def prefill(self) -> torch.Tensor:
        """Read each prompt once; return the logits (R, V) of the next token.

        It uses the math backend: padding before a prompt attends to nothing, for which other
        kernels may return NaN, and the NaN would spread in the next layer.
        """
        with sdpa_kernel(SDPBackend.MATH):
            logits = self._read(self.ids, (self.mask.cumsum(1) - 1).clamp(min=0))
        self.cache.batch_repeat_interleave(self.group)
        self.mask = self.mask.repeat_interleave(self.group, 0)
        return logits.repeat_interleave(self.group, 0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read one more token (R,) of each row; return the logits (R, V) of the next token."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], 1)
        return self._read(token[:, None], self.mask.sum(1, keepdim=True) - 1)

    def _read(self, ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return _last_logits(
            self.model,
            input_ids=ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **_position_ids(self.model, positions),
        )

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with the rows of these indices alone."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class EqualLengthDecoder:
    """Prompts of one length, without padding or mask. The cache is the one that the architecture's
    config asks for, with the states of recurrent layers.
    """

    needs_equal_lengths: ClassVar[bool] = True

    def __init__(
        self,
        model: PeftModel,
        prompts: list[list[int]],
        group: int,
        allocator: Allocator = NO_RECORD,
    ) -> None:
        self.model, self.group = model, group
        self.ids = torch.tensor(prompts, device=base_of(model).device)
        self.cache = _RegisteredCache(allocator, config=base_of(model).config)
        has_key_values = forward_accepts(model, "past_key_values")
        self.cache_argument = "past_key_values" if has_key_values else "cache_params"
        self.length = 0

    def prefill(self) -> torch.Tensor:
        """Read each prompt once; return the logits (R, V) of the next token."""
        logits = self._read(self.ids)
        prompt_index = torch.arange(len(self.ids), device=self.ids.device)
        self.keep_rows(prompt_index.repeat_interleave(self.group))
        return logits.repeat_interleave(self.group, 0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read one more token (R,) of each row; return the logits (R, V) of the next token."""
        return self._read(token[:, None])

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        # Positions are explicit, because not every model counts them itself.
        positions = torch.arange(self.length, self.length + ids.shape[1], device=ids.device)
        self.length += ids.shape[1]
        return _last_logits(
            self.model,
            input_ids=ids,
            use_cache=True,
            **{self.cache_argument: self.cache},
            **_position_ids(self.model, positions.expand(len(ids), -1)),
        )

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with the rows of these indices, in this order; an index may occur twice."""
        self.cache.reorder_cache(cast(torch.LongTensor, rows))


class RecomputingDecoder:
    """Prompts of one length, read again from the beginning for every token: slow, and right for
    every causal model.
    """

    needs_equal_lengths: ClassVar[bool] = True

    def __init__(
        self,
        model: PeftModel,
        prompts: list[list[int]],
        group: int,
        allocator: Allocator = NO_RECORD,
    ) -> None:
        self.model = model
        self.ids = torch.tensor(prompts, device=base_of(model).device).repeat_interleave(group, 0)

    def prefill(self) -> torch.Tensor:
        """Read the prompts; return the logits (R, V) of the next token."""
        return _last_logits(self.model, input_ids=self.ids, use_cache=False)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read every row again with its next token (R,); return the logits (R, V) after it."""
        self.ids = torch.cat([self.ids, token[:, None]], 1)
        return self.prefill()

    def keep_rows(self, rows: torch.Tensor) -> None:
        """Go on with the rows of these indices alone."""
        self.ids = self.ids[rows]
