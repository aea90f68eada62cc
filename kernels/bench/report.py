"""What the kernels' benchmark prints: lines, a summary for each format, a Markdown table.

Owns the wording and the summary's arithmetic over finished rows; times nothing.
"""

import datetime
import os
import platform
import statistics
from typing import Any

Row = dict[str, Any]
# From this size on a matrix is surely streamed from memory (issue: share of the copy bandwidth).
LARGE_BYTES = 4 << 20


def line(row: Row) -> str:
    """One row of the table for people."""
    numbers = (
        f"{row['format']:<9} {row['shape']:>12} M={row['rows']:<4} {row['kernel']:<30}"
        f" {row['us']:>9.1f} us {row['gb_per_s']:>6.1f} GB/s {row['copy_share']:>5.0%} of copy"
    )
    if row["peak_share"] is not None and row["rows"] > 1:
        numbers += f" {row['peak_share']:>4.0%} of peak"
    if row["refused"]:
        return f"{numbers}  no speed-up: {row['refused']}"
    text = (
        f"{numbers}  {row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
        f" of {row['baseline']}"
    )
    if "versus_best" not in row or row["best_other"] == row["baseline"]:
        return text
    low, high = row["versus_best_low"], row["versus_best_high"]
    return f"{text}, {row['versus_best']:.2f}x [{low:.2f}, {high:.2f}] of {row['best_other']}"


def summary(rows: list[Row]) -> list[Row]:
    """For each format and number of rows, the best of ours against the best of the others.

    Entry: op, format, rows, shapes, mean (geometric), least, least_shape, least_low, of (the names
    of the best others), dense_mean and dense_least (against torch's bf16), copy_share (the smallest
    of the shapes of 4 MB and more, None without one).
    """
    cases: dict[tuple[str, str, int, str], list[Row]] = {}
    for row in rows:
        if row.get("versus_best") is not None:
            key = (row["op"], row["format"], row["rows"], row["shape"])
            cases.setdefault(key, []).append(row)
    groups: dict[tuple[str, str, int], list[Row]] = {}
    for (op, format_, count, _), alike in cases.items():
        groups.setdefault((op, format_, count), []).append(min(alike, key=lambda row: row["us"]))
    return [_entry(*key, best) for key, best in sorted(groups.items())]


def _entry(op: str, format_: str, count: int, rows: list[Row]) -> Row:
    least = min(rows, key=lambda row: row["versus_best"])
    large = [row for row in rows if row["gb_per_s"] * row["us"] * 1e3 >= LARGE_BYTES]
    dense = [row["speedup"] for row in rows]
    return {
        "op": op,
        "format": format_,
        "rows": count,
        "shapes": len(rows),
        "mean": statistics.geometric_mean(row["versus_best"] for row in rows),
        "least": least["versus_best"],
        "least_low": least["versus_best_low"],
        "least_shape": least["shape"],
        "of": sorted({row["best_other"] for row in rows}),
        "dense_mean": statistics.geometric_mean(dense),
        "dense_least": min(dense),
        "copy_share": min((row["copy_share"] for row in large), default=None),
    }


def sentences(entries: list[Row], rows: list[Row]) -> list[str]:
    """The summary in words, then what could not be timed."""
    text = ["", "Ours against the best other, by format and rows of x:"]
    for entry in entries:
        words = (
            f"{entry['format']:<9} M={entry['rows']:<4} {entry['mean']:.2f}x in the geometric mean"
            f" of {entry['shapes']} shapes, {entry['least']:.2f}x at least"
            f" ({entry['least_shape']}); of bf16 {entry['dense_mean']:.2f}x,"
            f" {entry['dense_least']:.2f}x at least"
        )
        if entry["copy_share"] is not None and entry["rows"] <= 8:
            words += f"; {entry['copy_share']:.0%} of copy bandwidth from 4 MB on"
        text.append(words)
    if not entries:
        text[1:] = ["No kernel of ours was compared with another."]
    absent = dict.fromkeys(
        f"Not timed, {row['format']}, {row['kernel']}: {row['absent']}."
        for row in rows
        if "absent" in row
    )
    wrong = dict.fromkeys(row["refused"] for row in rows if row["refused"])
    return [*text, *absent, *(f"Wrong: {sentence}." for sentence in wrong)]


def markdown(entries: list[Row]) -> list[str]:
    """A table of the summary: formats down, rows of x across, mean and (least)."""
    counts = sorted({entry["rows"] for entry in entries})
    formats = list(dict.fromkeys(entry["format"] for entry in entries))
    cells = {(entry["format"], entry["rows"]): entry for entry in entries}
    head = "| format | " + " | ".join(f"M = {count}" for count in counts) + " |"
    text = [head, "|---" * (len(counts) + 1) + "|"]
    for format_ in formats:
        row = []
        for count in counts:
            entry = cells.get((format_, count))
            row.append("" if entry is None else f"{entry['mean']:.2f} ({entry['least']:.2f})")
        text.append(f"| {format_} | " + " | ".join(row) + " |")
    here = machine()
    text += [
        "",
        "Ours against the best other of the same run: geometric mean over "
        f"{max((entry['shapes'] for entry in entries), default=0)} shapes (least). "
        f"{here['processor']}, {here['threads']} threads, torch {here['torch']}, {here['date']}.",
    ]
    return text


def machine() -> Row:
    """What the numbers belong to: processor, threads, versions, date."""
    import torch

    name = platform.processor() or platform.machine()
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    elif os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            models = [
                fact.partition(":")[2].strip() for fact in lines if fact.startswith("model name")
            ]
        name = models[0] if models else name
    return {
        "processor": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
