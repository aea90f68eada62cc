"""Requests that arrive on their own: each waits until the server takes it.

An open loop: requests arrive when the process or the trace says so, whether or not the last is
done. Latency counts from arrival.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from core.condition import Condition
from core.data.arrivals import Arrival
from core.measure.serve import latency_tails, tail
from core.measurement import Measurement, bootstrap_mean
from core.metrics import metric
from core.techniques.deployment import Deployment
from core.workload import Workload

if TYPE_CHECKING:
    import torch

    from core.engine.serve.sequence import Request
    from core.engine.serve.sequence import Sequence as Serviced
    from core.engine.serve.server import Server

# Waiting for less than a microsecond is not waiting.
_SOON = 1e-6
Prompts = Callable[[int, int], "torch.Tensor"]


@dataclass(frozen=True)
class Served:
    """One request's times in seconds after the first arrival; `together` were in its batch."""

    arrival: Arrival
    began: float
    first: float
    last: float
    together: int

    @property
    def ttft(self) -> float:
        """Seconds from arrival to the first token."""
        return self.first - self.arrival.at_s

    @property
    def latency(self) -> float:
        """Seconds from arrival to the last token."""
        return self.last - self.arrival.at_s

    @property
    def tpot(self) -> float | None:
        """Seconds per token after the first; None for a single token."""
        following = self.arrival.output_tokens - 1
        return (self.last - self.first) / following if following else None


def serve(server: Server, asked: tuple[Arrival, ...], requests: Sequence[Request]) -> list[Served]:
    """Submit each of `requests` when its arrival says so, and step until the last is done; in the
    order in which they were begun.
    """
    import torch

    coming = deque(zip(asked, requests, strict=True))
    taken: list[tuple[Arrival, Serviced]] = []
    start = time.perf_counter()
    with torch.inference_mode():
        while coming or server.phase:
            now = time.perf_counter() - start
            while coming and coming[0][0].at_s <= now + _SOON:
                arrival, request = coming.popleft()
                taken.append((arrival, server.submit(request, start + arrival.at_s)))
            if server.phase:
                server.step()
            else:
                time.sleep(coming[0][0].at_s - now)
    taken.sort(key=lambda pair: pair[1].started_at)
    return [
        Served(
            arrival,
            sequence.started_at - start,
            sequence.first_at - start,
            sequence.finished_at - start,
            sequence.together,
        )
        for arrival, sequence in taken
    ]


def measure_traffic(
    deployment: Deployment, workload: Workload, asked: tuple[Arrival, ...], prompts: Prompts
) -> list[Measurement]:
    """Per-request times, throughput and goodput under the workload's traffic, each with the
    condition that names it. prompts(count, length) gives ids int64 [count, length].
    """
    from core.engine.serve.sequence import Request

    server, batch = deployment.server(), deployment.serving.batch
    # The prompts are made, and each length is read once, before the clock runs.
    rows = {
        length: prompts(batch, length) for length in {arrival.prompt_tokens for arrival in asked}
    }
    for length in sorted(rows):
        server.submit(Request(rows[length][0]))
        while server.phase:
            server.step()
    turns: dict[int, Iterator[torch.Tensor]] = {
        length: cycle(tuple(alike)) for length, alike in rows.items()
    }
    requests = [
        Request(next(turns[arrival.prompt_tokens]), arrival.output_tokens) for arrival in asked
    ]
    return summarize(serve(server, asked, requests), workload, batch)


def summarize(done: list[Served], workload: Workload, batch: int) -> list[Measurement]:
    """The measurements of requests that were served."""
    condition = named(workload)
    span = max(request.arrival.at_s for request in done)
    makespan = max(request.last for request in done)
    how = f"{len(done)} requests that arrived over {span:.1f} s, taken in batches of up to {batch}"
    last_wait = max(request.began for request in done) - span
    if last_wait > 0.2 * max(span, 1e-9):
        how += (
            f"; the queue outlived the arrivals by {last_wait:.1f} s: more arrives than this plan"
            " serves, so waiting grows with the length of the trace"
        )
    ttft = tuple(request.ttft for request in done)
    latency = tuple(request.latency for request in done)
    measurements = [
        _of("ttft_s", ttft, how, condition),
        _of("latency_s", latency, how, condition),
        *latency_tails(latency, how, "requests", condition),
        tail("ttft_p95_s", ttft, 0.95, how, "requests", condition),
    ]
    tpot = tuple(request.tpot for request in done if request.tpot is not None)
    if tpot:
        measurements.append(_of("tpot_s", tpot, how, condition))
    tokens = sum(request.arrival.output_tokens for request in done)
    rate = how + "; new tokens of all requests over the time until the last was done"
    measurements.append(_of("tokens_per_s", (tokens / makespan,), rate, condition))
    measurements.append(
        _of("batch_size", tuple(float(request.together) for request in done), how, condition)
    )
    if workload.ttft_limit_s is not None or workload.tpot_limit_s is not None:
        measurements.append(_within(done, workload, how, condition))
    return measurements


def named(workload: Workload) -> Condition:
    """The condition that the workload's traffic is, as `rate=4/s` or `trace=3f2a`."""
    if workload.trace:
        return Condition("trace", workload.trace_digest[:8])
    assert workload.arrival_per_s is not None
    return Condition("rate", workload.arrival_per_s)


def _within(done: list[Served], workload: Workload, how: str, condition: Condition) -> Measurement:
    """Share of requests that met the workload's limits (goodput: Zhong et al. 2024, DistServe)."""
    ttft_limit, tpot_limit = workload.ttft_limit_s, workload.tpot_limit_s
    hits = np.array(
        [
            (ttft_limit is None or request.ttft <= ttft_limit)
            and (tpot_limit is None or request.tpot is None or request.tpot <= tpot_limit)
            for request in done
        ],
        dtype=float,
    )
    limits = [
        f"{name} of {limit:g} s"
        for name, limit in (("TTFT", ttft_limit), ("TPOT", tpot_limit))
        if limit is not None
    ]
    return Measurement(
        "within_limits",
        tuple(hits.tolist()),
        "",
        "measured",
        f"{how}; the workload's limits are {' and '.join(limits)}",
        pooled=float(hits.mean()),
        bounds=bootstrap_mean(hits),
        condition=condition,
    )


def _of(name: str, samples: tuple[float, ...], how: str, condition: Condition) -> Measurement:
    return Measurement(name, samples, metric(name).unit, "measured", how, condition=condition)
