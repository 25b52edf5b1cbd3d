"""The recommendation of a method: of those that a situation allows, the best by measurement."""

from dataclasses import dataclass

from lab.analysis.recorded_results import Comparison
from lab.config.methods import METHODS

CHOICES: dict[str, dict[str, str]] = {
    "data": {
        "pairs": "pairs: one answer preferred to another",
        "thumbs": "thumbs up and down for single answers",
        "rule": "a rule (a program that checks an answer)",
        "prompts": "nothing: only prompts",
    },
    "sampling": {"yes": "yes, it can write during training", "no": "no, the data is fixed"},
    "memory": {"enough": "enough for four models", "tight": "as little as possible"},
    "matters": {
        "result": "the highest accuracy",
        "speed": "the shortest training",
        "stability": "similar results with every seed",
    },
}
"""The questions and their answers, by their keys in a URL."""
QUESTIONS = {
    "data": "Which feedback do you have?",
    "sampling": "Can the policy write new completions during training?",
    "memory": "How much memory do you have?",
    "matters": "Which goal matters most to you?",
}

ALLOWED_ARMS: dict[tuple[str, str], tuple[str, ...]] = {
    ("pairs", "no"): ("dpo", "ipo", "kto"),
    ("pairs", "yes"): ("dpo", "ipo", "kto", "ppo", "online_dpo", "grpo@model"),
    ("thumbs", "no"): ("kto",),
    ("thumbs", "yes"): ("kto",),
    ("rule", "no"): ("dpo", "ipo", "kto"),
    ("rule", "yes"): ("grpo", "ppo@gold", "online_dpo@gold", "dpo", "ipo", "kto"),
    ("prompts", "no"): (),
    ("prompts", "yes"): (),
}
"""The arms of the comparison that data and sampling allow. A rule can also make fixed pairs: sample
once, keep a right and a wrong answer.
"""

MEASURES = {"result": "gold/accuracy", "speed": "seconds"}
"""By goal, the measure whose differences are judged."""


@dataclass(frozen=True)
class Recommendation:
    """`arm` is the recommended arm, None if the data teach nothing. `ranked` are the allowed arms,
    best first. `reasons` are sentences. `article` is the method that the article recommends, empty
    if it recommends none. `not_told_apart` are the arms whose measurement is not told apart from
    that of the recommended one.
    """

    arm: str | None
    ranked: tuple[str, ...]
    reasons: tuple[str, ...]
    article: str
    not_told_apart: tuple[str, ...] = ()


def model_count(arm: str) -> int:
    """Return the number of models of an arm.

    An arm METHOD@gold has no reward model. Neither has GRPO, which a rule scores unless the arm
    says METHOD@model.
    """
    method, _, judge = arm.partition("@")
    models = METHODS[method].models
    by_rule = judge == "gold" or (method == "grpo" and judge != "model")
    return len(models) - (by_rule and "reward model" in models)


def recommend(
    data: str, sampling: str, memory: str, matters: str, measured: Comparison
) -> Recommendation:
    """Return the recommendation for four answers, which are keys of `CHOICES`.

    Among the allowed arms that `measured` has, it is the one with the highest lower end of the interval
    of gold accuracy (result), the least seconds of training (speed) or the least spread over seeds
    (stability).
    """
    article = article_recommendation(data, sampling, memory, matters)
    allowed = tuple(arm for arm in ALLOWED_ARMS[data, sampling] if measured.has(arm))
    if not allowed:
        return Recommendation(
            None,
            (),
            (
                "No method here learns from prompts alone. All of them need feedback on answers.",
                (
                    "If a program can check the answers, write this rule. Otherwise collect thumbs:"
                    " KTO needs only one judgement for each answer."
                ),
            ),
            article,
        )
    candidates = tuple(arm for arm in allowed if memory == "enough" or model_count(arm) == 2)
    dropped = [arm for arm in allowed if arm not in candidates]
    score = {
        "result": lambda arm: measured.half(arm) - measured.mean(arm),
        "speed": lambda arm: measured.mean(arm, "seconds"),
        "stability": lambda arm: measured.spread(arm),
    }[matters]
    ranked = tuple(sorted(candidates, key=score))
    best = ranked[0]
    reasons = [_data(data, sampling)]
    if dropped:
        reasons.append(
            "Little memory excludes the methods that need more than policy and reference:"
            f" {_titles(dropped, measured)}."
        )
    level = _not_told_apart(best, ranked[1:], matters, measured)
    reasons.append(_ranked(best, ranked, level, matters, measured))
    if matters != "result":
        top = max(ranked, key=lambda arm: measured.mean(arm) - measured.half(arm))
        if top != best:
            reasons.append(
                f"It does not have the highest accuracy: {measured.title(top)} reaches"
                f" {measured.text(top)}, and it reaches {measured.text(best)}."
            )
    return Recommendation(best, ranked, tuple(reasons), article, level)


def article_recommendation(data: str, sampling: str, memory: str, matters: str) -> str:
    """Return the method that the text and the table of the article recommend for these answers, or
    an empty string.
    """
    if data == "thumbs":
        return "kto"
    if data == "prompts" or (data, sampling) == ("rule", "no"):
        return ""
    if data == "rule":
        return "grpo"
    return "ppo" if (sampling, memory, matters) == ("yes", "enough", "result") else "dpo"


def _titles(arms: list[str] | tuple[str, ...], measured: Comparison) -> str:
    return "; ".join(measured.title(arm) for arm in arms)


def _data(data: str, sampling: str) -> str:
    if data == "thumbs":
        return (
            "KTO is the only method here that learns from judgements of single answers. The others"
            " compare two answers or need a score."
        )
    if data == "pairs":
        also = (
            " With sampling, a reward model that was trained on the same pairs can score the new"
            " completions."
            if sampling == "yes"
            else ""
        )
        return (
            "DPO and IPO learn from pairs. KTO reads each pair as a thumb up and a thumb down."
            + also
        )
    if sampling == "yes":
        return (
            "A rule can score the policy's new completions during training. It can also make fixed"
            " pairs before training."
        )
    return (
        "A rule can make fixed pairs: sample once from the base model, and keep a right and a wrong"
        " answer to each prompt."
    )


def _ranked(
    best: str, ranked: tuple[str, ...], level: tuple[str, ...], matters: str, measured: Comparison
) -> str:
    words = {
        "result": "has the gold accuracy whose interval begins highest",
        "speed": "has the shortest mean training time",
        "stability": f"has the smallest range of accuracy over {measured.seeds_of()} seeds",
    }[matters]

    def value_text(arm: str) -> str:
        return {
            "result": f"{measured.text(arm)}",
            "speed": f"{measured.mean(arm, 'seconds'):.0f} s",
            "stability": f"{measured.spread(arm):.3f}",
        }[matters]

    others = "; ".join(f"{measured.title(arm)} {value_text(arm)}" for arm in ranked[1:])
    return (
        f"Of the possible methods, {measured.title(best)} {words}: {value_text(best)}."
        + (f" The others: {others}." if others else "")
        + _doubt(level, matters, measured)
    )


def _doubt(level: tuple[str, ...], matters: str, measured: Comparison) -> str:
    """Names the arms that are not told apart from the recommended one; says that a range over few seeds
    is rough.
    """
    if matters == "stability":
        return f" {measured.seeds_of()} seeds measure such a difference only roughly."
    if not level:
        return ""
    return (
        f" With {measured.seeds_of(MEASURES[matters])} seeds it is not told apart from"
        f" {' and '.join(map(measured.title, level))}, so chance may decide this order."
    )


def _not_told_apart(
    best: str, others: tuple[str, ...], matters: str, measured: Comparison
) -> tuple[str, ...]:
    """Return the arms that are not told apart from the best one; the comparisons with it are one
    family. A range over seeds has no interval, so for stability all are.
    """
    if matters == "stability":
        return others
    judged = measured.judge([(best, arm) for arm in others], MEASURES[matters])
    return tuple(arm for arm, judgement in zip(others, judged) if not judgement.is_sure)
