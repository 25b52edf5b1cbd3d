"""Simulated labellers: they follow a rule, and err with a fixed probability."""

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from lab.taste.labels import LabelSet
from lab.taste.next_pair import next_question
from lab.taste.pools import PoolInfo, PoolPair, pair_row, preferred_by

MARK = 2**64


def coin(*parts: object) -> float:
    """Returns a number from 0 to 1 that depends on the parts alone."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / MARK


def simulated_choice(pair: PoolPair, rule: str, noise: float, seed: int, occasion: str = "") -> int:
    """Returns the answer that a simulated labeller prefers: that of the rule, and with the probability
    `noise` the other one. Where the rule does not order the answers, a coin decides.

    The choice depends on the arguments alone; `occasion` tells repeats of a pair apart.
    """
    preferred = preferred_by(rule, pair)
    if preferred is None:
        return int(coin("tie", seed, pair.id, occasion) < 0.5)
    return preferred ^ (coin("noise", seed, pair.id, occasion) < noise)


def random_pairs(pairs: Sequence[PoolPair], count: int, seed: int) -> list[PoolPair]:
    """Returns `count` of the pairs at random; a smaller count gives the first of a larger one."""
    order = list(pairs)
    random.Random(f"labeller/{seed}").shuffle(order)
    return order[:count]


def labelled_rows(
    pool: PoolInfo, pairs: Sequence[PoolPair], rule: str, noise: float, seed: int
) -> list[dict[str, Any]]:
    """Returns the labels of a simulated labeller for `pairs`, in TRL's preference format."""
    return [
        pair_row(pool, pair, simulated_choice(pair, rule, noise, seed))
        | {"pair": pair.id, "labeller": f"{rule}, noise {noise:g}, seed {seed}"}
        for pair in pairs
    ]


def label_set(labels: LabelSet, rule: str, noise: float, seed: int, count: int) -> LabelSet:
    """Labels the next pairs of a label set, repeats and held-out pairs too, until it has `count` labels,
    and returns it.
    """
    while (given := len(labels.pairs())) < count and (asked := next_question(labels)):
        labels.choose(
            asked.pair,
            simulated_choice(asked.pair, rule, noise, seed, f"repeat {given}" * asked.repeat),
            asked.turn,
            picked=asked.picked,
            held_out=asked.held_out,
            repeat=asked.repeat,
        )
    return labels
