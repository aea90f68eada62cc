"""One trial from a plan to its measurements: load, apply, serve, judge. Runs inside a worker
process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core import format as formats
from core.caution import Caution, Note, note_body
from core.data.arrivals import arrivals
from core.data.passages import digits, prompts
from core.machine.calibrate import Calibration, ensure, stored
from core.machine.conditions import Conditions
from core.machine.environment import available_bytes
from core.machine.share import shares
from core.measure import fallbacks
from core.measure.memory import measure_disk, measure_memory, reset_peak, resident_bytes
from core.measure.presets import Preset
from core.measure.presets import preset as find_preset
from core.measure.quality.measure import measure_quality
from core.measure.serve import Service, measure_serving
from core.measure.sweep import CONCURRENCY, under_concurrency, under_lengths
from core.measure.traffic import measure_traffic
from core.measurement import Measurement, unavailable
from core.metrics import metric
from core.model import Model
from core.plan import Plan
from core.study import KernelCalls
from core.techniques.applying import apply_all
from core.techniques.deployment import Deployment
from core.workload import Workload

Emit = Callable[..., None]
# Rounds of a batch that the workload itself never fills.
FULL_BATCH_ROUNDS = 3


def run_trial(plan: Plan, preset_name: str, environment: str, emit: Emit) -> None:
    """Apply `plan` to freshly loaded weights and emit `measurement`, `kernels`, `note` and
    `progress` events.

    `emit(kind, **body)` writes one event. Errors are raised: the worker turns them into the trial's
    end.
    """
    from core.engine.load.load import load_engine
    from kernels import calls

    preset = find_preset(preset_name)
    case = plan.case
    device = "cuda" if case.target.local and case.target.kind == "cuda" else "cpu"
    report = _reporter(emit)
    tokenizer = _tokenizer(case.model)
    rehearse(plan, tokenizer)
    reset_peak()
    before_load = resident_bytes()
    began = time.perf_counter()
    report("load")(0.0)

    def send(measurements: list[Measurement]) -> None:
        for measurement in measurements:
            emit("measurement", measurement=replace(measurement, environment=environment))

    def note(line: Note) -> None:
        emit("note", **note_body(line))

    deployment = Deployment(
        case=case,
        engine=load_engine(case.model, device=device),
        load_baseline=lambda: load_engine(case.model, device=device),
        tokenizer=tokenizer,
        device=device,
        seed=plan.seed,
        note=note,
        keep=lambda measurement: send([measurement]),
    )
    apply_all(deployment, plan.techniques, report)
    prepared = time.perf_counter() - began
    deployment.report = report("serve")
    workload = plan.case.workload
    ours = Service(deployment, workload, _requests(deployment, workload, plan.seed))
    group = replace(ours, requests=ours.requests[: deployment.batch])
    memory = measure_memory(deployment, plan, workload, group.round, before_load)
    calls.reset()
    unchanged = _unchanged(deployment, plan)
    conditions = Conditions(gpu=device == "cuda")
    served = measure_serving(ours, preset, unchanged)
    for line in conditions.notes():
        note(line)
    kernels = tuple(
        KernelCalls(str(one["op"]), str(one["name"]), int(one["calls"])) for one in calls.snapshot()
    )
    emit("kernels", kernels=kernels)
    for caution in fallbacks.notes(device, fallbacks.floats(deployment.engine), kernels):
        note(caution)
    size = deployment.engine.weight_bytes() + (
        deployment.draft.weight_bytes() if deployment.draft is not None else 0
    )
    served += [
        *memory,
        measure_disk(plan, deployment.engine),
        Measurement(
            "model_bytes",
            (float(size),),
            "B",
            "measured",
            "sum of the resident weight tensors, draft included",
        ),
        Measurement(
            "prepare_s",
            (prepared,),
            "s",
            "measured",
            "loading the weights and applying the techniques, once",
        ),
        Measurement(
            "concurrency",
            (float(workload.concurrency),),
            "",
            "measured",
            "requests that each timed round kept in flight, as the workload asks",
        ),
        _cost(plan, served),
    ]
    send(_placed(plan, served, emit))
    send(shares(deployment, plan, served, _limits(plan, environment, report, deployment.note)))
    send(_varied(deployment, plan, preset))
    report("quality")(0.0)
    send(_quality(deployment, plan, preset_name))


def _limits(
    plan: Plan,
    environment: str,
    report: Callable[[str], Callable[[float], None]],
    note: Callable[[str], None],
) -> Calibration | None:
    """This machine's limits, measured now when nobody has: the first trial pays for all. None for
    a target that is not here."""
    if not plan.case.target.local:
        return None
    found = stored(environment)
    if found is None:
        report("calibrate")(0.0)
        found = ensure()
        note(
            "this machine's limits were not known: they were measured briefly, once;"
            " `trimtab doctor --calibrate` takes longer over it"
        )
    return found if found.environment == environment else None


def rehearse(plan: Plan, tokenizer: Any) -> None:
    """Do once, with a tiny decoder, what the trial will do, so that libraries and what they keep
    are resident before memory is counted: a trial that trains imports 150 MB that are no model.
    """
    import torch

    from core.engine.load.load import load_engine, random_engine
    from core.engine.serve.generate import generate
    from core.files.config.decoder_config import DecoderConfig

    if plan.case.model.task == "image":
        load_engine(plan.case.model)(digits("held_out")[0][:1])
        return
    config = DecoderConfig(
        family="llama",
        vocab_size=64,
        hidden_size=64,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=32,
        intermediate_sizes=(64,),
        max_positions=64,
    )
    engine = random_engine(config, plan.case.model.precision)
    generate(engine, torch.zeros(1, 32, dtype=torch.int64), 4)
    if tokenizer is not None:
        workload = plan.case.workload
        prompts(tokenizer, (), workload.concurrency, workload.prompt_tokens, 0, plan.seed)
    if any(hasattr(technique, "learning_rate") for technique in plan.techniques):
        from core.techniques import training_loop

        training_loop.rehearse(engine)


def _tokenizer(model: Model) -> Any:
    """The model's tokenizer; None for images, for random weights and for a folder that has none."""
    from core.catalogue.models import find_folder
    from core.engine.load.load import load_tokenizer

    if model.task == "image" or model.source == "shape":
        return None
    return load_tokenizer(model) if (find_folder(model.id) / "tokenizer.json").exists() else None


def _reporter(emit: Emit) -> Callable[[str], Callable[[float], None]]:
    """Progress at most every 0.3 s, so that the journal stays small."""
    last = 0.0

    def report(stage: str) -> Callable[[float], None]:
        def at(share: float) -> None:
            nonlocal last
            now = time.perf_counter()
            if share == 0.0 or now - last > 0.3:
                last = now
                emit("progress", stage=stage, share=share)

        return at

    return report


def _unchanged(deployment: Deployment, plan: Plan) -> Callable[[], Service | None]:
    """Loads the unchanged model, to serve the case's own workload in turns with `deployment`."""

    def load() -> Service | None:
        if not plan.techniques:
            return None
        needed, free = plan.case.model.weight_bytes(), available_bytes()
        if deployment.device == "cpu" and 1.5 * needed > free:
            deployment.note(
                f"the unchanged model ({needed:,} B) does not fit beside this one into the free"
                f" {free:,} B: it was not measured in turns, the study's own baseline is compared"
            )
            return None
        engine = deployment.load_baseline()
        # Judging the quality compares with the same: nothing changes it any more.
        deployment.load_baseline = lambda: engine
        other = replace(deployment, engine=engine, draft=None, draft_tokens=0, batch=1)
        workload = plan.case.workload
        return Service(other, workload, _requests(other, workload, plan.seed))

    return load


def _varied(deployment: Deployment, plan: Plan, preset: Preset) -> list[Measurement]:
    """What this machine does with a full batch, where the workload never fills it; and, for text,
    under other lengths, concurrencies and arrivals."""
    workload = plan.case.workload
    if not plan.case.target.local:
        return []

    def serve(varied: Workload) -> Service:
        return Service(deployment, varied, _requests(deployment, varied, plan.seed))

    found: list[Measurement] = []
    if deployment.batch > workload.concurrency:
        deployment.note(
            f"{workload.title or workload.id} asks for {workload.concurrency} at a time, so batches"
            f" of {deployment.batch} never fill: what a full one would give was timed apart, under"
            f" concurrency={deployment.batch}"
        )
        rounds = max(preset.sweep_rounds, FULL_BATCH_ROUNDS)
        found += under_concurrency(serve, workload, (deployment.batch,), rounds)
    if deployment.case.model.task != "text":
        return found
    if preset.sweep_rounds:
        context = plan.case.model.decoder().context
        found += under_lengths(serve, workload, context, preset.sweep_rounds)
        others = tuple(count for count in CONCURRENCY if count != deployment.batch)
        found += under_concurrency(serve, workload, others, preset.sweep_rounds)
    rate = workload.arrival_per_s
    # Waiting for rare requests must not use up the time that a trial has.
    count = preset.requests if rate is None else min(preset.requests, int(rate * preset.wall_s / 4))
    asked = arrivals(workload, max(count, 8), plan.seed)
    if asked:
        found += measure_traffic(
            deployment,
            workload,
            asked,
            lambda requests, length: _requests(
                deployment,
                replace(workload, concurrency=requests, prompt_tokens=length),
                plan.seed,
            ),
        )
    return found


def _requests(deployment: Deployment, workload: Workload, seed: int) -> Any:
    count = workload.concurrency
    if deployment.case.model.task == "image":
        images, _ = digits("held_out")
        return images[:count].to(deployment.device)
    shape = deployment.case.model.decoder()
    found = prompts(
        deployment.tokenizer,
        deployment.prefix,
        count,
        workload.prompt_tokens,
        shape.vocabulary,
        seed,
    )
    return found.to(deployment.device)


def start_id(deployment: Deployment) -> tuple[int, ...]:
    """The ids that every text begins with for this model; usually one or none."""
    return deployment.prefix


def _cost(plan: Plan, served: list[Measurement]) -> Measurement:
    """Dollars per million new tokens at the target's rent and the throughput."""
    rent = plan.case.target.usd_per_hour
    rates = [one for one in served if one.metric == "tokens_per_s"]
    if rent is None:
        return unavailable(
            "usd_per_mtok", "$", f"the target {plan.case.target.id} has no stated price per hour"
        )
    if not rates:
        return unavailable("usd_per_mtok", "$", "cost per token is not defined for images")
    samples, reference = (
        tuple(rent / 3600 / rate * 1e6 for rate in some)
        for some in (rates[0].samples, rates[0].reference)
    )
    how = f"${rent:g} an hour at the measured throughput"
    return Measurement("usd_per_mtok", samples, "$", "measured", how, reference=reference)


def _placed(plan: Plan, served: list[Measurement], emit: Emit) -> list[Measurement]:
    """What was served here, or its projection onto a target that is not here."""
    if plan.case.target.local:
        return served
    from core.predict import project
    from core.study import Trial

    # Without this machine's own limits a projection could not use what was measured on it.
    ensure()
    here = Trial(
        "", "", plan, measurements=tuple(one for one in served if one.metric != "usd_per_mtok")
    )
    for one in here.measurements:
        if (
            one.value is not None
            and not one.condition
            and one.metric
            in (
                "ttft_s",
                "tpot_s",
                "tokens_per_s",
                "latency_p95_s",
                "peak_bytes",
            )
        ):
            value = formats.of_metric(one.metric, one.value)
            emit("note", text=f"measured on this machine: {metric(one.metric).label} {value}")
    return list(project(here, plan.case.target))


def _quality(deployment: Deployment, plan: Plan, preset_name: str) -> list[Measurement]:
    from core.engine.load.load import rounding
    from core.predict.projection import place_quality

    unchanged, preset = not plan.techniques, find_preset(preset_name)
    found = measure_quality(deployment, preset, deployment.prefix, unchanged)
    found = list(place_quality(found, plan))
    lost = rounding(plan.case.model) if unchanged else ""
    return [*found, *_rounded(deployment, preset, lost)] if lost else found


def _rounded(deployment: Deployment, preset: Preset, lost: str) -> list[Measurement]:
    """The KL of what loading rounded (`lost`, a sentence), against the file's numbers in fp32."""
    from core.engine.load.load import load_engine

    model = deployment.case.model
    deployment.note(Caution("rounded", f"the unchanged model is not quite the file's: {lost}"))
    if model.precision == "fp32" or model.task != "text":
        return []
    exact = replace(
        deployment,
        load_baseline=lambda: load_engine(model, device=deployment.device, dtype="fp32"),
    )
    found = measure_quality(exact, preset, deployment.prefix, unchanged=False)
    return [
        replace(one, metric="rounding_kl_nats", method=f"{one.method}; {lost}", reference=())
        for one in found
        if one.metric == "kl_nats"
    ]
