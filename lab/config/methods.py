"""What a run is made of: one frozen dataclass per method, each knob declared once with its help and
its range.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, get_type_hints

from lab.config.data_files import ENDINGS
from lab.errors import LabError, unknown


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    also: dict[str, str] | None = None,
    live: bool = False,
    log: bool = False,
    check: Callable[[str], Any] | None = None,
) -> Any:
    """Declare a setting of a run.

    `low` and `high` are the inclusive range, `choices` the accepted words, `live` says that the
    setting may change while the run trains, `log` that a slider over it should be logarithmic.
    `also` accepts further words, by a regular expression under the name that errors give them; a
    form offers the choices alone, so that no page can name a file or code in this way. `check`
    raises `LabError` for a text that it cannot read.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "low": low,
            "high": high,
            "choices": choices,
            "also": also or {},
            "live": live,
            "log": log,
            "check": check,
        },
    )


FORMAT = 2
"""The version that config.json gives as "format"; the first had no number."""
NO_OPTIONS = (
    "conversation",
    "messages",
    "chat_template",
    "add_generation_prompt",
    "continue_final_message",
    "tokenize",
    "padding",
    "truncation",
    "max_length",
    "return_tensors",
    "return_dict",
    "return_assistant_tokens_mask",
    "tokenizer_kwargs",
    "processor_kwargs",
)
"""Arguments of transformers' apply_chat_template that are no options of a template."""


def read_template_options(text: str) -> dict[str, Any]:
    """The options of a chat template that `text` names: name=value, separated by commas, or one
    JSON object. A value is JSON, or else text.

    Anchor: "enable_thinking=false,effort=low" is {"enable_thinking": False, "effort": "low"}.
    """
    try:
        options = (
            json.loads(text)
            if text.lstrip().startswith("{")
            else dict(_option(part) for part in text.split(",") if part.strip())
        )
        wrong = [
            name for name in options if not name.isidentifier() or name in (*NO_OPTIONS, "tools")
        ]
    except ValueError:
        wrong = [text]
    if wrong:
        raise LabError(
            f"template_options has '{wrong[0]}', but takes options of the model's chat template,"
            " such as enable_thinking=false,effort=low, or one JSON object."
        )
    return options


def _option(part: str) -> tuple[str, Any]:
    name, equals, value = map(str.strip, part.partition("="))
    if not equals:
        raise ValueError(part)
    words = {"true": True, "false": False, "none": None}
    try:
        return name, words[value.lower()] if value.lower() in words else json.loads(value)
    except ValueError:
        return name, value


ALL_LINEAR = "all-linear"
CODE = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
"""How a function of the user's own is written: module:function."""
SHIPPED_PAIRS = 2000
"""How many of a task's own pairs are taken where `pairs` says nothing."""
_TASK = (
    "Where prompts, gold answers and rewards come from: chain (embedded), sentiment, gym:NAME of"
    " the package reasoning-gym, or prompts of your own (a .jsonl, .json, .csv or .parquet file or"
    " OWNER/NAME of the hub, column prompt). `python -m lab tasks` lists them."
)
_TASKS = {
    "gym:NAME": r"gym:[\w.-]+(:\w+=[\w.-]+(,\w+=[\w.-]+)*)?",
    "FILE": f".+(?i:{'|'.join(map(re.escape, ENDINGS))})",
    "OWNER/NAME": r"[\w.-]+/[\w.-]+(:[\w.-]+)?",
}


@dataclass(frozen=True)
class RunConfig:
    """The knobs that every method has."""

    model: str = setting(
        "embedded",
        "Base model: 'embedded' (shipped), 'smollm2-135m' (python -m lab fetch), a folder in"
        " Hugging Face format or a hub id.",
    )
    task: str = setting("chain", _TASK, choices=("chain", "sentiment"), also=_TASKS)
    seed: int = setting(
        0,
        "Seeds prompts, sampling noise, LoRA initialisation and data order.",
        low=0,
        high=2**31 - 1,
    )
    steps: int = setting(100, "Optimizer updates.", low=1, high=1_000_000)
    learning_rate: float = setting(
        5e-4,
        "Peak learning rate of AdamW; constant after the warm-up.",
        low=1e-8,
        high=1.0,
        live=True,
        log=True,
    )
    warmup_steps: int = setting(
        0, "Updates over which the learning rate rises linearly from zero.", low=0, high=100_000
    )
    micro_batches: int = setting(
        1,
        "Pieces that a batch is cut into; gradients are summed, so the update is the same in less"
        " memory.",
        low=1,
        high=4096,
    )
    max_grad_norm: float = setting(
        1.0, "Gradient norm above which the gradient is scaled down.", low=1e-6, high=1e6
    )
    lora_rank: int = setting(
        8, "Rank r of the LoRA matrices on every linear layer (arXiv 2106.09685).", low=1, high=1024
    )
    lora_alpha: float = setting(
        16.0, "LoRA scale: the update is multiplied by alpha / rank.", low=1e-3, high=4096
    )
    lora_targets: str = setting(
        ALL_LINEAR,
        "Layers that get LoRA: all-linear, every linear layer but the vocabulary, or names such as"
        " q_proj,v_proj.",
        choices=(ALL_LINEAR,),
        also={"NAME,NAME": r"[\w.]+(\s*,\s*[\w.]+)*"},
    )
    gradient_checkpointing: str = setting(
        "off",
        "on: activations are computed again on the way back instead of being kept; the same update"
        " in less memory and about a third more time.",
        choices=("off", "on"),
    )
    quantization: str = setting(
        "none",
        "4bit: the base is held in 4-bit NF4 (arXiv 2305.14314) through bitsandbytes, for CUDA"
        " only; LoRA stays in float32.",
        choices=("none", "4bit"),
    )
    shard: str = setting(
        "off",
        "on: the frozen base is spread over the processes of a run on several GPUs (FSDP), for a"
        " model that does not fit on one; slower.",
        choices=("off", "on"),
    )
    template_options: str = setting(
        "",
        "Options of the model's chat template for prompts and data, such as enable_thinking=false;"
        " a row's own chat_template_kwargs go before them.",
        check=read_template_options,
    )
    max_completion_tokens: int = setting(
        64, "Longest completion that is sampled, in tokens.", low=1, high=8192
    )
    eval_every: int = setting(
        5,
        "Updates between two evaluations on held-out prompts; 0 evaluates only at the start and the"
        " end.",
        low=0,
        high=1_000_000,
    )
    eval_prompts: int = setting(
        256, "Held-out prompts of an evaluation, the same at every one.", low=2, high=10_000
    )
    checkpoint_every: int = setting(10, "Updates between two checkpoints.", low=1, high=1_000_000)
    device: str = setting("auto", "auto (CUDA if there is one), cpu, cuda or cuda:N.")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class OfflineConfig(RunConfig):
    """The knobs of a method that learns from a fixed data set."""

    task: str = setting(
        "",
        f"{_TASK} Left out: chain, or with --data a held-out part of your own rows, on which loss,"
        " margin and pair accuracy are measured.",
        choices=("", "chain", "sentiment"),
        also=_TASKS,
    )
    batch_size: int = setting(
        16, "Examples (for pairwise methods: pairs) in one update.", low=1, high=65_536
    )
    data: str = setting(
        "",
        "Your own data in one of TRL's formats: .jsonl, .json, .csv, .parquet or owner/name:split"
        " of the hub; empty: the task's pairs.",
    )
    pairs: int = setting(
        -1,
        "At most so many preference pairs (or rows of your own data), taken from the front; 0 uses"
        " all. Left out (-1): the first 2,000 of the task's pairs, all rows of your own data.",
        low=-1,
        high=10_000_000,
    )
    label_noise: float = setting(
        0.0,
        "Share of pairs whose chosen and rejected are swapped, or of judgements turned round,"
        " before training.",
        low=0.0,
        high=1.0,
    )
    max_length: int = setting(
        128,
        "Tokens of prompt and completion together; a longer row loses what truncation_mode does not"
        " keep, and one whose prompt alone fills them is left out.",
        low=2,
        high=131_072,
    )
    truncation_mode: str = setting(
        "keep_start",
        "Which end of a row longer than max_length is kept: keep_start or keep_end (TRL's names).",
        choices=("keep_start", "keep_end"),
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.pairs < 0:
            object.__setattr__(self, "pairs", 0 if self.data else SHIPPED_PAIRS)
        if not self.task and not self.data:
            object.__setattr__(self, "task", "chain")


@dataclass(frozen=True)
class SFTConfig(OfflineConfig):
    """Supervised fine-tuning on the chosen completions, or on your own prompts and completions."""


@dataclass(frozen=True)
class RewardModelConfig(OfflineConfig):
    """A Bradley-Terry reward model, stage 1 of RLHF."""

    learning_rate: float = setting(
        1e-3,
        "Peak learning rate of AdamW; constant after the warm-up.",
        low=1e-8,
        high=1.0,
        live=True,
        log=True,
    )


@dataclass(frozen=True)
class DPOConfig(OfflineConfig):
    """Direct Preference Optimization, arXiv 2305.18290."""

    beta: float = setting(
        0.1,
        "β: strength of the pull to the reference in the objective, and the factor on the margin"
        " inside the loss. Default of the paper.",
        low=1e-4,
        high=100.0,
        live=True,
        log=True,
    )


@dataclass(frozen=True)
class IPOConfig(OfflineConfig):
    """Identity Preference Optimization, arXiv 2310.12036."""

    beta: float = setting(
        0.1,
        "β (τ in the paper): the margin is drawn to 1/(2β).",
        low=1e-4,
        high=100.0,
        live=True,
        log=True,
    )
    form: str = setting(
        "sequence",
        "sequence: the paper's sum over tokens; token_mean: the mean per token that TRL uses.",
        choices=("sequence", "token_mean"),
    )


@dataclass(frozen=True)
class KTOConfig(OfflineConfig):
    """Kahneman-Tversky Optimization, arXiv 2402.01306, on the same data without its pairing, or on
    your own unpaired judgements.
    """

    beta: float = setting(
        0.1,
        "β: how fast the value saturates as the implicit reward leaves the reference point z.",
        low=1e-4,
        high=100.0,
        live=True,
        log=True,
    )
    desirable_weight: float = setting(
        1.0, "λ_D, the weight of desirable completions.", low=0.0, high=1000.0, live=True
    )
    undesirable_weight: float = setting(
        1.0, "λ_U, the weight of undesirable completions.", low=0.0, high=1000.0, live=True
    )
    desirable_share: float = setting(
        1.0,
        "Share of the desirable completions that is kept, to study imbalance.",
        low=0.001,
        high=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise LabError(
                "batch_size is 1, but KTO's reference point z is a mean over a batch: it takes at"
                " least 2."
            )


@dataclass(frozen=True)
class OnlineConfig(RunConfig):
    """The knobs of a method that learns from completions of the policy itself."""

    learning_rate: float = setting(
        2e-3,
        "Peak learning rate of AdamW; constant after the warm-up.",
        low=1e-8,
        high=1.0,
        live=True,
        log=True,
    )
    steps: int = setting(40, "Optimizer updates.", low=1, high=1_000_000)
    batch_size: int = setting(128, "Completions in one rollout.", low=2, high=65_536)
    reward_from: str = setting(
        "gold",
        "Who scores completions: 'gold', the task's own rule, or the name or folder of a"
        " reward_model run.",
    )
    reward: str = setting(
        "answer",
        "Rule that scores a completion when reward_from is gold: 'answer' is the task's own ground"
        " truth; `python -m lab tasks` explains the others. On the command line also"
        " MODULE:FUNCTION, a reward of your own with TRL's signature.",
        choices=("answer", "format", "length", "constant", "random", "positive_penalised"),
        also={"another rule of the task": r"[a-z_]\w*", "MODULE:FUNCTION": CODE},
    )
    reward_seconds: float = setting(
        60.0,
        "Seconds that one call of a reward of your own may take; its completions then go without a"
        " reward.",
        low=0.1,
        high=86_400.0,
    )
    temperature: float = setting(
        1.0,
        "Sampling temperature; log-probabilities are taken at the same temperature.",
        low=0.05,
        high=10.0,
    )

    def __post_init__(self) -> None:
        validate(self)
        group = getattr(self, "group_size", 1)
        if self.batch_size % group:
            raise LabError(
                f"batch_size {self.batch_size} is not divisible by group_size {group}: a rollout"
                f" holds whole groups. Set batch_size to a multiple of {group}, or group_size to a"
                f" divisor of {self.batch_size}."
            )


@dataclass(frozen=True)
class GRPOConfig(OnlineConfig):
    """Group Relative Policy Optimization, arXiv 2402.03300."""

    beta: float = setting(
        0.0,
        "β: weight of the KL term in the loss. 0 as in TRL; the paper uses 0.04.",
        low=0.0,
        high=100.0,
        live=True,
        log=True,
    )
    group_size: int = setting(
        8,
        "G: completions sampled for each prompt (TRL: num_generations).",
        low=2,
        high=1024,
        live=True,
    )
    updates_per_rollout: int = setting(
        1, "Optimizer updates on one rollout (μ in the paper).", low=1, high=64
    )
    epsilon: float = setting(
        0.2, "ε: how far below 1 the probability ratio counts.", low=0.0, high=1.0, live=True
    )
    epsilon_high: float = setting(
        0.2,
        "How far above 1 the ratio counts; equal to ε in the paper, 0.28 in DAPO.",
        low=0.0,
        high=10.0,
        live=True,
    )
    kl_estimator: str = setting(
        "k3",
        "Estimator of the KL term: k1, k2, k3 (the paper's), or k3 times the ratio.",
        choices=("k1", "k2", "k3", "k3_corrected"),
    )
    reduction: str = setting(
        "token_mean",
        "How token losses become one number: DAPO's token_mean (TRL's default), the GRPO paper's"
        " sequence_mean, Dr. GRPO's fixed_length.",
        choices=("sequence_mean", "token_mean", "fixed_length"),
    )
    scale: str = setting(
        "group",
        "What rewards minus the group's mean are divided by: the group's std, the batch's std, or"
        " nothing.",
        choices=("group", "batch", "none"),
    )


@dataclass(frozen=True)
class PPOConfig(OnlineConfig):
    """Proximal Policy Optimization with a critic, arXiv 1707.06347: stage 2 of RLHF, arXiv
    2203.02155.
    """

    steps: int = setting(60, "Optimizer updates.", low=1, high=1_000_000)
    beta: float = setting(
        0.02,
        "β: the reward of a token is lowered by β·(log π − log π_ref). Default of arXiv"
        " 2203.02155.",
        low=0.0,
        high=100.0,
        live=True,
        log=True,
    )
    kl_target: float = setting(
        0.0,
        "KL in nats per completion to which β is adapted after every rollout (arXiv 1909.08593); 0"
        " keeps β fixed.",
        low=0.0,
        high=1e4,
    )
    layout: str = setting(
        "shared",
        "shared: one base, with adapters and heads for policy, critic and reward model; separate:"
        " four sets of weights (policy, reference, reward model, critic), as RLHF is usually drawn."
        " Same numbers, other memory.",
        choices=("shared", "separate"),
    )
    critic_learning_rate: float = setting(
        5e-3,
        "Peak learning rate of the critic; it shares no weight with the policy, so this stands in"
        " for a weight of the value loss.",
        low=1e-8,
        high=1.0,
        live=True,
        log=True,
    )
    epochs: int = setting(1, "Passes over each rollout.", low=1, high=64)
    minibatches: int = setting(
        2, "Updates in one pass, each on its share of the rollout.", low=1, high=4096
    )
    gamma: float = setting(
        1.0, "γ: discount of later rewards; 1 because a completion is short.", low=0.0, high=1.0
    )
    lam: float = setting(
        0.95,
        "λ of generalized advantage estimation: 0 trusts the critic, 1 the rewards that came (arXiv"
        " 1506.02438).",
        low=0.0,
        high=1.0,
    )
    epsilon: float = setting(
        0.2, "ε: how far from 1 the probability ratio counts.", low=0.0, high=1.0, live=True
    )
    epsilon_value: float = setting(
        0.2,
        "ε_V: how far from its old value, in units of the reward, a value counts.",
        low=0.0,
        high=1e6,
        live=True,
    )
    reduction: str = setting(
        "token_mean",
        "How token losses become one number; the critic's loss too.",
        choices=("sequence_mean", "token_mean", "fixed_length"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.minibatches > self.batch_size:
            raise LabError(
                f"minibatches is {self.minibatches}, but a rollout has only {self.batch_size}"
                " completions. Lower it or raise batch_size."
            )


@dataclass(frozen=True)
class OnlineDPOConfig(OnlineConfig):
    """DPO on pairs that the policy itself has just written, arXiv 2402.04792."""

    steps: int = setting(60, "Optimizer updates, each on a fresh rollout.", low=1, high=1_000_000)
    beta: float = setting(
        0.1,
        "β: strength of the pull to the reference in the objective, and the factor on the margin"
        " inside the loss.",
        low=1e-4,
        high=100.0,
        live=True,
        log=True,
    )
    group_size: int = setting(
        2,
        "G: completions sampled for each prompt; the best and the worst of them make the pair.",
        low=2,
        high=1024,
        live=True,
    )


CONFIGS: dict[str, type[RunConfig]] = {
    "sft": SFTConfig,
    "reward_model": RewardModelConfig,
    "dpo": DPOConfig,
    "ipo": IPOConfig,
    "kto": KTOConfig,
    "grpo": GRPOConfig,
    "ppo": PPOConfig,
    "online_dpo": OnlineDPOConfig,
}


def validate(config: RunConfig) -> None:
    """Check every knob of `config` against its type, range and choices; raise `LabError` at the
    first that fails.
    """
    hints = _hints(type(config))
    for f in fields(config):
        value, kind = getattr(config, f.name), hints[f.name]
        if kind is float and type(value) is int:
            object.__setattr__(config, f.name, float(value))
            value = float(value)
        if type(value) is not kind:
            raise LabError(f"{f.name} is {value!r}, but takes {_accepts(f, kind)}.")
        low, high, choices, also = (f.metadata[word] for word in ("low", "high", "choices", "also"))
        if (
            choices
            and value not in choices
            and not any(re.fullmatch(pattern, value) for pattern in also.values())
        ):
            raise unknown(f.name, value, [*choices, *also])
        if low is not None and not low <= value <= high:
            raise LabError(f"{f.name} is {value!r}, but takes {_accepts(f, kind)}.")
        if f.metadata["check"]:
            f.metadata["check"](value)


@cache
def _hints(kind: type[RunConfig]) -> dict[str, type]:
    return get_type_hints(kind)


def _accepts(f: dataclasses.Field, kind: type) -> str:
    word = {int: "a whole number", float: "a number", str: "text"}[kind]
    return (
        word
        if f.metadata["low"] is None
        else f"{word} from {f.metadata['low']:g} to {f.metadata['high']:g}"
    )


def names_code(config: RunConfig) -> bool:
    """Whether a run of this config calls a function of the user's own."""
    return re.fullmatch(CODE, getattr(config, "reward", "")) is not None


def require_code(config: RunConfig, given: str) -> None:
    """Raise `LabError` unless the code that `config` names is `given`, a MODULE:FUNCTION of the
    command line; "" is none.
    """
    named = config.reward if names_code(config) else ""
    if given == named:
        return
    if not named:
        raise LabError(
            f"reward '{given}' is given, but the run's reward is no code of your own. Leave"
            " --reward out; a run keeps its rule."
        )
    hint = f"not {given}" if given else "which a run folder cannot start by itself"
    raise LabError(
        f"The run's reward is the code {named}, {hint}. If you trust it, name it again: --reward"
        f" {named}"
    )


def require_offered(config: RunConfig) -> None:
    """Raise `LabError` for a word that no form offers, such as the name of a file of prompts or of
    code: those are for the command line alone.
    """
    for f in fields(config):
        if f.metadata["also"] and getattr(config, f.name) not in f.metadata["choices"]:
            raise LabError(
                f"{f.name} is '{getattr(config, f.name)}', which only the command line takes:"
                f" python -m lab train {method_of(config)} --{f.name.replace('_', '-')} … Here it"
                f" is one of {', '.join(f.metadata['choices'])}."
            )


def read(kind: type[RunConfig], name: str, text: str) -> Any:
    """The value of the knob `name` of a method's config that `text` writes; raise `LabError` for an
    unknown knob and for what is no number.
    """
    hints = _hints(kind)
    if name not in hints:
        raise unknown(
            f"knob of {next(method for method, own in CONFIGS.items() if own is kind)}",
            name,
            list(hints),
        )
    try:
        return hints[name](text)
    except ValueError:
        raise LabError(
            f"{name} is '{text}', but takes"
            f" {'a whole number' if hints[name] is int else 'a number'}."
        ) from None


def method_of(config: RunConfig) -> str:
    """The method's name for a config object."""
    return next(name for name, kind in CONFIGS.items() if kind is type(config))


def make_config(method: str, knobs: dict[str, Any] | None = None) -> RunConfig:
    """Build the config of `method` from a plain dict; unknown names and values out of range raise
    `LabError`.
    """
    if method not in CONFIGS:
        raise unknown("method", method, list(CONFIGS))
    accepted = [f.name for f in fields(CONFIGS[method])]
    for name in knobs or {}:
        if name not in accepted:
            raise unknown(f"knob of {method}", name, accepted)
    return CONFIGS[method](**(knobs or {}))


def to_dict(config: RunConfig) -> dict[str, Any]:
    """`{"method": …, every knob: …}`, which survives JSON and goes back through `from_dict`."""
    return {"method": method_of(config)} | dataclasses.asdict(config)


def from_dict(data: Any) -> RunConfig:
    """The inverse of `to_dict`, and of what config.json holds; raises `LabError` for anything else,
    such as the format of a newer lab.
    """
    if not isinstance(data, dict):
        raise LabError(
            f"it holds {type(data).__name__}, not an object with a method and its knobs."
        )
    if type(made := data.get("format", 1)) is not int or made < 1:
        raise LabError(f"its format is {made!r:.60}, but takes a whole number from 1 to {FORMAT}.")
    if made > FORMAT:
        raise LabError(
            f"it was made by a newer lab (format {made}; this one reads up to {FORMAT}). Update"
            " this one, or use the newer."
        )
    if not isinstance(data.get("method"), str):
        raise LabError(f"it names no method. Accepted: {', '.join(CONFIGS)}.")
    try:
        return make_config(
            data["method"], {k: v for k, v in data.items() if k not in ("method", "format")}
        )
    except OverflowError as error:
        raise LabError(f"it holds a number that is too large ({error}).") from None


def live_knobs(config: RunConfig) -> list[str]:
    """Names of the knobs that may change while a run of this config trains."""
    return [f.name for f in fields(config) if f.metadata["live"]]


def change(config: RunConfig, name: str, value: Any) -> RunConfig:
    """The config with one live knob set to `value`; raise `LabError` when the knob is unknown,
    fixed, or the value unfit.
    """
    if name not in live_knobs(config):
        if name in [f.name for f in fields(config)]:
            raise LabError(
                f"{name} is fixed once a run has started. Live knobs of {method_of(config)}:"
                f" {', '.join(live_knobs(config))}."
            )
        raise unknown(f"live knob of {method_of(config)}", name, live_knobs(config))
    return dataclasses.replace(config, **{name: value})
