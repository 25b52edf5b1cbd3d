"""The methods of page Map: what each solved and introduced; what each step between two changed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodNode:
    """A method of the map.

    arm: its arm in the recorded comparison
    page: the page that explains it, as (URL path, title)
    """

    solved: str
    introduced: str
    arm: str
    page: tuple[str, str]


METHOD_NODES: dict[str, MethodNode] = {
    "ppo": MethodNode(
        "Nobody can write down a loss for “people like this text”. RLHF learns a reward from"
        " comparisons, and then trains a policy that earns this reward.",
        "RLHF needs four models, samples during training, must train a critic and has many"
        " settings. The policy can exploit mistakes of the reward model.",
        "ppo",
        ("rlhf-dpo", "RLHF and DPO"),
    ),
    "dpo": MethodNode(
        "DPO needs no reward model and no sampling. The policy itself acts as the reward model, and"
        " training lowers one loss on fixed pairs.",
        "The pairs come from an old policy. Wrong labels in them go directly into the policy. The"
        " loss always asks for a larger margin between chosen and rejected.",
        "dpo",
        ("dpo", "DPO"),
    ),
    "ipo": MethodNode(
        "The margin between chosen and rejected has a finite target, 1/(2β). The pull ends when"
        " the margin reaches it.",
        "The target needs a unit. Nats per completion and nats per token give two different"
        " methods with one name.",
        "ipo",
        ("ipo-kto", "IPO and KTO"),
    ),
    "kto": MethodNode(
        "KTO needs no pairs. One thumb up or one thumb down for each completion is enough.",
        "KTO needs a reference point z, which it can only estimate from each batch. Two weights"
        " must balance thumbs up against thumbs down.",
        "kto",
        ("ipo-kto", "IPO and KTO"),
    ),
    "online_dpo": MethodNode(
        "Online DPO uses DPO's loss on pairs that the policy has just written, so the data stays"
        " up to date. The article does not describe it.",
        "Training samples again, and a rule or a reward model must score every completion while"
        " training runs.",
        "online_dpo@gold",
        ("online", "Online and offline"),
    ),
    "grpo": MethodNode(
        "GRPO needs no critic. The mean reward of G completions of one prompt says which reward to"
        " expect. GRPO samples from the present policy, and any rule can be the reward.",
        "GRPO samples G completions for every prompt. A group teaches nothing when all its rewards"
        " are equal. A program must be able to compute the reward.",
        "grpo",
        ("grpo", "GRPO"),
    ),
}

EDGE_LABELS: dict[tuple[str, str], str] = {
    ("ppo", "dpo"): "no reward model",
    ("dpo", "ipo"): "a finite margin",
    ("dpo", "kto"): "no pairs",
    ("dpo", "online_dpo"): "online",
    ("online_dpo", "grpo"): "a group, a rule",
    ("ppo", "grpo"): "no critic",
}
"""By (method, next method), what the step between both changed."""
