"""Changes a data set for an experiment: label noise, pairs taken apart, fewer desirable rows."""

import random
from typing import TypeVar

from lab.data.examples import Pair, UnpairedExample

FlippableExample = TypeVar("FlippableExample", Pair, UnpairedExample)


def add_label_noise(
    examples: list[FlippableExample], share: float, seed: int
) -> list[FlippableExample]:
    """Returns the examples with chosen and rejected, or the label, swapped in exactly
    round(share · n) of them, picked by `seed`.
    """
    state = random.Random(f"noise/{seed}")
    swapped = set(state.sample(range(len(examples)), round(share * len(examples))))
    return [e.flipped() if i in swapped else e for i, e in enumerate(examples)]


def unpair(pairs: list[Pair]) -> list[UnpairedExample]:
    """Returns the completions without their pairing: of each pair the desirable completion, then
    the undesirable one.
    """
    return [
        example
        for pair in pairs
        for example in (
            UnpairedExample(pair.prompt, pair.chosen, True),
            UnpairedExample(pair.prompt, pair.rejected, False),
        )
    ]


def keep_desirable(
    examples: list[UnpairedExample], share: float, seed: int
) -> list[UnpairedExample]:
    """Returns all undesirable completions and `share` of the desirable ones (at least one if there
    is one), picked by `seed`.
    """
    desirable = [i for i, example in enumerate(examples) if example.desirable]
    count = min(len(desirable), max(1, round(share * len(desirable))))
    sampled = random.Random(f"unpair/{seed}").sample(range(len(desirable)), count)
    dropped = set(desirable) - {desirable[i] for i in sampled}
    return [example for i, example in enumerate(examples) if i not in dropped]
