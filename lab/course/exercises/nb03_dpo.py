"""Notebook 03: from tokens to the DPO loss."""

import torch
from torch.nn.functional import logsigmoid

from lab.algorithms.logprobs import sequence_logps
from lab.algorithms.losses import dpo_loss
from lab.course.exercise import Exercise, KnownMistake, RandomInputs
from lab.data.batching import collate
from lab.data.token_rows import EncodedExample

_END_ID = 1  # The id of the end token, which also pads.


def _rows(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return right-padded ids (3, T) of prompts with completions, the prompt lengths (3,), and the
    id of the end token, which also pads. All lengths differ.
    """
    starts, lengths = draw.random.sample(range(1, 5), 3), draw.random.sample(range(2, 7), 3)
    examples = [
        EncodedExample([draw.random.randint(2, 19) for _ in range(s + n - 1)] + [_END_ID], s)
        for s, n in zip(starts, lengths)
    ]
    return collate(examples, _END_ID).ids, torch.tensor(starts), _END_ID


def _lab_mask(ids: torch.Tensor, prompt_lengths: torch.Tensor, end: int) -> torch.Tensor:
    """Return the mask as the lab builds it, from lengths: the completion ends at the first end
    token after the prompt.
    """
    rows = [(row, start) for row, start in zip(ids.tolist(), prompt_lengths.tolist())]
    examples = [EncodedExample(row[: row.index(end, start) + 1], start) for row, start in rows]
    return torch.nn.functional.pad(
        mask := collate(examples, end).completion_mask, (0, ids.shape[1] - mask.shape[1])
    )


def _position(ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1])[None, :]


COMPLETION_MASK = Exercise(
    "my_completion_mask",
    3,
    ("ids", "prompt_lengths", "end_id"),
    "a (B, T) mask that is true on the completion's tokens and on its first end token",
    _lab_mask,
    _rows,
    (
        KnownMistake(
            "end token dropped",
            lambda ids, starts, end: _lab_mask(ids, starts, end) & (ids != end),
            "You leave out the end token: ids != end_id removes it together with the padding. A "
            "model that is trained this way never learns to stop. Build the mask from lengths.",
        ),
        KnownMistake(
            "prompt counted",
            lambda ids, starts, end: (
                _lab_mask(ids, starts, end) | (_position(ids) < starts[:, None])
            ),
            "You count the prompt's tokens. They are the same in both completions of a pair. "
            "Start at prompt_length.",
        ),
        KnownMistake(
            "padding counted",
            lambda ids, starts, end: _position(ids) >= starts[:, None],
            "You count the padding. Stop after the first end token.",
        ),
        KnownMistake(
            "one too early",
            lambda ids, starts, end: (
                _lab_mask(ids, starts, end) | (_position(ids) == starts[:, None] - 1)
            ),
            "You start one token too early. The prompt's tokens are 0 to prompt_length − 1.",
        ),
        KnownMistake(
            "one too late",
            lambda ids, starts, end: (
                _lab_mask(ids, starts, end) & (_position(ids) > starts[:, None])
            ),
            "You leave out the completion's first token. Its position is prompt_length.",
        ),
    ),
)


def _token_logps(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    return -draw.normal(3, 9).abs(), draw.mask(3, 9)


def _without_last(mask: torch.Tensor) -> torch.Tensor:
    return mask & (mask.flip(1).cumsum(1).flip(1) > 1)


SEQUENCE_LOGPS = Exercise(
    "my_sequence_logps",
    3,
    ("token_logps", "completion_mask"),
    "(B,) log-probabilities, one for each completion",
    sequence_logps,
    _token_logps,
    (
        KnownMistake(
            "prompt counted",
            lambda p, m: p.sum(1),
            "You add all tokens. The policy wrote only the tokens inside completion_mask.",
        ),
        KnownMistake(
            "mean instead of sum",
            lambda p, m: (p * m).sum(1) / m.sum(1),
            "You average over tokens. The probability of a completion is the product of its "
            "tokens' probabilities, so its logarithm is their sum.",
        ),
        KnownMistake(
            "end token dropped",
            lambda p, m: (p * _without_last(m)).sum(1),
            "You leave out the last token of each completion. It is the end token, and the "
            "policy chooses it too.",
        ),
        KnownMistake(
            "probability",
            lambda p, m: (p * m).sum(1).exp(),
            "You give probabilities. Keep the logarithms: the probability of a long completion "
            "is too small for a float.",
        ),
        KnownMistake(
            "summed over the batch",
            lambda p, m: (p * m).sum(),
            "You sum over the batch too. Return one number for each row: sum(1).",
        ),
    ),
)


def pair_inputs(
    draw: RandomInputs, max_beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """Return log-probabilities (5,) of chosen and rejected under the policy and under the
    reference, and a β.
    """
    reference = draw.normal(2, 5, mean=-20, std=4)
    chosen, rejected = reference + draw.normal(2, 5, std=4)
    return chosen, rejected, reference[0], reference[1], draw.between(0.05, max_beta)


def margin_of_pairs(
    pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor
) -> torch.Tensor:
    """Return h of pairs, from log-probabilities under the policy (p) and the reference (q)."""
    return (pw - qw) - (pl - ql)


_h = margin_of_pairs


def _pair_inputs(
    draw: RandomInputs,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float]:
    return pair_inputs(draw, max_beta=0.5)


PAIR_ARGUMENTS = (
    "chosen_logps",
    "rejected_logps",
    "reference_chosen_logps",
    "reference_rejected_logps",
)

DPO_LOSS = Exercise(
    "my_dpo_loss",
    3,
    (*PAIR_ARGUMENTS, "beta"),
    "(B,) losses, one for each pair",
    lambda pw, pl, qw, ql, beta: dpo_loss(pw, pl, qw, ql, beta=beta)[0],
    _pair_inputs,
    (
        KnownMistake(
            "β forgotten",
            lambda pw, pl, qw, ql, beta: -logsigmoid(_h(pw, pl, qw, ql)),
            "β is missing inside the sigmoid: −log σ(β·h).",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * (pw - pl)),
            "The reference is missing. Without it, a chosen completion that was more likely from"
            " the start already has a low loss. h is a difference of log-ratios.",
        ),
        KnownMistake(
            "sign",
            lambda pw, pl, qw, ql, beta: -logsigmoid(-beta * _h(pw, pl, qw, ql)),
            "Your sign is reversed. Your loss raises the rejected completion.",
        ),
        KnownMistake(
            "minus forgotten",
            lambda pw, pl, qw, ql, beta: logsigmoid(beta * _h(pw, pl, qw, ql)),
            "The minus in front of log σ is missing.",
        ),
        KnownMistake(
            "reference added",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * (pw - pl + qw - ql)),
            "You add the reference's log-ratio. Subtract it.",
        ),
        KnownMistake(
            "plus for minus",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * ((pw - qw) + (pl - ql))),
            "You add the two log-ratios. h is the chosen one minus the rejected one.",
        ),
        KnownMistake(
            "β on the first term only",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * (pw - qw) - (pl - ql)),
            "β multiplies the chosen log-ratio only. Put both in brackets: β·(chosen − rejected).",
        ),
        KnownMistake(
            "quotient of logs",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * (pw / qw - pl / ql)),
            "You divide log-probabilities. The log of a ratio is a difference: log π − log π_ref.",
        ),
        KnownMistake(
            "IPO",
            lambda pw, pl, qw, ql, beta: (_h(pw, pl, qw, ql) - 1 / (2 * beta)) ** 2,
            "This is IPO's loss. DPO's is −log σ(β·h).",
        ),
        KnownMistake(
            "β outside",
            lambda pw, pl, qw, ql, beta: -beta * logsigmoid(_h(pw, pl, qw, ql)),
            "You put β outside the sigmoid. There it only scales the loss. Inside, it also sets "
            "how fast the pull falls as h grows.",
        ),
        KnownMistake(
            "β divides",
            lambda pw, pl, qw, ql, beta: -logsigmoid(_h(pw, pl, qw, ql) / beta),
            "You divide by β. The implied reward is β times the log-ratio.",
        ),
        KnownMistake(
            "log forgotten",
            lambda pw, pl, qw, ql, beta: 1 - torch.sigmoid(beta * _h(pw, pl, qw, ql)),
            "You use 1 − σ, which is not a log-likelihood. Use −log σ, with logsigmoid.",
        ),
        KnownMistake(
            "averaged",
            lambda pw, pl, qw, ql, beta: -logsigmoid(beta * _h(pw, pl, qw, ql)).mean(),
            "You average over the pairs. The lab's losses are one number for each pair; "
            "averaging is a separate step.",
        ),
    ),
)


def _lab_weight(
    pw: torch.Tensor, pl: torch.Tensor, qw: torch.Tensor, ql: torch.Tensor, beta: float
) -> torch.Tensor:
    """Return the factor of ∇log π(y_w|x) in the gradient of the lab's loss, from autograd."""
    chosen = pw.clone().requires_grad_(True)
    losses, _ = dpo_loss(chosen, pl, qw, ql, beta=beta)
    return -torch.autograd.grad(losses.sum(), chosen)[0]


DPO_GRADIENT_WEIGHT = Exercise(
    "my_dpo_gradient_weight",
    3,
    (*PAIR_ARGUMENTS, "beta"),
    "(B,) weights, one for each pair",
    _lab_weight,
    _pair_inputs,
    (
        KnownMistake(
            "β in front forgotten",
            lambda pw, pl, qw, ql, beta: torch.sigmoid(-beta * _h(pw, pl, qw, ql)),
            "The factor β in front is missing. The chain rule gives it.",
        ),
        KnownMistake(
            "sign",
            lambda pw, pl, qw, ql, beta: beta * torch.sigmoid(beta * _h(pw, pl, qw, ql)),
            "Your weight is large where the pair is already right. It must be σ(−β·h): a pair in"
            " the wrong order pulls most.",
        ),
        KnownMistake(
            "derivative of σ",
            lambda pw, pl, qw, ql, beta: (
                beta
                * torch.sigmoid(beta * _h(pw, pl, qw, ql))
                * torch.sigmoid(-beta * _h(pw, pl, qw, ql))
            ),
            "σ·(1 − σ) is the derivative of σ. The loss is −log σ, and the log cancels one of "
            "the two factors.",
        ),
        KnownMistake(
            "β inside forgotten",
            lambda pw, pl, qw, ql, beta: beta * torch.sigmoid(-_h(pw, pl, qw, ql)),
            "β is missing inside the sigmoid: σ(−β·h).",
        ),
        KnownMistake(
            "reference not subtracted",
            lambda pw, pl, qw, ql, beta: beta * torch.sigmoid(-beta * (pw - pl)),
            "The reference is missing in h.",
        ),
    ),
)

EXERCISES = (COMPLETION_MASK, SEQUENCE_LOGPS, DPO_LOSS, DPO_GRADIENT_WEIGHT)
