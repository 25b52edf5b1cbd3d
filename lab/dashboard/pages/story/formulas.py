"""The formulas of the story as HTML whose symbols are words of the glossary."""

from lab.dashboard.components.story import term

BETA, SIGMA, MARGIN = term("β", "<i>β</i>"), term("σ", "<i>σ</i>"), term("margin", "<i>h</i>")
PI, PI_REF = term("policy", "<i>π</i>"), term("reference", "<i>π</i><sub>ref</sub>")
BEST = term("policy", "<i>π</i>*")
Z, REWARD = term("Z", "<i>Z</i>(<i>x</i>)"), term("reward", "<i>r</i>")
GIVEN = "(<i>y</i>|<i>x</i>)"


def formula(name: str, html: str) -> str:
    """A formula on a line of its own; `name` is its name for screen readers."""
    return f'<div class="lab-formula" role="group" aria-label="{name}" tabindex="0">{html}</div>'


def fraction(top: str, bottom: str) -> str:
    """A fraction."""
    return f'<span class="lab-frac"><span>{top}</span><span>{bottom}</span></span>'


def cancelled(part: str) -> str:
    """A part that is struck out."""
    return f'<span class="lab-cancel">{part}</span>'


def log_ratio(policy: str, index: str = "") -> str:
    """The log-ratio of policy and reference for the completion y with an index."""
    of = f"(<i>y</i><sub>{index}</sub>|<i>x</i>)" if index else GIVEN
    return f"log {fraction(policy + of, PI_REF + of)}"


CHOSEN, REJECTED = (
    term("chosen and rejected", f"<i>y</i><sub>{index}</sub>") for index in ("w", "l")
)
KL_TERM = f"{term('KL', 'KL')}({PI} ‖ {PI_REF})"
OBJECTIVE = formula(
    "The objective of RLHF",
    f"max<sub><i>π</i></sub> E[{REWARD}(<i>x</i>, <i>y</i>)] − {BETA} · {KL_TERM}",
)
OPTIMUM = formula(
    "The optimal policy",
    f"{BEST}{GIVEN} = {fraction('1', Z)} {PI_REF}{GIVEN} exp({fraction('1', BETA)} {REWARD})",
)
INVERSE = formula("The reward", f"{REWARD} = {BETA} {log_ratio(BEST)} + {BETA} log {Z}")
CANCELLATION = formula(
    "Z cancels",
    f"{REWARD}({CHOSEN}) − {REWARD}({REJECTED}) = {BETA} {MARGIN}"
    f" + {cancelled(f'{BETA} log {Z}')} − {cancelled(f'{BETA} log {Z}')}",
)
DPO_LOSS = formula(
    "The DPO loss", f"{term('loss', '<i>L</i>')}<sub>DPO</sub> = −log {SIGMA}({BETA} {MARGIN})"
)
MARGIN_FORMULA = formula("The margin", f"{MARGIN} = {log_ratio(PI, 'w')} − {log_ratio(PI, 'l')}")
IPO_LOSS = formula(
    "The IPO loss",
    f"{term('loss', '<i>L</i>')}<sub>IPO</sub> = ({MARGIN} − {fraction('1', f'2{BETA}')})<sup>2</sup>",
)
KTO_LOSS = formula(
    "The KTO loss of a good completion",
    f"{term('loss', '<i>L</i>')}<sub>KTO</sub> = <i>λ</i> (1 − {SIGMA}({BETA}"
    f" ({term('log-ratio', '<i>r</i>')} − {term('reference point', '<i>z</i>')})))",
)
ADVANTAGE = formula(
    "The advantage of GRPO",
    f"{term('advantage', '<i>A</i><sub>i</sub>')} = "
    + fraction(
        f"{term('reward', '<i>r</i><sub>i</sub>')} − mean(<i>r</i>)",
        f"{term('std', 'std')}(<i>r</i>)",
    ),
)
