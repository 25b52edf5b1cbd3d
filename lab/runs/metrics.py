"""What each metric of a run means and how it is shown."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: `label` names the axis with its unit, `look_for` is the one thing to
    watch.
    """

    label: str
    meaning: str
    unit: str
    look_for: str


METRICS: dict[str, Metric] = {
    "loss": Metric(
        "loss",
        "The number that the optimizer lowers in this update.",
        "method's own",
        "Compare it only with itself. With one update per rollout the GRPO loss says nothing: its"
        " value is fixed by the rollout, while its gradient is not.",
    ),
    "grad_norm": Metric(
        "gradient norm",
        "Euclidean norm of the gradient over all LoRA parameters of the policy, before clipping.",
        "1/parameter",
        "A spike before a collapse; zero when every group is dead.",
    ),
    "grad_norm/critic": Metric(
        "gradient norm, critic",
        "Euclidean norm of the gradient over the critic's own parameters, before clipping.",
        "1/parameter",
        "Clipped apart from the policy's, so a surprised critic does not slow the policy.",
    ),
    "loss/policy": Metric(
        "policy loss",
        "PPO's clipped policy loss, mean over tokens.",
        "std of advantages",
        "It stays near zero, for advantages are whitened: it measures no progress.",
    ),
    "loss/value": Metric(
        "value loss",
        "The critic's clipped squared error, mean over tokens.",
        "reward²",
        "It should fall, or the advantages are noise.",
    ),
    "value/explained_variance": Metric(
        "explained variance",
        "Share of the variance of the returns that the critic foresaw, before it learns from this"
        " rollout.",
        "share",
        "Below 0 the critic is worse than a constant; near 1 it foresees most of the reward.",
    ),
    "kl_coefficient": Metric(
        "KL coefficient",
        "β of the rollout: score that a nat away from the reference costs.",
        "reward per nat",
        "With a kl_target it rises while the KL is above it.",
    ),
    "learning_rate": Metric(
        "learning rate",
        "Step size of AdamW in this update.",
        "1",
        "The warm-up, and changes made live.",
    ),
    "rewards/chosen": Metric(
        "implicit reward, chosen",
        "β·(log π − log π_ref) of the chosen (KTO: desirable) completions.",
        "nats × β",
        "It often falls below zero while the margin grows: likelihood displacement.",
    ),
    "rewards/rejected": Metric(
        "implicit reward, rejected",
        "β·(log π − log π_ref) of the rejected (KTO: undesirable) completions.",
        "nats × β",
        "It should fall faster than the chosen one.",
    ),
    "rewards/margins": Metric(
        "reward margin",
        "Implicit reward of chosen minus rejected, in the form that the loss uses.",
        "nats × β",
        "DPO pushes it without bound; IPO stops at 1/2, which is β times its target 1/(2β).",
    ),
    "rewards/accuracies": Metric(
        "pair accuracy",
        "Share of training pairs whose chosen has the higher reward.",
        "share",
        "It can approach 1 while gold accuracy collapses.",
    ),
    "logps/chosen": Metric(
        "log-probability, chosen",
        "Sum of log π over the tokens of the chosen completion.",
        "nats",
        "Falling means that even the preferred text becomes less likely.",
    ),
    "logps/rejected": Metric(
        "log-probability, rejected",
        "Sum of log π over the tokens of the rejected completion.",
        "nats",
        "It falls in every preference method.",
    ),
    "kto/z": Metric(
        "reference point z",
        "KTO's estimate of KL(π‖π_ref) from mismatched pairs, clamped at zero.",
        "nats",
        "Values are judged relative to it.",
    ),
    "kl": Metric(
        "KL to the reference",
        "KL(π‖π_ref) of one completion, exact over the vocabulary at each token of the policy's own"
        " samples.",
        "nats per completion",
        "How far the policy has moved; the price of the reward. Where β is 0 every fourth"
        " completion is measured.",
    ),
    "entropy": Metric(
        "entropy",
        "Mean entropy of the policy's next-token distribution on completion tokens.",
        "nats per token",
        "Near zero the policy has stopped exploring.",
    ),
    "reward": Metric(
        "reward",
        "Mean reward of the rollout's completions, of the rule or of the reward model.",
        "reward",
        "The thing that an online method raises.",
    ),
    "reward/missing": Metric(
        "completions without a reward",
        "Share of the rollout's completions to which a reward of the user's own gave none: it"
        " raised, took too long or returned None. GRPO leaves them out of the group's mean and std,"
        " with advantage 0; PPO takes the mean of the others.",
        "share",
        "It should stay at 0; the log says why it did not.",
    ),
    "reward_std": Metric(
        "reward std",
        "Mean of the groups' reward standard deviations.",
        "reward",
        "Falls to zero as groups die.",
    ),
    "frac_reward_zero_std": Metric(
        "dead groups",
        "Share of groups whose rewards are all equal, which give no gradient; for online DPO the"
        " ties.",
        "share",
        "Expect p^G + (1−p)^G for a pass rate p.",
    ),
    "completions/mean_length": Metric(
        "completion length",
        "Mean length of the sampled completions, end token included.",
        "tokens",
        "Growth together with accuracy is the model learning to think.",
    ),
    "completions/clipped_ratio": Metric(
        "truncated completions",
        "Share of completions that hit the token limit before ending.",
        "share",
        "A rise means that the policy forgets to stop.",
    ),
    "clip_ratio/region_mean": Metric(
        "clipped tokens",
        "Share of completion tokens whose ratio lies outside the clip range on the side that"
        " matters.",
        "share",
        "Zero at the first update on a rollout.",
    ),
    "ratio": Metric(
        "probability ratio",
        "Mean of π/π_old over completion tokens.",
        "1",
        "Exactly 1 at the first update on a rollout.",
    ),
    "gold/accuracy": Metric(
        "gold accuracy",
        "Share of held-out prompts answered correctly, sampled at temperature 1.",
        "share",
        "The truth that a loss does not show.",
    ),
    "gold/rollout_accuracy": Metric(
        "gold accuracy, rollout",
        "Share of the rollout's completions that the task calls right, where a reward model scores"
        " them.",
        "share",
        "Reward that rises while this falls is over-optimisation.",
    ),
    "gold/format": Metric(
        "gold format",
        "Share of held-out completions that are well formed.",
        "share",
        "Breaks first when a method over-optimises.",
    ),
    "gold/scratchpad_share": Metric(
        "scratchpads",
        "Share of held-out completions that think before they answer.",
        "share",
        "GRPO raises a habit that the base already has.",
    ),
    "gold/reward": Metric(
        "gold reward",
        "Mean reward of held-out completions: VADER's compound score for sentiment, the verifier's"
        " points for gym:NAME, or what a reward of the user's own gives.",
        "reward",
        "At equal KL the higher one is the better policy.",
    ),
    "gold/repetition": Metric(
        "repetition",
        "Mean share of a held-out completion's bigrams that stood in it before.",
        "share",
        "A rise with the reward is reward hacking: one kind word, again and again.",
    ),
    "gold/distinct_2": Metric(
        "distinct bigrams",
        "Different bigrams of all held-out completions together, divided by their number.",
        "share",
        "A fall means that completions become alike.",
    ),
    "gold/empty": Metric(
        "empty completions",
        "Share of held-out completions without a word.",
        "share",
        "Silence is safe where harm is punished and nothing else is paid.",
    ),
    "gold/kl": Metric(
        "KL, held-out",
        "KL(π‖π_ref) of one completion on held-out prompts, exact over the vocabulary at each"
        " token.",
        "nats per completion",
        "Compare methods at equal KL.",
    ),
    "gold/mean_length": Metric(
        "length, held-out",
        "Mean length of completions on held-out prompts, end token included.",
        "tokens",
        "Length without accuracy is reward hacking.",
    ),
    "eval/loss": Metric(
        "loss, held-out",
        "The method's loss on the held-out part of your own data, where no task is given.",
        "method's own",
        "Where it rises while the training loss falls, the rows are being learnt by heart.",
    ),
    "eval/perplexity": Metric(
        "perplexity, held-out",
        "exp of the mean loss of a held-out completion token: among how many equally likely tokens"
        " the policy chooses.",
        "tokens",
        "It should fall; at its lowest the policy has learnt what carries over.",
    ),
    "eval/rewards/chosen": Metric(
        "implicit reward, held-out chosen",
        "As rewards/chosen, on held-out rows of your own data; of a reward model its score.",
        "nats × β",
        "Compare it with the training rows'.",
    ),
    "eval/rewards/rejected": Metric(
        "implicit reward, held-out rejected",
        "As rewards/rejected, on held-out rows of your own data; of a reward model its score.",
        "nats × β",
        "It should fall faster than the chosen one.",
    ),
    "eval/rewards/margins": Metric(
        "reward margin, held-out",
        "Implicit reward (of a reward model: score) of chosen minus rejected on held-out rows of"
        " your own data; for KTO the mean of the desirable minus that of the undesirable.",
        "nats × β",
        "A margin that grows here too is preference that carries over.",
    ),
    "eval/rewards/accuracies": Metric(
        "pair accuracy, held-out",
        "Share of held-out pairs of your own data whose chosen has the higher reward.",
        "share",
        "0.5 is chance; before the first update policy and reference are equal, and it says"
        " nothing.",
    ),
    "eval/logps/chosen": Metric(
        "log-probability, held-out chosen",
        "Sum of log π over the tokens of a held-out chosen completion.",
        "nats",
        "Falling means that even the preferred text becomes less likely.",
    ),
    "eval/logps/rejected": Metric(
        "log-probability, held-out rejected",
        "Sum of log π over the tokens of a held-out rejected completion.",
        "nats",
        "It falls in every preference method.",
    ),
    "gold/reward_margin": Metric(
        "score gap, held-out",
        "Reward model's score of right minus wrong completions on held-out prompts.",
        "score",
        "Above zero it ranks better than chance.",
    ),
    "gold/reward_accuracy": Metric(
        "ranking accuracy, held-out",
        "Share of held-out pairs that the reward model ranks as the gold answer does.",
        "share",
        "0.5 is chance.",
    ),
}
