"""The settings that every method has, and those that offline or online methods share."""

import re
from dataclasses import dataclass
from typing import Literal, TypeVar

from lab.config.adapter_settings import FULL_RANK, AdapterSettings, require_adapter_settings
from lab.config.data_files import ENDINGS
from lab.config.optimizer_settings import LEARNING_RATE_HELP, OptimizerSettings, require_schedule
from lab.config.record_settings import RecordSettings
from lab.config.reward_rules import CODE, RULE, SEVERAL, is_combined, reward_weights
from lab.config.sampler_settings import SamplerSettings, require_sampler_settings
from lab.config.schema import declared_settings, setting, validate
from lab.config.template_options import read_template_options
from lab.errors import LabError

SHIPPED_PAIRS = 2000
"""How many of a task's own pairs are taken where `pairs` says nothing."""

_TASK = (
    "The source of prompts, right answers and rewards: chain (embedded), sentiment, gym:NAME of the"
    " package reasoning-gym, or your own prompts (a .jsonl, .json, .csv or .parquet file or"
    " OWNER/NAME of the hub, with a column prompt). `python -m lab tasks` lists them."
)

_TASKS = {
    "gym:NAME": r"gym:[\w.-]+(:\w+=[\w.-]+(,\w+=[\w.-]+)*)?",
    "FILE": f".+(?i:{'|'.join(map(re.escape, ENDINGS))})",
    "OWNER/NAME": r"[\w.-]+/[\w.-]+(:[\w.-]+)?",
}


@dataclass(frozen=True)
class SourceSettings:
    """The model, the task and the seed of a run."""

    model: str = setting(
        "embedded",
        "Base model: 'embedded' (shipped), 'smollm2-135m' (python -m lab fetch), a folder in"
        " Hugging Face format or a hub id.",
    )
    task: str = setting("chain", _TASK, choices=("chain", "sentiment"), extra_patterns=_TASKS)
    seed: int = setting(
        0,
        "Fixes all random choices: prompts, sampling, LoRA initialisation and data order.",
        low=0,
        high=2**31 - 1,
    )


@dataclass(frozen=True)
class RunConfig(RecordSettings, AdapterSettings, OptimizerSettings, SourceSettings):
    """The knobs that every method has."""

    gradient_checkpointing: bool = setting(
        False,
        "Recomputes activations in the backward pass instead of saving them. The update is the same;"
        " it needs less memory and about a third more time.",
    )
    quantization: Literal["4bit"] | None = setting(
        None,
        "4bit stores the base model in 4-bit NF4 (arXiv 2305.14314) with bitsandbytes, on CUDA only."
        " LoRA stays in float32.",
        choices=("4bit",),
    )
    shard: bool = setting(
        False,
        "Spreads the frozen base model over several GPUs (FSDP), for a model that does not fit on"
        " one GPU. Training is slower.",
    )
    template_options: str = setting(
        "",
        "Options of the model's chat template for prompts and data, such as enable_thinking=false."
        " The chat_template_kwargs of a row have priority.",
        check=read_template_options,
    )
    max_completion_tokens: int = setting(
        64, "The largest number of tokens that a sampled completion may have.", low=1, high=8192
    )
    eval_every: int = setting(
        5,
        "Number of updates between two evaluations on held-out prompts. 0 evaluates only at the"
        " start and at the end.",
        low=0,
        high=1_000_000,
    )
    eval_prompts: int = setting(
        256,
        "Number of held-out prompts in an evaluation. Every evaluation uses the same ones.",
        low=2,
        high=10_000,
    )
    eval_pairs: str = setting(
        "",
        "A file of preference pairs that are never trained on. At every evaluation, agreement is the"
        " share of them whose chosen completion the model prefers: by its implicit reward, log π −"
        " log π_ref, or by the score of a reward model. A column group (own, rule) gives each group a"
        " curve of its own.",
    )
    checkpoint_every: int = setting(
        10, "Number of updates between two checkpoints.", low=1, high=1_000_000
    )
    device: str = setting("auto", "auto (CUDA if it is available), cpu, cuda or cuda:N.")

    def __post_init__(self) -> None:
        validate(self)
        require_adapter_settings(self, self.shard)
        if not getattr(self, "num_train_epochs", 0):  # Its steps are known when the data are read.
            require_schedule(self)


@dataclass(frozen=True)
class OfflineConfig(RunConfig):
    """The knobs of a method that learns from a fixed data set."""

    task: str = setting(
        "",
        f"{_TASK} If you leave it out, the task is chain. With --data, loss, margin and pair"
        " accuracy are measured on held-out rows of your data.",
        choices=("", "chain", "sentiment"),
        extra_patterns=_TASKS,
    )
    num_train_epochs: float = setting(
        0.0,
        "Number of passes over the data, in place of steps, which stays at its default. 0 takes"
        " steps. The short batch at the end of an epoch is left out.",
        low=0.0,
        high=10_000.0,
    )
    batch_size: int = setting(
        16, "Number of examples (for pairwise methods: pairs) in one update.", low=1, high=65_536
    )
    tokens_per_batch: int = setting(
        0,
        "Fills each update with rows of the data up to this number of tokens, in place of batch_size"
        " rows: prompts and completions count, of a pair both. Each epoch uses every row once. A longer"
        " row is an update of its own. 0 takes batch_size.",
        low=0,
        high=100_000_000,
    )
    data: str = setting(
        "",
        "Your own data in one of TRL's formats: .jsonl, .json, .csv, .parquet or owner/name:split"
        " of the hub. If it is empty, the task's pairs are used.",
    )
    pairs: int = setting(
        -1,
        "The largest number of preference pairs (or rows of your own data), taken from the front. 0"
        " uses all. -1 uses the first 2,000 of the task's pairs, or all rows of your own data.",
        low=-1,
        high=10_000_000,
    )
    label_noise: float = setting(
        0.0,
        "Share of pairs in which chosen and rejected are swapped before training. For KTO: share of"
        " thumbs that are turned round.",
        low=0.0,
        high=1.0,
    )
    max_length: int = setting(
        128,
        "The largest number of tokens of prompt and completion together. A longer row is cut as"
        " truncation_mode says. A row is left out if its prompt alone is this long.",
        low=2,
        high=131_072,
    )
    truncation_mode: str = setting(
        "keep_start",
        "The part of a too long row that is kept: keep_start or keep_end (TRL's names).",
        choices=("keep_start", "keep_end"),
    )
    eval_share: float = setting(
        0.0,
        "Share of the prompts of your own data that is held out where no task is given, at most"
        " eval_prompts of them. Prompts that differ only in case, spaces or punctuation around words"
        " stay on one side. 0 holds out a tenth, and compares prompts exactly.",
        low=0.0,
        high=0.5,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eval_share and (self.task or not self.data):
            raise LabError(
                f"eval_share is {self.eval_share:g}, but is for your own data without a task: it holds"
                " out a part of --data. Leave eval_share or task out, or name your data."
            )
        default = declared_settings(type(self))["batch_size"].default
        if self.tokens_per_batch and self.batch_size != default:
            raise LabError(
                f"tokens_per_batch is {self.tokens_per_batch} and batch_size {self.batch_size}, but a"
                " batch is filled by tokens or by rows. Leave one of them out."
            )
        if self.pairs < 0:
            object.__setattr__(self, "pairs", 0 if self.data else SHIPPED_PAIRS)
        if not self.task and not self.data:
            object.__setattr__(self, "task", "chain")


@dataclass(frozen=True)
class OnlineConfig(SamplerSettings, RunConfig):
    """The knobs of a method that learns from completions of the policy itself."""

    learning_rate: float = setting(
        2e-3, LEARNING_RATE_HELP, low=1e-8, high=1.0, mutable=True, log=True
    )
    steps: int = setting(40, "Number of optimizer updates.", low=1, high=1_000_000)
    batch_size: int = setting(128, "Number of completions in one rollout.", low=2, high=65_536)
    reward_from: str = setting(
        "gold",
        "The source of the rewards: 'gold' (the task's own rule), or the name or folder of a"
        " reward_model run.",
    )
    reward: str = setting(
        "answer",
        "The rule that scores a completion when reward_from is gold. 'answer' pays for the right"
        " answer; `python -m lab tasks` explains the others. The command line also accepts"
        " MODULE:FUNCTION, your own reward function with TRL's signature, and several with commas"
        " between them.",
        choices=(
            "answer",
            "format",
            "length",
            "graded",
            "constant",
            "random",
            "positive_penalised",
        ),
        extra_patterns={
            "another rule of the task": RULE,
            "MODULE:FUNCTION": CODE,
            "several with commas between them": SEVERAL,
        },
    )
    reward_weights: str = setting(
        "",
        "Weights of several rewards, such as 1,0.2 for --reward answer,MODULE:FUNCTION: the reward"
        " is their weighted sum, and rewards/NAME logs each. If it is empty, all weights are 1.",
    )
    reward_seconds: float = setting(
        60.0,
        "The longest time in seconds that one call of your own reward function may take. After it,"
        " the completions of this call have no reward.",
        low=0.1,
        high=86_400.0,
    )
    temperature: float = setting(
        1.0,
        "Sampling temperature. Log-probabilities are computed at the same temperature.",
        low=0.05,
        high=10.0,
    )
    top_k: int = setting(
        0,
        "Samples only from the k most likely tokens; 0 takes all. Log-probabilities, entropy and KL"
        " are then those of the truncated distribution. Evaluation is not truncated. With top_k,"
        " top_p or min_p the fast path of log-probabilities is off.",
        low=0,
        high=1_000_000,
    )
    top_p: float = setting(
        1.0,
        "Samples only from the most likely tokens whose probabilities sum to top_p (arXiv"
        " 1904.09751); 1 takes all.",
        low=0.001,
        high=1.0,
    )
    min_p: float = setting(
        0.0,
        "Samples only tokens at least min_p times as likely as the most likely one (arXiv"
        " 2407.01082); 0 takes all.",
        low=0.0,
        high=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require_sampler_settings(self, self.shard, self.use_dora, self.lora_rank == FULL_RANK)
        reward_weights(self.reward, self.reward_weights)
        if self.reward_from not in ("gold", "") and is_combined(self.reward, self.reward_weights):
            raise LabError(
                f"reward_from is '{self.reward_from}', so a reward model scores the completions, but"
                " several rewards or weights are given. Leave out --reward and --reward-weights."
            )
        group = getattr(self, "group_size", 1)
        if self.batch_size % group:
            raise LabError(
                f"batch_size {self.batch_size} is not divisible by group_size {group}: a rollout"
                f" holds whole groups. Set batch_size to a multiple of {group}, or group_size to a"
                f" divisor of {self.batch_size}."
            )


ConfigClass = TypeVar("ConfigClass", bound=RunConfig)


def config_as(config: RunConfig, config_class: type[ConfigClass]) -> ConfigClass:
    """Return `config` itself, as an object of `config_class`; raise `TypeError` for any other."""
    if not isinstance(config, config_class):
        raise TypeError(f"{type(config).__name__} is no {config_class.__name__}.")
    return config
