"""Claims of the section on the pain points of RLHF."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records
from lab.analysis.comparison_words import Judgement, from_interval, judge, unpaired_difference
from lab.config.methods import METHODS

SECTION = "Pain points of RLHF"
TUNING_FACTOR_MARGIN = 0.05
"""A setting that moves gold accuracy by less than this, when it is a quarter or four times its
default, needs no careful tuning.
"""
PPO_KNOBS = {"learning_rate": "learning rate", "epsilon": "clip ε", "beta": "KL coefficient β"}


def four_models(records: Records) -> Measurement:
    """Count the models that take part in PPO, and the copies of the weights."""
    rows = records.large_model
    models = METHODS["ppo"].models
    return Measurement(
        Verdict.HOLDS if len(models) == 4 else Verdict.FAILS_HERE,
        f"{len(models)} models take part: {', '.join(models)}. The weights need not be there four"
        f" times. A model of 1.2 billion weights takes {rows['ppo.separate']['copies']:.2f} copies in"
        f" memory with four sets, and {rows['ppo.shared']['copies']:.2f} with LoRA adapters on one"
        " shared base.",
    )


def ppo_is_unstable(records: Records) -> Measurement:
    """Compare the spread over seeds of PPO with that of DPO and of SFT."""
    tuned = records.tuned
    others = ("dpo", "sft")
    words = judge(
        [tuned.spread_difference("ppo", other) for other in others], words=("larger", "smaller")
    )
    found = {word.word for word in words}
    text = (
        f"Gold accuracy over {tuned.seeds()} seeds, tuned, at equal tokens: PPO"
        f" {tuned.range_text('ppo')}, DPO {tuned.range_text('dpo')}, SFT {tuned.range_text('sft')}."
        f" The mean distance from the median, PPO minus DPO, is {words[0].text(3)}; PPO minus SFT is"
        f" {words[1].text(3)}."
    )
    word = "larger" if found == {"larger"} else "smaller" if "smaller" in found else "mixed"
    return Measurement(decide(word, holds="larger", fails="smaller"), text)


def reward_model_caps(records: Records) -> Measurement:
    """Compare PPO with a reward model and with the rule as judge."""
    tokens = records.tokens
    word = tokens.judge_article("ppo@gold", "ppo")
    online = tokens.judge_article("online_dpo@gold", "online_dpo")
    text = (
        f"PPO reaches a gold accuracy of {tokens.text('ppo')} with a reward model and"
        f" {tokens.text('ppo@gold')} with the rule, which is never wrong. The rule minus the reward"
        f" model is {word.text()} for PPO and {online.text()} for online DPO."
    )
    return Measurement(decide(word.word, holds="better", fails="worse"), text)


def reward_model_is_exploited(records: Records) -> Measurement:
    """Look whether a reward model's score rises while gold accuracy falls below the base."""
    tokens = records.tokens
    base = tokens.base["gold/accuracy"]
    arms = ("grpo@model", "online_dpo", "ppo")
    words = judge(
        [from_interval(tokens.interval(arm), tokens.seeds, base) for arm in arms],
        words=("higher", "lower"),
    )
    lower = [tokens.title(arm) for arm, word in zip(arms, words) if word.word == "lower"]
    text = (
        f"Before training gold accuracy is {base:.2f}. After training against a reward model it is"
        f" {tokens.text('grpo@model')} for GRPO, {tokens.text('online_dpo')} for online DPO and"
        f" {tokens.text('ppo')} for PPO, while the reward model's own score ends at"
        f" {tokens.text('grpo@model', 'proxy')}, {tokens.text('online_dpo', 'proxy')} and"
        f" {tokens.text('ppo', 'proxy')}. Surely below the start: {', '.join(lower) or 'none'}. GRPO"
        " has no KL term by default that would hold it back."
    )
    return Measurement(Verdict.HOLDS_HERE if lower else Verdict.UNDECIDED, text)


def judge_knob(records: Records, knob: str) -> tuple[Judgement, Judgement]:
    """Return gold accuracy of PPO with a quarter and four times the default of `knob`, minus the default's.

    All knobs of the article are one family.
    """
    runs = {
        name: [run["gold/accuracy"] for run in found]
        for name, found in records["sensitivity"]["runs"].items()
    }
    names = [f"ppo-{one}-{end}" for one in PPO_KNOBS for end in ("low", "high")]
    words = judge(
        [unpaired_difference(runs[name], runs["ppo-centre"]) for name in names],
        margin=TUNING_FACTOR_MARGIN,
    )
    found = dict(zip(names, words))
    return found[f"ppo-{knob}-low"], found[f"ppo-{knob}-high"]


def knob_needs_tuning(records: Records, knob: str) -> Measurement:
    """Look how far PPO's gold accuracy moves when a setting is a quarter or four times its default."""
    table = records["sensitivity"]
    low, high = judge_knob(records, knob)
    words = {low.word, high.word}
    level = f"level within {TUNING_FACTOR_MARGIN:g}"
    verdict = (
        Verdict.HOLDS_HERE
        if "worse" in words
        else Verdict.FAILS_HERE
        if words == {level}
        else Verdict.UNDECIDED
    )
    return Measurement(
        verdict,
        f"PPO's gold accuracy with its {PPO_KNOBS[knob]} divided by {table['factor']:g}, minus that"
        f" with the default: {low.text()}; multiplied by {table['factor']:g}: {high.text()}"
        f" ({table['seeds']} seeds).",
    )


def ppo_learning_rate(records: Records) -> Measurement:
    """The article's "learning rate requires careful tuning"."""
    measured = knob_needs_tuning(records, "learning_rate")
    rows = [row for row in records["sensitivity"]["rows"] if row["knob"] == "learning_rate"]
    spreads = ", ".join(f"{METHODS[row['method']].title} {row['spread']:.2f}" for row in rows)
    return Measurement(
        measured.verdict,
        f"{measured.text} The highest minus the lowest mean over this range, for all methods:"
        f" {spreads}.",
    )


def ppo_epsilon(records: Records) -> Measurement:
    """The article's "clip epsilon requires careful tuning"."""
    return knob_needs_tuning(records, "epsilon")


def ppo_beta(records: Records) -> Measurement:
    """The article's "KL penalty beta requires careful tuning"."""
    return knob_needs_tuning(records, "beta")


def training_complexity(records: Records) -> Measurement:
    """Compare the training time of PPO with that of DPO at equal tokens."""
    tokens = records.tokens
    (word,) = judge([tokens.difference("ppo", "dpo", "seconds")], words=("slower", "faster"))
    text = (
        f"At {tokens.mean('dpo', 'tokens'):,.0f} tokens PPO takes"
        f" {tokens.mean('ppo', 'seconds'):.0f} s and DPO {tokens.mean('dpo', 'seconds'):.0f} s of"
        f" training time: {word.difference.interval.signed(0)} s, {word.word}. PPO also has to train"
        " its reward model first; this time is not counted."
    )
    return Measurement(decide(word.word, holds="slower", fails="faster"), text)


def without_reward_model(records: Records) -> Measurement:
    """Compare DPO with the base, and with PPO."""
    tuned = records.tuned
    gain = tuned.gain("dpo")
    return Measurement(
        decide(gain.word, holds="better", fails="worse"),
        f"With pairs alone DPO goes from {tuned.base} to {tuned.text('dpo')}: {gain.text()}. DPO minus"
        f" PPO, which the rule scores, is {tuned.compare('dpo', 'ppo').text}.",
    )


CLAIMS = (
    Claim(
        "four-models",
        SECTION,
        "RLHF requires running 4 models simultaneously (policy, reference, RM, critic).",
        four_models,
        ("resources-h100",),
        ("ppo",),
    ),
    Claim(
        "training-complexity",
        SECTION,
        "RLHF has a high training complexity.",
        training_complexity,
        ("chain-tokens",),
        ("ppo",),
    ),
    Claim(
        "ppo-unstable", SECTION, "PPO training is unstable.", ppo_is_unstable, ("tuned",), ("ppo",)
    ),
    Claim(
        "reward-model-ceiling",
        SECTION,
        "RM quality directly caps the alignment ceiling.",
        reward_model_caps,
        ("chain-tokens",),
        ("ppo", "online_dpo"),
    ),
    Claim(
        "reward-model-exploited",
        SECTION,
        "The reward model is easy to exploit.",
        reward_model_is_exploited,
        ("chain-tokens",),
        ("ppo",),
    ),
    Claim(
        "tuning-epsilon",
        SECTION,
        "PPO's clip epsilon requires careful tuning.",
        ppo_epsilon,
        ("sensitivity",),
        ("ppo",),
    ),
    Claim(
        "tuning-learning-rate",
        SECTION,
        "PPO's learning rate requires careful tuning.",
        ppo_learning_rate,
        ("sensitivity",),
        ("ppo",),
    ),
    Claim(
        "tuning-beta",
        SECTION,
        "PPO's KL penalty beta requires careful tuning.",
        ppo_beta,
        ("sensitivity",),
        ("ppo",),
    ),
    Claim(
        "skip-reward-model",
        SECTION,
        "We can skip the RM and PPO and optimize the policy directly from preference data.",
        without_reward_model,
        ("tuned",),
        ("dpo",),
    ),
)
