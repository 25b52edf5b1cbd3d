"""Blocks on the comparison of methods at defaults and tuned."""

from docs_blocks.markdown import told, with_source
from lab.analysis.recorded_results import load_result
from lab.experiments.tuned_report import comparison_matrix, trials_table, view_table

RECORD = "tuned"


def view(name: str) -> str:
    """Return the methods of a view, and the words for every two of them."""
    table = load_result(RECORD)
    first, end = table["plan"]["test_prompts"]
    text = (
        f"{view_table(table, name)}\n{comparison_matrix(table, name)}\n{end - first} test prompts,"
        f" one completion for each seed. Before training: {told(table['base']['gold/accuracy'], 3)}."
    )
    return with_source(text, table, RECORD)


def trials() -> str:
    """Return the trials of tuning and the settings that were chosen."""
    table = load_result(RECORD)
    return with_source(trials_table(table), table, RECORD)


BLOCKS = {"tuned-trials": trials, "tuned-tokens": lambda: view("tokens")}
