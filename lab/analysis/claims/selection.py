"""Claims of the section on the selection of a method, and of its table."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records
from lab.analysis.comparison_words import Judgement, judge
from lab.analysis.recommend import model_count
from lab.config.methods import METHODS

SECTION = "Method selection"
STABLE_MARGIN = 0.02
"""Two methods are equally stable if their seeds' mean distances from the median differ by less."""


def complexity_order(records: Records) -> Measurement:
    """Count models, and who samples."""
    counts = {name: model_count(name) for name in ("ppo", "dpo", "grpo")}
    online = [METHODS[name].online for name in counts]
    as_said = list(counts.values()) == [4, 2, 2] and online == [True, False, True]
    return Measurement(
        Verdict.HOLDS if as_said else Verdict.FAILS_HERE,
        f"Models: RLHF {counts['ppo']}, DPO {counts['dpo']}, GRPO {counts['grpo']} with a rule as reward"
        " (one more with a reward model). RLHF and GRPO sample in training, DPO does not.",
    )


def data_requirements(records: Records) -> Measurement:
    """Name the data that each method's loader accepts."""
    dpo, grpo, ppo = (METHODS[name] for name in ("dpo", "grpo", "ppo"))
    holds = dpo.learns_from == "pairs" and grpo.learns_from == ppo.learns_from == "prompts"
    return Measurement(
        Verdict.HOLDS if holds else Verdict.FAILS_HERE,
        f"DPO reads {dpo.learns_from}; GRPO reads {grpo.learns_from} and takes a rule or a reward model;"
        f" PPO reads {ppo.learns_from}, and its reward model was trained on pairs.",
    )


def _spread(records: Records, first: str, second: str) -> Judgement:
    """Return the spread over seeds of one method minus another's, in the family of the table's row."""
    pairs = (("dpo", "sft"), ("grpo", "ppo"))
    words = judge(
        [records.tuned.spread_difference(*pair) for pair in pairs],
        margin=STABLE_MARGIN,
        words=("larger", "smaller"),
    )
    return dict(zip(pairs, words))[first, second]


def dpo_stable_like_sft(records: Records) -> Measurement:
    """Compare the spread over seeds of DPO with that of SFT."""
    word, tuned = _spread(records, "dpo", "sft"), records.tuned
    level = f"level within {STABLE_MARGIN:g}"
    verdict = (
        Verdict.HOLDS_HERE
        if word.word in (level, "smaller")
        else decide(word.word, holds="smaller", fails="larger")
    )
    return Measurement(
        verdict,
        f"Gold accuracy over {tuned.seeds()} seeds: DPO {tuned.range_text('dpo')}, SFT"
        f" {tuned.range_text('sft')}. Mean distance from the median, DPO minus SFT: {word.text(3)}.",
    )


def grpo_fairly_stable(records: Records) -> Measurement:
    """Compare the spread over seeds of GRPO with that of PPO."""
    word, tuned = _spread(records, "grpo", "ppo"), records.tuned
    return Measurement(
        decide(word.word, holds="smaller", fails="larger"),
        f"Gold accuracy over {tuned.seeds()} seeds: GRPO {tuned.range_text('grpo')}, PPO"
        f" {tuned.range_text('ppo')}. Mean distance from the median, GRPO minus PPO: {word.text(3)}.",
    )


def online_ceiling(records: Records) -> Measurement:
    """Compare GRPO and PPO with DPO, tuned at equal tokens."""
    tuned = records.tuned
    words = {arm: tuned.compare(arm, "dpo") for arm in ("ppo", "grpo")}
    found = {word.word for word in words.values()}
    word = "better" if found == {"better"} else "worse" if "worse" in found else "mixed"
    return Measurement(
        decide(word, holds="better", fails="worse"),
        f"Tuned, at {tuned.table['plan']['tokens']:,} tokens: PPO {tuned.text('ppo')}, GRPO {tuned.text('grpo')}, DPO"
        f" {tuned.text('dpo')}. PPO minus DPO is {words['ppo'].text}; GRPO minus DPO is"
        f" {words['grpo'].text}. A larger budget was not measured with tuned settings.",
    )


def rlhf_is_best(records: Records) -> Measurement:
    """Compare PPO with the best other method, at equal tokens and at equal KL."""
    tuned = records.tuned
    best = {
        view: next(arm for arm in tuned.arms(view) if not arm.startswith("ppo"))
        for view in ("tokens", "kl")
    }
    words = {view: tuned.compare("ppo", arm, view) for view, arm in best.items()}
    listed = "; ".join(
        f"at equal {'tokens' if view == 'tokens' else 'KL'} PPO {tuned.text('ppo', view)} minus"
        f" {tuned.title(best[view])} {tuned.text(best[view], view)}: {words[view].text}"
        for view in words
    )
    return Measurement(
        decide(words["tokens"].word, holds="better", fails="worse"),
        f"Gold accuracy beside the best other method: {listed}.",
    )


def dpo_is_fast(records: Records) -> Measurement:
    """Compare the training time of DPO with that of PPO and GRPO at equal tokens."""
    tokens = records.tokens
    words = judge(
        [tokens.difference("dpo", arm, "seconds") for arm in ("ppo", "grpo")],
        words=("slower", "faster"),
    )
    found = {word.word for word in words}
    word = "faster" if found == {"faster"} else "slower" if "slower" in found else "mixed"
    return Measurement(
        decide(word, holds="faster", fails="slower"),
        f"Training time at equal tokens ({records.times_from}): DPO {tokens.mean('dpo', 'seconds'):.0f} s, PPO"
        f" {tokens.mean('ppo', 'seconds'):.0f} s, GRPO {tokens.mean('grpo', 'seconds'):.0f} s. DPO minus"
        f" PPO: {words[0].text(0)}; DPO minus GRPO: {words[1].text(0)}.",
    )


def grpo_for_reasoning(records: Records) -> Measurement:
    """Compare GRPO with DPO and with the base on the lab's arithmetic task."""
    tuned = records.tuned
    word, gain = tuned.compare("grpo", "dpo"), tuned.gain("grpo")
    return Measurement(
        decide(word.word, holds="better", fails="worse"),
        f"On chains of arithmetic GRPO goes from {tuned.base} to {tuned.text('grpo')}"
        f" ({gain.text()}). GRPO minus DPO is {word.text} at equal tokens.",
    )


def no_perfect_method(records: Records) -> Measurement:
    """Look whether the best method at equal tokens is worse than another at equal KL."""
    tuned = records.tuned
    first = tuned.arms()[0]
    words = {arm: tuned.compare(first, arm, "kl") for arm in tuned.arms("kl") if arm != first}
    beaten = [tuned.title(arm) for arm, word in words.items() if word.word == "worse"]
    return Measurement(
        Verdict.HOLDS_HERE if beaten else Verdict.UNDECIDED,
        f"{tuned.title(first)} is the most accurate at equal tokens ({tuned.text(first)}). At equal KL it"
        f" reaches {tuned.text(first, 'kl')} and is worse than {' and '.join(beaten) or 'none'}.",
    )


CLAIMS = (
    Claim(
        "complexity",
        SECTION,
        "Training complexity: RLHF high (4 models), DPO low (2 models), GRPO medium (2 models + online generation).",
        complexity_order,
        (),
        ("ppo", "dpo", "grpo"),
    ),
    Claim(
        "data-requirements",
        SECTION,
        "Data: RLHF preference pairs + prompts, DPO preference pairs, GRPO prompts + reward rules.",
        data_requirements,
        (),
        ("ppo", "dpo", "grpo"),
    ),
    Claim(
        "dpo-stable",
        SECTION,
        "Training stability: DPO is stable like SFT.",
        dpo_stable_like_sft,
        ("tuned",),
        ("dpo",),
    ),
    Claim(
        "grpo-stable",
        SECTION,
        "Training stability: GRPO is fairly stable.",
        grpo_fairly_stable,
        ("tuned",),
        ("grpo",),
    ),
    Claim(
        "online-ceiling",
        SECTION,
        "Performance ceiling: RLHF high, DPO medium (offline limitations), GRPO high.",
        online_ceiling,
        ("tuned",),
        ("ppo", "dpo", "grpo"),
    ),
    Claim(
        "rlhf-best",
        SECTION,
        "RLHF is for the best alignment quality.",
        rlhf_is_best,
        ("tuned",),
        ("ppo",),
    ),
    Claim(
        "dpo-fast",
        SECTION,
        "DPO is for fast iteration and limited resources.",
        dpo_is_fast,
        ("chain-tokens",),
        ("dpo",),
    ),
    Claim(
        "grpo-reasoning",
        SECTION,
        "GRPO is for math/reasoning tasks.",
        grpo_for_reasoning,
        ("tuned",),
        ("grpo",),
    ),
    Claim(
        "no-perfect-method",
        SECTION,
        "There is no perfect alignment method: each method solves previous issues while introducing new ones.",
        no_perfect_method,
        ("tuned",),
        (),
    ),
)
