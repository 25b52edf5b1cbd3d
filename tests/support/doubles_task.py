"""A task of reasoning-gym that needs no package: its problems can be counted."""

import random
from types import SimpleNamespace

from lab.tasks import reasoning_gym
from lab.tasks.registry import load_task


class Doubles:
    """Twice a number below 40: only forty different problems."""

    def __init__(self, size, seed):
        self.size, self.seed = size, seed

    def __getitem__(self, place):
        number = random.Random(self.seed + place).randrange(40)
        return {"question": f"2 * {number} =", "answer": str(2 * number), "metadata": {}}

    def score_answer(self, answer, entry):
        print("scoring")
        if answer == "break":
            raise ZeroDivisionError
        return 1.0 if answer == entry["answer"] else 0.25 if answer.isdigit() else 0


def doubles(monkeypatch, kind=Doubles):
    library = SimpleNamespace(
        factory=SimpleNamespace(DATASETS={"doubles": (kind, None), "dobules": (kind, None)}),
        create_dataset=lambda name, size, seed, **settings: kind(size, seed, **settings),
    )
    monkeypatch.setattr(reasoning_gym, "library", lambda: library)
    return load_task("gym:doubles")
