"""Every exercise of the course, by name.

| notebook | the learner writes |
| --- | --- |
| 00 map | my_score, my_confidence_interval |
| 01 RLHF | my_sft_loss, my_bradley_terry, my_reward_model_loss, my_kl_shaped_rewards, my_gae, my_whiten |
| 02 derivation | my_objective, my_log_partition, my_optimal_policy, my_implied_reward |
| 03 DPO | my_completion_mask, my_sequence_logps, my_dpo_loss, my_dpo_gradient_weight |
| 04 IPO and KTO | my_ipo_loss, my_ipo_token_mean, my_kto_loss, my_kto_z, my_desirable_weight |
| 05 PPO to GRPO | my_ratio, my_clipped_surrogate, my_kl_estimate, my_exact_kl, my_leave_one_out |
| 06 GRPO | my_group_advantages, my_dead_group_rate, my_reduction, my_pass_at_k, my_steps_reward, my_short_reward |
| 07 choose | my_paired_difference, my_relative_cost, my_hinge_loss, my_smoothed_loss, my_holm |
| 08 your own | my_reward, my_preference_line, my_merged_weight |
| 09 from scratch | my_lora_layer, my_token_logps, my_next_token, my_dpo_batch_loss, my_grpo_batch_loss |
"""

from lab.course.exercise import Exercise
from lab.course.exercises import (
    nb01_critic,
    nb01_rlhf,
    nb01_sft,
    nb02_derivation,
    nb03_dpo,
    nb04_ipo,
    nb04_kto,
    nb05_ppo_to_grpo,
    nb06_grpo,
    nb06_rewards,
    nb07_losses,
    nb07_measuring,
    nb08_own,
    nb09_scratch,
)

EXERCISES: dict[str, Exercise] = {
    exercise.name: exercise
    for module in (
        nb07_measuring,
        nb07_losses,
        nb01_sft,
        nb01_rlhf,
        nb01_critic,
        nb02_derivation,
        nb03_dpo,
        nb04_ipo,
        nb04_kto,
        nb05_ppo_to_grpo,
        nb06_grpo,
        nb06_rewards,
        nb08_own,
        nb09_scratch,
    )
    for exercise in module.EXERCISES
}
