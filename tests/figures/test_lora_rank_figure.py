"""The figure and the sentences of LoRA against full fine-tuning, on a table written by hand."""

import plotly.graph_objects as go
import pytest

from lab.analysis.lora_rank import comparison_text, rank_sentence, summary_sentence
from lab.figures.lora_rank import lora_rank_figure


def row(rank, weights, rate, mean, trials):
    return {
        "rank": rank,
        "title": f"rank {rank}" if rank else "full",
        "trained_weights": weights,
        "learning_rate": rate,
        "gold/accuracy": {"mean": mean, "half": 0.02},
        "trials": [{"learning_rate": r, "gold/accuracy": a, "failed": 0} for r, a in trials],
    }


TABLE = {
    "rows": [
        row(1, 4_480, 1e-3, 0.70, [(3e-4, 0.5), (1e-3, 0.72), (3e-3, 0.6)]),
        row(8, 35_840, 3e-3, 0.74, [(1e-3, 0.7), (3e-3, 0.75), (1e-2, 0.2)]),
        row(0, 328_944, 1e-4, 0.75, [(3e-5, 0.6), (1e-4, 0.76), (3e-4, 0.7)]),
    ],
    "comparisons": [
        {"rank": 1, "mean": -0.05, "half": 0.02, "word": "worse"},
        {"rank": 8, "mean": -0.01, "half": 0.005, "word": "level within 0.02"},
    ],
}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_figure_marks_the_picked_rank_and_the_chosen_learning_rates(theme):
    figure = go.Figure(lora_rank_figure(8.0, TABLE, theme))  # plotly validates every property.
    line, points, ring, full, picked = figure.data
    assert list(line.y) == [0.75, 0.75]
    assert list(points.y) == [0.70, 0.74, 0.75]
    assert (ring.x[0], ring.y[0]) == (1, 0.74)
    assert figure.layout.xaxis.ticktext == ("1", "8", "full")
    assert picked.name == "rank 8" and list(picked.x) == [1e-3, 3e-3, 1e-2]
    assert list(picked.marker.symbol) == ["circle", "diamond", "circle"]
    assert list(full.marker.symbol) == ["circle", "diamond", "circle"]
    assert list(figure.layout.xaxis2.tickvals) == [1e-4, 1e-3, 1e-2]


def test_the_sentences_name_weights_rates_and_words():
    assert rank_sentence(TABLE, 8) == (
        "Rank 8 trains 35,840 weights, 10.9 % as many as full fine-tuning (328,944). At its learning rate"
        " of 0.003 the gold accuracy is 0.74 ± 0.02. Its difference to full fine-tuning at 0.0001 is"
        " −0.010 ± 0.005, level within 0.02."
    )
    assert summary_sentence(TABLE) == (
        "Compared with full fine-tuning: worse: rank 1; level within 0.02: rank 8. The best learning"
        " rates of LoRA are 10 to 30 times that of full fine-tuning."
    )
    assert comparison_text(TABLE, 0) == ""
