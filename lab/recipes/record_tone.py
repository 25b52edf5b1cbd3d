"""Records the pool `tone`: short English messages of SmolLM2-135M-Instruct in pairs of two styles.

The model reads two examples before each request. It first writes plain messages of one sentence behind
the person's name. Behind the most frequent one that breaks no rule of `lab.recipes.tone_styles` it goes
on with a rich or a warm sentence. The plain message and the longer text make a pair.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lab.config.methods import make_config
from lab.data.encoding import prompt_ids
from lab.data.examples import Text
from lab.engine.sampler import sample
from lab.engine.truncation import Truncation
from lab.models.loading import fitting_threads, load_policy
from lab.models.tokenizer import load_tokenizer
from lab.recipes.tone_fit import misfit
from lab.recipes.tone_requests import (
    EXAMPLES,
    PEOPLE,
    REQUESTS,
    STYLE_PAIRS,
    STYLES,
    Example,
    ToneRequest,
    kind_of,
)
from lab.recipes.tone_styles import ODD, Answer, first_sentence, next_fault, opening, plain_fault

TONE_MODEL = "smollm2-135m"
TEMPERATURE, MIN_P = 0.7, 0.1
PLAIN_TEXTS, NEXT_TEXTS, PAIRS_PER_STYLE = 3, 6, 3
"""How many plain messages the model writes to a request, how many sentences behind one of them, and how
many of those the pool takes at most."""
MAX_TOKENS, BATCH, MAX_SAME = 24, 8, 3

Asked = tuple[ToneRequest, str]
"""A request and the name of the person."""
Pair = tuple[int, str, list[Answer]]
"""The number of a pair, its prompt and its two answers."""


class ToneRecorder:
    """Samples the texts of the pool `tone`; `refused` counts the texts by the rule that they break."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        self.texts, self.refused = 0, Counter[str]()
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(TONE_MODEL)
        config = make_config("grpo", {"model": TONE_MODEL, "task": "sentiment"})
        self._policy: PeftModel = load_policy(config, device)

    def pairs(
        self, count: int, report: Callable[[Sequence[Pair]], object] = lambda pairs: None
    ) -> list[Pair]:
        """Returns at most `count` prompts with two answers each, in a random order of requests and of
        the two answers. A sentence behind a plain message comes `MAX_SAME` times at most. A pair whose
        longer text does not fit is left out, and its number stays free. A smaller count gives the first
        pairs of a larger one. `report` gets the pairs so far after each batch.
        """
        state = random.Random(f"taste/tone/{self.seed}")
        problems = list(product(REQUESTS, PEOPLE))
        state.shuffle(problems)
        pairs: list[Pair] = []
        number, same = 0, Counter[str]()
        with fitting_threads(self._policy):
            for first in range(0, len(problems), BATCH):
                for (request, name), two in self._pairs_of(problems[first : first + BATCH], first):
                    sentence = two[1].text[len(opening(two[1].source, name, two[0].text)) :]
                    same[sentence] += 1
                    is_odd = any(ODD.search(own.text) for own in two)
                    if same[sentence] > MAX_SAME or is_odd:
                        continue
                    prompt, shuffled = request.text.format(name), state.sample(two, 2)
                    if fault := misfit(prompt, two[1].source, two[1].text, sentence):
                        self.refused[fault] += 1
                    else:
                        pairs.append((number, prompt, shuffled))
                    number += 1
                report(pairs[:count])
                if len(pairs) >= count:
                    break
        return pairs[:count]

    def _pairs_of(
        self, batch: Sequence[Asked], step: int
    ) -> Iterator[tuple[Asked, tuple[Answer, Answer]]]:
        """Pairs of a plain and a rich or warm text for the requests of a batch."""
        plain = []
        written = self._write("plain", [(*own, "") for own in batch], PLAIN_TEXTS, step)
        for asked, texts in zip(batch, written):
            whole = [f"{asked[1]}, {text}" for text in texts]
            plain.append((asked, self._faultless([(t, plain_fault(*asked, t)) for t in whole])))
        for low, high in STYLE_PAIRS:
            begun = [(*asked, texts[0]) for asked, texts in plain if texts]
            for (request, name, own), texts in zip(
                begun, self._write(high, begun, NEXT_TEXTS, step) if begun else []
            ):
                good = self._faultless(
                    [(text, next_fault(high, name, own, text)) for text in texts]
                )
                for text in good[:PAIRS_PER_STYLE]:
                    longer = f"{opening(high, name, own)} {text}"
                    yield (request, name), (Answer(own, low), Answer(longer, high))

    def _write(
        self, style: str, begun: Sequence[tuple[ToneRequest, str, str]], count: int, step: int
    ) -> list[list[str]]:
        """The first sentences of `count` completions behind each request, name and plain message."""
        asked: list[Text] = [conversation(request, name, style) for request, name, _ in begun]
        openings = [
            opening(style, name, plain) if plain else f"{name}," for _, name, plain in begun
        ]
        ids = [
            [*own, *self._tokenizer(text, add_special_tokens=False).input_ids]
            for own, text in zip(prompt_ids(self._tokenizer, asked), openings)
        ]
        texts = sample(
            self._policy,
            self._tokenizer,
            ids,
            count,
            max_tokens=MAX_TOKENS,
            temperature=TEMPERATURE,
            truncation=Truncation(min_p=MIN_P),
            seed=self.seed,
            step=step,
            device=self.device,
            stream=f"taste {style}",
        ).texts
        return [
            [first_sentence(text) for text in texts[i * count : (i + 1) * count]]
            for i in range(len(begun))
        ]

    def _faultless(self, judged: Sequence[tuple[str, str]]) -> list[str]:
        """The different texts without a fault, the most frequent first."""
        self.texts += len(judged)
        self.refused.update(fault for _, fault in judged if fault)
        good = Counter(text for text, fault in judged if not fault)
        return [text for text, _ in good.most_common()]


def conversation(request: ToneRequest, name: str, style: str) -> list[dict[str, str]]:
    """Returns what the model reads: the style, two examples of the request's kind, and the request."""
    shown = [own for own in EXAMPLES if kind_of(own.request) == kind_of(request.text)]
    turns = [(own.request, _whole(own, style)) for own in shown]
    return [
        {"role": "system", "content": STYLES[style]},
        *(
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn)
        ),
        {"role": "user", "content": request.text.format(name)},
    ]


def _whole(example: Example, style: str) -> str:
    """The text of an example in a style."""
    if style == "plain":
        return example.plain
    begun = opening(style, example.plain.partition(",")[0], example.plain)
    return f"{begun} {example.rich if style == 'rich' else example.warm}"
