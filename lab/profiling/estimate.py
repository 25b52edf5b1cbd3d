"""An estimate of memory for models that do not fit here: the lab's own update, run on tensors that
have shapes but no content.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft import get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig

from lab.config.methods import METHODS, make_config
from lab.data.batching import Tokens
from lab.data.packing import Packed, Padded, pack_shared_prefix, uniform
from lab.engine.decode import PACES
from lab.engine.llama import decoder_of
from lab.errors import LabError, unknown
from lab.models.lora import lora_config
from lab.profiling.profiler import KINDS, models_of, networks_of, tracked
from lab.training.heads import ScalarHeadModel
from lab.training.methods.dpo import Pairs
from lab.training.methods.kto import Judged
from lab.training.methods.online import ACTIVATIONS, Part, pieces_within
from lab.training.rollout import Rollout
from lab.training.state import TrainState

SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "360m": {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "vocab_size": 49_152,
        "tie_word_embeddings": True,
    },
    "1.2b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": True,
    },
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32_000,
        "tie_word_embeddings": False,
    },
    "70b": {
        "hidden_size": 8192,
        "intermediate_size": 28_672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
        "tie_word_embeddings": False,
    },
}
"""Architectures of Llama's family: SmolLM2-135M and -360M, Llama 3.2 1B, Llama 2 7B, Llama 3 70B."""

LAYOUTS = ("shared", "separate")
MOST_TOKENS = (
    2**21
    # of one piece; its update is computed without content, but chunk by chunk, which would take minutes
)
STATES: dict[str, tuple[torch.dtype | None, ...]] = {
    "adamw": (None, None),
    "adamw_8bit": (torch.uint8, torch.uint8),
    "sgd": (),
}
"""Optimizers, each with what it keeps for a weight: tensors of its shape, in this dtype or (None)
in its own.
"""


def methods_estimated() -> list[str]:
    """Return the names of the methods whose batches the estimator knows."""
    return [spec.name for spec in METHODS.values() if spec.estimated]


@dataclass(frozen=True)
class Estimate:
    """Bytes of one update by kind, at the highest total of sampling and of updating. Nothing here
    was measured.
    """

    model: str
    method: str
    models: list[str]
    parameters: int
    trainable: int
    memory: dict[str, dict[str, int]]
    peak: int


def estimate(
    model: str,
    method: str,
    *,
    batch_size: int,
    prompt_tokens: int,
    completion_tokens: int,
    group_size: int = 8,
    full: bool = False,
    lora_rank: int = 16,
    bf16: bool = True,
    checkpointing: bool = False,
    layout: str = "shared",
    micro_batches: int = 1,
    optimizer: str = "adamw",
) -> Estimate:
    """Memory of training `model` (a name of `SHAPES`) with `method` and LoRA, or every weight when
    `full`.

    `batch_size` counts pairs (DPO, IPO), examples (KTO) or completions (GRPO, PPO), of which
    `micro_batches` pieces go through the model one after the other (on CUDA a rollout in at least
    as many as keep within `lab.training.methods.online.ACTIVATIONS`); every sequence is as long as
    it can be. `bf16` is what the lab does on CUDA: base in bfloat16, LoRA and its optimizer in
    float32; otherwise float32. With `full` weights, gradients and optimizer state have the dtype of
    the base. `checkpointing` recomputes activations. `layout` is PPO's, `optimizer` a name of
    `STATES`. Raises `LabError` for an unknown model, method or optimizer.
    """
    if model not in SHAPES:
        raise unknown("model", model, list(SHAPES))
    estimated = methods_estimated()
    if method not in estimated:
        raise unknown("method to estimate", method, estimated)
    if layout not in LAYOUTS:
        raise unknown("layout", layout, list(LAYOUTS))
    if full and method == "ppo" and layout == "shared":
        raise LabError(
            "With every weight trained, policy and critic cannot share a base. Use --layout"
            " separate."
        )
    if optimizer not in STATES:
        raise unknown("optimizer", optimizer, list(STATES))
    if (
        min(batch_size, prompt_tokens, completion_tokens, group_size, lora_rank, micro_batches) < 1
        or batch_size % micro_batches
    ):
        raise LabError(
            "batch_size, tokens, group_size, lora_rank and micro_batches are whole numbers of at"
            " least 1, and micro_batches divides batch_size."
        )
    tokens = (
        batch_size
        // micro_batches
        * METHODS[method].rows_per_example
        * (prompt_tokens + completion_tokens)
    )
    if tokens > MOST_TOKENS:
        raise LabError(
            f"{tokens:,} tokens would go through the model at once, and at most {MOST_TOKENS:,} are"
            " estimated. Raise micro_batches, or lower batch_size or the tokens."
        )
    return estimate_shape(
        model,
        SHAPES[model],
        method,
        batch_size=batch_size,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        group_size=group_size,
        full=full,
        lora_rank=lora_rank,
        bf16=bf16,
        checkpointing=checkpointing,
        layout=layout,
        micro_batches=micro_batches,
        optimizer=optimizer,
    )


def estimate_shape(
    name: str,
    shape: dict[str, Any],
    method: str,
    *,
    batch_size: int,
    prompt_tokens: int,
    completion_tokens: int,
    group_size: int,
    full: bool,
    lora_rank: int,
    bf16: bool,
    checkpointing: bool,
    layout: str,
    micro_batches: int,
    optimizer: str = "adamw",
    longest: int = 0,
) -> Estimate:
    """`estimate` for any `LlamaConfig` arguments; `longest` is the longest row where they differ,
    and the tokens are then those of a mean one.

    With `full` there still is an adapter, of rank 1, which weighs next to nothing.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    own = {
        "grpo": {"group_size": group_size, "batch_size": group_size, "beta": 0.04},
        "ppo": {"model_layout": layout, "minibatches": 1},
    }
    config = make_config(
        method, {"lora_rank": 1 if full else lora_rank, "device": "cpu"} | own.get(method, {})
    )
    rows = batch_size // micro_batches
    computing: Callable[[], AbstractContextManager] = (
        (lambda: torch.autocast("cpu", torch.bfloat16)) if bf16 else nullcontext
    )
    length, longest = (
        prompt_tokens + completion_tokens,
        longest or prompt_tokens + completion_tokens,
    )
    sides = {"dpo": 2, "ipo": 2, "grpo": group_size}.get(method, 1)  # Completions of one prompt.
    sequences = rows * METHODS[method].rows_per_example
    packed = (
        None
        if bf16
        else _scored(sequences, length, prompt_tokens, longest, max(1, sequences // sides))
    )
    with torch.device("meta"):
        run = _empty_run(config, shape, dtype, full, checkpointing)
    with FakeTensorMode():
        for network in networks_of(run):
            _materialise(network)
        for scalar in (run.critic, run.reward_model):
            if scalar:
                scalar.head = torch.nn.Parameter(
                    torch.zeros(1, shape["hidden_size"]), requires_grad=scalar is run.critic
                )
        run.optimizer = torch.optim.AdamW(
            [{"params": list(group.values())} for group in run.trained().values()], lr=1e-3
        )
        for (
            group
        ) in run.trained().values():  # The optimizer's state as it is after the first update.
            for weight in group.values():
                run.optimizer.state[weight] = {
                    str(i): torch.zeros_like(weight, dtype=dtype)
                    for i, dtype in enumerate(STATES[optimizer])
                }
        for decoder in filter(None, map(decoder_of, networks_of(run))):
            decoder.lean = bf16
        if (
            bf16 and METHODS[method].online and not checkpointing
        ):  # On CUDA the rollout comes in pieces by itself.
            pieces = max(
                micro_batches,
                pieces_within(ACTIVATIONS, batch_size * length * decoder_of(run.model).kept()),
            )
            rows = -(-batch_size // pieces)
        with tracked(run) as tracker:
            if full and method == "grpo":
                kept = [
                    torch.empty_like(weight) for weight in run.model.parameters()
                ]  # The reference, which LoRA has for nothing.
                for weight in kept:
                    tracker.hold(weight, "weights")
            piece = _fake_piece(method, rows, length, prompt_tokens, batch_size, longest, packed)
            with computing():
                loss, _ = METHODS[method].loss(run, piece)
            loss.backward()
            for group in run.optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], 1.0)
            updating = tracker.peak
            now = {kind: tracker.now[kind] for kind in KINDS}
    stepping = now | {
        "activations": now["gradients"]
    }  # An optimizer works on all weights at once, with one temporary of their size.
    memory = {"updating": updating, "stepping": stepping}
    if METHODS[method].online:
        sampling = _sampling(shape, dtype, batch_size, longest)
        if bf16:  # On CUDA it is kept for the next rollout.
            memory = {name: _more(held, sampling) for name, held in memory.items()}
        choosing = (
            batch_size * shape["vocab_size"] * (dtype.itemsize + (0 if bf16 else 2 * 4))
        )  # Logits; on the CPU also the noise of rows, and the sum.
        memory["sampling"] = _more(_more(now, sampling), {"activations": choosing})
    weights = sum(p.numel() for p in run.model.parameters())
    trainable = sum(p.numel() for group in run.trained().values() for p in group.values())
    return Estimate(
        name,
        method,
        models_of(run),
        weights,
        trainable,
        memory,
        max(sum(kinds.values()) for kinds in memory.values()),
    )


def _empty_run(
    config: Any, shape: dict[str, Any], dtype: torch.dtype, full: bool, checkpointing: bool
) -> TrainState:
    llama = LlamaConfig(**shape, max_position_embeddings=8192)
    base = AutoModelForCausalLM.from_config(llama, dtype=dtype)
    model = get_peft_model(base, lora_config(config, "CAUSAL_LM"))
    model.eval()
    if full:
        for weight in model.parameters():
            weight.requires_grad_(True)
    if checkpointing:
        model.train()
        (
            getattr(base, "activation_checkpointing_enable", None)
            or base.gradient_checkpointing_enable
        )()  # Renamed in transformers 5.23.
        model.enable_input_require_grads()
    run = TrainState(config, None, None, model, torch.device("cpu"))
    if getattr(config, "model_layout", None):
        _empty_critic(run, llama, dtype, full)
    return run


class Whole(ScalarHeadModel):
    """A critic of which every weight trains."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """All weights of the network, and its head."""
        yield from self.model.named_parameters()
        yield "head", self.head


def _materialise(network: torch.nn.Module) -> None:
    """Give every weight and buffer of a network without storage one on the CPU, in the fake mode
    that is on; shared ones stay shared.
    """
    made: dict[int, torch.nn.Parameter] = {}
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    made[id(weight)] = torch.nn.Parameter(
                        torch.empty(weight.shape, dtype=weight.dtype),
                        requires_grad=weight.requires_grad,
                    )
                module._parameters[name] = made[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _empty_critic(run: TrainState, llama: LlamaConfig, dtype: torch.dtype, full: bool) -> None:
    """Critic and reward model as `run.config.model_layout` says: adapters on the policy's base, or copies
    of their own and one of the reference.
    """

    def head() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.zeros(1, llama.hidden_size))

    if getattr(run.config, "model_layout", "") == "shared":
        run.model.add_adapter("critic", lora_config(run.config, "CAUSAL_LM"))
        run.model.add_adapter("reward", lora_config(run.config, "CAUSAL_LM"))
        run.critic, run.reward_model = (
            ScalarHeadModel(run.model, "critic", head()),
            ScalarHeadModel(run.model, "reward", head()),
        )
        for name, weight in run.model.named_parameters():
            weight.requires_grad_(".default." in name or ".critic." in name)
    else:
        trunks = [
            get_peft_model(AutoModel.from_config(llama, dtype=dtype), lora_config(run.config, None))
            for _ in range(2)
        ]
        run.critic, run.reward_model = (
            (Whole if full else ScalarHeadModel)(trunks[0], "default", head()),
            ScalarHeadModel(trunks[1], "default", head()),
        )
        if full:
            run.critic.model.requires_grad_(True)
        run.reward_model.model.requires_grad_(False)
        run.frozen_reference = AutoModelForCausalLM.from_config(llama, dtype=dtype).requires_grad_(
            False
        )


def _scored(rows: int, length: int, prompt: int, longest: int, prompts: int) -> Packed:
    """A packed batch of rows that are all `length` long and share `prompts` prompts and nothing
    else, as it is on the CPU.
    """
    place, row = torch.arange(longest).expand(rows, longest), torch.arange(rows)[:, None]
    return pack_shared_prefix(
        torch.where(place < prompt, row * prompts // rows, row),
        (place >= prompt) & (place < length),
    )


def _empty_like(packed: Packed) -> Packed:
    """The same shapes in the fake mode that is on."""

    def made(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    laid = packed.padded
    tensors = {
        name: made(value) for name, value in vars(packed).items() if isinstance(value, torch.Tensor)
    }
    return replace(
        packed,
        **tensors,
        padded=Padded(made(laid.sources), made(laid.picks), tuple(map(made, laid.again))),
    )


def _fake_piece(
    method: str,
    rows: int,
    length: int,
    prompt: int,
    batch_size: int,
    longest: int,
    packed: Packed | None,
) -> Any:
    n = rows * METHODS[method].rows_per_example
    ids = torch.zeros(n, longest, dtype=torch.long)
    mask = torch.arange(longest).expand(n, longest) >= prompt
    tokens, frozen = Tokens(ids, mask), torch.zeros(rows)
    tokens.packed = uniform(n, length, prompt, longest)
    tokens.scored = tokens.packed if packed is None else _empty_like(packed)
    if METHODS[method].learns_from == "pairs":
        return Pairs(tokens, frozen, frozen, batch_size)
    if METHODS[method].learns_from == "judgements":
        return Judged(
            tokens, frozen, torch.ones(rows, dtype=torch.bool), torch.zeros(()), batch_size
        )
    per_token = torch.zeros(n, longest)
    rollout = Rollout(
        ids,
        mask,
        torch.zeros(n, dtype=torch.bool),
        frozen,
        None,
        1,
        [],
        [],
        advantages=per_token if method == "ppo" else frozen,
        old_logps=per_token,
        values=per_token,
        returns=per_token,
        uses=2,
    )
    return Part(tokens, rollout, torch.arange(n), batch_size, batch_size * (length - prompt))


def _sampling(shape: dict[str, Any], dtype: torch.dtype, rows: int, length: int) -> dict[str, int]:
    """What sampling holds: a key-value cache as long as a row can be, every product with the
    adapter merged in, and noise (rows, V) in float32.
    """
    hidden, heads, layers = (
        shape["hidden_size"],
        shape["num_attention_heads"],
        shape["num_hidden_layers"],
    )
    keys = hidden // heads * shape.get("num_key_value_heads", heads)
    columns = PACES["cuda" if dtype == torch.bfloat16 else "cpu"].columns(length)
    merged = layers * (
        2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * shape["intermediate_size"]
    )
    return {
        "weights": merged * dtype.itemsize,
        "cache": layers * 2 * keys * columns * rows * dtype.itemsize,
        "activations": rows * shape["vocab_size"] * 4,
    }


def _more(held: dict[str, int], added: dict[str, int]) -> dict[str, int]:
    return {kind: size + added.get(kind, 0) for kind, size in held.items()}
