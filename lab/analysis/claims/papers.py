"""Claims of papers that other people dispute or that the lab can check: on GRPO and on reward models."""

from collections.abc import Iterable, Mapping
from typing import Any

from lab.analysis.answer_length import comparisons_of, length_sentence
from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records
from lab.analysis.pass_at_k import curve_sentence, rows_of, word_at
from lab.analysis.random_rewards import comparison, reward_sentence
from lab.analysis.recorded_results import is_recorded
from lab.analysis.reward_ensembles import ensembles_sentence, judged_ensembles

SECTION = "Papers"
LENGTH_RECORDS, RANDOM_RECORDS = (
    tuple(name for name in (task, f"{task}_smollm2") if is_recorded(name))
    for task in ("answer_length", "random_rewards")
)
"""The tasks on which both experiments are recorded."""
GRPO_ARMS = ("grpo", "grpo.defaults", "grpo.longer")


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the verdict of measurements on several tasks: one that holds or fails counts unless another
    says the opposite.
    """
    found = set(verdicts) - {Verdict.UNDECIDED}
    return found.pop() if len(found) == 1 else Verdict.UNDECIDED


def only_sharpens(records: Records) -> Measurement:
    """Compare pass@k of GRPO with that of the base at the largest k, where only completions count that
    write every step.
    """
    table = records["pass_at_k"]
    shown = [("default", "worked"), ("harder", "worked"), ("harder", "pass")]
    return Measurement(
        sharpening_verdict(table),
        " ".join(curve_sentence(table, name, curve, GRPO_ARMS) for name, curve in shown)
        + " Where the base solves every chain, training has nothing to add. Right answers without every"
        " step may be guesses.",
    )


def sharpening_verdict(table: Mapping[str, Any]) -> Verdict:
    """Return the verdict of the record: the claim fails where an arm of GRPO is better than the base at
    the largest k. It holds where an arm is better at k = 1, and at the largest k every arm is worse or
    level or the base solves every chain.
    """
    ks = table["plan"]["ks"]
    verdicts = []
    for name in ("default", "harder"):
        base, *others = rows_of(table, name)
        rows = [row for row in others if row["arm"] in GRPO_ARMS]
        first, last = ({word_at(table, row, "worked", k) for row in rows} for k in (ks[0], ks[-1]))
        no_room = base["worked"]["mean"][-1] == 1
        if "better" in last:
            verdicts.append(Verdict.FAILS_HERE)
        elif "better" in first and (no_room or all(_is_not_higher(word) for word in last)):
            verdicts.append(Verdict.HOLDS_HERE)
        else:
            verdicts.append(Verdict.UNDECIDED)
    return together(verdicts)


def wrong_answers_grow(records: Records) -> Measurement:
    """Compare the length of wrong completions under GRPO's reduction and under a constant divisor."""
    tables = [records[name] for name in LENGTH_RECORDS]
    verdicts = []
    for table in tables:
        one = comparisons_of(table, "wrong")["sequence_mean", "fixed_length"]
        verdicts.append(decide(one["word"], holds="longer", fails="shorter"))
    return Measurement(
        together(verdicts), " ".join(length_sentence(table, "wrong") for table in tables)
    )


def ensembles_keep_gold(records: Records) -> Measurement:
    """Compare gold accuracy at the end with ensembles of reward models with that of one reward model. The
    claim holds where some are better and none is worse, and fails where some are worse and none is better.
    """
    table = records["overoptimisation"]
    words = {judgement.word for judgement in judged_ensembles(table).values()}
    verdicts = [decide(word, holds="better", fails="worse") for word in sorted(words)]
    return Measurement(together(verdicts), ensembles_sentence(table))


def random_rewards_teach(records: Records) -> Measurement:
    """Compare gold accuracy under random rewards with the clip with that before training and with that
    without the clip.
    """
    tables = [records[name] for name in RANDOM_RECORDS]
    return Measurement(
        together(random_verdict(table) for table in tables),
        " ".join(reward_sentence(table, "random") for table in tables),
    )


def random_verdict(table: Mapping[str, Any]) -> Verdict:
    """Return the verdict of one record: the claim holds where accuracy surely rises with the clip, and
    rises more than without it. It fails where accuracy surely does not rise, or rises as much without
    the clip.
    """
    gain, clip = (
        comparison(table, "random.clip", other)["word"] for other in ("base", "random.free")
    )
    if gain != "better":
        return _fails_if_sure(gain)
    return Verdict.HOLDS_HERE if clip == "better" else _fails_if_sure(clip)


def _fails_if_sure(word: str) -> Verdict:
    return Verdict.FAILS_HERE if _is_not_higher(word) else Verdict.UNDECIDED


def _is_not_higher(word: str) -> bool:
    """Whether the word says that a difference is surely below the margin."""
    return word == "worse" or word.startswith("level")


_CLAIMS = (
    Claim(
        "only-sharpens",
        SECTION,
        "Training on checked answers only sharpens: at a large k the base solves as many prompts (arXiv"
        " 2504.13837).",
        only_sharpens,
        ("pass_at_k",),
        ("grpo",),
    ),
    Claim(
        "wrong-answers-grow",
        SECTION,
        "Dividing by the length of each completion makes wrong answers longer (Dr. GRPO, arXiv"
        " 2503.20783).",
        wrong_answers_grow,
        LENGTH_RECORDS,
        ("grpo",),
    ),
    Claim(
        "random-rewards-clip",
        SECTION,
        "Random rewards raise accuracy, because of the clip (arXiv 2506.10947).",
        random_rewards_teach,
        RANDOM_RECORDS,
        ("grpo",),
    ),
    Claim(
        "ensembles-keep-gold",
        SECTION,
        "An ensemble of reward models is harder to exploit (arXiv 2310.02743).",
        ensembles_keep_gold,
        ("overoptimisation",),
        ("ppo", "online_dpo", "grpo"),
    ),
)
CLAIMS = tuple(
    claim for claim in _CLAIMS if claim.records and all(is_recorded(n) for n in claim.records)
)
"""The claims whose records the lab ships."""
