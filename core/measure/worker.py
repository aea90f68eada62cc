"""The child process that runs one trial: a job in JSON on stdin, events as JSON lines on stdout and
in a journal.

    python -m core.measure.worker

Standard output belongs to the events alone: whatever a library prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from core import codec
from core.errors import BadInput, Refused, TrimtabError
from core.events import Event, event, to_line
from core.journal import Journal
from core.plan import Plan


def main() -> int:
    """Run the job on stdin; 0 when the trial ended in words, whatever its state."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    die_with_parent()
    try:
        job = read_job(sys.stdin.readline())
        journal = Journal(Path(job["journal"]))
    except (BadInput, OSError) as error:
        # Without a job there is no journal to say it in: the log and the exit status must do.
        print(f"the trial cannot start: {error}", file=sys.stderr)
        return 2
    study_id, trial_id, attempt = job["study"], job["trial"], job["attempt"]

    def send(one: Event) -> None:
        if one.kind != "progress":
            journal.append(one)
        # The parent may be gone: the journal has the event, and the parent's successor reads it.
        with contextlib.suppress(BrokenPipeError):
            events.write(to_line(one) + "\n")
            events.flush()

    def emit(kind: str, **body: Any) -> None:
        send(event(kind, study_id, trial_id, attempt=attempt, **body))

    emit("trial-started", pid=os.getpid())
    state, reason = run(job, emit)
    emit("trial-ended", state=state, reason=reason)
    with contextlib.suppress(BrokenPipeError, OSError):
        events.close()
    return 0


def read_job(line: str) -> dict[str, Any]:
    """The job of one line of JSON; BadInput names the field that is missing or of a wrong type."""
    try:
        job = json.loads(line)
    except (ValueError, RecursionError):
        raise BadInput("the job on standard input is not one line of JSON") from None
    kinds = {"study": str, "trial": str, "attempt": int, "journal": str, "preset": str, "plan": str}
    for name, kind in kinds.items():
        if not isinstance(job, dict) or not isinstance(job.get(name), kind):
            raise BadInput(f"the job on standard input has no {name} of type {kind.__name__}")
    found: dict[str, Any] = job
    return found


def run(job: dict[str, Any], emit: Any) -> tuple[str, str]:
    """The trial's end: its state and, unless done, a sentence."""
    try:
        plan = codec.loads(job["plan"])
        if not isinstance(plan, Plan):
            raise BadInput("the job's plan is not a Plan: it is damaged")
        limit_memory(job.get("memory_bytes"))
        import torch

        from core.measure.environment import environment
        from core.measure.trial import run_trial

        torch.manual_seed(plan.seed)
        identifier, facts = environment()
        emit("environment", environment=identifier, facts=facts)
        run_trial(plan, job["preset"], identifier, emit)
        return "done", ""
    except Refused as refusal:
        return "refused", str(refusal)
    except TrimtabError as error:
        return "failed", str(error)
    except MemoryError:
        return (
            "failed",
            "out of memory: the model and its work do not fit into the memory limit of this trial",
        )
    except Exception as error:
        traceback.print_exc()
        if "memory" in str(error).lower() and "alloc" in str(error).lower():
            return (
                "failed",
                "out of memory: the model and its work do not fit into the memory of this machine",
            )
        first_line = (str(error).strip().splitlines() or [""])[0]
        return (
            "failed",
            f"unexpected {type(error).__name__}: {first_line} (the trial's log has the details)",
        )


def die_with_parent() -> None:
    """Ask the kernel (Linux) to kill this process when its parent dies, so that no orphan keeps the
    cores.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def limit_memory(limit: int | None) -> None:
    """Cap the address space; an allocation beyond it fails cleanly instead of waking the kernel's
    killer.
    """
    if limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    sys.exit(main())
