"""KTO: single completions judged good or bad, against a reference point from mismatched pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any

from lab.config.hooks import Hook
from lab.config.latex import braced
from lab.config.methods import MethodSpec
from lab.config.number_text import number_text
from lab.config.run_config import OfflineConfig, config_as
from lab.config.schema import setting
from lab.errors import LabError
from lab.training.without_gradients import without_gradients

if TYPE_CHECKING:
    import torch

    from lab.data.batching import TokenBatch
    from lab.data.corpus import Examples
    from lab.data.examples import UnpairedExample
    from lab.data.token_rows import EncodedExample
    from lab.training.method import MetricTensors
    from lab.training.state import TrainState


LOSS = Hook(
    "loss",
    (
        "logps",
        "reference_logps",
        "desirable",
        "z",
        "beta",
        "desirable_weight",
        "undesirable_weight",
    ),
    "(B,) losses, one for each completion",
)
REFERENCE_POINT = Hook("reference_point", ("logps", "reference_logps"), "one number")
MAX_CROSSED_ROWS = 1024  # Sequences of one pass over every completion after every prompt.


@dataclass(frozen=True)
class KTOConfig(OfflineConfig):
    """Kahneman-Tversky Optimization, arXiv 2402.01306, on the same data without its pairing, or on
    your own unpaired judgements.
    """

    beta: float = setting(
        0.1,
        "β: a larger β makes the value reach its limit nearer to the reference point z.",
        low=1e-4,
        high=100.0,
        mutable=True,
        log=True,
    )
    desirable_weight: float = setting(
        1.0, "λ_D, the weight of desirable completions.", low=0.0, high=1000.0, mutable=True
    )
    undesirable_weight: float = setting(
        1.0, "λ_U, the weight of undesirable completions.", low=0.0, high=1000.0, mutable=True
    )
    desirable_share: float = setting(
        1.0,
        "Share of the desirable completions that is kept. A small share makes the data unbalanced.",
        low=0.001,
        high=1.0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size < 2:
            raise LabError(
                "batch_size is 1, but KTO's reference point z is a mean over a batch: it takes at"
                " least 2."
            )


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
            "KTO's reference point needs completions of at least two prompts, but all"
            f" {len(examples)} examples share one. Add data."
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
    import torch

    from lab.distributed import collectives
    from lab.training.batch_rows import batch_rows
    from lab.training.methods.offline import examples_of, load_labelled
    from lab.training.micro_batches import split_evenly
    from lab.training.reference_logps import precompute_reference_logps

    config = config_as(run.config, KTOConfig)
    labelled = load_labelled(run)
    _require_two_prompts(labelled)
    examples = examples_of(run, [(x.prompt, x.completion) for x in labelled])
    rows_of = batch_rows(run, examples)
    frozen = precompute_reference_logps(run, examples)
    desirable = torch.tensor([x.desirable for x in labelled], device=run.device)
    while True:
        rows = rows_of.of_update(run.step + 1)
        parts = split_evenly(
            list(collectives.shard_for_rank(rows, "examples")), config.micro_batches
        )
        pieces = [_tokens(run, examples.at(part)) for part in parts]
        if REFERENCE_POINT.name in run.own:
            z = _own_reference_point(run, examples, rows)
        else:
            crossed = examples.crossed(rows, lenders(labelled, rows))
            z = _reference_point(
                run,
                [
                    _tokens(run, part)
                    for part in split_evenly(
                        list(collectives.shard_for_rank(crossed, "examples")), config.micro_batches
                    )
                ],
            )
        yield [
            UnpairedBatch(tokens, frozen[part], desirable[part], z, len(rows))
            for tokens, part in zip(pieces, parts)
        ]


@without_gradients
def _reference_point(run: TrainState, pieces: list[TokenBatch]) -> torch.Tensor:
    """z of the whole batch, of which `pieces` are this process's mismatched pairs."""
    import torch

    from lab.algorithms.losses import kto_reference_point
    from lab.distributed import collectives
    from lab.engine.token_logprobs import completion_logps
    from lab.models.adapters import adapter_disabled

    logps = torch.cat([completion_logps(run.model, tokens) for tokens in pieces])
    with adapter_disabled(run.model):
        frozen = torch.cat([completion_logps(run.model, tokens) for tokens in pieces])
    return kto_reference_point(*collectives.all_gather(torch.stack([logps, frozen], 1)).unbind(1))


@without_gradients
def _own_reference_point(run: TrainState, examples: Examples, rows: list[int]) -> torch.Tensor:
    """z by the learner's function, from log-probabilities (B, B) under policy and reference: row i,
    column j is completion j after prompt i.

    The rows of the batch stand in reverse order, so that completion i + 1 is the one that
    `mismatched` puts after prompt i. These B entries come from a pass of their own, as in the lab's
    estimate, which makes them equal to the last bit.
    """
    import torch

    from lab.engine.token_logprobs import completion_logps
    from lab.models.adapters import adapter_disabled
    from lab.training.own_functions import own_tensor

    count = len(rows)
    matrices = torch.zeros(2, count, count, device=run.device)
    every = range(count)
    some = max(1, MAX_CROSSED_ROWS // count)
    blocks = [(i, j) for i in every for j in every]
    passes = [blocks[i : i + some * count] for i in range(0, count**2, some * count)]
    for pairs in [*passes, [(i, (i - 1) % count) for i in every]]:
        prompts, completions = zip(*pairs)
        tokens = _tokens(
            run, examples.crossed([rows[i] for i in prompts], [rows[j] for j in completions])
        )
        matrices[0, prompts, completions] = completion_logps(run.model, tokens)
        with adapter_disabled(run.model):
            matrices[1, prompts, completions] = completion_logps(run.model, tokens)
    order = [-i % count for i in every]
    policy, reference = matrices[:, order][:, :, order]
    return own_tensor(run, REFERENCE_POINT, (policy, reference), matrices.new_zeros(()))


def _tokens(run: TrainState, examples: list[EncodedExample]) -> TokenBatch:
    """A batch, packed at once: on a GPU that waits for what has been asked of it, so it comes
    before the passes.
    """
    from lab.data.batching import collate

    tokens = collate(examples, run.tokenizer.pad_token_id).to(run.device)
    _ = tokens.scored
    return tokens


def loss(run: TrainState, piece: UnpairedBatch) -> tuple[torch.Tensor, MetricTensors]:
    """Return `lab.algorithms.losses.kto_loss` of one micro-batch, or the run's own loss."""
    from lab.algorithms.losses import kto_loss
    from lab.algorithms.reductions import batch_mean
    from lab.engine.token_logprobs import completion_logps
    from lab.training.own_functions import own_tensor

    config = config_as(run.config, KTOConfig)
    inputs = (completion_logps(run.model, piece.tokens), piece.reference, piece.desirable, piece.z)
    beta, good, bad = config.beta, config.desirable_weight, config.undesirable_weight
    losses, metrics = kto_loss(*inputs, beta=beta, desirable_weight=good, undesirable_weight=bad)
    if LOSS.name in run.own:
        losses = own_tensor(run, LOSS, (*inputs, beta, good, bad), losses)
    return batch_mean(losses, piece.total), metrics | {"kto/z": piece.z.expand(len(losses))}


def formula(config: Mapping[str, Any]) -> list[str]:
    """The loss of one desirable and of one undesirable completion."""
    beta = braced(config["beta"], r"\beta")
    desirable, undesirable = (
        number_text(config[name]) for name in ("desirable_weight", "undesirable_weight")
    )
    return [
        rf"\mathcal{{L}}_{{\mathrm{{KTO}}}}={desirable}\,\big(1-\sigma({beta}(r-z))\big)"
        r"\ \text{if desirable}",
        rf"{undesirable}\,\big(1-\sigma({beta}(z-r))\big)\ \text{{if not}}",
        r"r=\log\tfrac{\pi_\theta(y|x)}{\pi_{\mathrm{ref}}(y|x)}",
    ]


SPEC = MethodSpec(
    name="kto",
    title="KTO",
    summary=(
        "KTO needs no pairs. Each completion is marked as desirable or undesirable, and KTO"
        " compares it with a reference point z."
    ),
    colour="#E69F00",
    config=KTOConfig,
    learns_from="judgements",
    batches=batches,
    loss=loss,
    formula=formula,
    estimated=True,
    hooks=(LOSS, REFERENCE_POINT),
)
