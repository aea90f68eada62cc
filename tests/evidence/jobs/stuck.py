"""How soon a trial that hangs is shown as stuck, and how soon it is ended, with the limits that are
in force for everybody.

    python -m tests.evidence stuck

A process that is stopped, one whose call never returns to the interpreter, and one that waits for
what never comes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from app.jobs.supervisor import Supervisor
from app.planning import plan_study
from core.journal.events import Event
from core.measure.child.limits import TrialLimits, limits_for
from core.measure.child.spawn import Spawned
from core.plan import Plan
from core.priorities import Priorities
from store import open_store
from tests.evidence.jobs import failing_worker

SCRIPT = Path(failing_worker.__file__)
KINDS = ("stop-itself", "hang-with-the-interpreter", "hang")
SHOWN_S, ENDED_S = 30.0, 75.0


def once(plan: Plan, preset: str) -> TrialLimits:
    """The limits in force, without a second attempt."""
    return replace(limits_for(plan, preset), attempts=1)


def main() -> int:
    shown, ended = [], []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
            starter = partial(Spawned, command=(sys.executable, str(SCRIPT), kind))
            store = open_store("memory:")
            # The last that a trial says before it hangs is its environment.
            said: list[float] = []

            def hear(one: Event, said: list[float] = said) -> None:
                if one.kind == "environment":
                    said.append(time.monotonic())

            supervisor = Supervisor(store, Path(folder), hear, starter, once)
            study, plans = plan_study(
                "pycode-small", "local", "autocomplete", Priorities(), ("weight-int8",)
            )
            supervisor.submit(study, plans[:1])
            seen = 0.0
            while supervisor.active():
                health = supervisor.health(study.id)
                if health is not None and health.sentence and not seen:
                    seen = time.monotonic()
                time.sleep(0.05)
            over = time.monotonic()
            trial = supervisor.wait(study.id).trials[0]
            supervisor.close()
        began = said[0]
        if trial.state != "failed" or not seen:
            print(f"{kind}: the trial is {trial.state}, {trial.reason}")
            return 1
        shown.append(seen - began)
        ended.append(over - began)
        print(f"{kind}: shown after {seen - began:.1f} s, ended after {over - began:.1f} s")
    print(
        f"{len(KINDS)} of {len(KINDS)} hanging trials shown as stuck after at most"
        f" {max(shown):.1f} s (limit {SHOWN_S:g} s) and ended after at most {max(ended):.1f} s"
    )
    return 0 if max(shown) <= SHOWN_S and max(ended) <= ENDED_S else 1
