"""The registry of methods: one `MethodSpec` each, which every other part of the lab reads.

A new method is one module with a `SPEC`, and one line in `METHOD_MODULES`. The modules are loaded
when a spec is first needed, and none of them loads torch before it trains.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from lab.config.hooks import Hook
from lab.config.run_config import OfflineConfig, OnlineConfig, RunConfig
from lab.config.schema import declared_settings
from lab.errors import unknown

METHOD_MODULES = [
    "lab.training.methods.dpo",
    "lab.training.methods.ipo",
    "lab.training.methods.kto",
    "lab.training.methods.online_dpo",
    "lab.training.methods.grpo",
    "lab.training.methods.ppo",
    "lab.training.methods.sft",
    "lab.training.methods.reward_model",
]
"""Every method's module, in the order in which the command line and the dashboard list them."""

DataKind = Literal["pairs", "judgements", "demonstrations", "prompts"]
PAIR_FORMATS = ("preference", "preference with implicit prompt")
FORMATS_OF_KIND: dict[DataKind, tuple[str, ...]] = {
    "pairs": PAIR_FORMATS,
    "judgements": (*PAIR_FORMATS, "unpaired preference"),
    "demonstrations": (
        *PAIR_FORMATS,
        "prompt-completion",
        "conversational language modeling",
        "language modeling",
    ),
    "prompts": ("prompt-only",),
}
"""The formats of `lab.data.examples.FORMATS` from which each kind of data can be made."""


def no_formula(config: Mapping[str, Any]) -> list[str]:
    """Return no LaTeX."""
    return []


@dataclass(frozen=True)
class MethodSpec:
    """Everything that the lab has to know about a method.

    Args:
        name: Name on the command line and in config.json.
        title: Name on the dashboard and in the legend of a figure.
        summary: One sentence for the Train page.
        colour: Colour in every figure, such as "#0072B2".
        config: Frozen dataclass with the settings.
        learns_from: Kind of data. With it go the file formats that the method accepts.
        batches: `batches(run)` yields one batch for each update, as a list of micro-batches. The
            loop pulls it once for each update, after the changes of settings, so a rollout always
            comes from the current policy.
        loss: `loss(run, micro_batch)` returns two values: the micro-batch's share of the batch's
            loss (a scalar, without a gradient where there is nothing to learn), and metrics
            (detached tensors whose non-NaN entries are averaged over the whole batch).
        formula: `formula(config)` returns the loss in LaTeX, line by line, with the numbers of a
            run's settings (`to_dict` of its config).
        models: The models that take part, however few weights they share. An online method has no
            reward model while a rule gives the rewards.
        estimated: Whether the memory estimator knows its batches.
        load: `load(config, device)` returns the model that trains; None: a policy with LoRA.
        attach: `attach(run)` adds networks beside the policy; None: the reward model, if an online
            config names one.
        evaluate: `evaluate(run)` returns held-out metrics and sample completions; None: the metrics
            of the task, or of the user's own held-out rows.
        hooks: The functions of the loop that a learner's own can replace in a notebook.
    """

    name: str
    title: str
    summary: str
    colour: str
    config: type[RunConfig]
    learns_from: DataKind
    batches: Callable[[Any], Iterator[list[Any]]]
    loss: Callable[[Any, Any], tuple[Any, dict[str, Any]]]
    formula: Callable[[Mapping[str, Any]], list[str]] = no_formula
    models: tuple[str, ...] = ("policy", "reference")
    estimated: bool = False
    load: Callable[[Any, Any], Any] | None = None
    attach: Callable[[Any], None] | None = None
    evaluate: Callable[[Any], tuple[dict[str, float], list[dict[str, Any]]]] | None = None
    hooks: tuple[Hook, ...] = ()

    @property
    def online(self) -> bool:
        """Whether the method learns from completions of the policy itself."""
        return issubclass(self.config, OnlineConfig)

    @property
    def offline(self) -> bool:
        """Whether the method learns from a fixed data set."""
        return issubclass(self.config, OfflineConfig)

    @property
    def formats(self) -> tuple[str, ...]:
        """The data formats that the method accepts, names of `lab.data.examples.FORMATS`."""
        return FORMATS_OF_KIND[self.learns_from]

    @property
    def rows_per_example(self) -> int:
        """Rows of tokens that one example of a batch has: a pair has two."""
        return 2 if self.learns_from == "pairs" else 1


def register(module: str) -> None:
    """Add the method of a module, which can be imported and has a `SPEC`."""
    if module not in METHOD_MODULES:
        METHOD_MODULES.append(module)


def _specs() -> dict[str, MethodSpec]:
    specs = [import_module(module).SPEC for module in METHOD_MODULES]
    return {spec.name: spec for spec in specs}


class MethodRegistry(Mapping[str, MethodSpec]):
    """The registered methods by name; a method's module is loaded when the mapping is first read."""

    def __getitem__(self, name: str) -> MethodSpec:
        return _specs()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_specs())

    def __len__(self) -> int:
        return len(METHOD_MODULES)


METHODS = MethodRegistry()


def estimated_methods() -> tuple[str, ...]:
    """Return the names of the methods whose updates the memory estimator knows."""
    return tuple(spec.name for spec in METHODS.values() if spec.estimated)


class MethodTexts(Mapping[str, str]):
    """One text of every method by the method's name, such as its title or its colour."""

    def __init__(self, attribute: Literal["title", "colour", "summary"]) -> None:
        self._attribute = attribute

    def __getitem__(self, name: str) -> str:
        return str(getattr(METHODS[name], self._attribute))

    def __iter__(self) -> Iterator[str]:
        return iter(METHODS)

    def __len__(self) -> int:
        return len(METHODS)


def method_of_class(config_class: type[RunConfig]) -> str:
    """Return the name of the method whose settings `config_class` declares."""
    return next(spec.name for spec in _specs().values() if spec.config is config_class)


def method_of(config: RunConfig) -> str:
    """Return the name of the method that `config` belongs to."""
    return method_of_class(type(config))


def make_config(method: str, settings: Mapping[str, Any] | None = None) -> RunConfig:
    """Build the config of `method` from a plain dict.

    Raises `LabError` for an unknown method, an unknown setting, and a value that is not accepted.
    """
    if method not in METHODS:
        raise unknown("method", method, list(METHODS))
    config_class = METHODS[method].config
    accepted = list(declared_settings(config_class))
    for name in settings or {}:
        if name not in accepted:
            raise unknown(f"setting of {method}", name, accepted)
    return config_class(**(settings or {}))
