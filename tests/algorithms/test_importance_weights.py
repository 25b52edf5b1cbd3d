"""Importance weights of tokens that another engine sampled, against the plain formula."""

import math

import pytest
import torch

from lab.algorithms.policy_losses import grpo_loss, importance_weights
from lab.errors import LabError

NAN = float("nan")
OLD = [[-1.0, -2.0, -0.5, -9.0], [-1.0, -0.2, -3.0, -0.1]]
SAMPLED = [[-1.5, -3.0, -0.4, -1.0], [-1.1, NAN, -3.2, -2.1]]
MASK = [[True, True, True, False], [True, True, True, True]]
CAP = 2.5


def plain(mode):
    """The weights by loops over rows and tokens."""
    level, limit = mode.split("_")
    rows = []
    for old, sampled, inside in zip(OLD, SAMPLED, MASK):
        logs = [0.0 if not i or math.isnan(s) else o - s for o, s, i in zip(old, sampled, inside)]
        logs = logs if level == "token" else [sum(logs)] * len(logs)
        capped = 0.0 if limit == "mask" else CAP
        rows.append([math.exp(x) if math.exp(x) <= CAP else capped for x in logs])
    return torch.tensor(rows)


def weights(mode, clip_max=CAP, old=OLD, sampled=SAMPLED, mask=MASK):
    tensors = torch.tensor(old), torch.tensor(sampled), torch.tensor(mask)
    return importance_weights(*tensors, mode=mode, clip_max=clip_max)


@pytest.mark.parametrize(
    "mode", ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
)
def test_weights_are_those_of_the_plain_formula(mode):
    torch.testing.assert_close(weights(mode), plain(mode), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "mode, expected",
    [
        ("token_truncate", [1.6487213, 2.7182818]),
        ("token_mask", [1.6487213, 2.7182818]),
        ("sequence_truncate", [3.0, 3.0]),
        ("sequence_mask", [0.0, 0.0]),
    ],
)
def test_differences_of_a_half_and_one_nat_have_the_weights_of_the_docstring(mode, expected):
    found = weights(mode, 3.0, [[-1.0, -1.0]], [[-1.5, -2.0]], [[True, True]])
    torch.testing.assert_close(found, torch.tensor([expected]))


def test_weights_take_no_gradient_and_an_unknown_mode_is_refused():
    old = torch.tensor(OLD, requires_grad=True)
    tensors = old, torch.tensor(SAMPLED), torch.tensor(MASK)
    assert not importance_weights(*tensors, mode="token_mask", clip_max=CAP).requires_grad
    with pytest.raises(LabError, match="sequence_mask"):
        weights("sequence_cap")


def test_grpo_multiplies_the_surrogate_by_the_weights_and_not_the_kl_term():
    logps = torch.tensor(OLD, requires_grad=True)
    mask, advantages = torch.tensor(MASK), torch.tensor([0.7, -1.2])
    reference = torch.tensor(OLD) - 0.3
    factor = weights("token_truncate")
    losses, _ = grpo_loss(
        logps,
        torch.tensor(OLD),
        reference,
        advantages,
        mask,
        beta=0.5,
        epsilon=0.2,
        epsilon_high=0.2,
        kl_estimator="k3",
        sampling_weights=factor,
    )
    k3 = math.exp(-0.3) + 0.3 - 1
    expected = torch.where(mask, -factor * advantages[:, None] + 0.5 * k3, 0.0)
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)
    losses.sum().backward()
    # At a ratio of 1 the surrogate's gradient is −w·A, that of k3 is 1 − e^x with x = −0.3.
    slopes = -factor * advantages[:, None] + 0.5 * (1 - math.exp(-0.3))
    torch.testing.assert_close(logps.grad, torch.where(mask, slopes, 0.0), rtol=1e-5, atol=1e-6)
