"""A reward that is code of the user: only the command line may name it."""

from lab.config.methods import method_of
from lab.config.reward_rules import code_rules
from lab.config.run_config import OnlineConfig, RunConfig
from lab.config.schema import declared_settings
from lab.errors import LabError


def names_code(config: RunConfig) -> bool:
    """Whether a run of this config calls a function of the user's own."""
    return bool(code_rules(getattr(config, "reward", "")))


def require_code(config: RunConfig, given: str) -> None:
    """Raise `LabError` unless the code that `config` names is `given`, a MODULE:FUNCTION of the
    command line; "" is none.
    """
    named = config.reward if isinstance(config, OnlineConfig) and names_code(config) else ""
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
    for name, declared in declared_settings(type(config)).items():
        if declared.extra_patterns and getattr(config, name) not in declared.choices:
            raise LabError(
                f"{name} is '{getattr(config, name)}', which only the command line takes:"
                f" python -m lab train {method_of(config)} --{name.replace('_', '-')} … Here it"
                f" is one of {', '.join(declared.choices)}."
            )
