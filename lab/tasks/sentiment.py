"""The task `sentiment`: continue the opening of a film review, and be positive. It is the
controlled task of arXiv 2305.18290, §6, with a gold reward that is computed.

The gold reward is VADER's compound score of the completion, from −1 to 1 (Hutto & Gilbert 2014): a
lexicon and rules, so that everybody who has the package `vaderSentiment` gets the same number. A
policy can easily hack it by repeating one kind word, so the task also measures repetition, sameness
and emptiness.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any

from lab.errors import LabError
from lab.tasks.base import Problem, Reward, Score, problems_of_step, split_by_hash

FILM_ASPECTS = (
    "The acting",
    "The story",
    "The script",
    "The music",
    "The camera work",
    "The ending",
    "The dialogue",
    "The first half",
    "The direction",
    "The editing",
    "The opening scene",
    "The cast",
)
FILM_PHRASES = (
    "of this film",
    "of this movie",
    "of the sequel",
    "of the remake",
    "of this western",
    "of this short film",
    "of the documentary",
    "of the director's third film",
)
OPENING_VERBS = (
    "is",
    "was",
    "seemed to me",
    "made me feel",
    "left me",
    "turned out to be",
    "came across as",
    "is what I would call",
    "has to be called",
)
NUM_HELD_OUT = 256
WORD = re.compile(r"\w+")


@cache
def sentiment_analyser() -> Any:
    """Returns VADER, loaded once; raises `LabError` with the command that installs it when it is
    missing.
    """
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError:
        raise LabError(
            "The task sentiment needs the package vaderSentiment, which is missing. Install it:"
            " python -m pip install vaderSentiment"
        ) from None
    return SentimentIntensityAnalyzer()


def compound_score(text: str) -> float:
    """Returns VADER's compound score of a text, from −1 to 1; 0 for a text without a word of its
    lexicon.
    """
    return float(sentiment_analyser().polarity_scores(text)["compound"])


def bigrams(text: str) -> list[tuple[str, str]]:
    """Returns the pairs of neighbouring words, in lower case."""
    words = WORD.findall(text.lower())
    return list(zip(words, words[1:]))


def repetition(text: str) -> float:
    """Returns the share of a text's bigrams that repeat an earlier bigram: 0 when all differ or the
    text has no bigram; 2/3 for `good good good good`.
    """
    pairs = bigrams(text)
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0


def is_empty(text: str) -> bool:
    """Returns whether a text has no word."""
    return WORD.search(text) is None


@cache
def opening_split() -> tuple[list[Problem], list[Problem]]:
    """Returns the openings to train on and the held-out openings, always the same. No opening has a
    word that VADER knows.
    """
    return split_by_hash(
        [Problem(" ".join(words)) for words in product(FILM_ASPECTS, FILM_PHRASES, OPENING_VERBS)],
        NUM_HELD_OUT,
    )


class SentimentTask:
    """Openings of film reviews, judged by VADER."""

    name = "sentiment"
    description = (
        "Go on from a neutral opening of a film review; VADER's compound score of the completion,"
        " from −1 to 1, is the gold reward."
    )
    pairs_path = None
    reward_help = {
        "positive": "VADER's compound score of the completion, from −1 to 1.",
        "positive_penalised": (
            "The same, less the share of bigrams that are repeated; −1 for a completion without a"
            " word."
        ),
    }

    def __init__(self) -> None:
        self.rewards: dict[str, Reward] = {
            "positive": self._positive,
            "positive_penalised": self._penalised,
        }

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Returns `n` openings to train on, in shuffled epochs; the same arguments give the same openings."""
        return problems_of_step(opening_split()[0], n, seed, step)

    def held_out(self, n: int) -> list[Problem]:
        """Returns the first `n` held-out openings, or all where there are fewer."""
        return opening_split()[1][:n]

    def problem(self, prompt: str) -> Problem:
        """Returns the opening that someone typed; raises `LabError` for an empty one."""
        if not prompt.strip():
            raise LabError("The opening is empty. Type the first words of a film review.")
        return Problem(prompt)

    def remark(self, problem: Problem) -> str:
        """Returns a warning for an opening with a sentiment of its own; otherwise empty."""
        value = compound_score(problem.prompt)
        if not value:
            return ""
        return f"VADER scores this opening {value:+.2f}; those that were learnt from are neutral."

    def score(self, problem: Problem, completion: str) -> Score:
        """Returns the score: right when the completion's compound score is above 0, well-formed when
        it has a word.
        """
        return Score(float(compound_score(completion) > 0), float(not is_empty(completion)))

    def task_metrics(
        self, problems: Sequence[Problem], completions: Sequence[str]
    ) -> dict[str, float]:
        """Returns the gold reward, and three signs that it is hacked: repeated bigrams, completions
        alike, completions without a word.
        """
        pairs = [pair for text in completions for pair in bigrams(text)]
        n = len(completions)
        return {
            "reward": sum(map(compound_score, completions)) / n,
            "repetition": sum(map(repetition, completions)) / n,
            "distinct_2": len(set(pairs)) / len(pairs) if pairs else 0.0,
            "empty": sum(map(is_empty, completions)) / n,
        }

    def _positive(
        self, problems: list[Problem], completions: list[str], *, seed: int
    ) -> list[float]:
        return [compound_score(text) for text in completions]

    def _penalised(
        self, problems: list[Problem], completions: list[str], *, seed: int
    ) -> list[float]:
        return [
            -1.0 if is_empty(text) else compound_score(text) - repetition(text)
            for text in completions
        ]
