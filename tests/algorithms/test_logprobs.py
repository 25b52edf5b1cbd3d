"""Log-probabilities, entropy and KL against hand-worked numbers, full enumeration and finite
differences.
"""

import math

import pytest
import torch

from lab.algorithms.kl import exact_kl, kl_estimate
from lab.algorithms.logprobs import sequence_logps, token_entropy, token_logps
from lab.errors import LabError

EXACT = {"rtol": 0, "atol": 1e-6}


def logits_and_ids(rows=3, length=6, vocabulary=7, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, vocabulary, generator=generator, dtype=torch.float64) * 2
    return logits.to(dtype), torch.randint(vocabulary, (rows, length), generator=generator)


def test_two_equal_logits_give_minus_log_2():
    logps = token_logps(torch.zeros(1, 2, 2), torch.tensor([[0, 1]]))
    torch.testing.assert_close(logps, torch.tensor([[0.0, -0.693147]]), **EXACT)


def test_entry_t_is_the_log_probability_of_token_t_given_those_before_it():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.2, 0.7], [1.0, 1.0, 1.0]]]))
    logps = token_logps(logits, torch.tensor([[2, 1, 0]]))
    torch.testing.assert_close(logps, torch.tensor([[0.0, math.log(0.25), math.log(0.1)]]), **EXACT)


def test_token_logps_agree_with_a_loop_over_the_definition():
    logits, ids = logits_and_ids()
    for temperature in (1.0, 0.5, 3.0):
        logps = token_logps(logits, ids, temperature)
        for b in range(3):
            for t in range(1, 6):
                weights = [math.exp(z / temperature) for z in logits[b, t - 1].tolist()]
                assert logps[b, t].item() == pytest.approx(
                    math.log(weights[ids[b, t]] / sum(weights)), abs=1e-12
                )


def test_a_low_temperature_makes_the_likeliest_token_certain():
    logits = torch.tensor([[[0.0, 1.0, -1.0], [0.0, 0.0, 0.0]]])
    assert token_logps(logits, torch.tensor([[0, 1]]), 0.01)[0, 1].item() == pytest.approx(
        0, abs=1e-6
    )
    assert token_logps(logits, torch.tensor([[0, 0]]), 0.01)[0, 1].item() == pytest.approx(
        -100, abs=1e-4
    )


def test_half_precision_logits_are_scored_in_float32_and_float64_stays_float64():
    for given, scored in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        logits, ids = logits_and_ids(dtype=given)
        exact = token_logps(logits.double(), ids)
        for value in (token_logps(logits, ids), token_entropy(logits), exact_kl(logits, logits)):
            assert value.dtype == scored
        torch.testing.assert_close(token_logps(logits, ids).double(), exact, rtol=1e-5, atol=1e-6)


def test_huge_logits_do_not_overflow():
    logits = torch.tensor([[[3e4, 0.0], [0.0, 0.0]]])
    assert token_logps(logits, torch.tensor([[0, 1]]))[0, 1].item() == pytest.approx(-3e4)
    assert token_entropy(logits)[0, 1].item() == 0
    assert exact_kl(logits, -logits)[0, 1].item() == pytest.approx(3e4)


def test_the_gradient_of_token_logps_is_one_hot_minus_softmax():
    logits, ids = logits_and_ids()
    logits.requires_grad_()
    temperature = 2.0
    token_logps(logits, ids, temperature).sum().backward()
    expected = torch.zeros_like(logits)
    for b in range(3):
        for t in range(1, 6):
            expected[b, t - 1] = (
                -torch.softmax(logits[b, t - 1].detach() / temperature, 0) / temperature
            )
            expected[b, t - 1, ids[b, t]] += 1 / temperature
    torch.testing.assert_close(logits.grad, expected)


def test_gradients_agree_with_finite_differences():
    logits, ids = logits_and_ids(rows=2, length=4, vocabulary=3)
    reference = logits_and_ids(rows=2, length=4, vocabulary=3, seed=1)[0]
    logits.requires_grad_()
    mask = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert torch.autograd.gradcheck(
        lambda z: sequence_logps(token_logps(z, ids, 0.7), mask), logits
    )
    assert torch.autograd.gradcheck(token_entropy, logits)
    assert torch.autograd.gradcheck(lambda z: exact_kl(z, reference), logits)


def test_sequence_logps_sum_over_the_completion_alone():
    logps = sequence_logps(torch.tensor([[-1.0, -2.0, -3.0, -4.0]]), torch.tensor([[0, 1, 1, 0]]))
    assert logps.tolist() == [-5.0]


def test_the_end_token_counts_even_when_it_is_also_the_padding_token():
    end = 0
    ids = torch.tensor(
        [[3, 1, end, end, end]]
    )  # prompt 3, completion 1 and the end token, then padding with the same id
    mask = torch.tensor([[False, True, True, False, False]])
    logits = torch.log(torch.tensor([[0.125, 0.5, 0.25, 0.125]])).expand(1, 5, 4)
    assert sequence_logps(token_logps(logits, ids), mask).item() == pytest.approx(
        math.log(0.5) + math.log(0.125), abs=1e-6
    )


def test_prompt_and_padding_positions_have_no_gradient():
    logits, ids = logits_and_ids(rows=1)
    logits.requires_grad_()
    mask = torch.tensor([[False, False, True, True, False, False]])
    sequence_logps(token_logps(logits, ids), mask).sum().backward()
    assert logits.grad[0].abs().sum(1).bool().tolist() == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]  # token t is predicted at t − 1


def test_adding_padding_on_either_side_changes_nothing():
    logits, ids = logits_and_ids(rows=2)
    mask = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 1, 0, 0]], dtype=torch.bool)
    plain = sequence_logps(token_logps(logits, ids), mask)
    junk_logits, junk_ids = logits_and_ids(rows=2, length=4, seed=5)
    right = sequence_logps(
        token_logps(torch.cat([logits, junk_logits], 1), torch.cat([ids, junk_ids], 1)),
        torch.cat([mask, torch.zeros(2, 4).bool()], 1),
    )
    left = sequence_logps(
        token_logps(torch.cat([junk_logits, logits], 1), torch.cat([junk_ids, ids], 1)),
        torch.cat([torch.zeros(2, 4).bool(), mask], 1),
    )
    torch.testing.assert_close(right, plain, rtol=0, atol=0)
    torch.testing.assert_close(left, plain, rtol=0, atol=0)


def test_what_stands_outside_the_mask_cannot_spoil_a_sum():
    logps = torch.tensor([[float("nan"), -1.0, -2.0, float("-inf")]])
    assert sequence_logps(logps, torch.tensor([[0, 1, 1, 0]])).item() == -3.0


def test_four_equal_logits_have_entropy_log_4():
    torch.testing.assert_close(
        token_entropy(torch.full((1, 2, 4), 3.0)), torch.tensor([[0.0, 1.386294]]), **EXACT
    )


def test_entropy_is_that_of_the_distribution_before_the_token():
    logits = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1], [0.3, 0.7]]]))
    expected = [0.0, math.log(2), -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))]
    torch.testing.assert_close(token_entropy(logits), torch.tensor([expected]), **EXACT)


def test_exact_kl_runs_from_the_policy_to_the_reference():
    policy, reference = (
        torch.log(torch.tensor([[[0.5, 0.5]] * 2])),
        torch.log(torch.tensor([[[0.25, 0.75]] * 2])),
    )
    torch.testing.assert_close(
        exact_kl(policy, reference), torch.tensor([[0.0, 0.143841]]), **EXACT
    )
    torch.testing.assert_close(
        exact_kl(reference, policy), torch.tensor([[0.0, 0.130812]]), **EXACT
    )


def test_exact_kl_to_itself_is_zero_and_agrees_with_torch_distributions():
    logits, _ = logits_and_ids()
    reference, _ = logits_and_ids(seed=1)
    assert exact_kl(logits, logits).abs().max() == 0
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Categorical(logits=reference),
    )
    torch.testing.assert_close(exact_kl(logits, reference)[:, 1:], expected[:, :-1])


@pytest.mark.parametrize(("estimator", "value"), [("k1", 1.0), ("k2", 0.5), ("k3", 0.367879)])
def test_kl_estimates_of_one_token_by_hand(estimator, value):
    torch.testing.assert_close(
        kl_estimate(torch.tensor([-1.0]), torch.tensor([-2.0]), estimator),
        torch.tensor([value]),
        **EXACT,
    )


def test_k3_of_the_wrong_sign_blows_up_at_a_gap_of_4_nats():
    policy, reference = torch.tensor([-1.0]), torch.tensor([-5.0])
    assert kl_estimate(policy, reference, "k3").item() == pytest.approx(
        math.exp(-4) + 3, rel=1e-6
    )  # 3.0
    assert kl_estimate(reference, policy, "k3").item() == pytest.approx(
        math.exp(4) - 5, rel=1e-6
    )  # 49.6


def expected_estimate(p, q, estimator):
    """Mean of an estimate over tokens drawn from p, by enumeration."""
    return (p * kl_estimate(p.log(), q.log(), estimator)).sum()


def test_k1_and_k3_average_to_the_kl_and_k3_of_the_wrong_sign_does_not():
    # By hand: π = (3/5, 2/5), π_ref = (1/5, 4/5). KL = ⅗·log 3 − ⅖·log 2 = 0.381908. With the sign
    # of x turned, k3 averages to
    # Σ π²/π_ref − 1 − KL = (9/5 + 1/5) − 1 − 0.381908 = 0.618092.
    p, q = (
        torch.tensor([0.6, 0.4], dtype=torch.float64),
        torch.tensor([0.2, 0.8], dtype=torch.float64),
    )
    assert expected_estimate(p, q, "k1").item() == pytest.approx(0.381908, abs=1e-6)
    assert expected_estimate(p, q, "k3").item() == pytest.approx(0.381908, abs=1e-6)
    assert (p * kl_estimate(q.log(), p.log(), "k3")).sum().item() == pytest.approx(
        0.618092, abs=1e-6
    )
    assert expected_estimate(p, q, "k2").item() == pytest.approx(
        0.6 * math.log(3) ** 2 / 2 + 0.4 * math.log(2) ** 2 / 2, abs=1e-6
    )


def test_a_kl_of_0_4045_reads_0_683_when_the_sign_of_k3_is_wrong():
    p, q = (
        torch.tensor([0.5952, 0.4048], dtype=torch.float64),
        torch.tensor([0.1878, 0.8122], dtype=torch.float64),
    )
    assert expected_estimate(p, q, "k3").item() == pytest.approx(
        0.4045, abs=1e-3
    )  # p and q are rounded to four places
    assert (p * kl_estimate(q.log(), p.log(), "k3")).sum().item() == pytest.approx(0.683, abs=1e-3)


def test_k2_and_k3_are_never_negative_and_k1_can_be():
    policy, reference = torch.linspace(-5, 0, 101), torch.linspace(0, -5, 101)
    assert kl_estimate(policy, reference, "k2").min() >= 0
    assert kl_estimate(policy, reference, "k3").min() >= 0
    assert kl_estimate(policy, reference, "k1").min() < 0


def test_k3_keeps_its_digits_at_a_tiny_gap():
    # eˣ − x − 1 = x²/2 + x³/6 + …; subtracting 1 from eˣ in float32 would leave nothing of it at x
    # = 1e-3.
    policy = torch.tensor([0.0])
    for x in (1e-3, -1e-3):
        assert kl_estimate(policy, torch.tensor([x]), "k3").item() == pytest.approx(
            x**2 / 2 + x**3 / 6, rel=2e-3
        )  # float32 rounds expm1(x) − x


@pytest.mark.parametrize(
    "call",
    [
        lambda: token_logps(torch.zeros(2, 3), torch.zeros(2, 3).long()),
        lambda: token_logps(torch.zeros(2, 3, 4), torch.zeros(2, 4).long()),
        lambda: token_logps(torch.zeros(2, 3, 4), torch.zeros(2, 3).long(), 0.0),
        lambda: sequence_logps(torch.zeros(2, 3), torch.zeros(2, 4)),
        lambda: sequence_logps(torch.zeros(3), torch.zeros(3)),
        lambda: token_entropy(torch.zeros(2, 3)),
        lambda: exact_kl(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)),
        lambda: kl_estimate(torch.zeros(2, 3), torch.zeros(2, 4), "k3"),
    ],
)
def test_shapes_that_do_not_fit_raise_a_lab_error_that_says_what_is_taken(call):
    with pytest.raises(LabError, match="take"):
        call()


def test_an_unknown_estimator_names_the_valid_ones():
    with pytest.raises(LabError, match="k4.*Accepted: k1, k2, k3"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
