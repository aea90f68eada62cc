"""The same deployment under varied conditions: TTFT and TPOT by prompt length, throughput and
latency by concurrency.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from core import condition
from core.condition import Condition
from core.measure.serve import COMPILING, Service, times
from core.measure.timing import WarmUp, repeat
from core.measurement import Measurement
from core.metrics import listed
from core.workload import Workload

CONCURRENCY = (1, 2, 4, 8, 16)
FACTORS = (0.25, 0.5, 2.0, 4.0)
Serve = Callable[[Workload], Service]


def prompt_lengths(workload: Workload, context: int) -> tuple[int, ...]:
    """Lengths around the workload's own that leave room for its output, shortest first."""
    wanted = {round(workload.prompt_tokens * factor) for factor in FACTORS}
    room = context - workload.output_tokens
    return tuple(sorted(n for n in wanted if 1 <= n <= room and n != workload.prompt_tokens))


def under_lengths(serve: Serve, workload: Workload, context: int, rounds: int) -> list[Measurement]:
    """Measure `rounds` rounds, after one to warm up (two on a GPU), with each prompt length;
    serve(workload) gives the service of a varied workload.
    """
    measurements: list[Measurement] = []
    for length in prompt_lengths(workload, context):
        varied = replace(workload, prompt_tokens=length)
        wanted = listed("by_prompt_length")
        measurements += _under(serve(varied), rounds, wanted, condition.prompt_tokens(length))
    return measurements


def under_concurrency(
    serve: Serve, workload: Workload, counts: Sequence[int], rounds: int
) -> list[Measurement]:
    """As `under_lengths`, with so many requests at a time, the workload's own count left out."""
    measurements: list[Measurement] = []
    for count in counts:
        if count != workload.concurrency:
            varied = replace(workload, concurrency=count)
            measurements += _under(
                serve(varied), rounds, listed("by_concurrency"), condition.concurrency(count)
            )
    return measurements


def _under(
    service: Service, rounds: int, wanted: tuple[str, ...], under: Condition
) -> list[Measurement]:
    warm = WarmUp(COMPILING if service.deployment.device == "cuda" else 1, None)
    for _ in range(warm.calls):
        service.round()
    taken = repeat(service.round, rounds, 0.0, lambda share: None)
    how = (
        f"{rounds} rounds after {warm.rounds}; {len(service.requests)} requests a round"
        f" in groups of {service.deployment.serving.batch}"
    )
    return [
        replace(measurement, condition=under)
        for measurement in times(taken, service, how)
        if measurement.metric in wanted
    ]
