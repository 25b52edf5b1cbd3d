"""How data reaches the policy, offline and online: a picture of each, and what each is good at."""

from lab.dashboard.components.svg_diagram import Arrow, Box, svg
from lab.figures.palette import METHOD_COLOURS

SIZE = (384, 132)
FEATURES = {
    "offline": (
        ("Simple training", "No online sampling"),
        ("Distribution shift", "Easy to overfit"),
    ),
    "online": (
        ("Data from the present policy", "Every mistake is scored at once"),
        ("Sampling in every update", "Needs a rule or a reward model"),
    ),
}
"""By mode its advantages and its issues. Those of "offline" are the article's; those of "online" are
their counterparts.
"""
ALT_TEXTS = {
    "offline": (
        "Offline: fixed pairs, sampled once, go into the DPO loss, which changes the policy. Nothing"
        " goes back."
    ),
    "online": (
        "Online: the policy writes G completions of each prompt. A rule or a model scores them. The"
        " update changes the policy, and then the policy writes again."
    ),
}


def flow_picture(mode: str, theme: str) -> str:
    """The picture of a mode, "offline" or "online", as SVG."""
    boxes, arrows, lit = _offline() if mode == "offline" else _online()
    return svg(boxes, arrows, lit, SIZE, theme)


def _offline() -> tuple[tuple[Box, ...], tuple[Arrow, ...], tuple[str, ...]]:
    colour = METHOD_COLOURS["dpo"]
    pairs = ("sampled once,", "before training")
    boxes = (
        Box("pairs", 3, 22, 112, 76, "Fixed pairs", pairs, hollow=True),
        Box("loss", 136, 22, 112, 76, "DPO loss", ("reads the same", "pairs again"), colour),
        Box("policy", 269, 22, 112, 76, "Policy", ("writes nothing",), colour),
    )
    arrows = (Arrow("a", ((115, 60), (136, 60))), Arrow("b", ((248, 60), (269, 60))))
    return boxes, arrows, ("a", "b", "loss")


def _online() -> tuple[tuple[Box, ...], tuple[Arrow, ...], tuple[str, ...]]:
    colour = METHOD_COLOURS["grpo"]
    boxes = (
        Box("policy", 3, 22, 112, 76, "Policy", ("as it is now",), colour),
        Box("group", 136, 22, 112, 76, "G completions", ("new in every", "update"), colour),
        Box("reward", 269, 22, 112, 76, "Reward", ("a rule or a", "model scores"), hollow=True),
    )
    arrows = (
        Arrow("a", ((115, 60), (136, 60))),
        Arrow("b", ((248, 60), (269, 60))),
        Arrow("c", ((325, 98), (325, 122), (59, 122), (59, 98))),
    )
    return boxes, arrows, ("a", "b", "c", "policy")
