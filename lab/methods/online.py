"""What the online methods share: rollouts of the current policy, cut into parts, and who scores them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from lab import parallel
from lab.data import Tokens
from lab.decoder import Decoder, decoder_of
from lab.heads import load_trained
from lab.methods import Run, cut
from lab.objectives import fixed_length, sequence_mean, token_mean
from lab.rollout import Rollout, roll_out

GOLD = ("gold", "")
ROOM = 5 * 2**29
"""Bytes that a piece of a rollout may keep on a GPU for its way back: by then it has tokens enough to keep the GPU busy, and more are only more memory."""


@dataclass
class Part:
    """Some `rows` of a rollout and their tokens; `total_sequences` and `total_tokens` count the whole batch."""

    tokens: Tokens
    rollout: Rollout
    rows: torch.Tensor
    total_sequences: int
    total_tokens: int


def fresh_rollout(run: Run, *, group_size: int) -> Rollout:
    """A rollout of the current policy for the next update, scored by the run's reward model if it has one, otherwise by the rule `reward`."""
    rollout = roll_out(run.model, run.tokenizer, run.task, run.config, group_size=group_size, rule=run.config.reward, reward_model=run.reward_model,
                       step=run.step + 1, device=run.device, phase=run.phase)
    run.generated += parallel.total(int(rollout.completion_mask.sum()))
    return rollout


def parts(run: Run, rows: list[int]) -> list[Part]:
    """The `rows` of the whole rollout, as far as they lie here, as micro-batches: as many as the config says, and on a GPU as `ROOM` asks for."""
    rollout = run.rollout
    here = parallel.own(rows, len(rollout.rewards))
    total = parallel.total(int(rollout.completion_mask[here].sum()))
    count = max(run.config.micro_batches, fitting(decoder_of(run.model), len(here) * rollout.ids.shape[1]))
    pieces = [torch.tensor(piece, device=run.device) for piece in cut(here, count)]
    return [Part(Tokens(rollout.ids[p], rollout.completion_mask[p]), rollout, p, len(rows), total) for p in pieces]


def fitting(decoder: Decoder | None, tokens: int) -> int:
    """In how many pieces a pass over so many tokens stays within `ROOM`: a power of two, so that they are alike. 1 where nothing is known of it, or spared."""
    if decoder is None or not decoder.lean:
        return 1
    return 1 << (-(-decoder.keeps(tokens) // ROOM) - 1).bit_length()


def reduced(run: Run, part: Part, losses: torch.Tensor) -> torch.Tensor:
    """Token losses (B, T) of a part as its share of the batch's loss, reduced as the config names."""
    mask = part.tokens.completion_mask
    reductions: dict[str, Callable[[], torch.Tensor]] = {
        "sequence_mean": lambda: sequence_mean(losses, mask, part.total_sequences),
        "token_mean": lambda: token_mean(losses, mask, part.total_tokens),
        "fixed_length": lambda: fixed_length(losses, mask, run.config.max_completion_tokens, part.total_sequences)}
    return reductions[run.config.reduction]()


def attach_reward_model(run: Run) -> None:
    """Load the reward model that `reward_from` names, on a copy of its own base; nothing for gold."""
    if run.config.reward_from not in GOLD:
        run.reward_model = load_trained(run.config.reward_from, run.config, run.tokenizer, run.device)
