"""KTO: single completions judged good or bad, against a reference point from mismatched pairs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice

import torch

from lab.algorithms.losses import kto_loss, kto_reference_point
from lab.algorithms.reductions import batch_mean
from lab.data.batching import TokenBatch, batch_indices, collate
from lab.data.examples import UnpairedExample
from lab.data.token_rows import EncodedExample
from lab.distributed import collectives
from lab.engine.token_logprobs import completion_logps
from lab.errors import LabError
from lab.models.adapters import adapter_disabled
from lab.training.method import Method, MetricTensors
from lab.training.methods.offline import evaluate_task_or_rows, examples_of, load_labelled
from lab.training.micro_batches import split_evenly
from lab.training.reference_logps import precompute_reference_logps
from lab.training.state import TrainState


@dataclass
class UnpairedBatch:
    """B judged completions; `z` is the reference point of the whole batch, `total` its size."""

    tokens: TokenBatch
    reference: torch.Tensor
    desirable: torch.Tensor
    z: torch.Tensor
    total: int


def mismatched(batch: Sequence[UnpairedExample]) -> list[int]:
    """For each row of a batch, the row whose completion stands beside its prompt in the estimate of
    z: the row before it, cyclically, as in TRL.

    So y' are the batch's own completions, of both kinds. Where a completion would meet its own
    prompt, the rows are sorted by prompt (in the order in which prompts first occur) and shifted by
    the largest number of rows that share one; each completion is still used exactly once. Only
    where one prompt has more than half of the rows, completions of the others are used several
    times. Linear in the rows; raises `LabError` when they all share one prompt.
    """
    _require_two_prompts(batch)
    prompts = [repr(x.prompt) for x in batch]  # A conversation is a list, which cannot be a key.
    partners = [(i - 1) % len(batch) for i in range(len(batch))]
    if all(prompts[i] != prompts[partner] for i, partner in enumerate(partners)):
        return partners
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(i)
    order, largest = list(chain(*groups.values())), max(groups.values(), key=len)
    others = [i for i in order if prompts[i] != prompts[largest[0]]]
    for place, i in enumerate(order):
        partner = order[place - len(largest)]
        partners[i] = partner if prompts[partner] != prompts[i] else others[place % len(others)]
    return partners


def _require_two_prompts(examples: Sequence[UnpairedExample]) -> None:
    if all(x.prompt == examples[0].prompt for x in examples):
        raise LabError(
            f"KTO's reference point needs completions of at least two prompts, but all {len(examples)} examples share one. Add data."
        )


def lenders(labelled: Sequence[UnpairedExample], rows: list[int]) -> list[int]:
    """Which examples lend their completions to the prompts of the batch `rows`: `mismatched` rows
    of the batch itself.

    A batch in which all rows share one prompt has none: it borrows from the examples with another
    prompt that follow its first row in the data.
    """
    batch = [labelled[i] for i in rows]
    if any(x.prompt != batch[0].prompt for x in batch):
        return [rows[j] for j in mismatched(batch)]
    following = (i % len(labelled) for i in range(rows[0] + 1, rows[0] + len(labelled)))
    others = list(
        islice((i for i in following if labelled[i].prompt != batch[0].prompt), len(rows))
    )
    return list(islice(cycle(others), len(rows)))


def batches(run: TrainState) -> Iterator[list[UnpairedBatch]]:
    """Shuffled epochs over the unpaired data; z comes from a pass without gradients over the
    batch's mismatched pairs.

    A completion's partner differs from epoch to epoch, so the reference reads the mismatched pairs
    batch by batch: it sees each at most once, as if all had been read before, and a resumed run
    reads what an uninterrupted one does.
    """
    config = run.config
    labelled = load_labelled(run)
    _require_two_prompts(labelled)
    examples = examples_of(run, [(x.prompt, x.completion) for x in labelled])
    frozen = precompute_reference_logps(run, examples)
    desirable = torch.tensor([x.desirable for x in labelled], device=run.device)
    while True:
        rows = batch_indices(len(labelled), config.batch_size, config.seed, run.step + 1)
        crossed = examples.crossed(rows, lenders(labelled, rows))
        parts = split_evenly(collectives.shard_for_rank(rows, "examples"), config.micro_batches)
        pieces = [_tokens(run, examples.at(part)) for part in parts]
        z = _reference_point(
            run,
            [
                _tokens(run, part)
                for part in split_evenly(
                    collectives.shard_for_rank(crossed, "examples"), config.micro_batches
                )
            ],
        )
        yield [
            UnpairedBatch(tokens, frozen[part], desirable[part], z, len(rows))
            for tokens, part in zip(pieces, parts)
        ]


@torch.no_grad()
def _reference_point(run: TrainState, pieces: list[TokenBatch]) -> torch.Tensor:
    """z of the whole batch, of which `pieces` are this process's mismatched pairs."""
    logps = torch.cat([completion_logps(run.model, tokens) for tokens in pieces])
    with adapter_disabled(run.model):
        frozen = torch.cat([completion_logps(run.model, tokens) for tokens in pieces])
    return kto_reference_point(*collectives.all_gather(torch.stack([logps, frozen], 1)).unbind(1))


def _tokens(run: TrainState, examples: list[EncodedExample]) -> TokenBatch:
    """A batch, packed at once: on a GPU that waits for what has been asked of it, so it comes
    before the passes.
    """
    tokens = collate(examples, run.tokenizer.pad_token_id).to(run.device)
    _ = tokens.scored
    return tokens


def loss(run: TrainState, piece: UnpairedBatch) -> tuple[torch.Tensor, MetricTensors]:
    """`lab.algorithms.losses.kto_loss` on one piece."""
    config = run.config
    losses, metrics = kto_loss(
        completion_logps(run.model, piece.tokens),
        piece.reference,
        piece.desirable,
        piece.z,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
    )
    return batch_mean(losses, piece.total), metrics | {"kto/z": piece.z.expand(len(losses))}


KTO = Method(batches, loss, evaluate=evaluate_task_or_rows(batches, loss))
