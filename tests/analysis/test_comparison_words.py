"""The words better, worse, level and not told apart, on cases worked out by hand."""

import math

import pytest

from lab.analysis.comparison_words import (
    Difference,
    against_constant,
    from_interval,
    holm,
    judge,
    paired_difference,
    recorded_difference,
    unpaired_difference,
)
from lab.analysis.statistics import Interval
from lab.analysis.student_t import t_quantile, t_two_sided
from lab.errors import LabError


@pytest.mark.parametrize("t", [0.0, 0.3, -1.0, 2.5, 40.0])
def test_tails_of_student_s_t_are_their_closed_forms(t):
    one = 1 - 2 / math.pi * math.atan(abs(t))
    two = 1 - abs(t) / math.sqrt(t * t + 2)
    angle = math.atan(t / math.sqrt(3))
    three = 1 - 2 / math.pi * abs(angle + math.sin(angle) * math.cos(angle))
    for degrees, tail in ((1, one), (2, two), (3, three)):
        assert t_two_sided(t, degrees) == pytest.approx(tail, rel=1e-9, abs=1e-13)


def test_with_many_degrees_the_tail_is_that_of_the_normal_distribution():
    assert t_two_sided(1.3, 1e7) == pytest.approx(math.erfc(1.3 / math.sqrt(2)), rel=1e-5)
    assert t_two_sided(math.inf, 2) == 0


def test_quantiles_take_degrees_that_are_not_whole():
    # ν = 2 in closed form: t/√(t² + 2) = 0.95, so t = 0.95·√(2/(1 − 0.95²)).
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-9)
    assert t_quantile(3) < t_quantile(2.5) < t_quantile(2)


def test_a_paired_difference_takes_away_what_the_arms_share():
    found = paired_difference([3, 5, 4], [2, 3, 1])
    assert (found.mean, found.degrees) == (2, 2)
    assert found.standard_error == pytest.approx(1 / math.sqrt(3))
    assert found.p_value == pytest.approx(1 - math.sqrt(12) / math.sqrt(14))  # t = 2√3, ν = 2
    with pytest.raises(LabError, match="Compare them unpaired"):
        paired_difference([1, 2], [1, 2, 3])


def test_an_unpaired_difference_has_welch_s_error():
    found = unpaired_difference([1, 2, 3], [4, 6, 8])
    assert found.mean == -4
    assert found.standard_error == pytest.approx(math.sqrt(5 / 3))
    assert found.degrees == pytest.approx((25 / 9) / (1 / 18 + 8 / 9))


def test_recorded_intervals_give_the_difference_of_their_values():
    values = [1, 2, 3], [4, 6, 8]
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) / math.sqrt(3)  # of standard deviation 1
    found = recorded_difference(Interval(2, half), Interval(6, 2 * half), 3)
    direct = unpaired_difference(*values)
    assert (found.mean, found.standard_error, found.degrees) == pytest.approx(
        (direct.mean, direct.standard_error, direct.degrees)
    )
    base = from_interval(Interval(2, half), 3, constant=0.5)
    assert (base.mean, base.standard_error) == pytest.approx((1.5, 1 / math.sqrt(3)))


def test_holm_multiplies_the_smallest_p_value_most():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.5]) == [1.0, 1.0] and holm([]) == []


def with_p_value(p):
    """A difference above 0 whose p-value is p: ν = 2, where t = (1 − p)·√(2/(1 − (1 − p)²))."""
    t = (1 - p) * math.sqrt(2 / (1 - (1 - p) ** 2))
    return Difference(t, 1.0, 2)


def words(differences, **settings):
    return [j.word for j in judge(differences, **settings)]


def test_one_comparison_is_judged_by_its_own_interval():
    assert words([with_p_value(0.049)]) == ["better"]
    assert words([with_p_value(0.051)]) == ["not told apart"]
    below = Difference(-with_p_value(0.049).mean, 1.0, 2)
    assert words([below]) == ["worse"]
    assert words([below], words=("slower", "faster")) == ["faster"]


def test_in_a_family_the_p_values_are_corrected_for_their_number():
    family = [with_p_value(p) for p in (0.03, 0.01, 0.04)]
    assert words(family) == ["not told apart", "better", "not told apart"]
    assert [j.p_value for j in judge(family)] == pytest.approx([0.06, 0.03, 0.06])


def test_level_needs_a_margin_and_an_interval_inside_it():
    # ν = 2: the one-sided 5 % quantile is 0.9·√(2/(1 − 0.81)) = 2.9200.
    quantile = 0.9 * math.sqrt(2 / (1 - 0.81))
    inside, outside = Difference(0.0, 0.999 / quantile, 2), Difference(0.0, 1.001 / quantile, 2)
    assert words([inside], margin=1) == ["level within 1"]
    assert words([outside], margin=1) == ["not told apart"]
    assert words([inside]) == ["not told apart"]
    assert words([inside] * 2, margin=1) == ["not told apart"] * 2
    with pytest.raises(LabError, match="margin"):
        judge([inside], margin=0)


def test_a_sure_difference_below_the_margin_is_level():
    tiny = Difference(0.007, 0.0005, 9)
    assert words([tiny]) == ["better"]
    assert words([tiny], margin=0.02) == ["level within 0.02"]
    assert words([Difference(0.5, 0.0005, 9)], margin=0.02) == ["better"]


def test_values_without_any_spread_show_no_error_and_are_not_told_apart():
    same = against_constant([0.9, 0.9, 0.9], 0.5)
    assert same.standard_error == 0
    assert words([same], margin=0.9) == ["not told apart"]
    assert words([paired_difference([0.9, 0.8, 0.7], [0.8, 0.7, 0.6])]) == ["not told apart"]


def test_a_judgement_gives_its_difference_and_says_whether_it_is_sure():
    sure, open_question = judge([Difference(0.19, 0.01, 5), Difference(-0.19, 1.0, 5)])
    assert sure.text() == "+0.19 ± 0.03, better" and sure.is_sure
    assert open_question.text(1) == "−0.2 ± 2.6, not told apart" and not open_question.is_sure
    assert not judge([Difference(0.0, 0.001, 5)], margin=0.1)[0].is_sure


def test_a_comparison_takes_two_seeds():
    for few in (lambda: against_constant([1], 0), lambda: from_interval(Interval(1, 1), 1)):
        with pytest.raises(LabError, match="at least two seeds"):
            few()
