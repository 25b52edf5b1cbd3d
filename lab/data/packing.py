"""Remove the padding of a right-padded batch: the tokens of all rows follow each other in one
packed sequence, so that work grows with the number of tokens and not with the longest row.

Shapes: B rows, T columns of the padded batch, N tokens of the packed sequence, M completion tokens,
C cells of `PaddedLayout`. A flat position is row · T + column, an index into the flattened (B, T)
batch.
"""

from dataclasses import dataclass

import numpy as np
import torch

MIN_LENGTH_RATIO = 0.75
"""Rows in one `LengthBucket` have at least this fraction of the length of its longest row."""


@dataclass(frozen=True)
class LengthBucket:
    """Rows of similar length that are neighbours in the packed sequence, for work that needs padded
    rows.

    `rows` is their number, `tokens` their slice of the packed sequence (or of the cells of
    `PaddedLayout`), and `width` the length of the longest row.
    """

    rows: int
    tokens: slice
    width: int


@dataclass(frozen=True)
class PaddedLayout:
    """The packed rows as padded rows, one length bucket after the other, C cells in all.

    `token_of_cell` (C,): index of the token that a cell holds; any index where the cell is padding.
    `cell_of_token` (N,): cell with the token's own query. `shared_tokens`: pair of (token index,
    cell index) tensors for tokens that occupy more than one cell, because several rows share their
    prefix; one pair of entries for each further cell.
    """

    token_of_cell: torch.Tensor
    cell_of_token: torch.Tensor
    shared_tokens: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Packed:
    """A packed batch: the N tokens of B rows, row after row, without what follows a row's last
    completion token.

    `ids` (N,): token ids. `positions` (N,): position of each token within its row, from 0.
    `cu_seqlens` (B + 1,): cumulative row lengths, int32; row i is tokens cu_seqlens[i] to
    cu_seqlens[i + 1]. `flat_positions` (N,): flat position of each token. `predictor_indices` (M,):
    for each completion token, index in the packed sequence of the token before it. `target_ids`
    (M,): ids of the completion tokens. `target_flat_positions` (M,): flat positions of the
    completion tokens. `rows`, `width`: B and T. `length_buckets`: cut the packed sequence, or the
    cells of `padded` if that is set, into rows of similar length. `padded`: layout for attention if
    rows share prefixes.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    cu_seqlens: torch.Tensor
    flat_positions: torch.Tensor
    predictor_indices: torch.Tensor
    target_ids: torch.Tensor
    target_flat_positions: torch.Tensor
    rows: int
    width: int
    length_buckets: list[LengthBucket]
    padded: PaddedLayout | None = None

    def pad_packed(self, values: torch.Tensor) -> torch.Tensor:
        """Return one value per completion token (M,) as a padded batch (B, T) that is 0 elsewhere,
        with gradient.
        """
        return (
            values.new_zeros(self.rows * self.width)
            .index_copy(0, self.target_flat_positions, values)
            .view(self.rows, self.width)
        )


def pack_uniform(rows: int, length: int, prompt: int, width: int) -> Packed:
    """Return a packed batch (rows, width) in which every row has `length` tokens with id 0,
    `prompt` of them prompt.
    """
    row, column = torch.arange(rows).repeat_interleave(length), torch.arange(length).repeat(rows)
    completion = (
        torch.arange(prompt, length).repeat(rows)
        + torch.arange(rows).repeat_interleave(length - prompt) * length
    )
    flat_positions = row * width + column
    return Packed(
        ids=torch.zeros_like(flat_positions),
        positions=column,
        cu_seqlens=torch.arange(rows + 1, dtype=torch.int32) * length,
        flat_positions=flat_positions,
        predictor_indices=completion - 1,
        target_ids=torch.zeros_like(completion),
        target_flat_positions=flat_positions[completion],
        rows=rows,
        width=width,
        length_buckets=[LengthBucket(rows, slice(0, rows * length), length)],
    )


def pack(ids: torch.Tensor, completion_mask: torch.Tensor) -> Packed:
    """Pack right-padded `ids` (B, T) up to each row's last completion token, long rows first.

    `completion_mask` (B, T) is true on completion tokens. The first token of a row must not be a
    completion token, because no token before it could predict it.

    Anchor: rows of 2 and 3 real tokens with one completion token each give N = 5, the longer row
    first, cu_seqlens 0, 3, 5 and predictor indices 1, 3.
    """
    rows, width = ids.shape
    columns = torch.arange(width, device=ids.device)
    mask = completion_mask.bool()
    lengths, order = (mask * (columns + 1)).amax(1).sort(descending=True, stable=True)
    flat_positions = (order[:, None] * width + columns)[columns < lengths[:, None]]
    cu_seqlens = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    target_indices = mask.flatten()[flat_positions].nonzero().squeeze(1)
    flat_ids, target_flat_positions = ids.flatten(), flat_positions[target_indices]
    length_buckets = (
        _length_buckets(lengths.tolist())
        if ids.device.type == "cpu"
        else [LengthBucket(rows, slice(0, len(flat_positions)), width)]
    )
    return Packed(
        ids=flat_ids[flat_positions],
        positions=flat_positions % width,
        cu_seqlens=cu_seqlens,
        flat_positions=flat_positions,
        predictor_indices=target_indices - 1,
        target_ids=flat_ids[target_flat_positions],
        target_flat_positions=target_flat_positions,
        rows=rows,
        width=width,
        length_buckets=length_buckets,
    )


def pack_shared_prefix(ids: torch.Tensor, completion_mask: torch.Tensor) -> Packed:
    """Like `pack`, for log-probabilities only: drop each row's last token, because it predicts
    nothing, and store a prefix that several rows share once.

    Rows are sorted by their tokens in descending order, so that rows with a common prefix are
    neighbours. All rows attend to the prefix that they share; `cu_seqlens` counts the other tokens.
    A row that is a prefix of another row has no tokens and no cells of its own. Runs on the CPU.

    Anchor: rows 5 6 7 and 5 6 8 9, whose prompts are 5 6, give the packed sequence 5 6 8: the
    single 6 predicts both 7 and 8, and 8 predicts 9.
    """
    rows, width = ids.shape
    id_rows, mask = ids.numpy(), completion_mask.numpy().astype(bool)
    columns = np.arange(width)
    lengths = (mask * columns).max(1)
    texts = [row[:length] for row, length in zip(id_rows.tolist(), lengths.tolist())]
    order = np.array(sorted(range(rows), key=texts.__getitem__, reverse=True))
    id_rows, mask, lengths = id_rows[order], mask[order], lengths[order]
    real = columns < lengths[:, None]
    own = real.copy()  # Tokens that differ from the row before, from the first difference on.
    own[1:] &= ~np.logical_and.accumulate(
        real[1:] & real[:-1] & (id_rows[1:] == id_rows[:-1]), axis=1
    )
    real &= own.any(1, keepdims=True)
    # Index in the packed sequence; a shared token has the index of the row that stores it.
    packed_index = np.maximum.accumulate(
        np.where(own, own.cumsum().reshape(own.shape) - 1, -1)
    ).ravel()
    real_tokens, own_tokens, target_tokens, repeated_tokens = map(
        np.flatnonzero, (real, own, mask, real & ~own)
    )
    flat_positions, flat_ids = (order[:, None] * width + columns).ravel(), id_rows.ravel()
    cell_of_position, length_buckets = _padded_cells(real.sum(1), columns)
    n_cells = length_buckets[-1].tokens.stop if length_buckets else 0
    token_of_cell = np.zeros(n_cells, cell_of_position.dtype)
    token_of_cell[cell_of_position[real_tokens]] = packed_index[real_tokens]
    tensor = torch.from_numpy
    return Packed(
        ids=tensor(flat_ids[own_tokens]),
        positions=tensor(own_tokens % width),
        cu_seqlens=tensor(np.concatenate([[0], own.sum(1).cumsum()]).astype(np.int32)),
        flat_positions=tensor(flat_positions[own_tokens]),
        predictor_indices=tensor(packed_index[target_tokens - 1]),
        target_ids=tensor(flat_ids[target_tokens]),
        target_flat_positions=tensor(flat_positions[target_tokens]),
        rows=rows,
        width=width,
        length_buckets=length_buckets,
        padded=PaddedLayout(
            token_of_cell=tensor(token_of_cell),
            cell_of_token=tensor(cell_of_position[own_tokens]),
            shared_tokens=(
                tensor(packed_index[repeated_tokens]),
                tensor(cell_of_position[repeated_tokens]),
            ),
        ),
    )


def _padded_cells(
    lengths: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, list[LengthBucket]]:
    """Pad rows of `lengths` (B,) by length bucket, the longest rows first.

    Returns the cell of each position (B·T,), valid where the column is below the row's length, and
    the buckets as slices of the cells.
    """
    descending = (-lengths).argsort(kind="stable")
    buckets: list[LengthBucket] = []
    first_cells: list[int] = []
    end = 0
    for bucket in _length_buckets(lengths[descending].tolist()):
        size = bucket.rows * bucket.width
        buckets.append(LengthBucket(bucket.rows, slice(end, end + size), bucket.width))
        first_cells += range(end, end + size, bucket.width)
        end += size
    starts = np.empty_like(lengths)
    starts[descending] = first_cells + [end] * (len(lengths) - len(first_cells))
    return (starts[:, None] + columns).ravel(), buckets


def _length_buckets(lengths: list[int]) -> list[LengthBucket]:
    """Cut descending `lengths` before each row that is shorter than `MIN_LENGTH_RATIO` of its
    bucket's first row.
    """
    buckets: list[LengthBucket] = []
    first_row = first_token = 0
    for row, length in enumerate([*lengths, 0]):
        if length < MIN_LENGTH_RATIO * lengths[first_row]:
            end = first_token + sum(lengths[first_row:row])
            buckets.append(
                LengthBucket(row - first_row, slice(first_token, end), lengths[first_row])
            )
            first_row, first_token = row, end
    return buckets
