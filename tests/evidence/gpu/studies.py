"""Studies of this box, one after another, each trial a journal: `python -m core.measure.study` with
the plans of plans.py.

A study that goes on for longer than it was given is ended; those that were not begun are named.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from core.machine.targets import detect_local
from core.measure.study.plan import StudyPlan, to_document
from core.measure.study.standing import STUDY, standing_of
from core.study import Study
from core.target import Target
from tests.evidence.gpu import plans, results
from tests.evidence.gpu.place import ROOT, Place, named
from tests.evidence.gpu.plans import Question
from tests.evidence.gpu.schedule import end

# A study is not begun with less than its first trials take, which are measured in full. One that
# goes on for so much longer than it was given is asked to end, and then killed.
FEWEST_S = {"cuda": 20.0, "cpu": 6.0}
BEHIND_S = {"cuda": 40.0, "cpu": 10.0}
ASKED_S = 3.0


def run(place: Place) -> tuple[bool, str]:
    """Run them while there is time; content when a trial was measured and none failed."""
    try:
        questions = plans.questions(place.rehearsal, named("TRIMTAB_GPU_STUDIES"))
    except ValueError as error:
        return False, str(error)
    target = detect_local()
    if target.kind != "cuda" and not place.rehearsal:
        return False, f"{target.title} is no GPU: nothing was measured"
    folder = place.work / results.STUDIES
    folder.mkdir(parents=True, exist_ok=True)
    total, left_out = place.left, []
    for question in questions:
        if place.left < FEWEST_S[place.device]:
            left_out.append(question.name)
            continue
        _run(place, question, target, min(place.left, total * question.share), folder)
    if left_out:
        print(f"no time was left for {', '.join(left_out)}")
    return said(begun(folder), left_out)


def _run(place: Place, question: Question, target: Target, seconds: float, folder: Path) -> None:
    """Run one study in about so many seconds."""
    study, wanted = plans.study(question, target)
    plan = place.work / f"{question.name}.json"
    plan.write_bytes(to_document(StudyPlan(study, wanted)))
    print(f"{question.name}: {len(wanted)} plans in {seconds:.0f} s", flush=True)
    began = time.monotonic()
    words = ["-m", "core.measure.study", str(plan), str(folder), "--seconds", f"{seconds:.1f}"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(min(place.left - ASKED_S, seconds + BEHIND_S[place.device]))
    except subprocess.TimeoutExpired:
        print(f"{question.name}: asked to end", flush=True)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ASKED_S)
    finally:
        end(process)
    took = time.monotonic() - began
    print(f"{question.name}: {took:.0f} s, status {process.returncode}", flush=True)


def begun(folder: Path) -> list[Study]:
    """Every study that began in `folder`, in the order in which they did, as far as it got."""
    places = sorted(path.parent for path in folder.glob(f"*/{STUDY}"))
    read = (standing_of(place).study for place in places)
    return [study for study in read if study is not None]


def said(found: list[Study], left_out: list[str]) -> tuple[bool, str]:
    """Whether that is content, and how many trials ended how."""
    states = Counter(trial.state for study in found for trial in study.trials)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    told = f"{len(found)} studies: {counts or 'no trials'}"
    if left_out:
        told += f"; not begun: {', '.join(left_out)}"
    return states["done"] > 0 and states["failed"] == 0, told
