"""Composition root: opens the store once and hands out a small Services record to pages and the
command line.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from app.jobs.accept import believed
from app.jobs.supervisor import Supervisor
from core import techniques
from core.catalogue import models, workloads
from core.data.arrivals import with_arrivals
from core.data.files import datasets_for
from core.errors import BadInput
from core.ids import new_id, now
from core.machine import targets
from core.measure.presets import preset as find_preset
from core.plan import Case, Plan, parse_setting
from core.planner.search import propose
from core.predict import fit
from core.priorities import Priorities
from core.study import Study
from core.techniques.kinds import refuse
from store.health.recovery import close_sealed, open_checked
from store.interface import Store
from store.place import MEMORY, STORE, default_path, locate, named

_lock = threading.Lock()
_services: Services | None = None


@dataclass(frozen=True)
class Services:
    """What a page may use: the store to read, the supervisor to ask."""

    store: Store
    jobs: Supervisor
    folder: Path
    notices: tuple[str, ...] = ()
    url: str | None = None

    def close(self) -> None:
        """End the supervisor and give the store's file back."""
        self.jobs.close()
        close_sealed(self.store, self.url, self.folder)


def open_services(url: str | None = None) -> Services:
    """Open the store, checked against the journals beside it, and start a supervisor; StoreError
    when another process holds it. `notices` say what was damaged or lost.
    """
    store, folder, notices = open_kept(url)
    return Services(store, Supervisor(store, folder), folder, notices, url)


@contextmanager
def opened(url: str | None = None) -> Iterator[Services]:
    """The services for one command of the command line; what was found damaged or lost is said on
    stderr first.
    """
    services = open_services(url)
    try:
        for notice in services.notices:
            sys.stderr.write(f"trimtab: {notice}\n")
        yield services
    finally:
        services.close()


def open_kept(url: str | None = None, every: bool = False) -> tuple[Store, Path, tuple[str, ...]]:
    """The store, the folder of its journals, and what was found damaged or lost; `every` checks all
    of it, also what has not changed. Close it with close_sealed.
    """
    folder = studies_folder(url)
    store, notices = open_checked(url, folder, believed, every)
    return store, folder, notices


def studies_folder(url: str | None) -> Path:
    """Where the studies of a store keep their journals: beside its file, in the user's data folder
    for a server, or in a temporary folder for `memory:`.
    """
    if named(url) == MEMORY:
        return Path(tempfile.mkdtemp(prefix="trimtab-"))
    place = locate(url)
    if isinstance(place, Path):
        return place.with_name(place.name + ".studies")
    return default_path().parent / f"{place.host or 'server'}-{place.database or 'default'}.studies"


def get_services() -> Services:
    """The process-wide services, opened on first use with the store that TRIMTAB_STORE names."""
    global _services
    with _lock:
        if _services is None:
            _services = open_services(os.environ.get(STORE))
        return _services


def close_services() -> None:
    """End the supervisor and give the store's file back."""
    global _services
    with _lock:
        if _services is not None:
            _services.close()
            _services = None


def plan_study(
    model_id: str,
    target_id: str,
    workload_id: str,
    priorities: Priorities,
    technique_texts: tuple[str, ...] = (),
    preset: str = "quick",
    seed: int = 0,
    budget_s: float | None = None,
    data: tuple[str, ...] = (),
    arrival: str = "",
) -> tuple[Study, tuple[Plan, ...]]:
    """A study and its plans from the user's words; BadInput names the word that cannot be used.

    `data` are files or lm-eval tasks (core.data.files) to judge quality on; `arrival` are requests
    per second or `trace:FILE` (core.data.arrivals), measured beside the workload's back-to-back
    requests.
    """
    find_preset(preset)
    workload = with_arrivals(workloads.resolve(workload_id), arrival)
    case = Case(models.resolve(model_id), targets.resolve(target_id), workload)
    _check(case)
    case = replace(case, data=datasets_for(data, case.model))
    wanted = tuple(
        techniques.parse(text).within(priorities.limits, parse_setting(text)[1])
        for text in technique_texts
    )
    plans = propose(case, preset, wanted, seed, priorities.limits)
    reasons = [refuse(plan) or fit(plan) for plan in plans]
    if all(reason is not None for reason in reasons):
        raise BadInput(str(reasons[0]))
    study = Study(new_id("s"), case, priorities, preset, budget_s, seed, None, now())
    return study, plans


def _check(case: Case) -> None:
    """Refuse a case whose parts do not belong together."""
    model, workload = case.model, case.workload
    if model.task != workload.task:
        fitting = [one.id for one in workloads.list_workloads() if one.task == model.task]
        raise BadInput(
            f"workload {workload.id} is for {workload.task} models,"
            f" {model.id} is for {model.task}; use one of: {', '.join(fitting)}"
        )
    if model.task == "text":
        needed, context = workload.prompt_tokens + workload.output_tokens, model.decoder().context
        if needed > context:
            raise BadInput(
                f"workload {workload.id} needs {needed} tokens of context"
                f" ({workload.prompt_tokens} prompt + {workload.output_tokens} output),"
                f" {model.id} has {context}"
            )
        if workload.trace_tokens > context:
            raise BadInput(
                f"--arrival: a request of the trace {workload.trace} needs"
                f" {workload.trace_tokens} tokens of context, {model.id} has {context}"
            )
