"""The loss of every method as LaTeX, with a run's numbers in it."""

from collections.abc import Mapping
from typing import Any

from lab.figures.training_curves import number


def loss_formula(method: str, config: Mapping[str, Any]) -> list[str]:
    """The loss of one example (GRPO: of one group) in LaTeX with the numbers of `config` in their
    places, then what its letters mean.
    """

    def given(name: str, symbol: str) -> str:
        return rf"\underbrace{{{number(config[name])}}}_{{{symbol}}}"

    h = r"h=\log\tfrac{\pi_\theta(y_w|x)}{\pi_{\mathrm{ref}}(y_w|x)}-\log\tfrac{\pi_\theta(y_l|x)}{\pi_{\mathrm{ref}}(y_l|x)}"
    if method == "sft":
        return [r"\mathcal{L}_{\mathrm{SFT}}=-\log\pi_\theta(y_w|x)"]
    if method == "reward_model":
        return [r"\mathcal{L}_{\mathrm{RM}}=-\log\sigma\big(r(x,y_w)-r(x,y_l)\big)"]
    beta = given("beta", r"\beta")
    if method == "online_dpo":
        return [
            rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)",
            h,
            (
                rf"y_w,y_l=\text{{best and worst of }}{given('group_size', 'G')}\text{{ samples"
                r" from }\pi_\theta"
            ),
        ]
    if method == "ppo":
        clip = rf"\mathrm{{clip}}(\rho_t,{number(1 - config['epsilon'])},{number(1 + config['epsilon'])})"
        lam = given("lam", r"\lambda")
        return [
            (
                r"\mathcal{L}_{\mathrm{PPO}}=-\min\!\big(\rho_t"
                rf" A_t,{clip}A_t\big)+\tfrac{{1}}{{2}}(V_t-R_t)^2"
            ),
            rf"A_t=\textstyle\sum_k({number(config['gamma'])}\cdot{lam})^k\,\delta_{{t+k}}",
            (
                rf"r_t=-{beta}\log\tfrac{{\pi_\theta}}{{\pi_{{\mathrm{{ref}}}}}}+[t\text{{"
                r" last}]\cdot\text{score}"
            ),
        ]
    if method == "dpo":
        return [rf"\mathcal{{L}}_{{\mathrm{{DPO}}}}=-\log\sigma\big({beta}\,h\big)", h]
    if method == "ipo":
        margin, means = (
            (r"\bar h", r"\bar h=h\text{ with means per token}")
            if config["form"] == "token_mean"
            else ("h", h)
        )
        return [
            (
                rf"\mathcal{{L}}_{{\mathrm{{IPO}}}}=\big({margin}-\underbrace{{{number(1 / (2 * config['beta']))}}}_{{1/(2\beta)}}\big)^2"
            ),
            means,
        ]
    if method == "kto":
        return [
            (
                rf"\mathcal{{L}}_{{\mathrm{{KTO}}}}={number(config['desirable_weight'])}\,\big(1-\sigma({beta}(r-z))\big)\ \text{{if"
                r" desirable}"
            ),
            (
                rf"{number(config['undesirable_weight'])}\,\big(1-\sigma({beta}(z-r))\big)\ \text{{if"
                r" not}"
            ),
            r"r=\log\tfrac{\pi_\theta(y|x)}{\pi_{\mathrm{ref}}(y|x)}",
        ]
    group, size, longest = (
        given("group_size", "G"),
        config["group_size"],
        config["max_completion_tokens"],
    )
    mean = {
        "sequence_mean": rf"\frac{{1}}{{{group}}}\sum_{{i=1}}^{{{size}}}\frac{{1}}{{|y_i|}}\sum_t",
        "token_mean": rf"\frac{{1}}{{\sum_i|y_i|}}\sum_{{i=1}}^{{{group}}}\sum_t",
        "fixed_length": rf"\frac{{1}}{{{group}\cdot{longest}}}\sum_{{i=1}}^{{{size}}}\sum_t",
    }[config["reduction"]]
    scaled = {
        "group": r"\frac{r_i-\bar r}{\mathrm{std}(r)}",
        "batch": r"\frac{r_i-\bar r}{\mathrm{std}_{\mathrm{batch}}(r)}",
        "none": r"r_i-\bar r",
    }[config["scale"]]
    clipped = rf"\mathrm{{clip}}(\rho,{number(1 - config['epsilon'])},{number(1 + config['epsilon_high'])})"
    return [
        (
            rf"\mathcal{{L}}_{{\mathrm{{GRPO}}}}=-{mean}\Big[\min\!\big(\rho"
            rf" A_i,{clipped}A_i\big)-{beta}\,\mathrm{{KL}}\Big]"
        ),
        rf"A_i={scaled}",
    ]
