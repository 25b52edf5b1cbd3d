"""Log-probabilities under the reference: the policy without its adapter."""

from collections.abc import Sequence

import numpy as np
import torch

from lab.data.batching import batch_indices, collate
from lab.data.corpus import Examples
from lab.data.token_rows import EncodedExample
from lab.distributed import collectives
from lab.engine.token_logprobs import completion_logps
from lab.models.adapters import adapter_disabled
from lab.training.evaluation import EVAL_BATCH_ROWS
from lab.training.state import TrainState


@torch.no_grad()
def reference_logps(run: TrainState, examples: list[EncodedExample]) -> torch.Tensor:
    """Return the summed completion log-probabilities (N,) under the reference, in one forward pass."""
    with adapter_disabled(run.model):
        return completion_logps(
            run.model, collate(examples, run.tokenizer.pad_token_id).to(run.device)
        )


class ReferenceLogps:
    """Reference log-probabilities of examples, computed where an update first asks for them.

    They are computed in chunks of `EVAL_BATCH_ROWS` consecutive examples of the first epoch, which
    depend on data and seed alone: a resumed run computes the same chunks, and so the same numbers to
    the last bit. Several processes divide the chunks that this run will visit among them, and compute
    them at the start.
    """

    def __init__(self, run: TrainState, examples: Examples) -> None:
        n = len(examples)
        self._run, self._examples = run, examples
        self._order = batch_indices(n, n, run.config.seed, 1)
        self._chunk_of = np.empty(n, dtype=np.int64)
        self._chunk_of[self._order] = np.arange(n) // EVAL_BATCH_ROWS
        self._logps = torch.full((n,), float("nan"), device=run.device)
        self._computed: set[int] = set()
        if collectives.world_size() > 1:
            self._share(sorted(chunks_to_precompute(run, self._chunk_of)))

    def __getitem__(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the log-probabilities (N,) of the examples with these indices."""
        for chunk in sorted(set(self._chunk_of[list(rows)].tolist()) - self._computed):
            self._compute(chunk)
        return self._logps[rows]

    def _compute(self, chunk: int) -> None:
        rows = self._order[chunk * EVAL_BATCH_ROWS : (chunk + 1) * EVAL_BATCH_ROWS]
        self._logps[torch.tensor(rows, device=self._run.device)] = reference_logps(
            self._run, self._examples.at(rows)
        )
        self._computed.add(chunk)

    def _share(self, chunks: list[int]) -> None:
        for chunk in chunks[collectives.rank() :: collectives.world_size()]:
            self._compute(chunk)
        if (
            self._run.config.shard
            and collectives.rank() >= len(chunks) % collectives.world_size() > 0
        ):
            reference_logps(
                self._run, self._examples.at([0])
            )  # Others have one chunk more, and need this process's weights for it.
        rows = torch.tensor(np.isin(self._chunk_of, chunks).nonzero()[0], device=self._run.device)
        logps = self._logps[rows].nan_to_num(0.0)
        collectives.all_reduce_sum_([logps])
        self._logps[rows] = logps
        self._computed.update(chunks)


def chunks_to_precompute(run: TrainState, chunk_of: np.ndarray) -> set[int]:
    """Return the chunks of which the rest of this run will train on an example.

    `chunk_of` (n,) holds the number of each example's chunk.
    """
    config, n = run.config, len(chunk_of)
    last = min(
        config.steps, run.step + 2 * max(1, n // config.batch_size)
    )  # Two epochs' worth of updates hold a whole one.
    return {
        c
        for step in range(run.step + 1, last + 1)
        for c in chunk_of[batch_indices(n, config.batch_size, config.seed, step)].tolist()
    }


def precompute_reference_logps(run: TrainState, examples: Examples) -> ReferenceLogps:
    """Return the reference log-probabilities of the examples, by their indices."""
    return ReferenceLogps(run, examples)
