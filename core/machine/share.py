"""The share of this machine's limits that a trial reached: MBU of decoding, MFU of reading prompts.

MBU (model bandwidth utilization, as Databricks defined it in 2023): the bytes that one step of
decoding must read, weights once and the KV cache of every sequence, divided by its time and by the
bandwidth at which this machine reads so many bytes. MFU (model FLOPs utilization, Chowdhery et al.
2022): the floating point operations of reading a prompt, divided by the time to the first token and
by the matrix peak of the format that multiplied.

Both need a calibration of the environment that measured. Runs inside the worker, on the loaded
engine; times and bytes come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.machine.calibrate import DISTURBED, Calibration
from core.machine.work import Work, work_of
from core.measurement import Measurement, unavailable
from core.metrics import METRICS
from core.plan import Plan
from core.techniques.deployment import Deployment
from core.workload import Workload

NAMES = tuple(metric.name for metric in METRICS if metric.group == "limit")
UNCALIBRATED = (
    "this machine has not been calibrated: the Hardware page, or trimtab doctor --calibrate,"
    " measures its limits"
)
# Words in the method by which sentence() knows which limit it was.
_CACHES = "that caches hold"
_MEMORY = "that memory holds"


def shares(
    deployment: Deployment,
    plan: Plan,
    served: Sequence[Measurement],
    calibration: Calibration | None,
) -> list[Measurement]:
    """`mbu` and `mfu` of what `served` measured, one sample for each of the times behind them.

    Both are unavailable with the reason without a calibration, for a target that is not here, and
    where the share is not defined.
    """
    if not plan.case.target.local:
        why = f"the share of a limit is measured where a trial runs, {plan.case.target.id} is not"
        return [unavailable(name, "", f"{why} here") for name in NAMES]
    if calibration is None:
        return [unavailable(name, "", UNCALIBRATED) for name in NAMES]
    measurements = {
        measurement.metric: measurement for measurement in served if not measurement.condition
    }
    if plan.case.model.task == "image":
        why = "a classifier decodes no tokens: its few weights stay in the caches"
        return [unavailable("mbu", "", why), _images(deployment, plan, measurements, calibration)]
    workload = plan.case.workload
    work = work_of(deployment.engine, plan.case.model.decoder())
    groups = _groups(workload.concurrency, deployment.serving.batch)
    return [
        _decoding(deployment, plan, work, workload, groups, measurements, calibration),
        _prompts(work, workload, groups, measurements, calibration),
    ]


def needs_calibration(measurement: Measurement) -> bool:
    """Whether the share is unavailable only because this machine has not been calibrated."""
    return measurement.origin == "unavailable" and measurement.method == UNCALIBRATED


def sentence(measurement: Measurement) -> str:
    """`Decoding reads 71 % of what the machine's memory can deliver.`; empty when unavailable."""
    if measurement.value is None:
        return ""
    share = (
        f"{measurement.value * 100:.0f} %"
        if measurement.value >= 0.095
        else (f"{measurement.value * 100:.1f} %")
    )
    if measurement.metric == "mbu":
        place = "caches" if _CACHES in measurement.method else "memory"
        return f"Decoding reads {share} of what the machine's {place} can deliver."
    return f"Reading the prompt reaches {share} of the machine's matrix peak."


def _decoding(
    deployment: Deployment,
    plan: Plan,
    work: Work,
    workload: Workload,
    groups: list[int],
    measurements: dict[str, Measurement],
    calibration: Calibration,
) -> Measurement:
    tpot = measurements.get("tpot_s")
    if tpot is None or not tpot.samples:
        return unavailable("mbu", "", "one new token a request: there is no decoding to time")
    context = workload.prompt_tokens + workload.output_tokens / 2
    proposer = deployment.serving.proposer
    passes = 0 if proposer is None else proposer.tokens
    drafts = [work_of(draft, plan.case.model.decoder()) for draft in deployment.serving.beside]
    accepted, how = 1.0, ""
    if proposer is not None:
        steps = measurements.get("accepted_per_step")
        if steps is None or not steps.value:
            return unavailable("mbu", "", "how many tokens a step accepted is not known")
        accepted = steps.value
        how = f", {passes} draft passes included, {accepted:.2f} tokens a step"
    # Every group of a round gives one sample; the last one may be smaller.
    once = [work.step_bytes(size, context) for size in groups]
    drafted = [sum(draft.step_bytes(size, context) for draft in drafts) for size in groups]
    per_sample = [ours + passes * theirs for ours, theirs in zip(once, drafted, strict=True)]
    working_set = max(once) + max(drafted)
    limit = calibration.read_bandwidth(working_set)
    if limit is None:
        why = "the stored calibration has no reading bandwidth: calibrate this machine again"
        return unavailable("mbu", "", why)
    samples = tuple(
        _of_sample(per_sample, index, tpot.n) / accepted / seconds / limit
        for index, seconds in enumerate(tpot.samples)
    )
    peak = calibration.peak(work.format)
    memory_s = max(per_sample) / limit
    bound = ""
    if peak is not None and proposer is None:
        bound = _bound(memory_s, work.step_flops(max(groups), context) / peak)
    place = _CACHES if _in_caches(calibration, limit) else _MEMORY
    method = (
        f"{_bytes(max(per_sample))} a step{how} over the time per token; limit "
        f"{limit / 1e9:.1f} GB/s, at which {_bytes(working_set)} {place} are read"
        f" ({_when(calibration)}){bound}"
    )
    return _share("mbu", samples, tpot, method)


def _prompts(
    work: Work,
    workload: Workload,
    groups: list[int],
    measurements: dict[str, Measurement],
    calibration: Calibration,
) -> Measurement:
    ttft = measurements.get("ttft_s")
    if ttft is None or not ttft.samples:
        return unavailable("mfu", "", "the time to the first token was not measured")
    peak = calibration.peak(work.format)
    if peak is None:
        why = f"the stored calibration has no matrix peak of {work.format}"
        return unavailable("mfu", "", why)
    # Later groups of a round wait for the first: only its time is that of reading prompts.
    step = len(groups) if ttft.n % len(groups) == 0 else 1
    if step == 1 and len(groups) > 1:
        return unavailable("mfu", "", "which requests waited for others cannot be told apart")
    flops = work.prompt_flops(groups[0], workload.prompt_tokens)
    samples = tuple(flops / seconds / peak for seconds in ttft.samples[::step])
    limit = calibration.read_bandwidth(work.weights)
    bound = "" if limit is None else _bound(work.weights / limit, flops / peak)
    method = (
        f"{flops / 1e9:.3g} GFLOP of {groups[0]} x {workload.prompt_tokens} prompt tokens over the"
        f" time to the first token; limit {peak / 1e9:,.0f} Gop/s in {work.format}"
        f" ({_when(calibration)}){bound}"
    )
    return _share("mfu", samples, ttft, method)


def _images(
    deployment: Deployment,
    plan: Plan,
    measurements: dict[str, Measurement],
    calibration: Calibration,
) -> Measurement:
    """A classifier's operations over its throughput."""
    rate = measurements.get("examples_per_s")
    name = deployment.engine.compute_format
    peak = calibration.peak(name)
    if rate is None or not rate.samples or peak is None:
        return unavailable("mfu", "", f"throughput or the matrix peak of {name} is not known")
    flops = plan.case.model.example_flops()
    samples = tuple(value * flops / peak for value in rate.samples)
    method = (
        f"{flops / 1e6:.3g} MFLOP an image times images a second; limit {peak / 1e9:,.0f} Gop/s in"
        f" {name} ({_when(calibration)})"
    )
    return _share("mfu", samples, rate, method)


def _share(name: str, samples: tuple[float, ...], timed: Measurement, method: str) -> Measurement:
    """`measured` only where the times are: the limits always are."""
    origin = "measured" if timed.origin == "measured" else "estimated"
    return Measurement(name, samples, "", origin, method)


def _bound(memory_s: float, compute_s: float) -> str:
    """Which roof of the roofline (Williams et al. 2009) the work lies under."""
    roof = "memory" if memory_s >= compute_s else "compute"
    return (
        f"; {roof}-bound: reading takes {_seconds(memory_s)}, computing {_seconds(compute_s)}"
        " at the limits"
    )


def _groups(requests: int, batch: int) -> list[int]:
    """Sizes of a round's groups, in the order in which they are served."""
    full, rest = divmod(max(1, requests), max(1, batch))
    return [batch] * full + ([rest] if rest else [])


def _of_sample(per_group: list[float], index: int, count: int) -> float:
    """The bytes of the group that gave sample `index`; their mean where groups cannot be told."""
    if count % len(per_group) == 0:
        return per_group[index % len(per_group)]
    return sum(per_group) / len(per_group)


def _in_caches(calibration: Calibration, limit: float) -> bool:
    """Whether the limit is clearly above what memory gives."""
    memory = calibration.memory_bandwidth()
    return memory is not None and limit > 1.25 * memory


def _when(calibration: Calibration) -> str:
    """The day of the calibration, and whether it had the machine for itself."""
    others = calibration.others_cores
    text = f"calibrated {calibration.taken_at[:10]}"
    if others is not None and others > DISTURBED:
        text += f" while other processes took {others:.1f} cores: too low a limit"
    return text


def _bytes(value: float) -> str:
    return f"{value / 1e6:,.1f} MB" if value >= 1e5 else f"{value / 1e3:,.1f} kB"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms" if value >= 1e-3 else f"{value * 1e6:.3g} µs"
