"""The boxes and arrows of both architectures, with the bytes of every model."""

from typing import Any

from lab.dashboard.components.svg_diagram import Arrow, Box
from lab.figures.palette import METHOD_COLOURS

DIAGRAM_SIZE = (484, 330)

LIT_ELEMENTS = {
    "generate": ({"policy", "completion", "writes"}, {"pair"}),
    "score": (
        {"reward model", "reference", "to reward model", "to reference"},
        {"policy", "reference", "to policy", "to reference"},
    ),
    "value": ({"critic", "to critic"}, set()),
    "advantage": (
        {"advantage", "from reward model", "from reference", "from critic"},
        {"loss", "from policy", "from reference"},
    ),
    "update": (
        {"policy", "critic", "advantage", "update", "update critic"},
        {"policy", "loss", "update"},
    ),
}
"""By step, the names of the highlighted boxes and arrows, in RLHF and in DPO."""


def megabytes_text(count: int) -> str:
    """Bytes in megabytes, such as "1.46 MB"."""
    return f"{count / 1e6:.2f} MB"


def memory_lines(memory: dict[str, dict[str, int]], name: str) -> tuple[str, ...]:
    """The two lines of a model's box: the bytes of its weights, and the bytes to train them."""
    model = memory[name]
    weights = (
        f"{megabytes_text(model['weights'])} weights" if model["weights"] else "policy, adapter off"
    )
    return weights, f"+ {megabytes_text(model['training'])} to train" if model[
        "training"
    ] else "frozen"


def shorten_text(text: str, length: int) -> str:
    """`text` cut to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def ppo_boxes(row: dict[str, Any], layout: str) -> list[Box]:
    """The boxes of RLHF with the bytes of every model. `layout`: "shared" or "separate" weights."""
    colour, memory = METHOD_COLOURS["ppo"], row["memory"][layout]
    return [
        Box("policy", 24, 10, 166, 70, "Policy π", memory_lines(memory, "policy"), colour),
        Box(
            "completion",
            262,
            10,
            198,
            70,
            shorten_text(row["prompt"], 20),
            (shorten_text(row["completion"], 24),),
        ),
        Box(
            "reference",
            24,
            134,
            140,
            76,
            "Reference π_ref",
            memory_lines(memory, "reference"),
            colour,
            hollow=True,
        ),
        Box(
            "reward model",
            172,
            134,
            140,
            76,
            "Reward model",
            memory_lines(memory, "reward model"),
            colour,
            hollow=True,
        ),
        Box("critic", 320, 134, 140, 76, "Critic V", memory_lines(memory, "critic"), colour),
        Box("advantage", 132, 268, 220, 50, "Advantage A", ("of every token",), colour),
    ]


PPO_ARROWS = (
    Arrow("writes", ((190, 45), (262, 45)), "writes"),
    Arrow("to reference", ((361, 80), (361, 107), (94, 107), (94, 134))),
    Arrow("to reward model", ((361, 80), (361, 107), (242, 107), (242, 134))),
    Arrow("to critic", ((361, 80), (361, 107), (390, 107), (390, 134))),
    Arrow("from reference", ((94, 210), (94, 239), (200, 239), (200, 268))),
    Arrow("from reward model", ((242, 210), (242, 268))),
    Arrow("from critic", ((390, 210), (390, 239), (284, 239), (284, 268))),
    Arrow("update", ((132, 293), (10, 293), (10, 45), (24, 45))),
    Arrow("update critic", ((352, 293), (474, 293), (474, 172), (460, 172))),
)


def dpo_boxes(row: dict[str, Any]) -> list[Box]:
    """The boxes of DPO with the bytes of every model."""
    colour, memory = METHOD_COLOURS["dpo"], row["memory"]["shared"]
    chosen, rejected = (row[side].removesuffix("<eos>") for side in ("chosen", "rejected"))
    return [
        Box(
            "pair",
            122,
            10,
            240,
            70,
            f"A pair: {shorten_text(row['prompt'], 18)}",
            (f"chosen {shorten_text(chosen, 24)}", f"rejected {shorten_text(rejected, 22)}"),
            hollow=True,
        ),
        Box("policy", 34, 134, 190, 76, "Policy π", memory_lines(memory, "policy"), colour),
        Box(
            "reference",
            260,
            134,
            190,
            76,
            "Reference π_ref",
            memory_lines(memory, "reference"),
            colour,
            hollow=True,
        ),
        Box("loss", 132, 268, 220, 50, "DPO loss", ("no reward model, no critic",), colour),
    ]


DPO_ARROWS = (
    Arrow("to policy", ((242, 80), (242, 107), (129, 107), (129, 134))),
    Arrow("to reference", ((242, 80), (242, 107), (355, 107), (355, 134))),
    Arrow("from policy", ((129, 210), (129, 239), (200, 239), (200, 268))),
    Arrow("from reference", ((355, 210), (355, 239), (284, 239), (284, 268))),
    Arrow("update", ((132, 293), (10, 293), (10, 172), (34, 172))),
)
