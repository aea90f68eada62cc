"""Fits each class of device to its published rows: one number after another is moved a little while
that brings the middles nearer (coordinate descent on logarithms, with a robust distance)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import numpy as np

from core.catalogue import targets
from core.catalogue.classes import Classes, Core, DeviceClass, classes
from core.catalogue.published import PublishedRow
from core.predict.published import predicted

# Steps in logarithms; errors count linearly beyond ROBUST.
STEPS, ROBUST, SWEEPS = (0.2, 0.05, 0.02), 0.2, 3


def fitted(published: Sequence[PublishedRow]) -> Iterator[str]:
    """A line for each class and core that has rows, as they are fitted."""
    by_class = defaultdict(list)
    for row in published:
        entry = targets.entry(row.target)
        if entry is not None and row.metric != "peak_bytes":
            by_class[entry.device_class].append(row)
    for name, own in by_class.items():
        known = classes().device(name) or classes().core(name)
        assert known is not None, name
        before = loss(known, own)
        best = descend(known, own)
        yield f"{name}, {len(own)} rows, loss {before:.4f} -> {loss(best, own):.4f}: {words(best)}"


def descend(known: DeviceClass | Core, own: Sequence[PublishedRow]) -> DeviceClass | Core:
    """The class after every number was tried a step up and down, with ever smaller steps."""
    least = loss(known, own)
    for step in STEPS:
        for _ in range(SWEEPS):
            before = least
            for index in range(len(moves(known, 1.0))):
                for factor in (np.exp(step), np.exp(-step)):
                    changed = moves(known, float(factor))[index]
                    found = loss(changed, own)
                    if found < least - 1e-9:
                        known, least = changed, found
            if before - least < 1e-6:
                break
    return known


def loss(known: DeviceClass | Core, own: Sequence[PublishedRow]) -> float:
    """The mean of a robust distance of the middles from what was published, in logarithms."""
    with using(known):
        spans = [predicted(row) for row in own]
    far = np.abs(
        [np.log(span.value / row.value) for span, row in zip(spans, own, strict=True) if span]
    )
    return float(np.mean(np.where(far < ROBUST, far**2 / 2, ROBUST * (far - ROBUST / 2))))


@contextmanager
def using(known: DeviceClass | Core) -> Iterator[None]:
    """Predict with this class in place of the file's for a while."""
    if isinstance(known, Core):
        instead = Classes(classes().devices, (known,))
    else:
        instead = Classes((known,), classes().cores)
    places = ("core.predict.typical.classes", "core.predict.sensor.classes")
    with (
        mock.patch(places[0], return_value=instead),
        mock.patch(places[1], return_value=instead),
    ):
        yield


def moves(known: DeviceClass | Core, factor: float) -> list[DeviceClass | Core]:
    """The class with each of its numbers, in turn, times `factor`."""
    if isinstance(known, Core):
        return [
            replace(known, cycles_per_mac=known.cycles_per_mac * factor),
            replace(known, cycles_per_weight=known.cycles_per_weight * factor),
        ]
    changed: list[DeviceClass | Core] = [
        replace(known, layer_overhead_s=known.layer_overhead_s * factor)
    ]
    for name, share in known.bandwidth:
        table = {**dict(known.bandwidth), name: min(1.0, share * factor)}
        changed.append(replace(known, bandwidth=tuple(table.items())))
    for name, share in known.compute:
        table = {**dict(known.compute), name: min(1.0, share * factor)}
        changed.append(replace(known, compute=tuple(table.items())))
    return changed


def words(known: DeviceClass | Core) -> str:
    """The numbers, rounded."""
    if isinstance(known, Core):
        return f"{known.cycles_per_mac:.3g} a MAC + {known.cycles_per_weight:.3g} a weight"
    bandwidth = ", ".join(f"{name} {share:.2f}" for name, share in known.bandwidth)
    compute = ", ".join(f"{name} {share:.2f}" for name, share in known.compute)
    overhead = f"{known.layer_overhead_s * 1e6:.0f} µs a layer"
    return f"bandwidth {bandwidth}; compute {compute}; {overhead}"
