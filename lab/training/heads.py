"""One number per position instead of a vocabulary: the critic of PPO, and the reward model that an
earlier run trained.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch.nn.functional import linear
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lab.config.json_format import from_dict
from lab.config.methods import method_of
from lab.config.run_config import OfflineConfig, RunConfig
from lab.data.batching import Tokens, last_token
from lab.engine.token_logprobs import predictor_states, states_of
from lab.errors import LabError
from lab.models import adapter_files
from lab.models.loading import active_adapter, load_backbone, load_reward_base
from lab.models.lora import lora_config, refusals
from lab.models.tokenizer import load_tokenizer
from lab.storage.paths import find_run

HEAD = "score.weight"


@dataclass
class ScalarHeadModel:
    """A base under its `adapter`, and a linear head (1, hidden) on the last hidden states. Several
    may share one `model`.
    """

    model: PeftModel
    adapter: str
    head: torch.nn.Parameter

    def values(self, tokens: Tokens) -> torch.Tensor:
        """V (B, T) in float32: entry t is what is expected before completion token t is known, like
        its log-probability; 0 beside completion tokens.
        """
        with active_adapter(self.model, self.adapter):
            states = predictor_states(self.model, self.adapter, tokens)
            return tokens.scored.spread(linear(states.float(), self.head).squeeze(-1))

    def scores(self, tokens: Tokens) -> torch.Tensor:
        """One reward (B,) in float32 for each completion, read at its last token."""
        with active_adapter(self.model, self.adapter):
            states = states_of(self.model, tokens, self.adapter)[
                torch.arange(len(tokens.ids), device=tokens.ids.device), last_token(tokens)
            ]
            return linear(states.float(), self.head).squeeze(-1)

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """The weights that are this network's own and trainable: its adapter's and its head."""
        for name, weight in self.model.named_parameters():
            if f".{self.adapter}." in name:
                yield name, weight
        yield "head", self.head


def width(base: PreTrainedModel) -> int:
    """Numbers in a last hidden state: what the vocabulary's matrix reads."""
    head = base.get_output_embeddings()
    return (
        base.config.get_text_config(decoder=True).hidden_size
        if head is None
        else head.weight.shape[1]
    )


def new_critic(
    policy: PeftModel, config: RunConfig, device: torch.device, *, shared: bool
) -> ScalarHeadModel:
    """A critic that expects 0 everywhere: LoRA seeded by `config.seed`, head zero.

    `shared` puts its adapter "critic" on the policy's base; otherwise it stands on a copy of the
    base of its own.
    """
    seed = config.seed + 1  # Not the policy's own noise.
    if shared:
        torch.manual_seed(seed)
        with refusals(config, policy.get_base_model()):
            policy.add_adapter("critic", lora_config(config, "CAUSAL_LM", policy))
        model, adapter = policy, "critic"
    else:
        model, adapter = load_backbone(config, device, seed), "default"
    critic = ScalarHeadModel(
        model.to(device),
        adapter,
        torch.nn.Parameter(torch.zeros(1, width(policy.get_base_model()), device=device)),
    )
    for _, weight in critic.named_parameters():
        weight.requires_grad_(True)
    return critic


def load_trained(
    run: str,
    config: RunConfig,
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
    policy: PeftModel | None = None,
) -> ScalarHeadModel:
    """The reward model that `run` trained, frozen; on the base of `policy` if one is given,
    otherwise on a copy of its own.

    Raises `LabError` when there is no such run, it is no reward model, has no adapter yet, or reads
    other tokens than the policy writes; with `policy`, also when it was trained on another base.
    """
    path = find_run(run)
    trained = _trained_config(path)
    if not (path / "adapter" / "adapter_config.json").is_file():
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
    adapter_files.require(path / "adapter")
    try:
        lora, weights = (
            LoraConfig.from_pretrained(path / "adapter"),
            load_peft_weights(path / "adapter", device=str(device)),
        )
        head = torch.nn.Parameter(
            next(w for name, w in weights.items() if name.endswith(HEAD)).float().to(device),
            requires_grad=False,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Whatever json, safetensors or peft make of a damaged file.
        raise adapter_files.unreadable(path / "adapter", error) from error
    if policy is None:
        model = (
            adapter_files.load(
                load_reward_base(trained.model, device, trained.quantization), path / "adapter"
            )
            .to(device)
            .eval()
        )
        return ScalarHeadModel(model, "default", head)
    if trained.model != config.model:
        raise LabError(
            f"reward_from: {path} stands on '{trained.model}' and the policy on '{config.model}',"
            " so they cannot share a base. Use --layout separate."
        )
    lora.task_type, lora.modules_to_save, lora.inference_mode = "CAUSAL_LM", None, True
    with refusals(trained, policy.get_base_model()):
        policy.add_adapter("reward", lora)
    set_peft_model_state_dict(
        policy,
        {name: w for name, w in weights.items() if not name.endswith(HEAD)},
        adapter_name="reward",
    )
    policy.to(device)
    for name, weight in policy.named_parameters():
        if ".reward." in name:
            weight.requires_grad_(False)
    return ScalarHeadModel(policy, "reward", head)


def _trained_config(path: Path) -> OfflineConfig:
    try:
        config = from_dict(json.loads((path / "config.json").read_text("utf-8")))
    except (ValueError, RecursionError, OSError) as error:
        raise LabError(f"reward_from: {path / 'config.json'} cannot be read: {error}") from error
    if not (isinstance(config, OfflineConfig) and method_of(config) == "reward_model"):
        raise LabError(
            f"reward_from: {path} is a run of {method_of(config)}, not of reward_model. "
            "Train one: python -m lab train reward_model, or use --reward-from gold."
        )
    return config


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    return one.get_vocab() == other.get_vocab() and one.eos_token_id == other.eos_token_id
