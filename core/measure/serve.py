"""Time a server under the workload: TTFT, TPOT, latency, throughput, energy.

A round is `concurrency` requests that arrive together; which are served together is the server's
business. A request's clock starts with the round, so waiting is part of its latency.
Rounds of the deployment and of the unchanged model take turns, so that their ratio is that of the
plans and not of the hour. Memory and quality are measured elsewhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from core.condition import AS_ASKED, Condition
from core.engine.serve import PREFILL
from core.machine.watch import DISTURBED, settle, waited_seconds
from core.measure.energy import Book, Meter, energy, find_meter
from core.measure.timing import alternate, warm_up
from core.measurement import Measurement, quantile_interval, unavailable
from core.metrics import metric
from core.planner.presets import Preset
from core.techniques.deployment import Deployment
from core.workload import Workload
from kernels import calls

if TYPE_CHECKING:
    import torch

    from core.engine.serve.sequence import Request
    from core.engine.serve.server import Server

# Rounds on a GPU that compile kernels, choose among them and capture the step.
COMPILING = 2


@dataclass(frozen=True)
class Service:
    """A deployment with the requests of one round: int64 [requests, length] ids, or images."""

    deployment: Deployment
    workload: Workload
    requests: torch.Tensor

    @property
    def text(self) -> bool:
        """Whether tokens are asked for, not classes."""
        return self.deployment.case.model.task == "text"

    @property
    def new_tokens(self) -> int:
        """New tokens of each request; the class of an image counts as one.

        The model's stop tokens are ignored: every plan does the work that the workload states.
        """
        return self.workload.output_tokens if self.text else 1

    @property
    def asked(self) -> int:
        """New tokens, or images, of one round."""
        return len(self.requests) * self.new_tokens

    @cached_property
    def server(self) -> Server:
        """What is timed."""
        return self.deployment.server()

    def round(self, book: Book | None = None) -> Round:
        """Serve the requests once; `book` gets the energy of prefill and decode apart."""
        return serve_round(self.server, self._asks, book if self.text else None)

    @cached_property
    def _asks(self) -> list[Request]:
        from core.engine.serve.sequence import Request

        return [Request(prompt, self.new_tokens) for prompt in self.requests]


@dataclass(frozen=True)
class Round:
    """What one round took: seconds of each group of requests, and speculation's counts.

    Requests that started together wait for each other: they are one sample, the mean of theirs,
    however many they are. `steps` are the verification steps, `emitted` the tokens that they gave;
    `waited` are the seconds that our threads stood ready without a core, None where nobody tells.
    """

    seconds: float
    ttft: tuple[float, ...]
    tpot: tuple[float, ...]
    latency: tuple[float, ...]
    steps: int = 0
    emitted: int = 0
    waited: float | None = None


def serve_round(server: Server, requests: list[Request], book: Book | None = None) -> Round:
    """Submit all requests at once and step until the last is done."""
    import torch

    before = server.stats()
    began = time.perf_counter()
    sequences = [server.submit(request, began) for request in requests]
    phase = ""
    # Entered once: entering it for every token costs as much as a kernel of a small model.
    with torch.inference_mode():
        while coming := server.phase:
            # Every prompt is a span of its own: decoding may not have come between two of them.
            if book is not None and (coming != phase or coming == PREFILL):
                book.mark(coming)
                phase = coming
            server.step()
    seconds = time.perf_counter() - began
    after = server.stats()
    ttft: list[float] = []
    tpot: list[float] = []
    latency: list[float] = []
    for _, together in groupby(sequences, key=lambda sequence: sequence.started_at):
        group = list(together)
        ttft.append(fmean(sequence.first_at - began for sequence in group))
        latency.append(fmean(sequence.finished_at - began for sequence in group))
        decoded = [sequence.tpot_s for sequence in group if sequence.tpot_s is not None]
        if decoded:
            tpot.append(fmean(decoded))
    return Round(
        seconds,
        tuple(ttft),
        tuple(tpot),
        tuple(latency),
        after.verified - before.verified,
        after.verified_tokens - before.verified_tokens,
    )


def measure_serving(
    ours: Service, preset: Preset, baseline: Callable[[], Service | None] = lambda: None
) -> list[Measurement]:
    """Every serving metric of `ours`.

    `baseline` loads the unchanged model; its rounds take turns with ours and become the `reference`
    of our measurements. None: nothing to take turns with. Only our own kernels are counted.
    """
    quiet = settle(preset.settle_s)
    meter = find_meter(ours.deployment.device, ours.deployment.case.target, preset.seconds)
    meter.measure_idle()
    warming = partial(warm_up)
    if ours.deployment.device == "cuda":
        warming = partial(warm_up, seconds=preset.gpu_warm_s, unjudged=COMPILING)
    warm = warming(ours.round)
    with calls.apart():
        other = baseline()
        if other is not None:
            warming(other.round)
    our_book = _book(meter, ours)
    their_book = None if other is None else _book(meter, other)

    def apart() -> Round:
        assert other is not None
        assert their_book is not None
        with calls.apart():
            return _turn(other, their_book)

    pairs = alternate(
        lambda: _turn(ours, our_book),
        None if other is None else apart,
        preset.repeats,
        preset.seconds,
        ours.deployment.report,
    )
    rounds = [first for first, _ in pairs]
    how = (
        f"{len(rounds)} rounds after {warm}; {len(ours.requests)} requests a round"
        f" in groups of {ours.deployment.serving.batch}"
    )
    if other is not None:
        how += "; in turns with the unchanged model"
    if quiet.busy:
        how += f"; other processes kept {quiet.cores:.1f} cores busy when it began"
    measurements = times(rounds, ours, how)
    if other is not None:
        theirs = times([second for _, second in pairs if second is not None], other, "")
        measurements = [_with_reference(measurement, theirs) for measurement in measurements]
    measurements.append(_waiting(rounds, how))
    if ours.deployment.serving.proposer is not None:
        measurements.append(_accepted(rounds, how))
    return measurements + energy(our_book, their_book, how, ours.text)


def _book(meter: Meter, served: Service) -> Book:
    """The energy book of rounds of `served`."""
    count = len(served.requests)
    if not served.text:
        return meter.book(served.asked)
    return meter.book(served.asked, count * served.workload.prompt_tokens, count)


def _turn(service: Service, book: Book) -> Round:
    """One timed round with what its threads waited for a core. Ours and the baseline's are taken
    alike: reading the kernel's books before a round alone makes it half a percent slower.
    """
    waited = waited_seconds()
    with book.round():
        result = service.round(book)
    now = waited_seconds()
    return result if waited is None or now is None else replace(result, waited=now - waited)


def _with_reference(measurement: Measurement, theirs: list[Measurement]) -> Measurement:
    """`measurement` with the baseline's samples, when both gave as many: one for every round."""
    other = next((row for row in theirs if row.metric == measurement.metric), None)
    if other is None or other.n != measurement.n:
        return measurement
    return replace(measurement, reference=other.samples)


def _measured(name: str, samples: tuple[float, ...], method: str) -> Measurement:
    return Measurement(name, samples, metric(name).unit, "measured", method)


def times(rounds: list[Round], served: Service, how: str) -> list[Measurement]:
    """Latencies and throughput of timed rounds; a group of requests is one sample."""
    latency = tuple(value for turn in rounds for value in turn.latency)
    rate = tuple(served.asked / turn.seconds for turn in rounds)
    rows = []
    if served.text:
        rows += [_measured("ttft_s", tuple(value for turn in rounds for value in turn.ttft), how)]
        tpot = tuple(value for turn in rounds for value in turn.tpot)
        if tpot:
            rows.append(_measured("tpot_s", tpot, how))
    rows.append(_measured("tokens_per_s" if served.text else "examples_per_s", rate, how))
    rows.append(_measured("latency_s", latency, how))
    return [*rows, *latency_tails(latency, how, "timed groups")]


def _waiting(rounds: list[Round], how: str) -> Measurement:
    """Each round's share of time without a core; how many were disturbed stands in the method."""
    shares = [turn.waited / turn.seconds for turn in rounds if turn.waited is not None]
    if len(shares) < len(rounds):
        why = "this system does not tell how long a thread waited for a core"
        return unavailable("cpu_wait_share", "", why)
    marked = sum(share > DISTURBED for share in shares)
    how += f"; {marked} of {len(rounds)} rounds disturbed by other processes"
    return _measured("cpu_wait_share", tuple(max(share, 0.0) for share in shares), how)


def _accepted(rounds: list[Round], how: str) -> Measurement:
    samples = tuple(turn.emitted / turn.steps for turn in rounds if turn.steps)
    if not samples:
        return unavailable("accepted_per_step", "", "the requests ended before any verification")
    return _measured("accepted_per_step", samples, how)


def latency_tails(
    latency: tuple[float, ...], how: str, counted: str, condition: Condition = AS_ASKED
) -> list[Measurement]:
    """The p95 of `latency`, and the p99 where at least 100 were timed."""
    tails = [tail("latency_p95_s", latency, 0.95, how, counted, condition)]
    if len(latency) >= 100:
        tails.append(tail("latency_p99_s", latency, 0.99, how, counted, condition))
    return tails


def tail(
    name: str,
    samples: tuple[float, ...],
    q: float,
    how: str,
    counted: str,
    condition: Condition = AS_ASKED,
) -> Measurement:
    """A high quantile of seconds; its interval only where enough samples lie beyond it. `counted`
    is what one sample is of, in the plural.
    """
    value = float(np.quantile(samples, q))
    bounds = quantile_interval(samples, q)
    if bounds is None:
        how += f"; {len(samples)} {counted} are too few for an interval"
    else:
        bounds = (min(bounds[0], value), max(bounds[1], value))
    return Measurement(
        name, samples, "s", "measured", how, pooled=value, bounds=bounds, condition=condition
    )
