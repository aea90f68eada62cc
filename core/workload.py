"""What is asked of the model: lengths, concurrency, and the limits a user feels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Workload:
    """One shape of traffic; text workloads give tokens, image workloads only batch and
    concurrency.

    `concurrency` requests at a time, back to back, are always measured. `arrival_per_s` (a Poisson
    process) or `trace` (a file of arrivals, with its SHA-256 and the most tokens that one of its
    requests needs) ask for requests that arrive on their own as well.
    """

    id: str
    title: str
    task: str  # text | image
    prompt_tokens: int = 0
    output_tokens: int = 0
    concurrency: int = 1
    arrival_per_s: float | None = None
    ttft_limit_s: float | None = None
    tpot_limit_s: float | None = None
    note: str = ""
    trace: str = ""
    trace_digest: str = ""
    trace_tokens: int = 0
