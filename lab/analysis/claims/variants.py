"""Claims of the section on IPO and KTO."""

from statistics import fmean

from lab.analysis.claims.claim import Claim, Measurement, Verdict, decide
from lab.analysis.claims.records import Records
from lab.analysis.comparison_words import judge, paired_difference
from lab.analysis.data_quality import judged_changes

SECTION = "IPO and KTO"


def ipo_prevents_overfitting(records: Records) -> Measurement:
    """Compare how gold accuracy changes with longer training on 64 pairs, for IPO and for DPO."""
    table = records["data_quality"]
    words = judged_changes(table)
    rows = {row["method"]: row for row in table["rows"] if row["data"] == "64 pairs"}
    changes = {
        name: [late - early for late, early in zip(row["late"], row["early"])]
        for name, row in rows.items()
    }
    (word,) = judge([paired_difference(changes["ipo"], changes["dpo"])])
    return Measurement(
        decide(word.word, holds="better", fails="worse"),
        f"With 64 pairs, gold accuracy at update {table['updates']} minus that at update"
        f" {table['early_look']} is {words['ipo', '64 pairs']['longer'].text()} for IPO and"
        f" {words['dpo', '64 pairs']['longer'].text()} for DPO. The change of IPO minus the change of DPO"
        f" is {word.text()}. With 2,000 pairs and tuned settings, IPO minus DPO is"
        f" {records.tuned.compare('ipo', 'dpo').text}.",
    )


def ipo_margin_is_finite(records: Records) -> Measurement:
    """Compare the push of both losses at and beyond IPO's target, and the margins of recorded pairs. Imports
    torch.
    """
    from lab.analysis.loss_curves import along_margin

    rows = {row["name"]: row for row in records["margins"]["rows"]}
    target = 1 / (2 * rows["IPO"]["beta"])
    ipo = along_margin("ipo", (target, 2 * target), beta=rows["IPO"]["beta"]).push
    dpo = along_margin("dpo", (target, 2 * target), beta=rows["DPO"]["beta"]).push
    ends = {name: fmean(rows[name]["margins"][-1]) for name in ("IPO", "DPO")}
    finite = abs(ipo[0]) < 1e-9 and ipo[1] < 0 < min(dpo)
    return Measurement(
        Verdict.HOLDS if finite else Verdict.FAILS_HERE,
        f"At β = {rows['IPO']['beta']:g} IPO pushes the margin up to 1/(2β) = {target:g} nats and back"
        f" beyond it. DPO still pushes with {dpo[0]:.3f} there and {dpo[1]:.3f} at twice that margin. In"
        f" one recorded run each, the mean margin of the same training pairs ends at {ends['IPO']:.1f}"
        f" nats for IPO and {ends['DPO']:.1f} for DPO.",
    )


def kto_needs_no_pairs(records: Records) -> Measurement:
    """Compare KTO on single judgements with the base and with DPO."""
    tuned = records.tuned
    gain = tuned.gain("kto")
    return Measurement(
        decide(gain.word, holds="better", fails="worse"),
        f"KTO learns from single completions, each good or bad: {tuned.base} to {tuned.text('kto')},"
        f" {gain.text()}. KTO minus DPO, which sees the same completions as pairs, is"
        f" {tuned.compare('kto', 'dpo').text} at equal tokens and"
        f" {tuned.compare('kto', 'dpo', 'kl').text} at equal KL.",
    )


def annotation_costs(records: Records) -> Measurement:
    """Say why the lab cannot measure the cost of annotation."""
    return Measurement(
        Verdict.UNTESTABLE,
        "A rule judges the completions of this lab; nobody was paid to label them.",
    )


CLAIMS = (
    Claim(
        "ipo-overfitting",
        SECTION,
        "IPO adds a regularization term to prevent overfitting.",
        ipo_prevents_overfitting,
        ("data_quality", "tuned"),
        ("ipo",),
    ),
    Claim(
        "ipo-margin",
        SECTION,
        "With IPO the model doesn't need to push the margin of preference pairs to infinity.",
        ipo_margin_is_finite,
        ("margins",),
        ("ipo",),
    ),
    Claim(
        "kto-unpaired",
        SECTION,
        "KTO doesn't require paired preference data: only whether each response is good or bad.",
        kto_needs_no_pairs,
        ("tuned",),
        ("kto",),
    ),
    Claim(
        "kto-annotation",
        SECTION,
        "KTO significantly reduces annotation costs.",
        annotation_costs,
        methods=("kto",),
    ),
)
