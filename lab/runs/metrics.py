"""What each metric of a run means and how it is shown."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `label` names the axis, `look_for` says what to watch."""

    label: str
    meaning: str
    unit: str
    look_for: str


METRICS: dict[str, Metric] = {
    "loss": Metric(
        "loss",
        "The number that the optimizer lowers in this update.",
        "depends on the method",
        "Compare the loss of a run only with its own earlier values. With one update per rollout,"
        " the GRPO loss measures no progress: the rollout fixes its value, but its gradient still"
        " trains.",
    ),
    "grad_norm": Metric(
        "gradient norm",
        "Euclidean norm of the gradient over all trained parameters of the policy, before"
        " clipping.",
        "loss per unit of a parameter",
        "A sudden peak can come before a collapse. It is 0 when every group is dead.",
    ),
    "grad_norm/critic": Metric(
        "gradient norm, critic",
        "Euclidean norm of the gradient over the critic's own parameters, before clipping.",
        "loss per unit of a parameter",
        "It is clipped separately from the policy's gradient.",
    ),
    "loss/policy": Metric(
        "policy loss",
        "PPO's clipped policy loss, mean over tokens.",
        "std of advantages",
        "It stays near 0, because the advantages have mean 0. It measures no progress.",
    ),
    "loss/value": Metric(
        "value loss",
        "The critic's clipped squared error, mean over tokens.",
        "reward²",
        "It should fall. A critic with large errors gives noisy advantages.",
    ),
    "value/explained_variance": Metric(
        "explained variance",
        "Share of the variance of the returns that the critic predicts, before it learns from this"
        " rollout.",
        "share",
        "Below 0 the critic is worse than a constant. Near 1 it predicts most of the reward.",
    ),
    "kl_coefficient": Metric(
        "KL coefficient",
        "β of this rollout: how much score 1 nat of distance from the reference costs.",
        "reward per nat",
        "With a KL target, it rises while the KL is above the target.",
    ),
    "learning_rate": Metric(
        "learning rate",
        "Step size of the optimizer in this update.",
        "no unit",
        "It shows the warm-up, the schedule and your changes during training.",
    ),
    "rewards/chosen": Metric(
        "implicit reward, chosen",
        "β·(log π − log π_ref) of the chosen (KTO: desirable) completions.",
        "nats × β",
        "It often falls below 0 while the margin grows. This is called likelihood displacement.",
    ),
    "rewards/rejected": Metric(
        "implicit reward, rejected",
        "β·(log π − log π_ref) of the rejected (KTO: undesirable) completions.",
        "nats × β",
        "It should fall faster than that of the chosen completions.",
    ),
    "rewards/margins": Metric(
        "reward margin",
        "Implicit reward of the chosen minus the rejected completion, in the form that the loss"
        " uses.",
        "nats × β",
        "DPO always pushes it up. IPO stops at 1/2, which is β times its target 1/(2β).",
    ),
    "rewards/accuracies": Metric(
        "pair accuracy",
        "Share of training pairs whose chosen completion has the higher implicit reward.",
        "share",
        "It can come near 1 while gold accuracy falls.",
    ),
    "logps/chosen": Metric(
        "log-probability, chosen",
        "Sum of log π over the tokens of the chosen completion.",
        "nats",
        "If it falls, even the preferred text becomes less likely.",
    ),
    "logps/rejected": Metric(
        "log-probability, rejected",
        "Sum of log π over the tokens of the rejected completion.",
        "nats",
        "Compare its fall with that of the chosen completion.",
    ),
    "kto/z": Metric(
        "reference point z",
        "KTO's estimate of KL(π‖π_ref) from completions behind prompts of other rows; at least 0.",
        "nats",
        "KTO compares the log-ratio of each completion with z.",
    ),
    "kl": Metric(
        "KL to the reference",
        "KL(π‖π_ref), the distance of the policy from the reference. It is exact over the"
        " vocabulary at each token of the policy's own samples.",
        "nats per completion",
        "It says how far the policy has moved. Where β is 0, every fourth completion is measured.",
    ),
    "entropy": Metric(
        "entropy",
        "How widely the policy spreads its probability over the next token: mean over completion"
        " tokens.",
        "nats per token",
        "Near 0 the policy writes almost the same text every time and tries nothing new.",
    ),
    "reward": Metric(
        "reward",
        "Mean reward of the rollout's completions, from the rule or the reward model.",
        "reward",
        "An online method raises this number.",
    ),
    "reward/missing": Metric(
        "completions without a reward",
        "Share of the rollout's completions without a reward, because your own reward function"
        " raised an error, took too long or returned None. GRPO gives them the advantage 0; PPO"
        " uses the mean of the others.",
        "share",
        "It should stay at 0. The log gives the reason where it does not.",
    ),
    "reward_std": Metric(
        "reward std",
        "Standard deviation of the rewards in a group, mean over groups.",
        "reward",
        "It falls to 0 as groups die.",
    ),
    "frac_reward_zero_std": Metric(
        "dead groups",
        "Share of groups whose rewards are all equal (in online DPO: of pairs with equal rewards). They give no gradient.",
        "share",
        "A prompt that is answered right with probability p has a dead group with probability p^G + (1−p)^G.",
    ),
    "completions/mean_length": Metric(
        "completion length",
        "Mean length of the sampled completions, with the end token.",
        "tokens",
        "If it grows together with accuracy, the policy writes more working before its answers.",
    ),
    "completions/clipped_ratio": Metric(
        "truncated completions",
        "Share of completions that reach the token limit before they end.",
        "share",
        "If it rises, the policy no longer ends its texts.",
    ),
    "clip_ratio/region_mean": Metric(
        "clipped tokens",
        "Share of completion tokens whose push the clip stops.",
        "share",
        "It is 0 at the first update on a rollout.",
    ),
    "ratio": Metric(
        "probability ratio",
        "Mean of π/π_old over completion tokens.",
        "no unit",
        "It is exactly 1 at the first update on a rollout.",
    ),
    "sampling/sampling_logp_difference/mean": Metric(
        "difference of the sampler",
        "Mean distance of the log-probabilities that another engine sampled with from the policy's own.",
        "nats per token",
        "Rounding makes some hundredths. If it grows, the engine no longer follows the policy.",
    ),
    "sampling/importance_sampling_ratio/mean": Metric(
        "weight of sampled tokens",
        "Mean of π_old/π_sampler over completion tokens, after its limit.",
        "no unit",
        "It is near 1. Far below 1, the limit sets many completions to 0.",
    ),
    "gold/accuracy": Metric(
        "gold accuracy",
        "Share of held-out prompts that get the right answer, sampled at temperature 1. Held-out"
        " prompts are never used for training.",
        "share",
        "It measures the task itself; the loss does not.",
    ),
    "gold/rollout_accuracy": Metric(
        "gold accuracy, rollout",
        "Share of the rollout's completions that are right, measured where a reward model gives"
        " the rewards.",
        "share",
        "If the reward rises while this falls, the policy exploits the reward model.",
    ),
    "gold/format": Metric(
        "gold format",
        "Share of held-out completions that are well formed.",
        "share",
        "It often falls first when a policy exploits its reward.",
    ),
    "gold/scratchpad_share": Metric(
        "scratchpads",
        "Share of held-out completions with a scratchpad: written working before the answer.",
        "share",
        "GRPO makes scratchpads more frequent; the base model already writes some.",
    ),
    "gold/reward": Metric(
        "gold reward",
        "Mean gold reward of held-out completions: VADER's score for sentiment, the checker's"
        " points for gym:NAME, or the value of your own reward function.",
        "reward",
        "Of two policies with equal KL, the one with the higher gold reward is better.",
    ),
    "gold/repetition": Metric(
        "repetition",
        "Share of the bigrams (pairs of neighbouring words) of a held-out completion that occur"
        " earlier in it; mean.",
        "share",
        "If it rises with the reward, the policy exploits the reward by repeating words.",
    ),
    "gold/distinct_2": Metric(
        "distinct bigrams",
        "Number of different bigrams in all held-out completions, divided by the number of all"
        " bigrams.",
        "share",
        "If it falls, the completions become alike.",
    ),
    "gold/empty": Metric(
        "empty completions",
        "Share of held-out completions without a word.",
        "share",
        "An empty text can be the safest choice if a reward only punishes.",
    ),
    "gold/kl": Metric(
        "KL, held-out",
        "KL(π‖π_ref), the distance of the policy from the reference, on held-out prompts. It is"
        " exact over the vocabulary at each token.",
        "nats per completion",
        "Compare methods at equal KL.",
    ),
    "gold/mean_length": Metric(
        "length, held-out",
        "Mean length of completions of held-out prompts, with the end token.",
        "tokens",
        "If it grows and gold accuracy does not, the policy exploits its reward.",
    ),
    "eval/loss": Metric(
        "loss, held-out",
        "The method's loss on the held-out rows of your own data, where no task is given.",
        "depends on the method",
        "If it rises while the training loss falls, the policy learns the training rows by heart.",
    ),
    "eval/perplexity": Metric(
        "perplexity, held-out",
        "exp of the mean loss of a held-out completion token: the policy is as unsure as between"
        " so many equally likely tokens.",
        "tokens",
        "It should fall. Training past its lowest value is overfitting.",
    ),
    "eval/kl": Metric(
        "KL, held-out",
        "KL(π‖π_ref), the distance of the policy from the reference, on its own completions of up to"
        " eight held-out prompts of your own data. It is exact over the vocabulary at each token.",
        "nats per completion",
        "If it grows while the held-out measures stand still, training longer costs and gains nothing.",
    ),
    "eval/rewards/margins": Metric(
        "reward margin, held-out",
        "Implicit reward (reward model: score) of chosen minus rejected on held-out rows of your"
        " own data. KTO: mean of desirable minus mean of undesirable.",
        "nats × β",
        "If it grows here too, the policy has learnt more than the training rows.",
    ),
    "eval/rewards/accuracies": Metric(
        "pair accuracy, held-out",
        "Share of held-out pairs of your own data whose chosen completion has the higher reward.",
        "share",
        "0.5 is chance. Before the first update it says nothing, because policy and reference are"
        " equal.",
    ),
    "agreement/pairs": Metric(
        "agreement",
        "Share of the pairs of eval_pairs whose chosen completion the model prefers: by its implicit"
        " reward, log π − log π_ref, or by the score of a reward model. A tie counts one half.",
        "share",
        "0.5 is chance, where every policy starts. These pairs are never trained on.",
    ),
    "agreement/own": Metric(
        "agreement, own labels",
        "Share of the held-out labels of a person with which the model agrees: by its implicit"
        " reward, or by the score of a reward model. A tie counts one half.",
        "share",
        "0.5 is chance. A person's agreement with themselves on repeated pairs is its ceiling.",
    ),
    "agreement/rule": Metric(
        "agreement, rule",
        "Share of pairs with one right answer in which the model prefers the right one: by its"
        " implicit reward, or by the score of a reward model. A tie counts one half.",
        "share",
        "0.5 is chance. It rises as far as the labels follow the rule.",
    ),
    "gold/reward_margin": Metric(
        "score gap, held-out",
        "Reward model's score of right minus wrong completions of held-out prompts.",
        "score",
        "Above 0, right completions get the higher score on average.",
    ),
    "gold/reward_accuracy": Metric(
        "ranking accuracy, held-out",
        "Share of held-out pairs that the reward model ranks as the gold answer does.",
        "share",
        "0.5 is chance.",
    ),
}

METRICS |= {
    f"eval/{name}": replace(
        METRICS[name],
        label=f"{METRICS[name].label}, held-out",
        meaning=f"Measured on held-out rows of your own data. {METRICS[name].meaning}"
        + " For a reward model it is the score." * name.startswith("rewards/"),
    )
    for name in ("rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected")
}
