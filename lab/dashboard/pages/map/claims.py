"""What the page Map says of each method: what it solved and introduced, and each claim of the
article with the number measured here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lab.analysis.recorded_results import Comparison
from lab.dashboard.pages.choose.reward_model_experiments import most_telling, reward_models_say
from lab.figures.sensitivity import knob_word


@dataclass(frozen=True)
class Claim:
    """A sentence of the article and what was measured: `measure` returns the words and whether the
    claim holds (None: undecided).
    """

    article: str
    measure: Callable[["Tables"], tuple[str, bool | None]]


@dataclass(frozen=True)
class Tables:
    """The recorded results that the claims are held against: equal tokens, each method's defaults,
    the drift experiment by method, the peak of an update in bytes by arm (empty until it is
    recorded), and the experiments sensitivity and overoptimisation (None until then).
    """

    tokens: Comparison
    defaults: Comparison
    drift: Mapping[str, Mapping[str, Any]]
    memory: Mapping[str, int]
    knobs: Mapping[str, Any] | None = None
    reward_models: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Node:
    """A method of the map; `arm` is the arm of the comparison that stands for it, `page` where it
    is explained (url_path, title).
    """

    solved: str
    introduced: str
    arm: str
    page: tuple[str, str]
    claims: tuple[Claim, ...]


VERDICTS = {True: "holds here", False: "not so here", None: "not decided here"}


def _exploited(t: Tables) -> tuple[str, bool | None]:
    loss = t.tokens.difference("ppo@gold", "ppo")
    more = f" {reward_models_say(t.reward_models['rows'])}" if t.reward_models else ""
    return (
        (
            f"PPO reaches a gold accuracy of {t.tokens.text('ppo')} against a reward model and"
            f" {t.tokens.text('ppo@gold')} against the rule itself. GRPO without a KL term exploits"
            f" the same reward models: their score rises to {t.tokens.text('grpo@model', 'proxy')}"
            f" while gold accuracy ends at {t.tokens.text('grpo@model')}.{more}"
        ),
        loss.is_positive(),
    )


def _four_models(t: Tables) -> tuple[str, bool | None]:
    ratio = t.tokens.mean("ppo", "seconds") / t.tokens.mean("dpo", "seconds")
    return (
        (
            f"Four models take part. At equal tokens PPO takes {ratio:.1f} times the training time"
            " of DPO."
        ),
        True,
    )


def _unstable(t: Tables) -> tuple[str, bool | None]:
    ppo, dpo = (t.tokens.spread(name) for name in ("ppo", "dpo"))
    text = (
        f"Over {t.tokens.seeds} seeds PPO's gold accuracy lies within {ppo:.2f} (highest minus"
        f" lowest), DPO's within {dpo:.2f}."
    )
    ours, theirs = (most_telling(t.knobs, name) for name in ("ppo", "dpo"))
    if ours is None or theirs is None:
        return f"{text} Three seeds are few.", ppo > dpo
    moved = (
        f"{text} Divided or multiplied by {t.knobs['factor']:g}, its most telling knob"
        f" ({knob_word(ours)}) moves gold accuracy by {ours['spread']:.2f}, DPO's"
        f" ({knob_word(theirs)}) by {theirs['spread']:.2f}."
    )
    verdicts = {ppo > dpo, ours["spread"] > theirs["spread"]}
    return moved, verdicts.pop() if len(verdicts) == 1 else None


def _as_simple_as_sft(t: Tables) -> tuple[str, bool | None]:
    dpo, sft = (
        t.tokens.mean(name, "seconds") / t.tokens.mean(name, "updates") for name in ("dpo", "sft")
    )
    return (
        (
            f"An update of DPO takes {dpo / sft:.1f} times as long as one of SFT, since it also"
            " reads the rejected completion; nothing is sampled and nothing else is trained."
        ),
        True,
    )


def _shift(t: Tables) -> tuple[str, bool | None]:
    known, chosen, steps = (
        t.drift["dpo"][name] for name in ("wrong_covered", "logps/chosen", "step")
    )
    return (
        (
            f"Of the wrong completions that the policy writes, {percent(known[0])} stand in its"
            f" data at the start and {percent(known[-1])} after {steps[-1]} updates; even the"
            f" chosen ones fall from {nats(chosen[0])} to {nats(chosen[-1])} nats."
        ),
        known[-1] < known[0],
    )


def _overfits(t: Tables) -> tuple[str, bool | None]:
    fell = t.defaults.mean("dpo") - t.tokens.mean("dpo")
    half = max(t.defaults.half("dpo"), t.tokens.half("dpo"))
    return (
        (
            f"Gold accuracy is {t.defaults.text('dpo')} after"
            f" {t.defaults.mean('dpo', 'updates'):.0f} updates and {t.tokens.text('dpo')} after"
            f" {t.tokens.mean('dpo', 'updates'):.0f}: training on mends nothing, and the seeds"
            " part."
        ),
        True if fell > half else None,
    )


def _bounded(t: Tables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("ipo", "dpo")
    return (
        (
            f"On the same pairs IPO moves {t.tokens.text('ipo', 'kl')} nats from the reference, DPO"
            f" {t.tokens.text('dpo', 'kl')}. Its gold accuracy is {t.tokens.text('ipo')} to"
            f" {t.tokens.text('dpo')}, a difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def _no_pairs(t: Tables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("kto", "dpo")
    return (
        (
            f"On the same completions without their pairing KTO reaches {t.tokens.text('kto')}, DPO"
            f" with it {t.tokens.text('dpo')}: a difference of {gain.signed()}."
        ),
        None if gain.mean + gain.half < 0 else True,
    )


def _online_dpo(t: Tables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("online_dpo@gold", "dpo")
    return (
        (
            "The same loss on pairs that the policy has just written, judged by the rule, reaches"
            f" {t.tokens.text('online_dpo@gold')} instead of {t.tokens.text('dpo')}: a difference"
            f" of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def _judge(t: Tables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("online_dpo@gold", "online_dpo")
    return (
        (
            "Judged by a reward model instead of the rule, online DPO reaches"
            f" {t.tokens.text('online_dpo')}: {gain.signed()} less."
        ),
        gain.is_positive(),
    )


def _no_shift(t: Tables) -> tuple[str, bool | None]:
    gain = t.tokens.difference("grpo", "dpo")
    return (
        (
            f"At equal tokens GRPO reaches {t.tokens.text('grpo')}, DPO {t.tokens.text('dpo')}: a"
            f" difference of {gain.signed()}."
        ),
        gain.is_positive(),
    )


def _no_critic(t: Tables) -> tuple[str, bool | None]:
    gain, ratio = (
        t.tokens.difference("grpo", "ppo@gold"),
        t.tokens.mean("grpo", "seconds") / t.tokens.mean("ppo@gold", "seconds"),
    )
    text = (
        f"With the same rule as judge GRPO without a critic reaches {t.tokens.text('grpo')} and PPO"
        f" with one {t.tokens.text('ppo@gold')} (difference {gain.signed()}), in {percent(ratio)}"
        " of its time."
    )
    if not t.memory:
        return f"{text} Bytes have not been recorded yet.", None
    shared, separate = (t.memory["grpo"] / t.memory[arm] for arm in ("ppo.shared", "ppo.separate"))
    return (
        (
            f"At the same number of completions an update of GRPO peaks at {percent(separate)} of"
            f" the bytes of RLHF with four sets of weights, and at {percent(shared)} with a shared"
            f" base. {text}"
        ),
        shared < 1 and separate < 1,
    )


def _emerges(t: Tables) -> tuple[str, bool | None]:
    first, last = t.tokens.base["scratchpad_share"], t.tokens.mean("grpo", "scratchpad_share")
    return (
        (
            f"Completions that think before they answer go from {percent(first)} to"
            f" {percent(last)}, though nothing rewards thinking. The base model already thinks now"
            " and then: GRPO amplifies the habit, it does not invent it."
        ),
        None,
    )


NODES: dict[str, Node] = {
    "ppo": Node(
        "What people like cannot be written down as a loss. RLHF learns a reward from comparisons"
        " and then a policy that earns it.",
        "Four models, sampling in the loop, a critic to learn, many knobs, and a reward model that"
        " can be exploited.",
        "ppo",
        ("rlhf-dpo", "RLHF and DPO"),
        (
            Claim(
                "The reward model's quality caps the result, and it is easy to exploit.", _exploited
            ),
            Claim("Four models at once: high training complexity.", _four_models),
            Claim("PPO training is unstable.", _unstable),
        ),
    ),
    "dpo": Node(
        "No reward model and no sampling: the policy itself is the reward model, and training is"
        " one loss on fixed pairs.",
        "The pairs come from an old policy; noise in them goes straight into the policy; the margin"
        " grows without bound.",
        "dpo",
        ("dpo", "DPO"),
        (
            Claim("Training is as simple as SFT.", _as_simple_as_sft),
            Claim("Offline distribution shift.", _shift),
            Claim("Prone to overfitting.", _overfits),
        ),
    ),
    "ipo": Node(
        "The margin has a finite target, 1/(2β), so the pull ends when it is reached.",
        "The target has a unit: nats per completion and nats per token are different methods under"
        " one name.",
        "ipo",
        ("ipo-kto", "IPO and KTO"),
        (
            Claim(
                "A regularisation term prevents overfitting: the margin need not go to infinity.",
                _bounded,
            ),
        ),
    ),
    "kto": Node(
        "No pairs: one thumb up or down per completion is enough.",
        "A reference point z that a batch can only estimate, and two weights to balance thumbs up"
        " against thumbs down.",
        "kto",
        ("ipo-kto", "IPO and KTO"),
        (Claim("Needs no paired preference data.", _no_pairs),),
    ),
    "online_dpo": Node(
        "The bridge, which the article leaves out: DPO's loss on pairs that the policy has just"
        " written.",
        "Sampling is back in the loop, and somebody must judge every pair while training runs.",
        "online_dpo@gold",
        ("online", "Online and offline"),
        (
            Claim("Online sampling avoids distribution shift (said of GRPO).", _online_dpo),
            Claim("The reward model is a bottleneck (said of RLHF).", _judge),
        ),
    ),
    "grpo": Node(
        "No critic: the group of completions of one prompt says what to expect. It samples from the"
        " present policy and takes any rule as reward.",
        "G completions for every prompt, groups that teach nothing when all rewards are equal, and"
        " a reward that must be computable.",
        "grpo",
        ("grpo", "GRPO"),
        (
            Claim("Online sampling avoids distribution shift.", _no_shift),
            Claim("No critic saves a large model's worth of memory.", _no_critic),
            Claim("A model trained with rule-based rewards exhibited emergent thinking.", _emerges),
        ),
    ),
}

EDGES: dict[tuple[str, str], str] = {
    ("ppo", "dpo"): "no reward model",
    ("dpo", "ipo"): "a finite margin",
    ("dpo", "kto"): "no pairs",
    ("dpo", "online_dpo"): "online",
    ("online_dpo", "grpo"): "a group, a rule",
    ("ppo", "grpo"): "no critic",
}
"""What each step changed."""


def percent(share: float | None) -> str:
    """A share in percent, or a dash where nothing was there to count."""
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


def nats(value: float) -> str:
    """One digit, with a minus sign that is one."""
    return f"{value:.1f}".replace("-", "−")
