"""The one table of metrics: complete, with units in the names, a sentence for an unknown one."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from core import metrics
from core.errors import BadInput
from core.metrics.metric import Places

# The names that scripts depend on.
STABLE = (
    "ttft_s",
    "tpot_s",
    "latency_p95_s",
    "tokens_per_s",
    "model_bytes",
    "peak_bytes",
    "energy_j_per_token",
    "usd_per_mtok",
    "perplexity",
    "kl_nats",
    "top1_agreement",
    "accuracy",
    "accepted_per_step",
    "prepare_s",
)


def test_every_promised_metric_is_there_once() -> None:
    names = [one.name for one in metrics.METRICS]
    assert len(set(names)) == len(names)
    assert set(STABLE) <= set(names)
    for one in metrics.METRICS:
        assert metrics.metric(one.name) is one


@pytest.mark.parametrize("one", metrics.METRICS, ids=lambda one: one.name)
def test_a_metric_says_its_direction_and_what_it_means(one: metrics.Metric) -> None:
    assert one.better in ("lower", "higher")
    assert one.priority in ("", *metrics.PRIORITIES)
    assert one.label
    assert one.meaning.endswith(".")
    endings = {"_s": ("s", "1/s"), "_bytes": ("B",), "_nats": ("nat",), "_per_token": ("J",)}
    for ending, units in endings.items():
        if one.name.endswith(ending):
            assert one.unit in units


def test_every_priority_weighs_some_metric() -> None:
    assert {one.priority for one in metrics.METRICS} - {""} == set(metrics.PRIORITIES)


@pytest.mark.parametrize("name", ["", "speed", "TTFT_S", "ttft_s "])
def test_an_unknown_metric_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(BadInput, match=r"known metrics: accepted_per_step, accuracy"):
        metrics.metric(name)


@pytest.mark.parametrize("place", [field.name for field in fields(Places)])
def test_every_list_of_metrics_has_an_order_without_ties_and_someone_who_asks(place: str) -> None:
    ranks = {getattr(one.places, place) for one in metrics.METRICS} - {0}
    count = len(metrics.listed(place))
    if place.startswith("decides"):
        count = max(len(metrics.listed(place, word)) for word in metrics.PRIORITIES)
    assert ranks == set(range(1, count + 1))
    stem = place.removesuffix("_text").removesuffix("_image")
    words = (f'"{place}"', f'f"{stem}_{{', f'f"{place.partition("_")[0]}_{{')
    assert any(word in text for word in words for text in SOURCES.values()), place


def test_what_an_entry_refers_to_exists() -> None:
    for one in metrics.METRICS:
        assert one.judged in ("timed", "paired", "exact", "apart")
        assert one.projected in ("", "carried", "roofline", "account", "stays")
        assert one.least < one.most
        if one.floor:
            assert metrics.metric(one.floor).unjudged
            assert one.defined is not None
        if one.places.decides or one.places.decides_images:
            assert one.priority


ROOT = Path(__file__).parents[2]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for room in ("app", "core", "store", "kernels")
    for path in sorted((ROOT / room).rglob("*.py"))
    if not path.is_relative_to(ROOT / "core/metrics")
}
