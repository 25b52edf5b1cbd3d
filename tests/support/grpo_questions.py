"""Tables of the experiments pass_at_k, answer_length and random_rewards, small enough to read."""

KS = [1, 4, 16]


def _points(means, half=0.02):
    return {"mean": list(means), "half": [half] * len(means)}


def pass_row(name, arm, title, worked, words):
    """The row of an arm with these means of the curve "worked" and these words at each k."""
    row = {"set": name, "arm": arm, "title": title, "worked": _points(worked)}
    row["pass"] = _points([0.5, 0.7, 0.9])
    for curve in ("pass", "worked"):
        row[f"{curve}_differences"] = [
            {"k": k, "mean": 0.1, "half": 0.02, "word": word} for k, word in zip(KS, words)
        ]
    return row


def pass_table(default, harder):
    """A table in which GRPO and DPO have these words at every k on both sets of chains."""
    rows = []
    for name, words in (("default", default), ("harder", harder)):
        rows += [
            pass_row(name, "base", "base", [0.2, 0.5, 0.8], words) | {"worked_differences": []},
            pass_row(name, "dpo", "DPO", [0.3, 0.5, 0.7], ["better", "worse", "worse"]),
            pass_row(name, "grpo", "GRPO", [0.4, 0.6, 0.9], words),
            pass_row(name, "grpo.longer", "GRPO, longer chains", [0.5, 0.7, 1.0], words),
        ]
    return {
        "command": "python -m lab experiment pass_at_k --seeds 2 --device cpu",
        "plan": {"ks": KS, "fewest": 7, "most": 9},
        "rows": rows,
    }


def length_table(word, operations=(3, 9)):
    """A table in which wrong completions under sequence_mean compare with `word` with the others."""
    names = ("sequence_mean", "token_mean", "fixed_length")
    compared = [
        {"first": "sequence_mean", "second": "token_mean"},
        {"first": "sequence_mean", "second": "fixed_length"},
        {"first": "token_mean", "second": "fixed_length"},
        *({"grows": name} for name in names),
    ]
    return {
        "command": "python -m lab experiment answer_length --seeds 2 --device cpu",
        "plan": {"operations": operations},
        "comparisons": [
            {
                "kind": kind,
                "mean": 0.25,
                "half": 0.125,
                "word": word if kind == "wrong" else "shorter",
            }
            | one
            for kind in ("right", "wrong")
            for one in compared
        ],
        "rows": [
            {
                "reduction": name,
                "updates": [10, 20],
                "right_relative": _points([1.0, 0.9], 0.1),
                "wrong_relative": _points([1.0 + i, 2.0 + i], 0.5),
            }
            for i, name in enumerate(names)
        ],
    }


def random_table(gain, clip, settings=()):
    """A table in which random rewards with the clip compare with `gain` with the base and with `clip`
    with the arm without the clip.
    """
    arms = [
        f"{reward}.{variant}"
        for reward in ("random", "answer")
        for variant in ("once", "clip", "free")
    ]
    words = {("random.clip", "base"): gain, ("random.clip", "random.free"): clip}
    pairs = [
        *((arm, "base") for arm in arms),
        *(
            (f"{reward}.clip", f"{reward}.{other}")
            for reward in ("random", "answer")
            for other in ("free", "once")
        ),
    ]
    return {
        "command": "python -m lab experiment random_rewards --seeds 2 --device cpu",
        "plan": {"settings": dict(settings)},
        "comparisons": [
            {
                "first": a,
                "second": b,
                "mean": -0.125,
                "half": 0.25,
                "word": words.get((a, b), "better"),
            }
            for a, b in pairs
        ],
        "rows": [
            {
                "arm": arm,
                "title": arm,
                "gold/accuracy": {"mean": 0.3 + 0.1 * i, "half": 0.15},
                "clipped_later": {"mean": 0.034, "half": 0.01},
            }
            for i, arm in enumerate(["base", *arms])
        ],
    }
