"""How much one update of the benchmark gets, on a model with random weights."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Amounts:
    """How much one update of a model with random weights gets, in tokens: the shortest and longest
    prompt and completion of a pair; and, for sampling, prompts, completions per prompt, the length of
    a prompt and the longest completion.
    """

    pair_prompt: tuple[int, int] = (32, 64)
    pair_completion: tuple[int, int] = (16, 160)
    prompts: int = 8
    group: int = 8
    prompt: int = 48
    longest: int = 128


USUAL_AMOUNTS = Amounts()
LAPTOP_AMOUNTS = Amounts((24, 24), (40, 40), prompts=4, group=8, prompt=32, longest=32)
"""The amount for a laptop without a GPU: 16 pairs of completions with 64 tokens each, their prompts
included, or 32 completions of 32 tokens.
"""
