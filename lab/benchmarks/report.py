"""The report of the benchmark: one line per row, and Markdown tables."""

from typing import Any

SIDES = {"lab": "the lab", "trl": "TRL", "unsloth": "Unsloth", "vllm": "vLLM"}


def row_in_words(row: dict[str, Any]) -> str:
    """Returns one row of the table as a line of text."""
    who = f"{row['size']:9} {row['work']:15} {row['side']:7} {row['setting']:38}"
    if row["error"]:
        return f"{who} {row['error']}"
    memory = f", {row['memory'] / 2**30:.2f} GiB" if row["memory"] else ""
    return (
        f"{who} {row['seconds']:.4f} s ({row['low']:.4f} to {row['high']:.4f}),"
        f" {row['tokens']:,.0f} tokens, {row['tokens_per_second']:,.0f} a second,"
        f" {row['share']:.1%} of the limit{memory}"
    )


def has_checkpointing(row: dict[str, Any]) -> bool:
    """Whether the side of a row trained with gradient checkpointing. Records that do not say so have
    it in TRL's default setting alone.
    """
    return row.get(
        "checkpointing",
        row["side"] == "trl" and row["setting"] == "default" and row["work"] != "decode",
    )


def rows_with_peer(
    table: dict[str, Any], peer: str = "trl"
) -> list[tuple[dict[str, Any], dict[str, Any] | None, dict[str, Any] | None]]:
    """Returns three rows for each row of the lab: itself, the peer in its default setting, and the
    peer's fastest setting that has gradient checkpointing like the lab's row; None when there is no
    such row.
    """
    result = []
    for own in [
        row
        for row in table["rows"]
        if row["side"] == "lab" and not row["work"].startswith("padding") and not row["error"]
    ]:
        theirs = [
            row
            for row in table["rows"]
            if (row["work"], row["size"], row["side"]) == (own["work"], own["size"], peer)
            and not row["error"]
        ]
        default = next((row for row in theirs if row["setting"] == "default"), None)
        alike = [row for row in theirs if has_checkpointing(row) == has_checkpointing(own)]
        result.append(
            (own, default, max(alike, key=lambda row: row["tokens_per_second"], default=None))
        )
    return result


def speed_ratio(own: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Returns how many times as many tokens per second the first row has as the second."""
    return own["tokens_per_second"] / theirs["tokens_per_second"]


def padding_ratios(table: dict[str, Any]) -> dict[tuple[str, str], float]:
    """Returns by size and side the time with one completion twice as long, divided by the time with
    equally long completions that have the same number of tokens.
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


def benchmark_table(table: dict[str, Any]) -> str:
    """Returns a Markdown table; below it the settings that failed and the cost of padding."""
    text = [
        (
            "| model | work | checkpointing | lab | TRL, default | TRL, best | faster than the best |"
            " memory, lab / TRL's best | tokens a second | of the device's limit |"
        ),
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for own, default, best in rows_with_peer(table):
        memory = (
            f"{own['memory'] / 2**30:.2f} / {best['memory'] / 2**30:.2f} GiB"
            if own["memory"] and best
            else "–"
        )
        text.append(
            f"| {own['size']} | {own['work'].upper() if own['work'] != 'decode' else 'decoding'} |"
            f" {checkpointing_word(own)} | {_seconds(own)} | {_seconds(default)} |"
            f" {_seconds(best)}{', ' + best['setting'] if best else ''} |"
            f" {f'{speed_ratio(own, best):.1f} ×' if best else '–'} | {memory} |"
            f" {own['tokens_per_second']:,.0f} | {own['share']:.1%} |".replace("%", " %")
        )
    notes = [
        f"- {size}, {'TRL' if side == 'trl' else side}: one completion twice as long, the number of"
        f" tokens the same: {ratio:.2f} times the time."
        for (size, side), ratio in padding_ratios(table).items()
    ]
    notes += [f"- {row_in_words(row)}" for row in peer_rows(table)]
    notes += [
        f"- {row['size']}, {row['work']}, {SIDES.get(row['side'], row['side'])} with"
        f" {row['setting'] or 'no checkpointing'}: {row['error']}"
        for row in table["rows"]
        if row["error"]
    ]
    return "\n".join([*text, *([""] if notes else []), *notes])


def checkpointing_word(row: dict[str, Any]) -> str:
    """Returns "on" or "off"; "–" for sampling, which computes no gradient."""
    return "–" if row["work"] == "decode" else "on" if has_checkpointing(row) else "off"


def peer_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of peers in an environment of their own that have numbers."""
    return [row for row in table["rows"] if row["side"] not in ("lab", "trl") and not row["error"]]


def _seconds(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{row['seconds']:.3f} s ({row['low']:.3f} to {row['high']:.3f})"


def scaling_table(tables: list[dict[str, Any]]) -> str:
    """Returns a Markdown table of the same works with several numbers of processes.

    Every process has the same amount of work in each table. Efficiency is the tokens per second of
    one process among several, divided by those of one process alone; the first of `tables` must
    hold the latter.
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
