"""Claims of the sections on DPO: its derivation, its advantages and its issues."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records, number, percent
from lab.analysis.comparison_words import from_interval, judge, recorded_difference
from lab.analysis.data_quality import judged_changes
from lab.analysis.statistics import Interval
from lab.config.methods import METHODS

DERIVATION = "Core derivation of DPO"
ISSUES = "Advantages and issues of DPO"
ROUNDING = 1e-6
"""An identity holds if both sides agree to this; the computations have 64 bits."""
BETAS = (0.05, 0.1, 0.2, 0.5)
"""The values of β in the article's figure of the loss."""


def _identity(names: tuple[str, ...], words: str) -> Measurement:
    """The largest error of identities of the derivation, over the article's β. Imports torch."""
    from lab.analysis.derivation import derive

    worst = max(derive(beta).errors[name] for beta in BETAS for name in names)
    size = "less than a millionth" if worst < ROUNDING else f"{worst:.1g}"
    return Measurement(
        Verdict.HOLDS if worst < ROUNDING else Verdict.FAILS_HERE,
        f"{words} Computed for five responses and β = {', '.join(map(str, BETAS))}: both sides differ by"
        f" {size}.",
    )


def closed_form(records: Records) -> Measurement:
    """Compare the objective at the closed form with its maximum β·log Z."""
    return _identity(
        ("objective",), "At the closed form the objective reaches its maximum, β·log Z."
    )


def reward_from_policy(records: Records) -> Measurement:
    """Compare the rewards with those that the optimal policy implies, plus β·log Z."""
    return _identity(("reward",), "The reward equals β·log(π*/π_ref) + β·log Z.")


def partition_cancels(records: Records) -> Measurement:
    """Compare preferences by rewards with preferences by the policy, and DPO's minimum with the closed form."""
    return _identity(
        ("preference", "dpo"),
        "The preferences by reward and by policy agree, and the DPO loss has its minimum at the"
        " optimal policy.",
    )


def steeper_with_beta(records: Records) -> Measurement:
    """Compare the push of the loss over β, at a margin of 0 and where the order turns round. Imports
    torch.
    """
    from lab.analysis.loss_curves import along_margin, equal_push_margin

    pushes = [along_margin("dpo", (0.0,), beta=beta).push[0] for beta in BETAS]
    crossing = equal_push_margin(BETAS[0], BETAS[-1])
    rising = all(a < b for a, b in zip(pushes, pushes[1:]))
    return Measurement(
        Verdict.HOLDS if rising else Verdict.FAILS_HERE,
        f"At a margin of 0 the push on the margin is β/2: {', '.join(f'{p:.3f}' for p in pushes)} for β"
        f" = {', '.join(map(str, BETAS))}. Above a margin of {crossing:.1f} nats it is the other way"
        f" round for β = {BETAS[-1]} and {BETAS[0]}: the loss with the large β is already flat.",
    )


def tolerates_deviation(records: Records) -> Measurement:
    """Compare the final KL of DPO with the lowest and the highest recorded β."""
    table = records["beta"]
    rows = [row for row in table["rows"] if row["method"] == "dpo"]
    ends = [Interval(row["kl"]["mean"][-1], row["kl"]["half"][-1]) for row in rows]
    (word,) = judge(
        [recorded_difference(ends[0], ends[-1], table["seeds"])], words=("larger", "smaller")
    )
    falling = all(a.mean > b.mean for a, b in zip(ends, ends[1:]))
    listed = ", ".join(f"{end.text(1)} for {row['beta']:g}" for row, end in zip(rows, ends))
    return Measurement(
        decide(word.word, holds="larger", fails="smaller"),
        f"KL of DPO to the base after {rows[0]['steps'][-1]} updates, in nats, by β: {listed}"
        f" ({table['seeds']} seeds). The smallest minus the largest β: {word.text(1)}."
        + ("" if falling else " In between, a larger β does not always end nearer to the base."),
    )


def two_models(records: Records) -> Measurement:
    """Count the models of DPO, and its peak memory relative to RLHF."""
    models = METHODS["dpo"].models
    return Measurement(
        Verdict.HOLDS if len(models) == 2 else Verdict.FAILS_HERE,
        f"{len(models)} models take part: {' and '.join(models)}. One update of a model with 1.2 billion"
        f" weights needs {records.peak_gib('dpo'):.1f} GiB, and {records.peak_gib('ppo.separate'):.1f} GiB with"
        " the four models of RLHF.",
    )


def simple_as_sft(records: Records) -> Measurement:
    """Compare an update of DPO with one of SFT."""
    tokens = records.tokens
    dpo, sft = (
        tokens.mean(name, "seconds") / tokens.mean(name, "updates") for name in ("dpo", "sft")
    )
    same = not METHODS["dpo"].online and len(METHODS["dpo"].models) == 2
    return Measurement(
        Verdict.HOLDS if same else Verdict.FAILS_HERE,
        "Both run one forward and one backward pass on fixed data, sample nothing and train one model."
        f" An update of DPO takes {dpo / sft:.1f} times as long as one of SFT ({records.times_from}): it also"
        " reads the rejected completion and the reference.",
    )


def no_sampling(records: Records) -> Measurement:
    """Count the tokens that DPO sampled."""
    tuned = records.tuned
    sampled = tuned.mean("dpo", measure="sampled")
    return Measurement(
        Verdict.HOLDS if sampled == 0 else Verdict.FAILS_HERE,
        f"In training DPO sampled {sampled:.0f} tokens and read"
        f" {tuned.mean('dpo', measure='trained'):,.0f} tokens of the pairs. Somebody had to sample the"
        " pairs before.",
    )


def distribution_shift(records: Records) -> Measurement:
    """Look how many of the wrong completions of the policy the data of DPO contains."""
    table = records["drift"]
    row = next(row for row in table["rows"] if row["method"] == "dpo")
    covered = [Interval(row["wrong_covered"][i], row["wrong_covered ±"][i]) for i in (0, -1)]
    (word,) = judge(
        [from_interval(covered[0], table["seeds"], covered[1].mean)], words=("higher", "lower")
    )
    return Measurement(
        decide(word.word, holds="higher", fails="lower"),
        f"The pairs contain {percent(covered[0].mean)} of the wrong completions that the policy writes"
        f" at the start and {percent(covered[1].mean)} after {row['step'][-1]} updates: the data no"
        " longer shows the policy its mistakes. The mean log-probability of the chosen completions"
        f" goes from {number(row['logps/chosen'][0])} to {number(row['logps/chosen'][-1])} nats. For"
        " GRPO the share falls too, but GRPO samples its mistakes itself.",
    )


def noise_matters(records: Records) -> Measurement:
    """Compare DPO on pairs with swapped labels with DPO on clean pairs."""
    words = judged_changes(records["data_quality"])
    small, large = (words["dpo", f"swapped {share} %"]["data"] for share in (10, 30))
    ipo = words["ipo", "swapped 30 %"]["data"]
    surprise = (
        " With DPO's default settings the swapped labels even help."
        if large.word == "higher"
        else ""
    )
    return Measurement(
        Verdict.HOLDS_HERE if large.is_sure or ipo.is_sure else Verdict.UNDECIDED,
        f"Gold accuracy of DPO with 10 % of the labels swapped, minus clean labels: {small.text()}; with"
        f" 30 %: {large.text()}. For IPO: {words['ipo', 'swapped 10 %']['data'].text()};"
        f" {ipo.text()}.{surprise}",
    )


def overfits_small_data(records: Records) -> Measurement:
    """Look whether gold accuracy of DPO falls while it trains on 64 pairs for longer."""
    table = records["data_quality"]
    words = judged_changes(table)
    sizes = {data: words["dpo", data] for data in ("64 pairs", "256 pairs", "clean")}
    longer = {data: found["longer"] for data, found in sizes.items()}
    return Measurement(
        decide(longer["64 pairs"].word, holds="lower", fails="higher"),
        f"Gold accuracy of DPO at update {table['updates']} minus that at update"
        f" {table['early_look']}: {longer['64 pairs'].text()} with 64 pairs,"
        f" {longer['256 pairs'].text()} with 256, {longer['clean'].text()} with 2,000. At the end, minus"
        f" 2,000 pairs: {sizes['64 pairs']['data'].text()} with 64, {sizes['256 pairs']['data'].text()}"
        " with 256.",
    )


CLAIMS = (
    Claim(
        "closed-form",
        DERIVATION,
        "There exists a closed-form relationship between the optimal policy and the reward function.",
        closed_form,
        methods=("dpo",),
    ),
    Claim(
        "reward-from-policy",
        DERIVATION,
        "The reward can be expressed in terms of the policy.",
        reward_from_policy,
        methods=("dpo",),
    ),
    Claim(
        "z-cancels",
        DERIVATION,
        "In the Bradley-Terry model the Z(x) term cancels out, yielding the DPO loss.",
        partition_cancels,
        methods=("dpo",),
    ),
    Claim(
        "beta-steeper",
        DERIVATION,
        "Higher β → steeper loss curve → more sensitive to preference gap.",
        steeper_with_beta,
        methods=("dpo",),
    ),
    Claim(
        "beta-deviation",
        DERIVATION,
        "Lower β → smoother → tolerates larger deviation.",
        tolerates_deviation,
        ("beta",),
        ("dpo",),
    ),
    Claim(
        "two-models",
        ISSUES,
        "DPO eliminates the Reward Model and PPO, requiring only 2 models (policy + reference).",
        two_models,
        ("resources-h100",),
        ("dpo",),
    ),
    Claim(
        "simple-as-sft",
        ISSUES,
        "Training is as simple as SFT (forward pass + backward pass).",
        simple_as_sft,
        ("chain-tokens",),
        ("dpo",),
    ),
    Claim(
        "no-sampling",
        ISSUES,
        "No online sampling needed; trains directly on offline preference data.",
        no_sampling,
        ("tuned",),
        ("dpo",),
    ),
    Claim(
        "distribution-shift",
        ISSUES,
        "Offline distribution shift: as the model updates, the data no longer matches the policy.",
        distribution_shift,
        ("drift",),
        ("dpo",),
    ),
    Claim(
        "noise",
        ISSUES,
        "Noise in preference pairs directly affects the optimization direction.",
        noise_matters,
        ("data_quality",),
        ("dpo",),
    ),
    Claim(
        "overfitting",
        ISSUES,
        "Prone to overfitting: especially evident on small datasets.",
        overfits_small_data,
        ("data_quality",),
        ("dpo",),
    ),
)
