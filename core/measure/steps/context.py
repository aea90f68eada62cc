"""What the steps of one trial share: what was asked, the loaded model, what was measured so far and
the way to say it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from core.artefacts.prefix import Prefix, Prefixes
from core.caution import Note, note_body
from core.data.passages import digits, prompts
from core.files.fingerprint import Fingerprint
from core.files.folder import CheckedFolder
from core.measure.serve import Service
from core.measurement import Measurement
from core.model import Model
from core.plan import Plan
from core.planner.presets import Preset
from core.techniques.deployment import Deployment
from core.workload import Workload

Emit = Callable[..., None]
# Seconds between two reports of progress, so that the journal stays small.
REPORT_S = 0.3


@dataclass
class TrialRun:
    """Mutable: each step finds what those before it left.

    `emit(kind, **body)` writes one event. `planned` are the model's files when the study began,
    where that is known; `files` those that are loaded, None for random weights. `prefixes` are the
    study's, None outside of one; `prefix` is the one that was loaded in place of the model.
    `resident_before` are the process's resident bytes before the model was loaded, None where the
    kernel does not tell; `began` is the clock at that moment and `prepared_s` what loading and
    applying took. `served` is what was measured of the plan on this machine, before it is placed on
    the target.
    """

    plan: Plan
    preset: Preset
    environment: str
    emit: Emit
    planned: Fingerprint | None = None
    prefixes: Prefixes | None = None
    files: CheckedFolder | None = None
    prefix: Prefix | None = None
    tokenizer: Any = None
    resident_before: int | None = None
    began: float = 0.0
    prepared_s: float = 0.0
    deployment: Deployment = field(init=False)
    served: list[Measurement] = field(default_factory=list)
    _reported: float = 0.0

    @property
    def source(self) -> Model | CheckedFolder:
        """What engines of the unchanged model are loaded from."""
        return self.files or self.plan.case.model

    @property
    def device(self) -> str:
        """Where torch runs it: "cuda" or "cpu"."""
        target = self.plan.case.target
        return "cuda" if target.local and target.kind == "cuda" else "cpu"

    @property
    def workload(self) -> Workload:
        """The case's own."""
        return self.plan.case.workload

    def shorten(self, rounds: int) -> None:
        """Time so many rounds instead of the preset's, and say so."""
        self.note(
            f"timed in {rounds} rounds instead of {self.preset.repeats}: the time that the study"
            " has left allows no more"
        )
        self.preset = self.preset.shortened(rounds)

    def send(self, *measurements: Measurement) -> None:
        """Emit measurements of this environment."""
        for measurement in measurements:
            self.emit("measurement", measurement=replace(measurement, environment=self.environment))

    def note(self, *notes: Note) -> None:
        """Write lines into the trial's log."""
        for line in notes:
            self.emit("note", **note_body(line))

    def report(self, stage: str) -> Callable[[float], None]:
        """The function that tells the share done of a stage, at most every REPORT_S; its beginning
        is always told.
        """

        def at(share: float) -> None:
            now = time.perf_counter()
            if share == 0.0 or now - self._reported > REPORT_S:
                self._reported = now
                self.emit("progress", stage=stage, share=share)

        return at

    @cached_property
    def service(self) -> Service:
        """The deployment with the requests that the workload asks for."""
        return self.serve(self.workload)

    def serve(self, workload: Workload, deployment: Deployment | None = None) -> Service:
        """`deployment`, by default the trial's own, with the requests of a workload."""
        deployment = deployment or self.deployment
        return Service(deployment, workload, requests(deployment, workload, self.plan.seed))


def requests(deployment: Deployment, workload: Workload, seed: int) -> Any:
    """int64 [concurrency, prompt_tokens] ids, or float [concurrency, 1, 8, 8] images, on the
    deployment's device.
    """
    count = workload.concurrency
    model = deployment.case.model
    if model.task == "image":
        images, _ = digits("held_out")
        return images[:count].to(deployment.device)
    ids = prompts(
        deployment.tokenizer,
        deployment.prefix,
        count,
        workload.prompt_tokens,
        model.decoder().vocabulary,
        seed,
    )
    return ids.to(deployment.device)
