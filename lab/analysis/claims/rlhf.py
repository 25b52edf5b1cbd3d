"""Claims of the section on the pain points of RLHF."""

from collections.abc import Iterable

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records, number
from lab.analysis.comparison_words import (
    NOT_TOLD_APART,
    Judgement,
    from_interval,
    judge,
    unpaired_difference,
)
from lab.analysis.setting_changes import compare_falls, falls
from lab.analysis.statistics import SHARE, Interval
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
        f"{len(models)} models take part: {', '.join(models)}. The weights need not be in memory four"
        f" times. A model of 1.2 billion weights takes {rows['ppo.separate']['copies']:.2f} copies in"
        f" memory with four sets, and {rows['ppo.shared']['copies']:.2f} with LoRA adapters on one"
        " shared base.",
    )


def ppo_is_unstable(records: Records) -> Measurement:
    """Compare PPO with every other method: how far gold accuracy falls with one changed setting, and how
    far seeds differ.
    """
    table, tuned = records["sensitivity"], records.tuned
    found = falls(table)
    others = [method for method in found if method != "ppo"]
    words = {method: word.word for method, word in compare_falls(table, "ppo", others).items()}
    fallen = ", ".join(
        f"{METHODS[method].title} {fall.difference.interval.mean:.2f} ± {fall.difference.interval.half:.2f}"
        for method, fall in found.items()
    )
    told = "; ".join(
        f"{text} {_titles(method for method in others if words[method] == word)}"
        for word, text in (
            ("larger", "larger than that of"),
            ("smaller", "smaller than that of"),
            (NOT_TOLD_APART, "not told apart from that of"),
        )
        if word in words.values()
    )
    ranges = ", ".join(
        f"{tuned.title(arm)} {tuned.range_text(arm)}" for arm in tuned.arms() if "." not in arm
    )
    return Measurement(
        decide(_stands_out(list(words.values())), holds="most", fails="least"),
        f"Gold accuracy with the central settings minus that with the worst change of one setting (÷"
        f" {table['factor']:g} or × {table['factor']:g}, {table['seeds']} seeds): {fallen}. The fall of"
        f" PPO is {told}. Lowest to highest of {tuned.seeds()} seeds, tuned, at equal tokens: {ranges}.",
    )


def _stands_out(words: list[str]) -> str:
    """Return "most" if PPO's fall is larger than that of every other method, "least" if it is larger than
    none and smaller than some, and "neither" otherwise.
    """
    if all(word == "larger" for word in words):
        return "most"
    return "least" if "larger" not in words and "smaller" in words else "neither"


def _titles(methods: Iterable[str]) -> str:
    return ", ".join(METHODS[method].title for method in methods)


def reward_model_caps(records: Records) -> Measurement:
    """Compare PPO and online DPO with the rule and with a reward model, at tuned settings."""
    tuned = records.tuned
    words = [tuned.compare(arm, f"{arm}.model") for arm in ("ppo", "online_dpo")]
    return Measurement(
        decide(words[0].word, holds="better", fails="worse"),
        f"Tuned, at equal tokens, PPO reaches a gold accuracy of {tuned.text('ppo.model')} with a reward"
        f" model and {tuned.text('ppo')} with the rule, which is never wrong. The rule minus the reward"
        f" model is {words[0].text} for PPO and {words[1].text} for online DPO.",
    )


def reward_model_is_exploited(records: Records) -> Measurement:
    """Look whether a reward model's score rises while gold accuracy falls below the base."""
    table, base = records["overoptimisation"], records.tuned.base_mean
    rows = [row for row in table["rows"] if row["reward_model"] == "2,000 pairs"]
    words = judge(
        [
            from_interval(Interval(row["gold"], row["gold_half"]), table["seeds"], base)
            for row in rows
        ],
        words=("higher", "lower"),
    )
    exploited = [
        METHODS[row["method"]].title
        for row, word in zip(rows, words)
        if word.word == "lower" and row["proxy_last"] > row["proxy_first"]
    ]
    listed = "; ".join(
        f"{METHODS[row['method']].title} {Interval(row['gold'], row['gold_half']).text(2, SHARE)} (score"
        f" {number(row['proxy_first'])} to {number(row['proxy_last'])})"
        for row in rows
    )
    return Measurement(
        Verdict.HOLDS_HERE if exploited else Verdict.UNDECIDED,
        f"Before training gold accuracy is {base:.2f}. After {table['steps']} updates against a reward"
        f" model of 2,000 pairs it is: {listed}. Surely below the start while the score rises:"
        f" {', '.join(exploited) or 'none'}. GRPO has no KL term by default that would hold it back.",
    )


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
        f" training time: {word.difference.interval.signed(0)} s, {word.word} ({records.times_from}). PPO"
        " also has to train its reward model first; this time is not counted."
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
        "ppo-unstable",
        SECTION,
        "PPO training is unstable.",
        ppo_is_unstable,
        ("sensitivity", "tuned"),
        ("ppo",),
    ),
    Claim(
        "reward-model-ceiling",
        SECTION,
        "RM quality directly caps the alignment ceiling.",
        reward_model_caps,
        ("tuned",),
        ("ppo", "online_dpo"),
    ),
    Claim(
        "reward-model-exploited",
        SECTION,
        "The reward model is easy to exploit.",
        reward_model_is_exploited,
        ("overoptimisation", "tuned"),
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
