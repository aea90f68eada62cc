"""Runs every part of a run on a GPU and prints a summary last; run.sh starts it.

Returns 0 when every part ended well.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

from tests.evidence.gpu import place, results, schedule
from tests.evidence.gpu.parts import CLOSING, parts
from tests.evidence.gpu.place import Place
from tests.evidence.gpu.schedule import DONE, NOT_REACHED, Outcome, Part


class Interrupted(Exception):
    """Somebody asked this process to end."""


def run() -> int:
    """Run the parts that the environment asks for."""
    try:
        seconds = place.total_seconds()
        where = place.here(seconds * (1 - CLOSING))
        wanted = parts(seconds, where.rehearsal, place.named("TRIMTAB_GPU_PARTS"))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    where.work.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    outcomes: list[Outcome] = []
    began = time.monotonic()
    try:
        _run_all(wanted, where, outcomes)
    except Interrupted:
        print("asked to end: what is there is kept", file=sys.stderr)
    ended = {outcome.name for outcome in outcomes}
    outcomes += [Outcome(part.name, NOT_REACHED) for part in wanted if part.name not in ended]
    results.refresh(where, [part.name for part in wanted])
    _summarize(where, outcomes, time.monotonic() - began)
    print(summary(where, outcomes, time.monotonic() - began), flush=True)
    return 0 if all(outcome.state == DONE for outcome in outcomes) else 1


def _run_all(wanted: Sequence[Part], where: Place, outcomes: list[Outcome]) -> None:
    names = [part.name for part in wanted]
    began = time.monotonic()

    def refresh() -> None:
        results.refresh(where, names)

    for outcome in schedule.run(wanted, where.until, where.work / "logs", refresh):
        outcomes.append(outcome)
        print(line(where, outcome), flush=True)
        _summarize(where, outcomes, time.monotonic() - began)


def _interrupt(*_: object) -> NoReturn:
    # A second signal must not break what is being written.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise Interrupted


def _summarize(where: Place, outcomes: Sequence[Outcome], seconds: float) -> None:
    with contextlib.suppress(OSError, ValueError):
        results.write_json(
            where,
            "summary.json",
            {
                "seconds": round(seconds, 1),
                "parts": [
                    {
                        "name": outcome.name,
                        "state": outcome.state,
                        "seconds": round(outcome.seconds, 1),
                        "limit_s": round(outcome.limit, 1),
                        "status": outcome.status,
                        "said": said(where, outcome.name),
                    }
                    for outcome in outcomes
                ],
                "not_reached": [each.name for each in outcomes if each.state == NOT_REACHED],
                "figures": figures(where),
            },
        )


def summary(where: Place, outcomes: Sequence[Outcome], seconds: float) -> str:
    """What is printed last: a line a part, then a line a figure."""
    told = ["", "REHEARSAL on a processor" if where.rehearsal else "GPU run"]
    told[-1] += f": {seconds:.0f} s"
    told += [line(where, outcome) for outcome in outcomes]
    told += [str(figure["sentence"]) for figure in figures(where)]
    return "\n".join(told)


def line(where: Place, outcome: Outcome) -> str:
    """One part in one line."""
    how = outcome.state
    if outcome.status is not None and outcome.state not in (DONE, schedule.STOPPED):
        how += f" ({outcome.status})"
    return f"{outcome.name:<12}{outcome.seconds:6.1f} s  {how}. {said(where, outcome.name)}".strip()


def said(where: Place, name: str) -> str:
    """The sentence that a part left, or the last line that it printed."""
    with contextlib.suppress(OSError):
        return (where.work / f"{name}.said").read_text(encoding="utf-8")
    with contextlib.suppress(OSError):
        text = (where.work / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return (text.strip().splitlines() or [""])[-1][:200]
    return ""


def figures(where: Place) -> list[dict[str, object]]:
    """What the part `figures` computed; none when it did not get so far."""
    with contextlib.suppress(OSError, ValueError):
        return list(json.loads((where.work / "figures.json").read_text(encoding="utf-8")))
    return []


if __name__ == "__main__":
    sys.exit(run())
