"""Serve the workload on a deployment and time it: TTFT, TPOT, latency, throughput, energy, peak
memory.

A round is `concurrency` requests that arrive together, served in groups of the deployment's batch,
one group after another; a request's clock starts with the round, so waiting is part of its latency.
Quality is measured elsewhere.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.deployment import Deployment
from core.measure.energy import EnergyMeter, counters
from core.measure.memory import peak_resident_bytes, reset_peak
from core.measure.presets import Preset
from core.measure.timing import repeat, warm_up
from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.workload import Workload

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Round:
    """What one round took: seconds of each group of requests, and speculation's counts.

    The requests of a group share every time stamp: a group is one sample, however large it is.
    `steps` are the verification steps, `emitted` the tokens that they gave.
    """

    seconds: float
    ttft: tuple[float, ...]
    tpot: tuple[float, ...]
    latency: tuple[float, ...]
    steps: int = 0
    emitted: int = 0


def text_round(deployment: Deployment, prompts: torch.Tensor, new_tokens: int) -> Round:
    """Serve `prompts` int64 [requests, length], `new_tokens` greedy tokens each."""
    from core.engine.generate import GenerationClock, generate
    from core.engine.speculate import speculate

    began = time.perf_counter()
    ttft: list[float] = []
    tpot: list[float] = []
    latency: list[float] = []
    steps = emitted = 0
    clock = GenerationClock()
    for group in prompts.split(deployment.batch):
        if deployment.draft is not None:
            result = speculate(
                deployment.engine,
                deployment.draft,
                group,
                new_tokens,
                deployment.draft_tokens,
                clock=clock,
            )
            # The first step only reads the prompt: it verifies nothing and gives one token.
            steps += result.steps - 1
            emitted += new_tokens - 1
        else:
            generate(deployment.engine, group, new_tokens, clock=clock)
        waited = clock.started - began
        ttft.append(waited + clock.ttft_s)
        latency.append(waited + clock.total_s)
        if new_tokens > 1:
            tpot.append(clock.tpot_s)
    return Round(
        time.perf_counter() - began, tuple(ttft), tuple(tpot), tuple(latency), steps, emitted
    )


def image_round(deployment: Deployment, images: torch.Tensor) -> Round:
    """Classify `images` float [requests, 1, 8, 8] in groups of the batch."""
    import torch

    began = time.perf_counter()
    latency: list[float] = []
    with torch.inference_mode():
        for group in images.split(deployment.batch):
            # Fetching the classes waits for a device that computes behind our back.
            deployment.engine(group).argmax(-1).cpu()
            latency.append(time.perf_counter() - began)
    return Round(time.perf_counter() - began, (), (), tuple(latency))


def measure_serving(
    deployment: Deployment,
    workload: Workload,
    preset: Preset,
    prompts: torch.Tensor,
    before_load: int | None,
) -> list[Measurement]:
    """Every serving metric of `deployment`; `before_load` is the resident size before the model was
    loaded.
    """
    text = deployment.case.model.task == "text"

    def run() -> Round:
        return (
            text_round(deployment, prompts, workload.output_tokens)
            if text
            else image_round(deployment, prompts)
        )

    resettable = reset_peak()
    found, why_not = counters()
    meter = EnergyMeter(found)
    if found:
        meter.measure_idle()
    calls = warm_up(run)
    joules: list[float] = []
    per_round = len(prompts) * (workload.output_tokens if text else 1)

    def metered() -> Round:
        if not found:
            return run()
        meter.start()
        result = run()
        spent, seconds = meter.stop()
        joules.append(max(spent - meter.idle_watts * seconds, 0.0) / per_round)
        return result

    rounds = repeat(metered, preset.repeats, preset.seconds, deployment.report)
    how = (
        f"{len(rounds)} rounds after {calls} warm-up rounds; {len(prompts)} requests a round"
        f" in groups of {deployment.batch}"
    )
    measurements = _times(rounds, per_round, how, text)
    if deployment.draft is not None:
        measurements.append(_accepted(rounds, how))
    measurements.append(_peak(resettable, before_load))
    if found:
        measurements.append(
            _measured(
                "energy_j_per_token", tuple(joules), how + "; RAPL packages, idle power subtracted"
            )
        )
    else:
        measurements.append(unavailable("energy_j_per_token", "J", why_not))
    return measurements


def _measured(name: str, samples: tuple[float, ...], method: str) -> Measurement:
    return Measurement(name, samples, metric(name).unit, "measured", method)


def _times(rounds: list[Round], per_round: int, how: str, text: bool) -> list[Measurement]:
    latency = tuple(value for one in rounds for value in one.latency)
    rate = tuple(per_round / one.seconds for one in rounds)
    found = [_measured("tokens_per_s" if text else "examples_per_s", rate, how), _p95(latency, how)]
    if text:
        ttft = tuple(value for one in rounds for value in one.ttft)
        found.insert(0, _measured("ttft_s", ttft, how))
        tpot = tuple(value for one in rounds for value in one.tpot)
        if tpot:
            found.insert(1, _measured("tpot_s", tpot, how))
    return found


def _accepted(rounds: list[Round], how: str) -> Measurement:
    samples = tuple(one.emitted / one.steps for one in rounds if one.steps)
    if not samples:
        return unavailable("accepted_per_step", "", "the requests ended before any verification")
    return _measured("accepted_per_step", samples, how)


def _p95(latency: tuple[float, ...], how: str) -> Measurement:
    """The 95th percentile with its bootstrap interval; with under 20 samples it lies between the
    two largest, has no interval and says so.
    """
    import numpy as np

    samples = np.array(latency)
    value = float(np.quantile(samples, 0.95))
    bounds = None
    if len(samples) >= 20:
        chosen = np.random.default_rng(0).integers(0, len(samples), size=(1000, len(samples)))
        low, high = np.quantile(np.quantile(samples[chosen], 0.95, axis=1), (0.025, 0.975))
        bounds = (float(low), float(high))
    else:
        how += f"; only {len(samples)} timed groups, too few for an interval of a p95"
    return Measurement("latency_p95_s", latency, "s", "measured", how, pooled=value, bounds=bounds)


def _peak(resettable: bool, before_load: int | None) -> Measurement:
    peak = peak_resident_bytes()
    if peak is None or before_load is None:
        return unavailable(
            "peak_bytes", "B", "this system does not tell a process's resident memory"
        )
    how = (
        "peak resident set while serving, less the process before loading"
        " (libraries already imported)"
    )
    if not resettable:
        how += "; the high-water mark could not be reset, so loading and preparing are included"
    return _measured("peak_bytes", (float(max(peak - before_load, 0)),), how)
