"""KTO: single completions judged good or bad, against a reference point from mismatched pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from lab import parallel
from lab.data import Example, Tokens, batch_indices, collate
from lab.errors import LabError
from lab.likelihood import completion_logps
from lab.methods import Method, Metrics, Run, cut
from lab.methods.offline import examples_of, frozen_logps, load_labelled, measured
from lab.objectives import batch_mean, kto, kto_reference_point
from lab.pairs import Labelled


@dataclass
class Judged:
    """B judged completions; `z` is the reference point of the whole batch, `total` its size."""

    tokens: Tokens
    reference: torch.Tensor
    desirable: torch.Tensor
    z: torch.Tensor
    total: int


def mismatched(labelled: list[Labelled]) -> list[int]:
    """For each example another whose completion answers another prompt; the partner is fixed, so its reference is computed once."""
    n = len(labelled)
    partners = []
    for i, example in enumerate(labelled):
        partner = next((j % n for j in range(i + 1, i + n) if labelled[j % n].prompt != example.prompt), None)
        if partner is None:
            raise LabError(f"KTO's reference point needs completions of at least two prompts, but all {n} examples share one. Add data.")
        partners.append(partner)
    return partners


def batches(run: Run) -> Iterator[list[Judged]]:
    """Shuffled epochs over the unpaired data; z comes from a pass without gradients over the batch's mismatched pairs."""
    config = run.config
    if config.batch_size < 2:
        raise LabError("batch_size is 1, but KTO's reference point z is a mean over a batch: it takes at least 2.")
    labelled = load_labelled(run)
    matched = examples_of(run, [(x.prompt, x.completion) for x in labelled])
    crossed = examples_of(run, [(x.prompt, labelled[j].completion) for x, j in zip(labelled, mismatched(labelled))])
    frozen, crossed_frozen = frozen_logps(run, matched), frozen_logps(run, crossed)
    desirable = torch.tensor([x.desirable for x in labelled], device=run.device)
    while True:
        rows = batch_indices(len(labelled), config.batch_size, config.seed, run.step + 1)
        parts = cut(parallel.share(rows, "examples"), config.micro_batches)
        pieces, others = ([_tokens(run, examples.at(part)) for part in parts] for examples in (matched, crossed))
        with torch.no_grad():
            read = torch.cat([completion_logps(run.model, tokens) for tokens in others])
        z = kto_reference_point(parallel.everyone(read), crossed_frozen[rows])
        yield [Judged(tokens, frozen[part], desirable[part], z, len(rows)) for tokens, part in zip(pieces, parts)]


def _tokens(run: Run, examples: list[Example]) -> Tokens:
    """A batch, packed at once: on a GPU that waits for what has been asked of it, so it comes before the passes."""
    tokens = collate(examples, run.tokenizer.pad_token_id).to(run.device)
    _ = tokens.scored
    return tokens


def loss(run: Run, piece: Judged) -> tuple[torch.Tensor, Metrics]:
    """`lab.objectives.kto` on one piece."""
    config = run.config
    losses, metrics = kto(completion_logps(run.model, piece.tokens), piece.reference, piece.desirable, piece.z, beta=config.beta,
                          desirable_weight=config.desirable_weight, undesirable_weight=config.undesirable_weight)
    return batch_mean(losses, piece.total), metrics | {"kto/z": piece.z.expand(len(losses))}


KTO = Method(batches, loss, evaluate=measured(batches, loss))
