"""The words for what wrong and few pairs do to gold accuracy in the experiment "data_quality"."""

from collections.abc import Mapping
from typing import Any

from lab.analysis.comparison_words import Difference, Judgement, judge, paired_difference

CLEAN = "clean"


def judged_changes(table: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, Judgement]]:
    """Return for each method and data set two words: "data", final gold accuracy minus that of the
    clean data, and "longer", gold accuracy after the last update minus that at the early look.

    Seeds are paired: they share the base, the adapter's first weights and the prompts. All
    differences are one family.
    """
    rows = {(row["method"], row["data"]): row for row in table["rows"]}
    changes: dict[tuple[str, str, str], Difference] = {}
    for (method, data), row in rows.items():
        if data != CLEAN:
            clean = rows[method, CLEAN]["final"]
            changes[method, data, "data"] = paired_difference(row["final"], clean)
        changes[method, data, "longer"] = paired_difference(row["late"], row["early"])
    judged = dict(zip(changes, judge(list(changes.values()), words=("higher", "lower"))))
    return {
        key: {kind: judged[*key, kind] for kind in ("data", "longer") if (*key, kind) in judged}
        for key in rows
    }
