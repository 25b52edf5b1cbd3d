import pytest

from lab.analysis.diagnose import diagnose, fall_p_value
from lab.config.json_format import to_dict
from lab.config.methods import make_config
from lab.config.presets import RUN_PRESETS


def columns(**series):
    return {
        name.replace("__", "/"): (list(range(len(values))), values)
        for name, values in series.items()
    }


def says(method, knobs=None, **series):
    return " ".join(diagnose(to_dict(make_config(method, knobs)), columns(**series)))


def test_nothing_is_said_of_a_run_that_has_only_begun():
    assert says("dpo") == "" and says("grpo", gold__accuracy=[0.46]) == ""


def test_gold_accuracy_that_turned_down_is_told_with_its_best_and_the_loss_that_did_not_notice():
    text = says("dpo", gold__accuracy=[0.46, 0.84, 0.55], loss=[0.6, 0.4, 0.3])
    assert (
        "from 0.84 at step 1 to 0.55 at step 2" in text
        and "loss on the fixed data went from 0.5 to 0.433" in text
    )


def test_a_loss_that_turned_as_well_is_not_blamed():
    assert "loss" not in says("dpo", gold__accuracy=[0.46, 0.84, 0.55], loss=[0.4, 0.4, 0.9])


def test_a_drop_within_the_noise_is_not_told():
    assert says("dpo", gold__accuracy=[0.46, 0.84, 0.80], loss=[0.6, 0.4, 0.3]) == ""


def test_two_shares_of_a_hundred_differ_by_chance_as_often_as_the_normal_table_says():
    # The pooled share is ½, the standard error √(2·0.25/100) = 0.0707, z = 2.8284, p = 0.004678.
    assert fall_p_value(0.6, 0.4, 100) == pytest.approx(0.004678, rel=1e-3)  # four digits by hand
    assert fall_p_value(1.0, 1.0, 100) == 1.0


def test_a_fall_from_the_best_of_many_evaluations_has_to_be_larger_than_their_noise():
    # 256 prompts: 0.84 → 0.75 has z = 2.52, p = 0.0117: enough among 4 evaluations, not among 40.
    fall = [0.84, 0.75]
    many = [0.7] * 38
    assert "fallen from 0.84" in says(
        "grpo", {"eval_prompts": 256}, gold__accuracy=[0.7, 0.7, *fall]
    )
    assert says("grpo", {"eval_prompts": 256}, gold__accuracy=[*many, *fall]) == ""
    assert says("grpo", {"eval_prompts": 64}, gold__accuracy=[0.7, 0.7, *fall]) == ""


def test_dead_groups_are_told_apart_from_many_dead_groups():
    assert "Every group of all 3 rollouts up to step 2 is dead" in says(
        "grpo", frac_reward_zero_std=[1.0, 1.0, 1.0]
    )
    assert "80 % of the groups in the 5 rollouts up to step 5" in says(
        "grpo", frac_reward_zero_std=[0.2] + [0.8] * 5
    )
    assert says("grpo", frac_reward_zero_std=[0.3] * 6) == ""


@pytest.mark.parametrize(
    ("knobs", "reward", "why"),
    [
        ({}, 0.95, "because their prompts are solved"),
        ({}, 0.05, "because their prompts are too hard"),
        ({}, 0.5, "A dead group teaches nothing."),
        ({"reward": "length"}, 1.0, "A dead group teaches nothing."),
    ],
)
def test_dead_groups_are_said_to_be_solved_or_too_hard_only_where_the_reward_checks_answers(
    knobs, reward, why
):
    text = says("grpo", knobs, frac_reward_zero_std=[0.2] + [0.8] * 5, reward=[reward] * 6)
    assert why in text


def test_an_entropy_that_falls_to_less_than_a_tenth_is_told():
    assert "Entropy has fallen from 2.00 to 0.1 nats per token by step 9" in says(
        "grpo", entropy=[2.0] * 5 + [0.1] * 5
    )
    assert says("grpo", entropy=[2.0] * 5 + [0.1] * 4 + [0.3]) == ""


def test_a_reward_that_rises_while_gold_accuracy_stays_low_is_hacking():
    fooled = {"reward": "length"}
    text = says("grpo", fooled, reward=[0.13, 1.0], gold__accuracy=[0.06, 0.04])
    assert "has not risen: 0.06 → 0.04" in text and "reward hacking" in text
    assert says("grpo", fooled, reward=[0.13, 1.0], gold__accuracy=[0.94, 0.95]) == ""
    assert says("grpo", fooled, reward=[0.13, 1.0], gold__accuracy=[0.06, 0.3]) == ""


def test_a_rising_reward_with_falling_gold_accuracy_is_hacking():
    text = says("grpo", {"reward": "length"}, reward=[0.2, 0.9], gold__accuracy=[0.46, 0.1])
    assert "from 0.20 to 0.90" in text and "has fallen: 0.46 → 0.10" in text
    assert "hacking" not in says("grpo", reward=[0.2, 0.9], gold__accuracy=[0.46, 0.1])


def test_ipo_says_how_far_its_margin_is_from_the_target():
    assert "At step 19 the margin is 0.50 nats per token; its target 1/(2β) is 5." in says(
        "ipo", {"ipo_variant": "token_mean"}, rewards__margins=[0.05] * 20
    )
    assert says("ipo", rewards__margins=[0.5] * 20) == ""


def test_displaced_likelihood_is_told_in_nats_without_beta():
    assert "At step 9 even the chosen completions are 10.0 nats less likely" in says(
        "dpo", rewards__chosen=[-1.0] * 10, rewards__rejected=[-3.0] * 10
    )


def test_implicit_rewards_from_before_a_change_of_beta_are_not_read_in_the_new_unit():
    config = to_dict(make_config("dpo", {"beta": 0.01}))  # β fell from 0.1 after step 4
    data = columns(
        rewards__chosen=[-0.5] * 5 + [-0.05] * 5, rewards__rejected=[-1.0] * 5 + [-0.1] * 5
    )
    changed = [
        {
            "type": "event",
            "step": 4,
            "kind": "changed",
            "detail": {"knob": "beta", "from": 0.1, "to": 0.01},
        }
    ]
    assert (
        "5.0 nats less likely than under the reference; the rejected ones are 10.0 nats less likely"
        in " ".join(diagnose(config, data, changed))
    )
    assert (
        diagnose(
            config,
            {name: (steps[:5], values[:5]) for name, (steps, values) in data.items()},
            changed,
        )
        == []
    )


def test_learning_to_think_is_told_as_the_amplified_habit_that_it_is():
    text = says("grpo", gold__scratchpad_share=[0.21, 0.98], gold__accuracy=[0.46, 0.95])
    assert "21 % to 98 %" in text and "The base model already wrote some scratchpads" in text


def test_a_kl_that_jumps_is_told_with_its_step_and_both_values():
    assert "jumped to 9.0 nats at step 6. The 5 values before were at most 3.0 nats." in says(
        "grpo", kl=[0.0, 1.0, 2.0, 3.0, 2.0, 2.5, 9.0, 4.0]
    )


def test_a_kl_that_only_grows_or_is_still_small_has_not_jumped():
    assert (
        says("grpo", kl=[0.5 * i for i in range(20)]) == ""
        and says("grpo", kl=[0.1] * 5 + [1.9]) == ""
        and says("grpo", kl=[0.0, 9.0]) == ""
    )


def test_without_a_rollout_the_kl_on_held_out_prompts_is_watched():
    assert "jumped to 30.0 nats at step 5" in says("dpo", gold__kl=[0.0, 1.0, 2.0, 3.0, 4.0, 30.0])


def test_length_that_does_not_pay_is_told_and_length_that_pays_is_not():
    assert "grown from 9 to 40 tokens by step 1, but gold accuracy went from 0.46 to 0.45" in says(
        "grpo", gold__mean_length=[9.0, 40.0], gold__accuracy=[0.46, 0.45]
    )
    assert "tokens by step" not in says(
        "grpo", gold__mean_length=[9.0, 40.0], gold__accuracy=[0.46, 0.9]
    )


def test_completions_that_hit_the_limit_are_told_with_the_limit():
    assert "40 % of the completions of step 2 reached the limit of 64 tokens and were cut" in says(
        "grpo", completions__clipped_ratio=[0.0, 0.1, 0.4]
    )
    assert says("grpo", completions__clipped_ratio=[0.1]) == ""


def test_a_policy_that_was_cut_at_the_limit_from_the_first_update_on_has_not_lost_its_ending():
    assert says("grpo", completions__clipped_ratio=[0.95, 0.97, 1.0]) == ""


def test_a_grpo_loss_that_is_fixed_by_construction_is_told_with_the_gradient_that_is_not():
    assert "The loss at step 1 is 0.000. It measures no progress" in says(
        "grpo", loss=[0.0, -1e-9], grad_norm=[0.5, 0.7]
    )
    assert "The loss at step 1 is −0.030. It measures no progress" in says(
        "grpo", loss=[0.0, -0.03], grad_norm=[0.5, 0.7]
    )
    assert "its norm is 0.7" in says("grpo", loss=[0.0, -0.03], grad_norm=[0.5, 0.7])


def test_a_loss_that_moves_because_a_rollout_is_used_twice_or_a_dead_gradient_is_not_explained_away():
    assert says("grpo", {"updates_per_rollout": 2}, loss=[0.0, 0.0], grad_norm=[0.5, 0.7]) == ""
    assert (
        says("grpo", loss=[0.0], grad_norm=[0.0]) == ""
        and says("dpo", loss=[0.0], grad_norm=[0.5]) == ""
    )


@pytest.mark.parametrize("preset", RUN_PRESETS, ids=lambda preset: preset.name)
def test_every_preset_is_a_config_that_differs_from_the_others(preset):
    config = to_dict(make_config(preset.method, preset.knobs))
    assert all(config[name] == value for name, value in preset.knobs.items())
    assert [p for p in RUN_PRESETS if to_dict(make_config(p.method, p.knobs)) == config] == [preset]
    assert preset.shows.endswith(".")


def test_presets_have_ids_and_titles_of_their_own():
    for names in zip(*((preset.name, preset.title) for preset in RUN_PRESETS)):
        assert len(set(names)) == len(RUN_PRESETS)
