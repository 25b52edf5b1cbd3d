"""A right-padded batch without its padding: the tokens of all rows in one line, so that work grows
with tokens and not with the longest row.
"""

from dataclasses import dataclass

import numpy as np
import torch

SIMILAR = 0.75  # Rows of a stretch are at least so long, measured by its longest.


@dataclass(frozen=True)
class LengthBucket:
    """Rows of about one length that lie next to each other in the line: their number, their tokens
    there, and the longest.
    """

    rows: int
    tokens: slice
    width: int


@dataclass(frozen=True)
class Padded:
    """The rows of a packed batch laid out for attention that needs padded rows, stretch after
    stretch, C cells in all.

    `sources` (C,) is the place in the line of what a cell holds, any place where it is padding;
    `picks` (N,) is the cell of each token's own query; `again` are the places, and the cells, of
    the tokens that lie in further cells: the beginnings of rows that share another's.
    """

    sources: torch.Tensor
    picks: torch.Tensor
    again: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Packed:
    """N real tokens of B rows, row after row, long rows first; nothing after a row's last
    completion token.

    `ids`, `positions` (N,) are the tokens and their places within their rows; `edges` (B + 1,) is
    where each row begins, and the end; `cells` (N,) is where each token lies in the flattened (B,
    T) batch, of `rows` B and `width` T. Of the M completion tokens, `predictors` (M,) are the
    places in the line of the tokens before them, `targets` (M,) their ids and `homes` (M,) their
    cells. `stretches` cut the line, or where `padded` is given its cells, for work that needs
    padded rows.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    edges: torch.Tensor
    cells: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    homes: torch.Tensor
    rows: int
    width: int
    stretches: list[LengthBucket]
    padded: Padded | None = None

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each completion token (M,) as a padded batch (B, T), 0 elsewhere; gradients
        flow back.
        """
        return (
            values.new_zeros(self.rows * self.width)
            .index_copy(0, self.homes, values)
            .view(self.rows, self.width)
        )

    def spread_all(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each real token (N,) as a padded batch (B, T), 0 elsewhere; gradients flow
        back.
        """
        return (
            values.new_zeros(self.rows * self.width)
            .index_copy(0, self.cells, values)
            .view(self.rows, self.width)
        )


def uniform(rows: int, length: int, prompt: int, width: int) -> Packed:
    """A batch (rows, width) whose every row is `length` long, `prompt` of it the prompt, its tokens
    all 0.
    """
    row, place = torch.arange(rows).repeat_interleave(length), torch.arange(length).repeat(rows)
    completion = (
        torch.arange(prompt, length).repeat(rows)
        + torch.arange(rows).repeat_interleave(length - prompt) * length
    )
    cells = row * width + place
    return Packed(
        torch.zeros_like(cells),
        place,
        torch.arange(rows + 1, dtype=torch.int32) * length,
        cells,
        completion - 1,
        torch.zeros_like(completion),
        cells[completion],
        rows,
        width,
        [LengthBucket(rows, slice(0, rows * length), length)],
    )


def pack(ids: torch.Tensor, completion_mask: torch.Tensor) -> Packed:
    """Pack right-padded `ids` (B, T) up to each row's last completion token, as `completion_mask`
    (B, T) says.

    A first token has nothing before it that could predict it and must not be a completion token.
    Anchor: rows of 2 and 3 real tokens with one completion token each give N = 5, the longer row
    first, edges 0, 3, 5 and predictors 1, 3.
    """
    rows, width = ids.shape
    place = torch.arange(width, device=ids.device)
    mask = completion_mask.bool()
    lengths, order = (mask * (place + 1)).amax(1).sort(descending=True, stable=True)
    cells = (order[:, None] * width + place)[place < lengths[:, None]]
    edges = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    scored = mask.flatten()[cells].nonzero().squeeze(1)
    flat, homes = ids.flatten(), cells[scored]
    stretches = (
        _stretches(lengths.tolist())
        if ids.device.type == "cpu"
        else [LengthBucket(rows, slice(0, len(cells)), width)]
    )
    return Packed(
        flat[cells],
        cells % width,
        edges,
        cells,
        scored - 1,
        flat[homes],
        homes,
        rows,
        width,
        stretches,
    )


def pack_shared_prefix(ids: torch.Tensor, completion_mask: torch.Tensor) -> Packed:
    """`pack` for who asks only how likely the completion tokens are: without each row's last token,
    which predicts none, and with a beginning that several rows share, a prompt or more, in the line
    once. Rows are in the falling order of their tokens; all attend to what they share, and `edges`
    count the rest. A row that another begins with has none, and no cells.

    Anchor: rows 5 6 7 and 5 6 8 9, of which 5 6 are the prompts, give the line 5 6 8: 7 and 8 are
    both predicted from the one 6, and 9 from 8.
    """
    rows, width = ids.shape
    ids, mask, place = ids.numpy(), completion_mask.numpy().astype(bool), np.arange(width)
    lengths = (mask * place).max(1)
    texts = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist())]
    order = np.array(sorted(range(rows), key=texts.__getitem__, reverse=True))
    ids, mask, lengths = ids[order], mask[order], lengths[order]
    real = place < lengths[:, None]
    own = real.copy()
    own[1:] &= ~np.logical_and.accumulate(
        real[1:] & real[:-1] & (ids[1:] == ids[:-1]), axis=1
    )  # What is not as in the row before.
    real &= own.any(1, keepdims=True)
    where = np.maximum.accumulate(
        np.where(own, own.cumsum().reshape(own.shape) - 1, -1)
    ).ravel()  # In the line; of shared tokens the owner's.
    every, here, scored, twice = map(np.flatnonzero, (real, own, mask, real & ~own))
    cells, texts, lengths = (order[:, None] * width + place).ravel(), ids.ravel(), real.sum(1)
    falling = (-lengths).argsort(kind="stable")
    stretches, firsts = _cells(lengths[falling].tolist())
    starts = np.empty_like(lengths)
    starts[falling] = firsts
    laid = (starts[:, None] + place).ravel()
    sources = np.zeros(stretches[-1].tokens.stop if stretches else 0, laid.dtype)
    sources[laid[every]] = where[every]
    edges = np.concatenate([[0], own.sum(1).cumsum()]).astype(np.int32)
    line = map(
        torch.from_numpy,
        (
            texts[here],
            here % width,
            edges,
            cells[here],
            where[scored - 1],
            texts[scored],
            cells[scored],
        ),
    )
    sources, picks, *again = map(torch.from_numpy, (sources, laid[here], where[twice], laid[twice]))
    return Packed(*line, rows, width, stretches, Padded(sources, picks, tuple(again)))


def _cells(lengths: list[int]) -> tuple[list[LengthBucket], list[int]]:
    """The stretches of rows of falling lengths as slices of the cells that padding them takes, and
    the first cell of each row.
    """
    stretches, firsts, end = [], [], 0
    for s in _stretches(lengths):
        stretches.append(LengthBucket(s.rows, slice(end, end + s.rows * s.width), s.width))
        firsts += range(end, end + s.rows * s.width, s.width)
        end += s.rows * s.width
    return stretches, firsts + [end] * (len(lengths) - len(firsts))


def _stretches(lengths: list[int]) -> list[LengthBucket]:
    """Falling lengths, cut where a row is shorter than `SIMILAR` of the stretch's first."""
    found, start, begin = [], 0, 0
    for i, length in enumerate([*lengths, 0]):
        if length < SIMILAR * lengths[start]:
            end = begin + sum(lengths[start:i])
            found.append(LengthBucket(i - start, slice(begin, end), lengths[start]))
            start, begin = i, end
    return found
