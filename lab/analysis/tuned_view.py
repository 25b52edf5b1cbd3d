"""One view of the comparison with tuned settings, in the form of `Comparison`."""

from collections.abc import Mapping, Sequence
from typing import Any

from lab.analysis.comparison_words import Difference, Judgement
from lab.analysis.recorded_results import Comparison, load_result
from lab.analysis.student_t import t_quantile

VIEW_TITLES = {
    "defaults": "At default settings",
    "tokens": "Tuned, at equal tokens",
    "kl": "Tuned, at equal KL",
}
COMPARISON_ARMS = {
    "ppo": "ppo@gold",
    "ppo.model": "ppo",
    "online_dpo": "online_dpo@gold",
    "online_dpo.model": "online_dpo",
}
"""By arm of the record "tuned", its name in a `Comparison`, where the two differ."""
TURNED_WORDS = {"better": "worse", "worse": "better"}


class TunedView(Comparison):
    """A view of the record "tuned": "tokens", "kl" or "defaults".

    Its intervals and words are those of the record: they hold the error of the seeds and of the test
    prompts. `times` is a comparison that measured the seconds of training; the runs of this record shared
    their machine, so that their seconds do not count. Without `times`, no method knows "seconds".
    """

    def __init__(
        self, table: Mapping[str, Any], view: str, times: Comparison | None = None
    ) -> None:
        rows = [row for row in table["rows"] if row["view"] == view]
        source = {name: table[name] for name in ("command", "device", "torch", "commit", "seeds")}
        first, end = table["plan"]["test_prompts"]
        super().__init__(
            source
            | {
                "base": {"gold/accuracy": table["base"]["gold/accuracy"]["mean"]},
                "plan": {"seeds": min(row["seeds"] for row in rows)},
                "evaluation": f"{end - first} test prompts x {table['plan']['samples']} completions",
                "methods": [_method_row(row) for row in rows],
                "runs": {
                    comparison_arm(row["arm"]): [{"gold/accuracy": gold} for gold in row["by_seed"]]
                    for row in rows
                },
            }
        )
        self.times = times
        self._judgements = {
            (comparison_arm(one["first"]), comparison_arm(one["second"])): one
            for one in table["comparisons"][view]
        }

    def mean(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return the mean over seeds; that of the seconds is from `times`."""
        timed = self._timed(measure)
        return timed.mean(arm, measure) if timed else super().mean(arm, measure)

    def half(self, arm: str, measure: str = "gold/accuracy") -> float:
        """Return half the width of the 95 % interval; that of the seconds is from `times`."""
        timed = self._timed(measure)
        return timed.half(arm, measure) if timed else super().half(arm, measure)

    def seeds_of(self, measure: str = "gold/accuracy") -> int:
        """Return the number of seeds behind a measure."""
        timed = self._timed(measure)
        return timed.seeds if timed else self.seeds

    def difference(self, first: str, second: str, measure: str = "gold/accuracy") -> Difference:
        """Return `first` minus `second`: the record's difference in gold accuracy, or that of `times` in
        seconds.
        """
        (judgement,) = self.judge([(first, second)], measure)
        return judgement.difference

    def judge(
        self,
        pairs: Sequence[tuple[str, str]],
        measure: str = "gold/accuracy",
        *,
        margin: float | None = None,
        words: tuple[str, str] = ("better", "worse"),
    ) -> list[Judgement]:
        """Return the record's words for pairs of arms. They are corrected for all comparisons of the view,
        and their margin is the record's. Differences in seconds are judged by `times`.

        Raises `KeyError` for any other measure, since the record judges gold accuracy alone.
        """
        if timed := self._timed(measure):
            return timed.judge(pairs, measure, margin=margin, words=words)
        if measure != "gold/accuracy":
            raise KeyError(measure)
        return [self._judgement(first, second) for first, second in pairs]

    def differences(self) -> list[tuple[str, str, Judgement]]:
        """Return every two arms and the record's word for their difference in gold accuracy."""
        return [(*pair, self._judgement(*pair)) for pair in self._judgements]

    def differences_note(self) -> str:
        """Return the sentence under a table of the differences that says how their words were found."""
        return (
            f"The words hold for the {len(self._judgements)} comparisons of this view together (Holm's"
            " correction). The number behind ± belongs to one comparison alone, and holds the error of the"
            " seeds and of the test prompts. “Not told apart” does not say that two methods are equal;"
            " “level within” a number says that they surely differ by less than it."
        )

    def _timed(self, measure: str) -> Comparison | None:
        return self.times if measure == "seconds" else None

    def _judgement(self, first: str, second: str) -> Judgement:
        is_turned = (first, second) not in self._judgements
        one = self._judgements[(second, first) if is_turned else (first, second)]
        error = one["half"] / t_quantile(one["degrees"])
        mean, word = one["mean"], one["word"]
        if is_turned:
            mean, word = -mean, TURNED_WORDS.get(word, word)
        difference = Difference(mean, error, one["degrees"])
        return Judgement(difference, word, one["p"], len(self._judgements))


def tuned_view(view: str = "tokens") -> TunedView:
    """Return a view of the recorded comparison, with the times of the older comparison at default settings."""
    return TunedView(load_result("tuned"), view, Comparison(load_result("chain-tokens")))


def comparison_arm(arm: str) -> str:
    """Return the name that a `Comparison` has for an arm of the record "tuned"."""
    return COMPARISON_ARMS.get(arm, arm)


def _method_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the intervals of an arm, without the seconds, under the arm's name in a `Comparison`."""
    measures = {
        name: value
        for name, value in row.items()
        if isinstance(value, Mapping) and name != "seconds"
    }
    return {"method": comparison_arm(row["arm"]), "title": row["title"]} | measures
