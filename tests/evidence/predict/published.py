"""Rates that others published on devices that are not here lie inside the predicted bands, no band
is wider than a factor of three, and the middles are within 25 %; held-out rows apart.

    python -m tests.evidence published            the table and the figures
    python -m tests.evidence published --fit      what the rows for fitting ask of each class

Rows that do not hold are marked in core/catalogue/published.toml with the reason, at most a tenth.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.catalogue.published import PublishedRow, rows
from core.predict.published import predicted
from core.predict.roofline import Span
from tests.evidence.predict.fitting import fitted

WIDEST, NEAR, MOST_MISSES = 3.0, 0.25, 0.1


@dataclass(frozen=True)
class Comparison:
    """A published row and what is predicted for it."""

    row: PublishedRow
    span: Span

    @property
    def error(self) -> float:
        """The middle over the published value, minus 1."""
        return self.span.value / self.row.value - 1

    @property
    def width(self) -> float:
        """The band's high over its low."""
        return self.span.high / self.span.low

    @property
    def inside(self) -> bool:
        """Whether the band holds the published value."""
        return self.span.low <= self.row.value <= self.span.high

    @property
    def holds(self) -> bool:
        """Inside, a narrow band, and a near middle."""
        return self.inside and self.width <= WIDEST * (1 + 1e-9) and abs(self.error) <= NEAR


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command line."""
    parser.add_argument("--fit", action="store_true", help="fit the classes and print them")


def main(options: argparse.Namespace) -> int:
    """Print the table or the fit; 0 when every row that is not marked holds and few are marked."""
    if options.fit:
        for line in fitted([row for row in rows() if row.use == "fit"]):
            print(line, flush=True)
        return 0
    compared = comparisons(rows())
    for each in compared:
        mark = "" if each.holds else " near miss" if each.inside else " MISS"
        print(
            f"{each.row.id:27} {each.row.use:8} {each.row.value:10.4g} {each.row.unit:4}"
            f" {each.span.value:10.4g} [{each.span.low:.4g}, {each.span.high:.4g}]"
            f" {each.error:+4.0%}{mark}"
        )
    for use in ("fit", "held-out"):
        print(f"{use}: {summary([each for each in compared if each.row.use == use])}")
    unmarked = [each.row.id for each in compared if not each.holds and not each.row.miss]
    marked = [each.row.id for each in compared if each.row.miss]
    widest = max(each.width for each in compared)
    reached = not unmarked and len(marked) <= MOST_MISSES * len(compared) and widest <= WIDEST
    print(
        f"all {len(compared)} rows: {summary(compared)}; {len(marked)} marked as misses,"
        f" {len(unmarked)} unmarked: {'reached' if reached else 'missed'}"
    )
    return 0 if reached else 1


def comparisons(published: Sequence[PublishedRow]) -> list[Comparison]:
    """Every row for which something is predicted."""
    spans = ((row, predicted(row)) for row in published)
    return [Comparison(row, span) for row, span in spans if span is not None]


def summary(compared: Sequence[Comparison]) -> str:
    """Shares and errors of some rows, in words."""
    errors = np.abs([each.error for each in compared])
    inside = sum(each.inside for each in compared)
    return (
        f"{inside} of {len(compared)} inside, {int(np.sum(errors <= NEAR))} within 25 %, error"
        f" {np.median(errors):.0%} (median), {np.quantile(errors, 0.9):.0%} (90th percentile),"
        f" bands at most {max(each.width for each in compared):.2f} wide"
    )
