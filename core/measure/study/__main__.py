"""`python -m core.measure.study PLAN OUT`: measure a planned study on this box, without the
dashboard.

PLAN is what `trimtab bundle` wrote. OUT gets a folder for the study, with the journals that
`trimtab ingest OUT` takes into a store, and box.json, what this machine is. The same command again
goes on where it stopped. Exit codes: 0 every trial has ended in words, 1 the study had to stop, 2
bad input (one sentence), 128 + the signal that ended it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from core import disk
from core.catalogue.planned import FILE as MODEL_FILES
from core.errors import BadInput, TrimtabError
from core.ids import new_id, now
from core.machine.environment import environment
from core.machine.kernel_choice import refusing
from core.machine.naming import machine_line
from core.measure.child.devices import absent
from core.measure.pace.schedule import open_trials
from core.measure.study.archive import read, unpack
from core.measure.study.here import for_this_box
from core.measure.study.plan import StudyPlan
from core.measure.study.run import StudyRun, begin
from core.measure.study.standing import STUDY, Standing, standing_of

BOX = "box.json"
# In a study's folder: what goes along with its plan.
FILES = "files"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    try:
        with refusing():
            return _run(parsed)
    except TrimtabError as error:
        print(f"core.measure.study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        # Before anything was begun; after that a signal ends the trial that runs.
        return 128 + signal.SIGINT
    except OSError as error:
        name, why = error.filename or parsed.out, error.strerror or error
        print(
            f"core.measure.study: {name} cannot be used ({why}): set it right, or give another"
            " folder for OUT, and run the same command again",
            file=sys.stderr,
        )
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core.measure.study",
        description="Measure a planned study on this machine, without the dashboard.",
    )
    parser.add_argument("plan", type=Path, help="what `trimtab bundle` wrote, .json or .zip")
    parser.add_argument("out", type=Path, help="the folder for its journals, made when missing")
    parser.add_argument(
        "--model", type=Path, metavar="FOLDER", help="the model, where it does not go along"
    )
    parser.add_argument(
        "--data",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="data sets or the trace, where they do not go along; known by their content",
    )
    parser.add_argument(
        "--seconds",
        type=_positive(float),
        help="measure no longer than this, in place of what the preset promises",
    )
    parser.add_argument(
        "--only", type=_positive(int), metavar="N", help="measure only the first N plans"
    )
    return parser


def _positive(kind: type[float]) -> Callable[[str], float]:
    def number(text: str) -> float:
        value = kind(text)
        if not 0 < value < 1e9:
            raise ValueError
        return value

    number.__name__ = "positive number"
    return number


def _run(parsed: argparse.Namespace) -> int:
    plan = read(parsed.plan)
    # Children start in the study's folder.
    parsed.out = parsed.out.absolute()
    ingest = f"trimtab ingest {shlex.quote(str(parsed.out))}"
    standing = _begun(parsed.out, plan) or _begin(parsed, plan)
    _describe(parsed.out)
    begun = standing.study
    assert begun is not None
    if begun.state == "done" and not open_trials(begun):
        _say(f"study {begun.id} has ended; take it in with: {ingest}")
        return 0
    why_not = absent(begun.case.target)
    if why_not is not None:
        raise BadInput(f"study {begun.id} cannot go on here: {why_not}")
    run = StudyRun(parsed.out, standing, _say, parsed.seconds, parsed.only)
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)
        run.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, hear)
    place = parsed.out / run.study.id
    _say(f"study {run.study.id}: {len(run.study.trials)} trials, journals in {place}")
    study = run.run()
    why = f", {study.reason}" if study.reason else ""
    _say(f"study {study.id}: {study.state}{why}; take it in with: {ingest}")
    if heard:
        return 128 + heard[0]
    asked = study.trials[: parsed.only]
    return 0 if all(trial.state not in ("queued", "running") for trial in asked) else 1


def _begun(out: Path, plan: StudyPlan) -> Standing | None:
    """The study that an earlier call began in `out` for this plan, the newest of several."""
    for path in sorted(out.glob(f"s-*/{STUDY}"), reverse=True):
        standing = standing_of(path.parent)
        study = standing.study
        if study is not None and study.parent_id == plan.study.id:
            return standing
    return None


def _begin(parsed: argparse.Namespace, plan: StudyPlan) -> Standing:
    study_id = new_id("s")
    place = parsed.out / study_id
    place.mkdir(parents=True)
    try:
        unpack(parsed.plan, plan, place / FILES)
        study, plans, fingerprint = for_this_box(
            plan, study_id, (place / FILES), parsed.model and parsed.model.absolute(), parsed.data
        )
        if fingerprint is not None:
            disk.replace(place / MODEL_FILES, json.dumps(fingerprint.to_json(), indent=1).encode())
        return begin(parsed.out, study, plans)
    except (LookupError, ArithmeticError, TypeError, ValueError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise BadInput(
            f"{parsed.plan} says of its model or workload what none can be ({error}): write it"
            " again with `trimtab bundle`"
        ) from None
    except BaseException:
        # Nothing was said of the study yet, so that nothing is lost.
        shutil.rmtree(place, ignore_errors=True)
        raise


def _describe(out: Path) -> None:
    """Write down what this machine is."""
    key, facts = environment()
    box = {
        "machine": machine_line(facts),
        "environment": key,
        "taken_at": now(),
        "facts": facts,
    }
    disk.replace(out / BOX, json.dumps(box, indent=1).encode())


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever read it has gone; the journals go on.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
