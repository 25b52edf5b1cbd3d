"""The methods of page Map: what each solved and introduced, and its claims; what each step between two changed."""

from dataclasses import dataclass

from lab.dashboard.pages.map.claims import (
    Claim,
    dpo_data_shifts,
    dpo_is_as_simple_as_sft,
    dpo_overfits,
    four_models_take_part,
    grpo_avoids_shift,
    grpo_saves_the_critic,
    ipo_margin_is_bounded,
    judge_is_a_bottleneck,
    kto_needs_no_pairs,
    online_dpo_avoids_shift,
    ppo_is_unstable,
    reward_model_is_exploited,
    thinking_emerges,
)


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
    claims: tuple[Claim, ...]


METHOD_NODES: dict[str, MethodNode] = {
    "ppo": MethodNode(
        "Nobody can write down a loss for “people like this text”. RLHF learns a reward from"
        " comparisons, and then trains a policy that earns this reward.",
        "RLHF needs four models, samples during training, must train a critic and has many"
        " settings. The policy can exploit mistakes of the reward model.",
        "ppo",
        ("rlhf-dpo", "RLHF and DPO"),
        (
            Claim(
                "The reward model's quality caps the result, and it is easy to exploit.",
                reward_model_is_exploited,
            ),
            Claim("Four models at once: high training complexity.", four_models_take_part),
            Claim("PPO training is unstable.", ppo_is_unstable),
        ),
    ),
    "dpo": MethodNode(
        "DPO needs no reward model and no sampling. The policy itself acts as the reward model, and"
        " training lowers one loss on fixed pairs.",
        "The pairs come from an old policy. Wrong labels in them go directly into the policy. The"
        " loss always asks for a larger margin between chosen and rejected.",
        "dpo",
        ("dpo", "DPO"),
        (
            Claim("Training is as simple as SFT.", dpo_is_as_simple_as_sft),
            Claim("Offline distribution shift.", dpo_data_shifts),
            Claim("Prone to overfitting.", dpo_overfits),
        ),
    ),
    "ipo": MethodNode(
        "The margin between chosen and rejected has a finite target, 1/(2β). The pull ends when"
        " the margin reaches it.",
        "The target needs a unit. Nats per completion and nats per token give two different"
        " methods with one name.",
        "ipo",
        ("ipo-kto", "IPO and KTO"),
        (
            Claim(
                "A regularisation term prevents overfitting: the margin need not go to infinity.",
                ipo_margin_is_bounded,
            ),
        ),
    ),
    "kto": MethodNode(
        "KTO needs no pairs. One thumb up or one thumb down for each completion is enough.",
        "KTO needs a reference point z, which it can only estimate from each batch. Two weights"
        " must balance thumbs up against thumbs down.",
        "kto",
        ("ipo-kto", "IPO and KTO"),
        (Claim("Needs no paired preference data.", kto_needs_no_pairs),),
    ),
    "online_dpo": MethodNode(
        "Online DPO uses DPO's loss on pairs that the policy has just written, so the data stays"
        " up to date. The article does not describe it.",
        "Training samples again, and a rule or a reward model must score every completion while"
        " training runs.",
        "online_dpo@gold",
        ("online", "Online and offline"),
        (
            Claim(
                "Online sampling avoids distribution shift (the article says it of GRPO).",
                online_dpo_avoids_shift,
            ),
            Claim(
                "The reward model is a bottleneck (the article says it of RLHF).",
                judge_is_a_bottleneck,
            ),
        ),
    ),
    "grpo": MethodNode(
        "GRPO needs no critic. The mean reward of G completions of one prompt says which reward to"
        " expect. GRPO samples from the present policy, and any rule can be the reward.",
        "GRPO samples G completions for every prompt. A group teaches nothing when all its rewards"
        " are equal. A program must be able to compute the reward.",
        "grpo",
        ("grpo", "GRPO"),
        (
            Claim("Online sampling avoids distribution shift.", grpo_avoids_shift),
            Claim("No critic saves a large model's worth of memory.", grpo_saves_the_critic),
            Claim(
                "A model trained with rule-based rewards exhibited emergent thinking.",
                thinking_emerges,
            ),
        ),
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
