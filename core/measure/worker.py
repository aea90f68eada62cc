"""The child process that runs one trial: a job in JSON on stdin, events as JSON lines on stdout and
in a journal.

    python -m core.measure.worker

Standard output belongs to the events alone: whatever a library prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from core.artefacts.prefix import Prefixes
from core.errors import BadInput, Refused, TrimtabError
from core.files.fingerprint import from_json
from core.journal import codec
from core.journal.events import Event, TrialEnded, TrialStarted, event
from core.journal.journal import Journal, JournalError
from core.journal.lines import to_line
from core.machine.environment import environment
from core.machine.kernel_choice import refusing
from core.machine.parent import die_with_parent
from core.plan import Plan

# Exit statuses that mean: the last line of the log says why no event could.
NO_JOB, NO_JOURNAL = 2, 74
# Characters of a reason; what a library says can be a megabyte.
REASON = 400


def main() -> int:
    """Run the job on stdin; 0 when the trial ended in words, whatever its state."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # What libraries print belongs in the log when they print it, however this process ends.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)
    die_with_parent()
    try:
        job = read_job(sys.stdin.readline())
        beat(job.get("beats"), job.get("beat_s"))
        journal = Journal(Path(job["journal"]))
    except (BadInput, OSError) as error:
        # Without a job there is no journal to say it in: the log and the exit status must do.
        print(f"the trial cannot start: {error}", file=sys.stderr)
        return NO_JOB
    study_id, trial_id, attempt = job["study"], job["trial"], job["attempt"]

    who = str(job.get("who") or "")

    def send(event: Event) -> None:
        if event.is_journalled:
            journal.append(event)
        # The parent may be gone: the journal has the event, and the parent's successor reads it.
        with contextlib.suppress(BrokenPipeError):
            events.write(to_line(event) + "\n")
            events.flush()

    def emit(kind: str, **body: Any) -> None:
        send(event(kind, study_id, trial_id, who, attempt=attempt, **body))

    try:
        send(TrialStarted(attempt, os.getpid()).event(study_id, trial_id, who))
        state, reason = run(job, emit)
        send(TrialEnded(attempt, state, reason).event(study_id, trial_id, who))
    except JournalError as error:
        # What is not on the disk was not said.
        print(error, file=sys.stderr, flush=True)
        return NO_JOURNAL
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
    fields: dict[str, Any] = job
    return fields


def run(job: dict[str, Any], emit: Any) -> tuple[str, str]:
    """The trial's end: its state and, unless done, a sentence."""
    try:
        plan = codec.loads(job["plan"])
        if not isinstance(plan, Plan):
            raise BadInput("the job's plan is not a Plan: it is damaged")
        limit_memory(job.get("memory_bytes"))
        import torch

        from core.measure.trial import run_trial

        torch.manual_seed(plan.seed)
        identifier, facts = environment()
        emit("environment", environment=identifier, facts=facts)
        shared = job.get("prefixes")
        prefixes = None
        if shared:
            folder, lengths = Path(shared["folder"]), shared["lengths"]
            prefixes = Prefixes(folder, job["trial"], identifier, lengths)
        with refusing():
            run_trial(
                plan,
                job["preset"],
                identifier,
                emit,
                from_json(job.get("files")),
                prefixes,
                job.get("rounds"),
            )
        return "done", ""
    except JournalError:
        raise
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
        said = str(error).lower()
        if "cuda" in said and "out of memory" in said:
            return (
                "failed",
                "out of memory: the model and its work do not fit into the GPU's memory",
            )
        if "memory" in said and "alloc" in said:
            return (
                "failed",
                "out of memory: the model and its work do not fit into the machine's memory",
            )
        what = f"{type(error).__name__}: {first_line(str(error))}"
        return "failed", f"unexpected {what} (the trial's log has the details)"
    except SystemExit as error:
        traceback.print_exc()
        return "failed", f"a library ended the trial's process with status {error.code!r:.40}"


def first_line(text: str) -> str:
    """The first line of a message without control characters, cut to what fits a sentence."""
    line = (text[: 10 * REASON].strip().splitlines() or [""])[0]
    shown = "".join(c if c.isprintable() else " " for c in line)
    return shown if len(shown) <= REASON else shown[: REASON - 1] + "…"


def beat(pipe: int | None, seconds: float | None) -> None:
    """Write a byte to `pipe` every so many seconds from a thread, for as long as the interpreter
    runs: whoever reads it knows that this process is neither stopped nor lost in a call.
    """
    if not isinstance(pipe, int) or not isinstance(seconds, int | float):
        return
    pause = threading.Event()

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                os.write(pipe, b".")
                pause.wait(seconds)

    threading.Thread(target=run, name="trimtab-beat", daemon=True).start()


def limit_memory(limit: int | None) -> None:
    """Cap the address space; an allocation beyond it fails cleanly instead of waking the kernel's
    killer.
    """
    if limit is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    # Taking torch apart would cost half a second, and everything is on the disk.
    os._exit(status)
