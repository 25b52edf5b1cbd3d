"""Agreement of a model with held-out preference pairs, the same measure for every method."""

from __future__ import annotations

import torch

from lab.config.methods import method_of
from lab.data.batching import collate, encode_examples
from lab.data.examples import Pair
from lab.data.parsing import parse_examples, parse_pair
from lab.data.readers import read_numbered_rows
from lab.data.rows import row_location
from lab.data.token_rows import TextPair
from lab.engine.pair_margins import PAIRS_AT_ONCE, pair_margins
from lab.engine.token_logprobs import score
from lab.errors import LabError
from lab.training.state import TrainState

GROUPS = ("pairs", "own", "rule")
"""Groups of eval_pairs; a row without the column group belongs to the first."""
ONLINE_MAX_LENGTH = 1024
"""Tokens of a pair where the config has no max_length."""


def load_eval_pairs(source: str) -> tuple[list[Pair], list[str]]:
    """Returns the pairs of a file, and the group of each.

    Raises `LabError`, which names the line, for a row that is no preference pair or has another group.
    """
    rows = read_numbered_rows(source)
    pairs, groups = parse_examples(rows, source, parse_pair), []
    for number, row in rows:
        groups.append(row.get("group", GROUPS[0]))
        if groups[-1] not in GROUPS:
            raise LabError(
                f"{row_location(source, number)}: 'group' is {groups[-1]!r:.40}, but takes"
                f" {', '.join(GROUPS)}. Leave the column out for one group."
            )
    return pairs, groups


@torch.no_grad()
def evaluate_agreement(run: TrainState) -> dict[str, float]:
    """Returns for each group of `eval_pairs` the share of pairs whose chosen completion the model prefers,
    a tie as one half; nothing where the config names no file.
    """
    if not run.config.eval_pairs:
        return {}
    if "eval pairs" not in run.cache:
        run.cache["eval pairs"] = load_eval_pairs(run.config.eval_pairs)
    pairs, groups = run.cache["eval pairs"]
    margins = model_margins(run, pairs)
    agreed = (margins > 0).float() + 0.5 * (margins == 0).float()
    return {
        f"agreement/{group}": agreed[[own == group for own in groups]].mean().item()
        for group in GROUPS
        if group in groups
    }


def model_margins(run: TrainState, pairs: list[Pair]) -> torch.Tensor:
    """Returns by how much the model prefers the chosen completion of every pair (P,): h in nats, or the
    difference of scores of a reward model.
    """
    longest = getattr(run.config, "max_length", ONLINE_MAX_LENGTH)
    if method_of(run.config) != "reward_model":
        return pair_margins(run.model, run.tokenizer, pairs, run.device, longest).cpu()
    texts: list[TextPair] = [
        (pair.prompt, side) for pair in pairs for side in (pair.chosen, pair.rejected)
    ]
    examples = encode_examples(run.tokenizer, texts, longest, "completion of eval_pairs")
    scores = torch.cat(
        [
            score(
                run.model,
                collate(examples[i : i + 2 * PAIRS_AT_ONCE], run.tokenizer.pad_token_id).to(
                    run.device
                ),
            )
            for i in range(0, len(examples), 2 * PAIRS_AT_ONCE)
        ]
    )
    chosen, rejected = scores.cpu().view(-1, 2).unbind(1)
    return chosen - rejected
