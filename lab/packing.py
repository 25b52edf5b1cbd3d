"""A right-padded batch without its padding: the tokens of all rows in one line, so that work grows with tokens and not with the longest row."""

import itertools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packed:
    """N real tokens of B rows, row after row; nothing after a row's last completion token.

    `ids`, `positions` (N,) are the tokens and their places within their rows; `edges` (B + 1,) is where each row begins, and the end;
    `cells` (N,) is where each token lies in the flattened (B, T) batch, of `rows` B and `width` T. Of the M completion tokens, `predictors` (M,)
    are the places in the line of the tokens before them, `targets` (M,) their ids and `homes` (M,) their cells.
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

    def spread(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each completion token (M,) as a padded batch (B, T), 0 elsewhere; gradients flow back."""
        return values.new_zeros(self.rows * self.width).index_copy(0, self.homes, values).view(self.rows, self.width)

    def spread_all(self, values: torch.Tensor) -> torch.Tensor:
        """One value for each real token (N,) as a padded batch (B, T), 0 elsewhere; gradients flow back."""
        return values.new_zeros(self.rows * self.width).index_copy(0, self.cells, values).view(self.rows, self.width)


def uniform(rows: int, length: int, prompt: int, width: int) -> Packed:
    """A batch (rows, width) whose every row is `length` long, `prompt` of it the prompt, its tokens all 0."""
    row, place = torch.arange(rows).repeat_interleave(length), torch.arange(length).repeat(rows)
    completion = torch.arange(prompt, length).repeat(rows) + torch.arange(rows).repeat_interleave(length - prompt) * length
    cells = row * width + place
    return Packed(torch.zeros_like(cells), place, torch.arange(rows + 1, dtype=torch.int32) * length, cells, completion - 1,
                  torch.zeros_like(completion), cells[completion], rows, width)


def pack_rows(rows: list[list[int]], device: torch.device) -> Packed:
    """Rows of tokens, none of them a completion token."""
    width, sizes = max(map(len, rows)), [len(row) for row in rows]
    packed = [(token, place, width * i + place) for i, row in enumerate(rows) for place, token in enumerate(row)]
    ids, positions, cells = torch.tensor(packed, device=device).unbind(1)
    edges = torch.tensor([0, *itertools.accumulate(sizes)], dtype=torch.int32, device=device)
    none = ids[:0]
    return Packed(ids.contiguous(), positions.contiguous(), edges, cells.contiguous(), none, none, none, len(rows), width)


def pack(ids: torch.Tensor, completion_mask: torch.Tensor) -> Packed:
    """Pack right-padded `ids` (B, T) up to each row's last completion token, as `completion_mask` (B, T) says.

    A first token has nothing before it that could predict it and must not be a completion token.
    Anchor: rows of 3 and 2 real tokens with one completion token each give N = 5, edges 0, 3, 5 and predictors 1, 3.
    """
    rows, width = ids.shape
    place = torch.arange(width, device=ids.device)
    mask = completion_mask.bool()
    lengths = (mask * (place + 1)).amax(1)
    real = place < lengths[:, None]
    cells = real.flatten().nonzero().squeeze(1)
    edges = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).to(torch.int32)
    scored = mask.flatten()[cells].nonzero().squeeze(1)
    flat = ids.flatten()
    homes = cells[scored]
    return Packed(flat[cells], cells % width, edges, cells, scored - 1, flat[homes], homes, rows, width)
