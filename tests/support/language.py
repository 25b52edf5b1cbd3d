"""Rows of the experiments on a language model, made up: of the frontier, of arithmetic, and what
was written.
"""

FACTS = ("gold/accuracy", "repetition", "distinct_2", "empty", "completions/mean_length", "seconds")


def one(mean, half=0.0):
    return {"mean": mean, "half": half}


def ended(method, beta, kl, reward, half=0.05, repetition=0.01):
    """A row of the frontier that went straight to its end in two looks."""
    end = {name: one(1.0) for name in FACTS} | {
        "kl": one(kl, 0.1 * kl),
        "reward": one(reward, half),
        "repetition": one(repetition, 0.005),
    }
    return {
        "method": method,
        "beta": beta,
        "steps": [0, 10],
        "kl": {"mean": [0.0, kl]},
        "reward": {"mean": [0.1, reward]},
        "end": end,
    }


def arm(equal, group, right, half=0.02, batch=64, seconds=10.0, paid=None):
    """A row of the arithmetic experiment over two updates; what is paid in the last is what is
    right, if nothing else is said.
    """
    curve = {"mean": [20.0, 10.0], "half": [1.0, 1.0]}
    end = {
        "gold/accuracy": one(right, half),
        "kl": one(1.0),
        "seconds": one(seconds),
        "tokens": one(batch * 100.0),
    }
    return {
        "equal": equal,
        "group_size": group,
        "batch_size": batch,
        "steps": [1, 2],
        "looks": [0, 2],
        "length": curve,
        "entropy": {"mean": [0.9, 0.3], "half": [0.1, 0.1]},
        "reward": {"mean": [0.3, right if paid is None else paid], "half": [half, half]},
        "gold/accuracy": {"mean": [0.2, right], "half": [half, half]},
        "end": end,
    }


def shown(asked="Opening {}", **said):
    """policy → its texts to as many prompts, which are `asked` with their place; those with a ! are
    right.
    """
    return {
        policy: [
            {"prompt": asked.format(place), "completion": text, "gold": float("!" in text)}
            for place, text in enumerate(texts, 1)
        ]
        for policy, texts in said.items()
    }
