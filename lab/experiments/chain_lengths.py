"""Chains of another number of operations than those that the embedded model has learnt."""

import random

from lab.tasks.base import Problem
from lab.tasks.chain import ChainTask, gold_answer, is_held_out


class ChainsOfLength(ChainTask):
    """The chain task with `fewest` to `most` operations instead of 3 to 6. On longer chains than it has
    learnt the base is seldom right. The split into training and held-out prompts is that of all chains.
    """

    pairs_path = None  # type: ignore[assignment]  # The shipped pairs are shorter chains.

    def __init__(self, fewest: int, most: int) -> None:
        super().__init__()
        self.operations = (fewest, most)

    def train_problems(self, n: int, seed: int, step: int) -> list[Problem]:
        """Return `n` problems to train on; the same arguments give the same problems."""
        state = random.Random(f"chain/{self.operations}/{seed}/{step}")
        return [self._problem(state, held_out=False) for _ in range(n)]

    def held_out(self, n: int) -> list[Problem]:
        """Return the first `n` problems of a fixed held-out list, all different."""
        state = random.Random(f"chain/{self.operations}/held out")
        problems: dict[str, Problem] = {}
        while len(problems) < n:
            problem = self._problem(state, held_out=True)
            problems.setdefault(problem.prompt, problem)
        return list(problems.values())

    def _problem(self, state: random.Random, held_out: bool) -> Problem:
        """A random problem from one side of the split."""
        while True:
            digits = state.choices("0123456789", k=state.randint(*self.operations) + 1)
            prompt = digits[0] + "".join(state.choice("+-*") + digit for digit in digits[1:]) + "="
            if is_held_out(prompt) == held_out:
                return Problem(prompt, gold_answer(prompt))
