"""The loss of every method as LaTeX, with a run's numbers in it."""

from collections.abc import Callable, Mapping
from typing import Any

from lab.figures.labels import short_number

Config = Mapping[str, Any]

LOG_RATIO = r"\log\tfrac{\pi_\theta(%s|x)}{\pi_{\mathrm{ref}}(%s|x)}"
MARGIN_FORMULA = f"h={LOG_RATIO % ('y_w', 'y_w')}-{LOG_RATIO % ('y_l', 'y_l')}"


def loss_formula(method: str, config: Config) -> list[str]:
    """The loss of one example (GRPO: of one group) in LaTeX with the numbers of `config` in their
    places, then the definitions of its symbols.
    """
    return _FORMULAS[method](config)


def _knob(config: Config, name: str, symbol: str) -> str:
    """The value of a knob with its symbol under a brace."""
    return rf"\underbrace{{{short_number(config[name])}}}_{{{symbol}}}"


def _beta(config: Config) -> str:
    return _knob(config, "beta", r"\beta")


def _clip(low: float, high: float, ratio: str) -> str:
    return rf"\mathrm{{clip}}({ratio},{short_number(1 - low)},{short_number(1 + high)})"


def _sft(config: Config) -> list[str]:
    return [r"\mathcal{L}_{\mathrm{SFT}}=-\log\pi_\theta(y_w|x)"]


def _reward_model(config: Config) -> list[str]:
    return [r"\mathcal{L}_{\mathrm{RM}}=-\log\sigma\big(r(x,y_w)-r(x,y_l)\big)"]


def _dpo(config: Config) -> list[str]:
    return [
        rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({_beta(config)}\,h\big)",
        MARGIN_FORMULA,
    ]


def _online_dpo(config: Config) -> list[str]:
    group_size = _knob(config, "group_size", "G")
    pair = rf"y_w,y_l=\text{{best and worst of }}{group_size}\text{{ samples from }}\pi_\theta"
    return [*_dpo(config), pair]


def _ipo(config: Config) -> list[str]:
    if config["form"] == "token_mean":
        margin, definition = r"\bar h", r"\bar h=h\text{ with means per token}"
    else:
        margin, definition = "h", MARGIN_FORMULA
    target = rf"\underbrace{{{short_number(1 / (2 * config['beta']))}}}_{{1/(2\beta)}}"
    return [rf"\mathcal{{L}}_{{\mathrm{{IPO}}}}=\big({margin}-{target}\big)^2", definition]


def _kto(config: Config) -> list[str]:
    beta = _beta(config)
    desirable, undesirable = (
        short_number(config[name]) for name in ("desirable_weight", "undesirable_weight")
    )
    return [
        rf"\mathcal{{L}}_{{\mathrm{{KTO}}}}={desirable}\,\big(1-\sigma({beta}(r-z))\big)"
        r"\ \text{if desirable}",
        rf"{undesirable}\,\big(1-\sigma({beta}(z-r))\big)\ \text{{if not}}",
        f"r={LOG_RATIO % ('y', 'y')}",
    ]


def _ppo(config: Config) -> list[str]:
    clipped = _clip(config["epsilon"], config["epsilon"], r"\rho_t")
    gae_lambda = _knob(config, "lam", r"\lambda")
    return [
        rf"\mathcal{{L}}_{{\mathrm{{PPO}}}}=-\min\!\big(\rho_t A_t,{clipped}A_t\big)"
        r"+\tfrac{1}{2}(V_t-R_t)^2",
        rf"A_t=\textstyle\sum_k({short_number(config['gamma'])}\cdot{gae_lambda})^k\,\delta_{{t+k}}",
        rf"r_t=-{_beta(config)}\log\tfrac{{\pi_\theta}}{{\pi_{{\mathrm{{ref}}}}}}"
        r"+[t\text{ last}]\cdot\text{score}",
    ]


def _grpo(config: Config) -> list[str]:
    group, size = _knob(config, "group_size", "G"), config["group_size"]
    longest = config["max_completion_tokens"]
    mean = {
        "sequence_mean": rf"\frac{{1}}{{{group}}}\sum_{{i=1}}^{{{size}}}\frac{{1}}{{|y_i|}}\sum_t",
        "token_mean": rf"\frac{{1}}{{\sum_i|y_i|}}\sum_{{i=1}}^{{{group}}}\sum_t",
        "fixed_length": rf"\frac{{1}}{{{group}\cdot{longest}}}\sum_{{i=1}}^{{{size}}}\sum_t",
    }[config["reduction"]]
    advantage = {
        "group": r"\frac{r_i-\bar r}{\mathrm{std}(r)}",
        "batch": r"\frac{r_i-\bar r}{\mathrm{std}_{\mathrm{batch}}(r)}",
        "none": r"r_i-\bar r",
    }[config["scale"]]
    clipped = _clip(config["epsilon"], config["epsilon_high"], r"\rho")
    return [
        rf"\mathcal{{L}}_{{\mathrm{{GRPO}}}}=-{mean}\Big[\min\!\big(\rho A_i,{clipped}A_i\big)"
        rf"-{_beta(config)}\,\mathrm{{KL}}\Big]",
        rf"A_i={advantage}",
    ]


_FORMULAS: dict[str, Callable[[Config], list[str]]] = {
    "sft": _sft,
    "reward_model": _reward_model,
    "dpo": _dpo,
    "ipo": _ipo,
    "kto": _kto,
    "online_dpo": _online_dpo,
    "grpo": _grpo,
    "ppo": _ppo,
}
