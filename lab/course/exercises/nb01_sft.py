"""Notebook 01, stage 1: the loss of supervised fine-tuning."""

import torch

from lab.algorithms.losses import sft_loss
from lab.algorithms.reductions import token_mean
from lab.course.exercise import Exercise, KnownMistake, RandomInputs


def _token_logps(draw: RandomInputs) -> tuple[torch.Tensor, torch.Tensor]:
    """Return negative log-probabilities (3, 9), prompt and padding included, and a mask of the
    completions.
    """
    return -draw.normal(3, 9, mean=1.0).abs(), draw.mask(3, 9)


SFT_LOSS = Exercise(
    "my_sft_loss",
    1,
    ("token_logps", "completion_mask"),
    "one number: the mean over the completions' tokens",
    lambda logps, mask: token_mean(sft_loss(logps)[0], mask),
    _token_logps,
    (
        KnownMistake(
            "sign",
            lambda p, m: (p * m).sum() / m.sum(),
            "Your sign is reversed. Training lowers a loss, so this makes the demonstrations less"
            " likely.",
        ),
        KnownMistake(
            "mask forgotten",
            lambda p, m: -p.mean(),
            "You average over all tokens. Then the model also learns to write prompts and padding."
            " Use only the tokens inside the mask.",
        ),
        KnownMistake(
            "mask in the sum only",
            lambda p, m: -(p * m).mean(),
            "You divide by the number of all tokens, padding included. Divide by mask.sum().",
        ),
        KnownMistake(
            "mask in the count only",
            lambda p, m: -p.sum() / m.sum(),
            "Your sum includes prompt and padding. Multiply by the mask before you sum.",
        ),
        KnownMistake(
            "mean of means",
            lambda p, m: -((p * m).sum(1) / m.sum(1)).mean(),
            "You average within each completion first. Here every token has the same weight: divide"
            " the sum over all tokens by their number.",
        ),
        KnownMistake(
            "sum over tokens",
            lambda p, m: -(p * m).sum(),
            "You return the sum. Divide it by the number of tokens in the mask.",
        ),
        KnownMistake(
            "sum over each completion",
            lambda p, m: -(p * m).sum(1).mean(),
            "You divide by the number of completions. Divide by the number of tokens in the mask.",
        ),
    ),
)

EXERCISES = (SFT_LOSS,)
