"""Logits of the next token, for rows that grow token by token, by a model's own forward pass: three
ways, one interface.

`Padded` reads prompts of all lengths together, padded on the left, which attention can mask. A
recurrent layer (Mamba, a short convolution, linear attention) carries the padding into its state,
so `Aligned` takes prompts of one length, without padding. Where neither is right, `Recomputed`
keeps nothing and reads the whole row again for every token. `way_of` finds the fastest way whose
logits are those of an unpadded pass.
"""

import inspect
from typing import Protocol
from weakref import WeakKeyDictionary

import torch
from peft import PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from lab.distributed.fsdp import is_sharded
from lab.errors import LabError
from lab.models.device import autocast

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.15}
"""How far logits may be from those of an unpadded pass, as a share of the largest: bfloat16 rounds,
and a rounded router may choose another expert.
"""


class Rows(Protocol):
    """Rows that grow: `prefill` reads the prompts, `step` one more token (R,) of each row; both
    give the logits (R, V) of what comes next.

    `aligned` ways take prompts of one length.
    """

    aligned: bool

    def __init__(self, model: PeftModel, prompts: list[list[int]], group: int) -> None: ...

    def prefill(self) -> torch.Tensor: ...

    def step(self, token: torch.Tensor) -> torch.Tensor: ...

    def keep(self, rows: torch.Tensor) -> None: ...


def base_of(model: PeftModel | PreTrainedModel) -> PreTrainedModel:
    """The model under its adapters."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def takes(model: PeftModel, name: str) -> bool:
    """Whether the model's forward pass has an argument of that name."""
    return name in inspect.signature(type(base_of(model)).forward).parameters


def _next(model: PeftModel, **inputs: object) -> torch.Tensor:
    """Logits (R, V) behind the last token."""
    last = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    return model(**inputs, **last).logits[:, -1]


def _places(model: PeftModel, positions: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"position_ids": positions} if takes(model, "position_ids") else {}


class Padded:
    """Prompts of any length, padded on the left and masked; keys and values are kept, and shared by
    the `group` rows of a prompt until they part.
    """

    aligned = False

    def __init__(self, model: PeftModel, prompts: list[list[int]], group: int) -> None:
        width, device = max(map(len, prompts)), base_of(model).device
        self.model, self.group, self.cache = model, group, DynamicCache()
        self.ids = torch.tensor([[0] * (width - len(r)) + r for r in prompts], device=device)
        self.mask = torch.tensor(
            [[0] * (width - len(r)) + [1] * len(r) for r in prompts], device=device
        )

    def prefill(self) -> torch.Tensor:
        """Read each prompt once."""
        with sdpa_kernel(
            SDPBackend.MATH
            # Padding before a prompt sees nothing, which other kernels may answer with NaN: it would
            # spread from there.
        ):
            logits = _next(
                self.model,
                input_ids=self.ids,
                attention_mask=self.mask,
                past_key_values=self.cache,
                use_cache=True,
                **_places(self.model, (self.mask.cumsum(1) - 1).clamp(min=0)),
            )
        self.cache.batch_repeat_interleave(self.group)
        self.mask = self.mask.repeat_interleave(self.group, 0)
        return logits.repeat_interleave(self.group, 0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read the next token of every row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(token), 1)], 1)
        return _next(
            self.model,
            input_ids=token[:, None],
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **_places(self.model, self.mask.sum(1, keepdim=True) - 1),
        )

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.cache.batch_select_indices(rows)
        self.mask = self.mask[rows]


class Aligned:
    """Prompts of one length, without padding or mask; the cache is the one that the architecture's
    config asks for, states of recurrent layers among it.
    """

    aligned = True

    def __init__(self, model: PeftModel, prompts: list[list[int]], group: int) -> None:
        self.model, self.group = model, group
        self.ids = torch.tensor(prompts, device=base_of(model).device)
        self.cache = DynamicCache(config=base_of(model).config)
        self.name, self.read = (
            "past_key_values" if takes(model, "past_key_values") else "cache_params",
            0,
        )

    def prefill(self) -> torch.Tensor:
        """Read each prompt once."""
        logits = self._read(self.ids)
        self.keep(torch.arange(len(self.ids), device=self.ids.device).repeat_interleave(self.group))
        return logits.repeat_interleave(self.group, 0)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read the next token of every row."""
        return self._read(token[:, None])

    def _read(self, ids: torch.Tensor) -> torch.Tensor:
        places = torch.arange(self.read, self.read + ids.shape[1], device=ids.device).expand(
            len(ids), -1
        )  # Not every model counts them itself.
        self.read += ids.shape[1]
        return _next(
            self.model,
            input_ids=ids,
            use_cache=True,
            **{self.name: self.cache},
            **_places(self.model, places),
        )

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone, in this order; a row may come twice."""
        self.cache.reorder_cache(rows)


class Recomputed:
    """Prompts of one length, read again from the beginning for every token: slow, and right for
    every causal model.
    """

    aligned = True

    def __init__(self, model: PeftModel, prompts: list[list[int]], group: int) -> None:
        self.model = model
        self.ids = torch.tensor(prompts, device=base_of(model).device).repeat_interleave(group, 0)

    def prefill(self) -> torch.Tensor:
        """Read the prompts."""
        return _next(self.model, input_ids=self.ids, use_cache=False)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        """Read every row again with its next token."""
        self.ids = torch.cat([self.ids, token[:, None]], 1)
        return self.prefill()

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with these rows alone."""
        self.ids = self.ids[rows]


_WAYS: WeakKeyDictionary[PreTrainedModel, type[Rows]] = WeakKeyDictionary()


def way_of(model: PeftModel) -> type[Rows]:
    """The fastest of the three ways whose logits agree with `Recomputed`, tried once on a few
    tokens. `LabError` where the weights are sharded and only prompts of one length would do:
    processes take equal steps only if each reads all its prompts together.
    """
    base = base_of(model)
    if base not in _WAYS:
        candidates = [way for way in _candidates(base) if way is Recomputed or _agrees(model, way)]
        _WAYS[base] = candidates[0]
    if is_sharded(model) and _WAYS[base].aligned:
        raise LabError(
            f"shard is on, but a model of type '{base.config.model_type}' cannot read prompts of"
            " different lengths together, which sharded weights take. Leave --shard out, or use"
            " --quantization 4bit for a model that does not fit."
        )
    return _WAYS[base]


def _candidates(base: PreTrainedModel) -> list[type[Rows]]:
    """The ways that may be right, by the cache that transformers would make for `generate`."""
    if not base._supports_default_dynamic_cache() or not (
        takes(base, "past_key_values") or takes(base, "cache_params")
    ):
        return [Recomputed]
    try:
        layers = DynamicCache(config=base.config).layers
    except (
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ):  # A layer type that has no cache of its own.
        return [Recomputed]
    recurrent = getattr(base, "_is_stateful", False) or any(
        isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers
    )
    return [Aligned, Recomputed] if recurrent else [Padded, Aligned, Recomputed]


def _agrees(model: PeftModel, way: type[Rows]) -> bool:
    """Whether a way gives the logits of `Recomputed`, for prompts of two lengths where it takes
    them, over steps in which a row leaves.
    """
    size = base_of(model).get_input_embeddings().num_embeddings
    rows = [[(7 * i + 3) % size for i in range(n)] for n in ((2, 5) if not way.aligned else (5, 5))]
    more = torch.tensor(
        [[(11 * i + 5 * k + 1) % size for i in range(4)] for k in range(3)],
        device=base_of(model).device,
    )
    try:
        with torch.no_grad(), autocast(base_of(model).device):
            ours = _trace(way, model, rows, more)
            theirs = [
                _trace(Recomputed, model, [row], more[:, 2 * i : 2 * i + 2])
                for i, row in enumerate(rows)
            ]
    except LabError:
        raise
    except Exception:  # Whatever a cache of another design raises: then this way is not for it.
        return False
    wanted = [torch.cat(parts)[: len(found)] for found, *parts in zip(ours, *theirs)]
    scale = max(part.abs().max() for part in wanted)
    dtype = base_of(model).dtype
    return all(
        ((a - b).abs().max() <= TOLERANCE.get(dtype, 0.15) * scale).item()
        for a, b in zip(ours, wanted)
    )


def _trace(
    way: type[Rows], model: PeftModel, prompts: list[list[int]], more: torch.Tensor
) -> list[torch.Tensor]:
    """Logits after the prompts, in groups of two, and after each of the tokens `more` (steps,
    rows); before the last step all rows but the first two leave.
    """
    rows = way(model, prompts, 2)
    found = [rows.prefill()]
    for token in more[:-1]:
        found.append(rows.step(token))
    rows.keep(torch.arange(2, device=more.device))
    return [part.float() for part in (*found, rows.step(more[-1, :2]))]
