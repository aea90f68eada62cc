"""How the judge judges, in sentences for reports: built from the numbers that it judges by."""

from __future__ import annotations

from core.predict.projection import RATIO
from core.statistics.interleave import MIN_PAIRS
from core.statistics.paired import MIN_WINDOWS
from core.verdict.chances import DRAWS as RESAMPLES
from core.verdict.comparison import UNPROJECTED
from core.verdict.judge import FLOORS, SIGNIFICANT
from core.verdict.pairs import MIN_SAMPLES
from core.verdict.recommend import PROVEN


def method_notes() -> tuple[str, ...]:
    """The statistics behind a report's numbers, verdicts and recommendation, one sentence or two
    each."""
    turns, common, apart = (f"{FLOORS[name]:.0%}".replace("%", " %") for name in FLOORS)
    return (
        "Every number names its origin: measured on the target, estimated before any run, projected"
        " from measurements on another machine, or published by others. Unavailable means that"
        " nothing could be read.",
        "The unchanged model is timed in turns with each candidate, in one process. A candidate is"
        " judged by the ratio to the unchanged model beside it: the Hodges-Lehmann estimate of the"
        " pairs' ratios with Wilcoxon's exact 95 % interval, from at least"
        f" {MIN_PAIRS} pairs. Two candidates are compared through the unchanged model that was"
        " beside each.",
        "A difference is called better or worse only when that interval excludes 1 and the ratio"
        " is further from 1 than two copies of one plan may be:"
        f" {turns} in turns, {common} through the unchanged model, {apart} for numbers taken apart."
        " Numbers without pairs are compared by a bootstrap of both medians, or by MOVER (Zou &"
        f" Donner 2008) where only intervals are stated; under {MIN_SAMPLES} runs there is no"
        " verdict.",
        "Timed numbers are shown at one common baseline, so that they agree with the ratios: ratio"
        " x the median over every process of the study that timed the unchanged model. What the"
        " clock said stands beside each in its method.",
        "Quality is compared on the same text: window by window with a BCa bootstrap of the paired"
        f" difference (at least {MIN_WINDOWS} windows), item by item with the score intervals of"
        f" Tango (1998) or Wilson (1927); an item-wise change also needs McNemar's exact p below"
        f" {SIGNIFICANT:g}. A KL or an agreement within what two correct programs of the unchanged"
        " model differ by is noise.",
        "Two projections are compared by their ratio: what the model of the target gets wrong for"
        f" both cancels. A factor of {RATIO['same kernels']:g} may remain where both plans run the"
        f" same kernels, of {RATIO['other kernels']:g} where they do not (assumed, not measured);"
        f" a ratio within it is {UNPROJECTED}.",
        f"The recommendation's certainty is the share of {RESAMPLES:,} resamples of the pairs in"
        " which the plan is ahead of every other that meets the requirements; from"
        f" {PROVEN:.0%}".replace("%", " %")
        + " on, and unless every trial was disturbed, it counts"
        " as proven.",
        "Numbers of different origin, of models with different tasks, of plans that served another"
        " number of requests at a time than the workload asks for, and perplexities of different"
        " tokenizers are not compared.",
    )
