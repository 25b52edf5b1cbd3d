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
        "What people like cannot be written down as a loss. RLHF learns a reward from comparisons"
        " and then a policy that earns it.",
        "Four models, sampling in the loop, a critic to learn, many knobs, and a reward model that"
        " can be exploited.",
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
        "No reward model and no sampling: the policy itself is the reward model, and training is"
        " one loss on fixed pairs.",
        "The pairs come from an old policy; noise in them goes straight into the policy; the margin"
        " grows without bound.",
        "dpo",
        ("dpo", "DPO"),
        (
            Claim("Training is as simple as SFT.", dpo_is_as_simple_as_sft),
            Claim("Offline distribution shift.", dpo_data_shifts),
            Claim("Prone to overfitting.", dpo_overfits),
        ),
    ),
    "ipo": MethodNode(
        "The margin has a finite target, 1/(2β), so the pull ends when it is reached.",
        "The target has a unit: nats per completion and nats per token are different methods under"
        " one name.",
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
        "No pairs: one thumb up or down per completion is enough.",
        "A reference point z that a batch can only estimate, and two weights to balance thumbs up"
        " against thumbs down.",
        "kto",
        ("ipo-kto", "IPO and KTO"),
        (Claim("Needs no paired preference data.", kto_needs_no_pairs),),
    ),
    "online_dpo": MethodNode(
        "The bridge, which the article leaves out: DPO's loss on pairs that the policy has just"
        " written.",
        "Sampling is back in the loop, and somebody must judge every pair while training runs.",
        "online_dpo@gold",
        ("online", "Online and offline"),
        (
            Claim(
                "Online sampling avoids distribution shift (said of GRPO).", online_dpo_avoids_shift
            ),
            Claim("The reward model is a bottleneck (said of RLHF).", judge_is_a_bottleneck),
        ),
    ),
    "grpo": MethodNode(
        "No critic: the group of completions of one prompt says what to expect. It samples from the"
        " present policy and takes any rule as reward.",
        "G completions for every prompt, groups that teach nothing when all rewards are equal, and"
        " a reward that must be computable.",
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
