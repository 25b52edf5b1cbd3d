"""A run whose tensors have shapes but no content, and a micro-batch for it: what the estimator trains."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from peft import PeftModel, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerBase

from lab.config.methods import METHODS
from lab.config.run_config import RunConfig
from lab.data.batching import TokenBatch
from lab.data.packing import Packed, PaddedLayout, pack_shared_prefix, pack_uniform
from lab.models.fused_weights import fuse_projection_weights
from lab.models.lora import lora_config
from lab.profiling.model_shapes import ModelShape
from lab.profiling.networks import networks_of
from lab.tasks.base import Task
from lab.training.heads import ScalarHeadModel
from lab.training.method_state import PPOState
from lab.training.methods.dpo import Pairs
from lab.training.methods.kto import UnpairedBatch
from lab.training.methods.online import RolloutMicroBatch
from lab.training.methods.ppo import PPOConfig
from lab.training.rollout import GRPORollout, PPORollout
from lab.training.state import TrainState


class FullyTrainedScalarHead(ScalarHeadModel):
    """A critic of which every weight trains."""

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield all weights of the network, and its head."""
        yield from self.model.named_parameters()
        yield "head", self.head


def meta_run(
    config: RunConfig, shape: ModelShape, dtype: torch.dtype, *, full: bool, checkpointing: bool
) -> TrainState:
    """Return a run without task and tokenizer whose weights are on the meta device: LoRA on a base of
    `shape` in `dtype`, or with `full` every weight trained.
    """
    with torch.device("meta"):
        llama = LlamaConfig(**shape, max_position_embeddings=8192)  # type: ignore[arg-type]  # int is bool's base.
        base = AutoModelForCausalLM.from_config(llama, dtype=dtype)
        model = cast(PeftModel, get_peft_model(base, lora_config(config, "CAUSAL_LM")))
        model.eval()
        if full:
            for weight in model.parameters():
                weight.requires_grad_(True)
        if checkpointing:
            model.train()
            (
                getattr(base, "activation_checkpointing_enable", None)
                or base.gradient_checkpointing_enable
            )()  # The name of transformers 5.23, or the one before.
            model.enable_input_require_grads()
        no_task, no_tokenizer = cast(Task, None), cast(PreTrainedTokenizerBase, None)
        run = TrainState(config, no_task, no_tokenizer, model, torch.device("cpu"))
        if isinstance(config, PPOConfig):
            _attach_critic_and_reward_model(run, config, llama, dtype, full)
    return run


def _attach_critic_and_reward_model(
    run: TrainState, config: PPOConfig, llama: LlamaConfig, dtype: torch.dtype, full: bool
) -> None:
    """Attach the other networks of PPO: adapters on the policy's base (layout "shared"), or copies
    of the base, one of them for the reference (layout "separate").
    """

    def head() -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.zeros(1, llama.hidden_size))

    if config.model_layout == "shared":
        run.model.add_adapter("critic", lora_config(config, "CAUSAL_LM"))
        run.model.add_adapter("reward", lora_config(config, "CAUSAL_LM"))
        run.method_state = PPOState(
            critic=ScalarHeadModel(run.model, "critic", head()),
            reward_model=ScalarHeadModel(run.model, "reward", head()),
        )
        for name, weight in run.model.named_parameters():
            weight.requires_grad_(".default." in name or ".critic." in name)
        return
    critic, reward = (
        cast(
            PeftModel,
            get_peft_model(AutoModel.from_config(llama, dtype=dtype), lora_config(config, None)),
        )
        for _ in range(2)
    )
    critic_class = FullyTrainedScalarHead if full else ScalarHeadModel
    if full:
        critic.requires_grad_(True)
    reward.requires_grad_(False)
    reference = AutoModelForCausalLM.from_config(llama, dtype=dtype)
    run.method_state = PPOState(
        critic=critic_class(critic, "default", head()),
        reward_model=ScalarHeadModel(reward, "default", head()),
        frozen_reference=reference.requires_grad_(False),
    )


def materialise(run: TrainState, state_dtypes: tuple[torch.dtype | None, ...]) -> None:
    """Give all weights of a meta run memory in the active fake mode, and an optimizer with the state
    that it has after the first update: for each weight one tensor per entry of `state_dtypes`, in
    that dtype, or in the weight's own dtype for None.
    """
    for network in networks_of(run):
        _materialise_network(network)
        fuse_projection_weights(network)
    for role, scalar in run.method_state.heads().items():
        scalar.head = torch.nn.Parameter(
            torch.zeros(scalar.head.shape), requires_grad=role == "critic"
        )
    groups = [list(group.values()) for group in run.trainable_parameters().values()]
    run.optimizer = torch.optim.AdamW([{"params": weights} for weights in groups], lr=1e-3)
    for weights in groups:
        for weight in weights:
            run.optimizer.state[weight] = {
                str(i): torch.zeros_like(weight, dtype=dtype)
                for i, dtype in enumerate(state_dtypes)
            }


def _materialise_network(network: torch.nn.Module) -> None:
    """Replace the weights and buffers of a network by empty ones on the CPU; shared weights stay
    shared.
    """
    replacements: dict[int, torch.nn.Parameter] = {}
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False, remove_duplicate=False)):
            if id(weight) not in replacements:
                replacements[id(weight)] = torch.nn.Parameter(
                    torch.empty(weight.shape, dtype=weight.dtype),
                    requires_grad=weight.requires_grad,
                )
            setattr(module, name, replacements[id(weight)])
        for name, buffer in list(module.named_buffers(recurse=False, remove_duplicate=False)):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))


@dataclass(frozen=True)
class RowShape:
    """The rows of a micro-batch: each `length` tokens, of which `prompt` are the prompt, padded to
    `longest`.
    """

    length: int
    prompt: int
    longest: int


def pack_for_cpu(rows: int, prompts: int, shape: RowShape) -> Packed:
    """Return the packed batch of `rows` rows that share `prompts` prompts and nothing else, as it is
    on the CPU, where shared prefixes are stored once. It has real content.
    """
    column = torch.arange(shape.longest).expand(rows, shape.longest)
    row = torch.arange(rows)[:, None]
    return pack_shared_prefix(
        torch.where(column < shape.prompt, row * prompts // rows, row),
        (column >= shape.prompt) & (column < shape.length),
    )


def _zeros_like(packed: Packed) -> Packed:
    """Return a packed batch of the same shapes in the active fake mode."""

    def zeros(tensor: torch.Tensor) -> torch.Tensor:
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    padded = packed.padded
    assert padded is not None  # `pack_shared_prefix` always sets it.
    token_index, cell_index = padded.shared_tokens
    return replace(
        packed,
        ids=zeros(packed.ids),
        positions=zeros(packed.positions),
        cu_seqlens=zeros(packed.cu_seqlens),
        flat_positions=zeros(packed.flat_positions),
        predictor_indices=zeros(packed.predictor_indices),
        target_ids=zeros(packed.target_ids),
        target_flat_positions=zeros(packed.target_flat_positions),
        padded=PaddedLayout(
            zeros(padded.token_of_cell),
            zeros(padded.cell_of_token),
            (zeros(token_index), zeros(cell_index)),
        ),
    )


def fake_micro_batch(
    method: str, rows: int, batch_size: int, shape: RowShape, packed: Packed | None
) -> Pairs | UnpairedBatch | RolloutMicroBatch:
    """Return a micro-batch of `method` without content: `rows` pairs, examples or completions out of
    `batch_size`. `packed` is its layout where that depends on the content, as on the CPU.
    """
    spec = METHODS[method]
    sequences = spec.rows_per_example * rows
    ids = torch.zeros(sequences, shape.longest, dtype=torch.long)
    mask = torch.arange(shape.longest).expand(sequences, shape.longest) >= shape.prompt
    tokens, per_row = TokenBatch(ids, mask), torch.zeros(rows)
    tokens.packed = pack_uniform(sequences, shape.length, shape.prompt, shape.longest)
    tokens.scored = tokens.packed if packed is None else _zeros_like(packed)
    if spec.learns_from == "pairs":
        return Pairs(tokens, per_row, per_row, batch_size)
    if spec.learns_from == "judgements":
        desirable = torch.ones(rows, dtype=torch.bool)
        return UnpairedBatch(tokens, per_row, desirable, torch.zeros(()), batch_size)
    per_token = torch.zeros(sequences, shape.longest)
    sampled: dict[str, Any] = {
        "ids": ids,
        "completion_mask": mask,
        "truncated": torch.zeros(sequences, dtype=torch.bool),
        "rewards": per_row,
        "gold": None,
        "group_size": 1,
        "prompts": [],
        "texts": [],
        "old_logps": per_token,
        "num_updates": 2,
    }
    rollout: GRPORollout | PPORollout
    if "critic" in spec.models:
        rollout = PPORollout(**sampled, advantages=per_token, values=per_token, returns=per_token)
    else:
        rollout = GRPORollout(**sampled, advantages=per_row)
    completion_tokens = batch_size * (shape.length - shape.prompt)
    return RolloutMicroBatch(
        tokens, rollout, torch.arange(sequences), batch_size, completion_tokens
    )
