"""What the offline methods share: a fixed data set, encoded once, with reference log-probabilities computed once."""

from dataclasses import replace
from pathlib import Path

import torch

from lab import parallel
from lab.data import Example, add_label_noise, batch_indices, encode, encode_whole, keep_desirable, unpair
from lab.errors import LabError
from lab.evaluate import ROWS
from lab.methods import Run, reference_logps
from lab.pairs import Demonstration, Labelled, Pair, Whole, load_examples, load_pairs


def load_preferences(run: Run) -> list[Pair]:
    """The run's preference pairs: its own data or the task's, cut to `pairs`, with `label_noise` of them swapped."""
    return _front(run, load_pairs(_source(run)))


def load_labelled(run: Run) -> list[Labelled]:
    """The run's judged completions: its own unpaired data, or pairs without their pairing; of the desirable ones the `desirable_share`."""
    judged = _front(run, load_examples(_source(run), "kto"))
    return keep_desirable(unpair(judged) if isinstance(judged[0], Pair) else judged, run.config.desirable_share, run.config.seed)


def encode_imitated(run: Run) -> list[Example]:
    """What the run imitates: completions of its own, the chosen ones of its pairs, or whole texts; an error names the example's place in the data."""
    found, where, length = _front(run, load_examples(_source(run), "sft")), f"{run.config.data or 'shipped pairs'}, example", run.config.max_length
    if isinstance(found[0], Whole):
        return encode_whole(run.tokenizer, [e.text for e in found], length, where)
    return encode(run.tokenizer, [(e.prompt, e.chosen if isinstance(e, Pair) else e.completion) for e in found], length, where)


def _source(run: Run) -> str | Path:
    return run.config.data or run.task.pairs_path


def _front(run: Run, examples: list) -> list:
    """At most as many examples from the front of the data as `pairs` says, `label_noise` of them with their judgement turned round."""
    config = run.config
    if config.label_noise and isinstance(examples[0], Demonstration | Whole):
        raise LabError(f"label_noise is {config.label_noise:g}, but {config.data} holds completions without a judgement. Use 0.")
    front = examples[:config.pairs or len(examples)]
    return add_label_noise(front, config.label_noise, config.seed) if config.label_noise else front


def encode_pairs(run: Run, pairs: list[Pair]) -> tuple[list[Example], list[Example]]:
    """Chosen and rejected examples, of one prompt: where one departs from the prompt earlier, both completions begin there, as in TRL. An error names the
    pair's place in the data."""
    source, length = run.config.data or "shipped pairs", run.config.max_length
    chosen = encode(run.tokenizer, [(p.prompt, p.chosen) for p in pairs], length, f"{source}, chosen of pair")
    rejected = encode(run.tokenizer, [(p.prompt, p.rejected) for p in pairs], length, f"{source}, rejected of pair")
    for i, (one, other) in enumerate(zip(chosen, rejected)):
        if (shorter := min(one.prompt_length, other.prompt_length)) < max(one.prompt_length, other.prompt_length):
            chosen[i], rejected[i] = replace(one, prompt_length=shorter), replace(other, prompt_length=shorter)
    return chosen, rejected


def visited(run: Run, n: int) -> list[list[int]]:
    """The examples that the rest of this run will train on, in chunks of `ROWS` that depend on data and seed alone.

    A chunk is a stretch of the first epoch. As a resumed run meets the same chunks, it reads the same log-probabilities to the last bit.
    """
    config = run.config
    last = min(config.steps, run.step + 2 * max(1, n // config.batch_size))  # Two epochs' worth of updates hold a whole one.
    seen = {i for step in range(run.step + 1, last + 1) for i in batch_indices(n, config.batch_size, config.seed, step)}
    order = batch_indices(n, n, config.seed, 1)
    chunks = [order[i:i + ROWS] for i in range(0, n, ROWS)]
    return [chunk for chunk in chunks if not seen.isdisjoint(chunk)]


def frozen_logps(run: Run, examples: list[Example]) -> torch.Tensor:
    """Reference log-probabilities (n,) of the examples that the run will visit; NaN where it will not."""
    out = torch.full((len(examples),), float("nan"), device=run.device)
    chunks = visited(run, len(examples))
    for rows in chunks[parallel.rank()::parallel.world()]:
        out[torch.tensor(rows, device=run.device)] = reference_logps(run, [examples[i] for i in rows])
    if run.config.shard == "on" and parallel.rank() >= len(chunks) % parallel.world() > 0:
        reference_logps(run, examples[:1])  # Others have one chunk more, and need this process's weights for it.
    if parallel.world() > 1:
        known = torch.tensor(sorted(i for rows in chunks for i in rows), device=run.device)
        found = out[known].nan_to_num(0.0)
        parallel.add_up([found])
        out[known] = found
    return out
