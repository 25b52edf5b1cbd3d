"""Models with a scalar head, which output one number per position instead of logits: the critic of
PPO, and the reward model that an earlier run trained.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch.nn.functional import linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.config.adapter_settings import FULL_RANK, MODEL_FOLDER
from lab.config.json_format import from_dict
from lab.config.methods import method_of
from lab.config.run_config import OfflineConfig, RunConfig
from lab.data.batching import TokenBatch, last_token
from lab.engine.decode_any_model import base_of
from lab.engine.token_logprobs import padded_hidden_states, predictor_states
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.adapters import active_adapter
from lab.models.fused_weights import fuse_projection_weights
from lab.models.loading import load_backbone, load_reward_base
from lab.models.lora import lora_config, lora_errors
from lab.models.lora_dropout import replace_dropout
from lab.models.tokenizer import load_tokenizer
from lab.storage.paths import find_run
from lab.storage.policy_folder import policy_config_file

HEAD_WEIGHT = "score.weight"


@dataclass
class ScalarHeadModel:
    """A base model with its `adapter`, and a linear head (1, H) on the last hidden states.

    Several of them may share one `model`, each with an adapter of its own.
    """

    model: PeftModel
    adapter: str
    head: torch.nn.Parameter

    def values(self, tokens: TokenBatch) -> torch.Tensor:
        """Return V (B, T) in float32: entry t is the value before completion token t is known, at
        the position of the token's log-probability; 0 at positions that hold no completion token.
        """
        with active_adapter(self.model, self.adapter):
            states = predictor_states(self.model, self.adapter, tokens)
            return tokens.scored.pad_packed(linear(states.float(), self.head).squeeze(-1))

    def scores(self, tokens: TokenBatch) -> torch.Tensor:
        """Return one reward (B,) in float32 for each completion, computed at its last token."""
        with active_adapter(self.model, self.adapter):
            states = padded_hidden_states(self.model, tokens, self.adapter)[
                torch.arange(len(tokens.ids), device=tokens.ids.device), last_token(tokens)
            ]
            return linear(states.float(), self.head).squeeze(-1)

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Yield the weights of this network alone: those of its adapter, or all where it has none, and
        its head.
        """
        for name, weight in self.model.named_parameters():
            if f".{self.adapter}." in name or not isinstance(self.model, PeftModel):
                yield name, weight
        yield "head", self.head


def hidden_size(base: PreTrainedModel) -> int:
    """Return the size of a last hidden state, which the output matrix of the vocabulary reads."""
    head = base.get_output_embeddings()
    return (
        base.config.get_text_config(decoder=True).hidden_size
        if head is None
        else head.weight.shape[1]
    )


def new_critic(
    policy: PeftModel, config: RunConfig, device: torch.device, *, shared: bool
) -> ScalarHeadModel:
    """Return a critic whose values are all 0: its LoRA is seeded by `config.seed`, its head is
    zero.

    With `shared` its adapter "critic" is on the policy's base; otherwise it has a copy of the base.
    """
    seed = config.seed + 1  # Other noise than the policy's.
    if shared:
        torch.manual_seed(seed)
        with lora_errors(config, policy.get_base_model()):
            policy.add_adapter("critic", lora_config(config, "CAUSAL_LM", policy))
        replace_dropout(policy)
        model, adapter = policy, "critic"
    else:
        model, adapter = load_backbone(config, device, seed), "default"
    critic = ScalarHeadModel(
        model.to(device),
        adapter,
        torch.nn.Parameter(torch.zeros(1, hidden_size(base_of(policy)), device=device)),
    )
    for _, weight in critic.named_parameters():
        weight.requires_grad_(True)
    return critic


def load_trained_reward_model(
    run: str,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    policy: PeftModel | None = None,
) -> ScalarHeadModel:
    """Return the frozen reward model that `run` trained: on the base of `policy` if there is one,
    otherwise on a copy of the base.

    Raises `LabError` when there is no such run, it trained no reward model, has no adapter yet, or
    reads other tokens than the policy writes; with `policy`, also when it was trained on another
    base.
    """
    path = find_run(run)
    trained = _trained_config(path)
    _require_fit(path, trained, config, tokenizer)
    if trained.lora_rank == FULL_RANK:
        return _load_fully_trained(path, device, shares_base=policy is not None)
    lora, weights, head = _load_adapter(path / "adapter", device)
    if policy is None:
        model = (
            adapter_files.load_adapter(
                load_reward_base(trained.model, device, trained.quantization), path / "adapter"
            )
            .to(device)
            .eval()
        )
        fuse_projection_weights(model)
        return ScalarHeadModel(model, "default", head)
    if trained.model != config.model:
        raise LabError(
            f"reward_from: {path} stands on '{trained.model}' and the policy on '{config.model}',"
            " so they cannot share a base. Use --layout separate."
        )
    if lora.use_dora and not config.use_dora:
        raise LabError(
            f"reward_from: {path} was trained with use_dora, so it cannot share the base of a policy"
            " without. Use --model-layout separate, or --use-dora."
        )
    lora.task_type, lora.modules_to_save, lora.inference_mode = "CAUSAL_LM", None, True
    with lora_errors(trained, policy.get_base_model()):
        policy.add_adapter("reward", lora)
    set_peft_model_state_dict(
        policy,
        {name: w for name, w in weights.items() if not name.endswith(HEAD_WEIGHT)},
        adapter_name="reward",
    )
    policy.to(device)
    for name, weight in policy.named_parameters():
        if ".reward." in name:
            weight.requires_grad_(False)
    return ScalarHeadModel(policy, "reward", head)


def _load_fully_trained(path: Path, device: torch.device, *, shares_base: bool) -> ScalarHeadModel:
    """The reward model of a run that trained all its weights."""
    if shares_base:
        raise LabError(
            f"reward_from: {path} trained all weights of its model, so it cannot share the policy's"
            " base. Use --model-layout separate."
        )
    folder = path / MODEL_FOLDER
    adapter_files.require_trained(folder)
    model = cast(PeftModel, load_reward_base(str(folder), device)).to(device)
    model.eval().requires_grad_(False)
    head = cast(torch.nn.Linear, model.score).weight.float()
    return ScalarHeadModel(model, "default", torch.nn.Parameter(head, requires_grad=False))


def _require_fit(
    path: Path, trained: OfflineConfig, config: RunConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Raise `LabError` when the run in `path` has no adapter or reads other tokens than the policy."""
    if policy_config_file(path) is None:
        raise LabError(
            f"reward_from: {path} has no adapter yet. Let it finish, or stop it: python -m lab"
            f" control {path} stop"
        )
    if trained.model != config.model and not _same_tokens(load_tokenizer(trained.model), tokenizer):
        raise LabError(
            f"reward_from: {path} reads the tokens of '{trained.model}', but the policy"
            f" '{config.model}' writes others. Train a reward model on it: python -m lab train"
            f" reward_model --model {config.model}"
        )


def _load_adapter(
    folder: Path, device: torch.device
) -> tuple[LoraConfig, dict[str, torch.Tensor], torch.nn.Parameter]:
    """The config, the weights and the scalar head of a reward model's adapter."""
    adapter_files.require_adapter(folder)
    try:
        lora = cast(LoraConfig, LoraConfig.from_pretrained(str(folder)))
        weights = load_peft_weights(str(folder), device=str(device))
        head = next(w for name, w in weights.items() if name.endswith(HEAD_WEIGHT))
        return lora, weights, torch.nn.Parameter(head.float().to(device), requires_grad=False)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # json, safetensors and peft raise errors of many kinds.
        raise adapter_files.adapter_error(folder, error) from error


def _trained_config(path: Path) -> OfflineConfig:
    try:
        config = from_dict(json.loads((path / "config.json").read_text("utf-8")))
    except (ValueError, RecursionError, OSError) as error:
        raise LabError(f"reward_from: {path / 'config.json'} cannot be read: {error}") from error
    if not (isinstance(config, OfflineConfig) and method_of(config) == "reward_model"):
        raise LabError(
            f"reward_from: {path} is a run of {method_of(config)}, not of reward_model. Train one:"
            " python -m lab train reward_model, or use --reward-from gold."
        )
    return config


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    return one.get_vocab() == other.get_vocab() and one.eos_token_id == other.eos_token_id
