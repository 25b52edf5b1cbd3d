"""What the benchmark found, in words and as the tables of the README."""

from typing import Any


def line(row: dict[str, Any]) -> str:
    """One row in words."""
    who = f"{row['size']:9} {row['work']:15} {row['side']:4} {row['setting']:31}"
    if row["error"]:
        return f"{who} {row['error']}"
    memory = f", {row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
    return (
        f"{who} {row['seconds']:.4f} s ({row['low']:.4f} to {row['high']:.4f}),"
        f" {row['tokens']:,.0f} tokens, {row['tokens_per_second']:,.0f} a second,"
        f" {row['share']:.1%} of the limit{memory}"
    )


def pairs_of(
    table: dict[str, Any],
) -> list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]]:
    """For each work and size the lab's row, the peer's in its default setting and in its fastest
    one; None where there is none.
    """
    found = []
    for own in [
        row
        for row in table["rows"]
        if row["side"] == "lab" and not row["work"].startswith("padding")
    ]:
        theirs = [
            row
            for row in table["rows"]
            if (row["work"], row["size"]) == (own["work"], own["size"])
            and row["side"] != "lab"
            and not row["error"]
        ]
        default = next((row for row in theirs if row["setting"] == "default"), None)
        found.append(
            (own, default, max(theirs, key=lambda row: row["tokens_per_second"], default=None))
        )
    return found


def faster(own: dict[str, Any], theirs: dict[str, Any]) -> float:
    """How many times the tokens a second."""
    return own["tokens_per_second"] / theirs["tokens_per_second"]


def padding(table: dict[str, Any]) -> dict[tuple[str, str], float]:
    """By size and side: time with one completion twice as long, over the time for the same number
    of tokens in completions of equal length.
    """
    rows = {
        (row["size"], row["side"], row["work"]): row["seconds"]
        for row in table["rows"]
        if row["work"].startswith("padding")
        and not row["error"]
        and not row["setting"].endswith("one thread")
    }
    return {
        (size, side): rows[size, side, "padding, longer"] / even
        for (size, side, work), even in rows.items()
        if work == "padding" and (size, side, "padding, longer") in rows
    }


def markdown(table: dict[str, Any]) -> str:
    """The table of the README, and under it what failed and what padding costs."""
    text = [
        (
            "| model | work | lab | TRL, default | TRL, best | faster than the best | memory, lab /"
            " TRL's best | tokens a second | of the device's limit |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for own, default, best in pairs_of(table):
        memory = (
            f"{own['memory'] / 2**30:.2f} / {best['memory'] / 2**30:.2f} GiB"
            if own["memory"] and best
            else "–"
        )
        text.append(
            f"| {own['size']} | {own['work'].upper() if own['work'] != 'decode' else 'decoding'} |"
            f" {_seconds(own)} | {_seconds(default)} |"
            f" {_seconds(best)}{', ' + best['setting'] if best else ''} |"
            f" {f'{faster(own, best):.1f} ×' if best else '–'} | {memory} |"
            f" {own['tokens_per_second']:,.0f} | {own['share']:.1%} |".replace("%", " %")
        )
    notes = [
        f"- {size}, {'TRL' if side == 'trl' else side}: one completion twice as long, the number of"
        f" tokens the same: {ratio:.2f} times the time."
        for (size, side), ratio in padding(table).items()
    ]
    notes += [
        f"- {row['size']}, {row['work']}, TRL with {row['setting']}: {row['error']}"
        for row in table["rows"]
        if row["error"]
    ]
    return "\n".join([*text, *([""] if notes else []), *notes])


def _seconds(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['seconds']:.3f} s ({row['low']:.3f} to {row['high']:.3f})"


def scaling(tables: list[dict[str, Any]]) -> str:
    """A table of the same works measured with several numbers of processes, each with the same work
    per process.

    Efficiency is tokens a second of one process in company over those of one process alone; the
    first table must be that one.
    """
    alone = {(row["work"], row["size"]): row["tokens_per_second"] for row in tables[0]["rows"]}
    text = [
        "| model | work | processes | seconds of an update | tokens a second | efficiency |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, size in alone:
        for table in tables:
            row = next(r for r in table["rows"] if (r["work"], r["size"]) == (name, size))
            rate, count = row["tokens_per_second"], table["processes"]
            text.append(
                f"| {size} | {name.upper()} | {count} | {_seconds(row)} | {rate:,.0f} |"
                f" {100 * rate / count / alone[name, size]:.0f} % |"
            )
    return "\n".join(text)
