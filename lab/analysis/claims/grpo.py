"""Claims of the section on GRPO and of the figure on offline and online methods."""

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records
from lab.analysis.comparison_words import judge, recorded_difference
from lab.analysis.group_sizes import best_sizes_sentence
from lab.analysis.statistics import Interval
from lab.config.methods import METHODS

SECTION = "GRPO: DeepSeek's approach"
ROUNDED = 0.005
"""The article prints advantages with two digits."""
LINEAR_TOLERANCE = 0.25
"""A cost is linear in G here if the tokens for each completion change by less than this share."""


def no_critic(records: Records) -> Measurement:
    """Look for a critic among the models of GRPO and of PPO."""
    grpo, ppo = METHODS["grpo"].models, METHODS["ppo"].models
    return Measurement(
        Verdict.HOLDS if "critic" in ppo and "critic" not in grpo else Verdict.FAILS_HERE,
        f"{len(grpo)} models can take part in GRPO: {', '.join(grpo)}; {len(ppo)} in PPO:"
        f" {', '.join(ppo)}. The mean reward of the group"
        " takes the place of the critic.",
    )


def relative_ranking(records: Records) -> Measurement:
    """Compare the advantages of two groups with equal ranks. Imports torch."""
    from lab.analysis.group_statistics import advantages_by_variant

    groups = ((3.0, 2.0, 1.0), (9.0, 2.0, 1.0))
    advantages = [advantages_by_variant(group, "group") for group in groups]
    by_rank = all(abs(a - b) < ROUNDED for a, b in zip(*advantages))
    listed = " and ".join(
        f"{group} get {', '.join(f'{a:+.2f}'.replace('-', '−') for a in found)}"
        for group, found in zip(groups, advantages)
    )
    return Measurement(
        Verdict.HOLDS if by_rank else Verdict.FAILS_HERE,
        f"The formula uses distances from the mean, not ranks. The rewards {listed}: the same ranks, but"
        " other advantages.",
    )


def printed_advantages(records: Records) -> Measurement:
    """Compare the advantages that the article prints with its formula, for both standard deviations.
    Imports torch.
    """
    from lab.analysis.group_statistics import ARTICLE_ADVANTAGES, ARTICLE_REWARDS, mean_and_std

    errors = {}
    for name, population in (("the population's std", True), ("the unbiased std", False)):
        mean, std = mean_and_std(ARTICLE_REWARDS, population)
        errors[name] = max(
            abs((r - mean) / std - a) for r, a in zip(ARTICLE_REWARDS, ARTICLE_ADVANTAGES)
        )
    agree = [name for name, error in errors.items() if error <= ROUNDED]
    listed = "; ".join(f"{name}: {error:.3f}" for name, error in errors.items())
    return Measurement(
        Verdict.HOLDS if agree else Verdict.FAILS_HERE,
        "The figure prints rewards with one digit. Rewards that round to them give the printed advantages"
        f" with {' and '.join(agree) or 'neither std'}. Largest difference, with {listed}. GRPO in this"
        " lab and in TRL divides by the unbiased std.",
    )


def larger_group_is_more_accurate(records: Records) -> Measurement:
    """Compare the variance of the gradient with the group's mean as baseline, for small and large groups."""
    table = records["baselines"]
    last = max(row["updates"] for row in table["rows"])
    rows = [row for row in table["rows"] if row["updates"] == last]
    ends = [Interval(**row["variance"]["leave_one_out"]) for row in rows]
    (word,) = judge(
        [recorded_difference(ends[0], ends[-1], table["seeds"])], words=("larger", "smaller")
    )
    listed = ", ".join(f"{end.text()} for G = {row['group_size']}" for row, end in zip(rows, ends))
    return Measurement(
        decide(word.word, holds="larger", fails="smaller"),
        f"Variance of the gradient of {table['plan']['completions']} completions, relative to no"
        f" baseline: {listed} ({table['seeds']} seeds). The smallest minus the largest G:"
        f" {word.text()}. With more completions of each prompt there are fewer prompts. Values above 1"
        " mean that the baseline makes the gradient noisier here.",
    )


def linear_cost(records: Records) -> Measurement:
    """Compare the tokens of large and small groups at equal prompts."""
    table = records["groups"]
    rows = [row for row in table["rows"] if row["budget"] == "prompts"]
    first, last = rows[0], rows[-1]
    times = last["group_size"] / first["group_size"]
    tokens = last["final"]["tokens"]["mean"] / first["final"]["tokens"]["mean"]
    linear = abs(tokens / times - 1) < LINEAR_TOLERANCE
    return Measurement(
        Verdict.HOLDS_HERE if linear else Verdict.FAILS_HERE,
        f"At {first['prompts']} prompts an update, G = {last['group_size']} instead of"
        f" {first['group_size']} samples {times:g} times as many completions and {tokens:.1f} times as"
        " many tokens."
        + (" The completions also grow longer as the run learns." if tokens > times else ""),
    )


def practical_group_size(records: Records) -> Measurement:
    """List gold accuracy by G; what others use in practice cannot be measured."""
    table = records["groups"]
    rows = [row for row in table["rows"] if row["budget"] == "rollouts"]
    listed = ", ".join(
        f"{Interval(**row['final']['gold/accuracy']).text(2, (0.0, 1.0))} for G = {row['group_size']}"
        for row in rows
    )
    return Measurement(
        Verdict.UNTESTABLE,
        f"This lab does not know what others do. Gold accuracy here at equal rollouts: {listed}"
        f" ({table['seeds']} seeds). {best_sizes_sentence(table)}",
    )


def saves_memory(records: Records) -> Measurement:
    """Compare the peak memory of a GRPO update with that of PPO, for 1.2 billion weights."""
    grpo = records.peak_gib("grpo")
    saved, shared = (records.peak_gib(f"ppo.{kind}") - grpo for kind in ("separate", "shared"))
    weights = records.large_model["grpo"]["parameters"] * 2 / 2**30
    return Measurement(
        Verdict.HOLDS_HERE if min(saved, shared) > 0 else Verdict.FAILS_HERE,
        f"One update of a model with 1.2 billion weights ({weights:.1f} GiB in 16 bits) needs"
        f" {grpo:.1f} GiB with GRPO. That is {saved:.1f} GiB less than PPO with four sets"
        f" of weights, and {shared:.1f} GiB less than PPO with one shared base.",
    )


def online_avoids_shift(records: Records) -> Measurement:
    """Compare GRPO and online DPO with DPO at equal tokens."""
    tuned = records.tuned
    words = {arm: tuned.compare(arm, "dpo") for arm in ("grpo", "online_dpo")}
    return Measurement(
        Verdict.HOLDS,
        "GRPO trains on completions of its present policy, so its data cannot come from an older one. In"
        " gold accuracy, tuned at equal tokens, GRPO minus DPO is"
        f" {words['grpo'].text}, online DPO minus DPO is {words['online_dpo'].text}.",
    )


def emergent_thinking(records: Records) -> Measurement:
    """Look how the share of completions with a scratchpad changes under GRPO."""
    tuned, tokens = records.tuned, records.tokens
    first = tokens.base["scratchpad_share"]
    last = tuned.text("grpo", measure="scratchpad_share")
    return Measurement(
        Verdict.UNTESTABLE,
        "The share of completions with a scratchpad (working before the answer) goes from"
        f" {first:.2f} to {last} under GRPO, and no reward asks for it. But the base was"
        " taught some scratchpads, so a habit grew stronger and nothing new appeared. SFT on right"
        f" completions reaches {tuned.text('sft', measure='scratchpad_share')}, DPO"
        f" {tuned.text('dpo', measure='scratchpad_share')}.",
    )


def offline_data_is_old(records: Records) -> Measurement:
    """Count the tokens that offline methods sampled from their policy."""
    tuned = records.tuned
    offline = [arm for arm in tuned.arms() if METHODS[arm.partition(".")[0]].offline]
    sampled = sum(tuned.mean(arm, measure="sampled") for arm in offline)
    return Measurement(
        Verdict.HOLDS if sampled == 0 else Verdict.FAILS_HERE,
        f"{', '.join(tuned.title(arm) for arm in offline)} sampled {sampled:.0f} tokens of their own"
        f" policy. GRPO sampled {tuned.mean('grpo', measure='sampled'):,.0f}.",
    )


CLAIMS = (
    Claim(
        "no-critic",
        SECTION,
        "GRPO's core innovation is eliminating the Critic network.",
        no_critic,
        methods=("grpo",),
    ),
    Claim(
        "ranking",
        SECTION,
        "Compute Advantage using within-group relative ranking.",
        relative_ranking,
        methods=("grpo",),
    ),
    Claim(
        "printed-advantages",
        SECTION,
        "A_i = (r_i - mean(r)) / std(r): rewards 6.0, 5.7, … 3.9 have A = +1.19, +0.66, … -2.06.",
        printed_advantages,
        methods=("grpo",),
    ),
    Claim(
        "larger-group",
        SECTION,
        "Larger G → more accurate Advantage (lower variance).",
        larger_group_is_more_accurate,
        ("baselines",),
        ("grpo",),
    ),
    Claim(
        "linear-cost",
        SECTION,
        "Larger G → linear cost increase.",
        linear_cost,
        ("groups",),
        ("grpo",),
    ),
    Claim(
        "group-size", SECTION, "In practice G = 8~64.", practical_group_size, ("groups",), ("grpo",)
    ),
    Claim(
        "critic-memory",
        SECTION,
        "GRPO saves one large model's worth of GPU memory.",
        saves_memory,
        ("resources-h100",),
        ("grpo",),
    ),
    Claim(
        "online-no-shift",
        SECTION,
        "Online sampling avoids distribution shift.",
        online_avoids_shift,
        ("tuned",),
        ("grpo", "online_dpo"),
    ),
    Claim(
        "emergent-thinking",
        SECTION,
        "DeepSeek-R1 used GRPO with rule-based rewards and exhibited emergent thinking capabilities.",
        emergent_thinking,
        ("tuned", "chain-tokens"),
        ("grpo",),
    ),
    Claim(
        "offline-data",
        SECTION,
        "Offline: data collected before training; the model cannot see responses from its new policy.",
        offline_data_is_old,
        ("tuned",),
        ("dpo",),
    ),
)
