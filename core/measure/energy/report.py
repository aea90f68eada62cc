"""Turns the energy books of a trial into measurements per new, prompt and decoded token."""

from __future__ import annotations

import math
from collections.abc import Callable

from core.engine.serve import DECODE, PREFILL
from core.measure.energy.meter import Book, RoundEnergy
from core.measure.energy.reader import UPDATES, noise_of, rounds_needed
from core.measurement import Measurement, unavailable
from core.metrics import metric

Phase = Callable[[RoundEnergy], tuple[float, float, int]]


def energy(ours: Book, theirs: Book | None, how: str, text: bool) -> list[Measurement]:
    """energy_j_per_token of the whole rounds and, for text, energy_prefill_j_per_token and
    energy_decode_j_per_token.

    `theirs` are the unchanged model's rounds in turns with ours: they become the `reference`, round
    by round. Rounds too short for the counter are put together, the same number on both sides.
    """
    measurements = [
        _one("energy_j_per_token", ours, theirs, how, _whole, lambda book: book.new_tokens)
    ]
    if not text:
        return measurements
    measurements.append(
        _one(
            "energy_prefill_j_per_token",
            ours,
            theirs,
            how,
            lambda reading: _phase(reading, PREFILL),
            lambda book: book.prompt_tokens,
        )
    )
    steps = "; the first new token of each request belongs to the prefill"
    measurements.append(
        _one(
            "energy_decode_j_per_token",
            ours,
            theirs,
            how + steps,
            lambda reading: _phase(reading, DECODE),
            lambda book: book.decoded_tokens,
        )
    )
    return measurements


def _one(
    name: str,
    ours: Book,
    theirs: Book | None,
    how: str,
    phase: Phase,
    tokens: Callable[[Book], int],
) -> Measurement:
    meter = ours.meter
    if meter.why:
        return unavailable(name, "J", meter.why)
    spent = [phase(reading) for reading in ours.rounds]
    if not spent or not tokens(ours) or not sum(seconds for _, seconds, _ in spent):
        return unavailable(name, "J", "no such work was done in a timed round")
    size = _rounds_a_sample(ours, phase)
    if theirs is not None and len(theirs.rounds) == len(spent):
        size = max(size, _rounds_a_sample(theirs, phase))
    if size > len(spent):
        mean = sum(seconds for _, seconds, _ in spent) / len(spent)
        return unavailable(
            name,
            "J",
            f"one round of it takes {mean * 1e3:.3g} ms and the reading is renewed every"
            f" {meter.resolution_s * 1e3:.3g} ms: {_noise(ours)} needs {size:,} rounds,"
            f" {len(spent):,} were timed; choose a longer preset",
        )
    samples = _samples(spent, size, meter.idle_watts, tokens(ours))
    reference: tuple[float, ...] = ()
    if theirs is not None and len(theirs.rounds) == len(spent) and tokens(theirs):
        other = [phase(reading) for reading in theirs.rounds]
        reference = _samples(other, size, meter.idle_watts, tokens(theirs))
    method = "; ".join(filter(None, (how, _method(ours, spent, size))))
    return _measurement(name, samples, reference, method, ours)


def _measurement(
    name: str, samples: tuple[float, ...], reference: tuple[float, ...], method: str, book: Book
) -> Measurement:
    measurement = Measurement(name, samples, metric(name).unit, book.meter.origin, method)
    value = measurement.value
    if value is None or value <= 0:
        return unavailable(
            name, "J", f"the draw above idle is lost in the noise of idle power; {method}"
        )
    if book.meter.origin == "measured":
        return Measurement(
            name, samples, metric(name).unit, "measured", method, reference=reference
        )
    low, high = book.meter.spread
    around = measurement.interval() or (value, value)
    return Measurement(
        name,
        samples,
        metric(name).unit,
        "estimated",
        method,
        pooled=value,
        bounds=(min(around[0], value) * low, max(around[1], value) * high),
        reference=reference,
    )


def _rounds_a_sample(book: Book, phase: Phase) -> int:
    spent = [phase(reading) for reading in book.rounds]
    seconds = sum(seconds for _, seconds, _ in spent) / len(spent)
    laps = max(1, round(sum(laps for _, _, laps in spent) / len(spent)))
    meter = book.meter
    return rounds_needed(meter.resolution_s, seconds, laps, meter.updates) if seconds > 0 else 1


def _noise(book: Book) -> str:
    """What the ends of a sample add, in whole per cents."""
    return f"under {math.ceil(100 * noise_of(book.meter.updates))} % of noise"


def _samples(
    spent: list[tuple[float, float, int]], size: int, idle_watts: float, tokens: int
) -> tuple[float, ...]:
    """Joules a token of each `size` rounds in a row, idle taken off; a rest shorter than that
    joins the last.
    """
    samples = []
    count = len(spent) // size
    for i in range(count):
        group = spent[i * size : (i + 1) * size if i + 1 < count else len(spent)]
        joules = sum(joules - idle_watts * seconds for joules, seconds, _ in group)
        samples.append(joules / (tokens * len(group)))
    return tuple(samples)


def _method(book: Book, spent: list[tuple[float, float, int]], size: int) -> str:
    meter = book.meter
    seconds = sum(seconds for _, seconds, _ in spent)
    watts = sum(joules for joules, _, _ in spent) / seconds
    parts = [" + ".join(reader.name for reader in meter.readers), f"{watts:.3g} W while serving"]
    if any(reader.draws_idle for reader in meter.readers):
        parts.append(
            f"{meter.idle_watts:.3g} W of idle power, measured before over"
            f" {meter.idle_seconds:.3g} s, taken off"
        )
    elif meter.origin == "measured":
        parts.append("idle power not taken off")
    else:
        parts.append("idle power is not in it")
    if meter.updates < UPDATES:
        often = f"renewed every {meter.resolution_s * 1e3:.3g} ms"
        parts.append(f"{often}, which adds {_noise(book)} to a sample")
    if size > 1:
        parts.append(f"{size} rounds together make one sample")
    wide = sum(sum(reading.seconds.values()) for reading in book.rounds)
    for name in book.rounds[0].beside:
        around = sum(reading.beside.get(name, 0.0) for reading in book.rounds) / wide
        parts.append(f"{name} draws {around:.3g} W in all")
    if meter.origin == "estimated":
        low, high = meter.spread
        parts.append(f"estimate: the truth is taken to lie at {low:g} to {high:g} times it")
    return "; ".join(parts)


def _whole(reading: RoundEnergy) -> tuple[float, float, int]:
    """Joules, seconds and spans of everything; the marks inside share their readings."""
    return sum(reading.joules.values()), sum(reading.seconds.values()), 1


def _phase(reading: RoundEnergy, name: str) -> tuple[float, float, int]:
    return reading.joules.get(name, 0.0), reading.seconds.get(name, 0.0), reading.spans.get(name, 1)
