"""Requests that arrive on their own: each waits in a queue until a batch takes it.

An open loop: requests arrive when the process or the trace says so, whether or not the last is
done. When the deployment is free it takes up to its batch of those that wait, of one prompt
length, and serves them until the longest is done (static batching). Latency counts from arrival.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from core.data.arrivals import Arrival
from core.measure.serve import latency_tails, tail
from core.measurement import Measurement, bootstrap_mean
from core.metrics import metric
from core.techniques.deployment import Deployment
from core.workload import Workload

if TYPE_CHECKING:
    import torch

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


def serve(
    batch: int, asked: tuple[Arrival, ...], run: Callable[[list[Arrival]], list[float]]
) -> list[Served]:
    """Serve `asked` in order of arrival; `run` serves a batch and returns the times of
    time.perf_counter at which its tokens were there.

    A batch is the oldest waiting request and up to `batch` - 1 others of its prompt length.
    """
    coming = deque(asked)
    waiting: list[Arrival] = []
    done: list[Served] = []
    start = time.perf_counter()
    while coming or waiting:
        now = time.perf_counter() - start
        while coming and coming[0].at_s <= now + _SOON:
            waiting.append(coming.popleft())
        if not waiting:
            time.sleep(coming[0].at_s - now)
            continue
        length = waiting[0].prompt_tokens
        group = [one for one in waiting if one.prompt_tokens == length][:batch]
        taken = {id(one) for one in group}
        waiting = [one for one in waiting if id(one) not in taken]
        stamps = [stamp - start for stamp in run(group)]
        done += [
            Served(one, now, stamps[0], stamps[one.output_tokens - 1], len(group)) for one in group
        ]
    return done


def runner(deployment: Deployment, prompts: Prompts) -> Callable[[list[Arrival]], list[float]]:
    """Serves a batch on `deployment`; prompts(count, length) gives int64 [count, length]."""
    from core.engine.serve.generate import GenerationClock, generate
    from core.engine.serve.speculate import speculate

    made: dict[tuple[int, int], Any] = {}

    def run(group: list[Arrival]) -> list[float]:
        shape = (len(group), group[0].prompt_tokens)
        if shape not in made:
            made[shape] = prompts(*shape)
        clock = GenerationClock()
        tokens = max(one.output_tokens for one in group)
        if deployment.draft is not None:
            speculate(
                deployment.engine,
                deployment.draft,
                made[shape],
                tokens,
                deployment.draft_tokens,
                clock=clock,
            )
        else:
            generate(deployment.engine, made[shape], tokens, clock=clock)
        return clock.stamps

    return run


def measure_traffic(
    deployment: Deployment, workload: Workload, asked: tuple[Arrival, ...], prompts: Prompts
) -> list[Measurement]:
    """Per-request times, throughput and goodput under the workload's traffic, each with the
    condition that names it.
    """
    # The prompts are made before the clock runs.
    run = runner(deployment, prompts)
    for length in sorted({one.prompt_tokens for one in asked}):
        run([Arrival(0.0, length, 1)])
    done = serve(deployment.batch, asked, run)
    return summarize(done, workload, deployment.batch)


def summarize(done: list[Served], workload: Workload, batch: int) -> list[Measurement]:
    """The measurements of requests that were served."""
    condition = named(workload)
    span = max(one.arrival.at_s for one in done)
    makespan = max(one.last for one in done)
    how = f"{len(done)} requests that arrived over {span:.1f} s, taken in batches of up to {batch}"
    last_wait = max(one.began for one in done) - span
    if last_wait > 0.2 * max(span, 1e-9):
        how += (
            f"; the queue outlived the arrivals by {last_wait:.1f} s: more arrives than this plan"
            " serves, so waiting grows with the length of the trace"
        )
    ttft = tuple(one.ttft for one in done)
    latency = tuple(one.latency for one in done)
    found = [
        _of("ttft_s", ttft, how, condition),
        _of("latency_s", latency, how, condition),
        *latency_tails(latency, how, "requests", condition),
        tail("ttft_p95_s", ttft, 0.95, how, "requests", condition),
    ]
    tpot = tuple(one.tpot for one in done if one.tpot is not None)
    if tpot:
        found.append(_of("tpot_s", tpot, how, condition))
    tokens = sum(one.arrival.output_tokens for one in done)
    rate = how + "; new tokens of all requests over the time until the last was done"
    found.append(_of("tokens_per_s", (tokens / makespan,), rate, condition))
    found.append(_of("batch_size", tuple(float(one.together) for one in done), how, condition))
    if workload.ttft_limit_s is not None or workload.tpot_limit_s is not None:
        found.append(_within(done, workload, how, condition))
    return found


def named(workload: Workload) -> str:
    """The condition that the workload's traffic is, as `rate=4/s` or `trace=3f2a`."""
    if workload.trace:
        return f"trace={workload.trace_digest[:8]}"
    return f"rate={workload.arrival_per_s:g}/s"


def _within(done: list[Served], workload: Workload, how: str, condition: str) -> Measurement:
    """Share of requests that met the workload's limits (goodput: Zhong et al. 2024, DistServe)."""
    ttft_limit, tpot_limit = workload.ttft_limit_s, workload.tpot_limit_s
    hits = np.array(
        [
            (ttft_limit is None or one.ttft <= ttft_limit)
            and (tpot_limit is None or one.tpot is None or one.tpot <= tpot_limit)
            for one in done
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


def _of(name: str, samples: tuple[float, ...], how: str, condition: str) -> Measurement:
    return Measurement(name, samples, metric(name).unit, "measured", how, condition=condition)
