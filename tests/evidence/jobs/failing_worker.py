"""A worker for tests: it runs a trial without techniques in the way that its argument names, badly,
and every other trial well and quickly. What it starts it writes down in `started`.

    python tests/app/failing_worker.py KIND < job
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from core.journal import codec
from core.journal.events import MeasurementTaken, event
from core.journal.lines import to_line
from core.measure import worker
from core.measurement import Measurement

GOOD = Measurement("tokens_per_s", (10.0, 11.0, 12.0), "1/s", "measured", "made up for a test")
SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


def main(kind: str) -> int:
    """Run the worker with another way to run the trial."""
    if kind == "import-error":
        import no_such_module  # noqa: F401
    if kind in RAW:
        line = sys.stdin.readline()
        job = json.loads(line)
        if not codec.loads(job["plan"]).techniques:
            worker.beat(job["beats"], job["beat_s"])
            RAW[kind](job)
            return 0
        read, write = os.pipe()
        os.write(write, line.encode())
        os.close(write)
        sys.stdin = os.fdopen(read)

    def run(job: dict[str, Any], emit: Any) -> tuple[str, str]:
        emit("environment", environment="env-test", facts={"cpu": "test"})
        if codec.loads(job["plan"]).techniques:
            emit("measurement", measurement=GOOD)
        elif kind in WORDS:
            return _real_run(job, emit, WORDS[kind])
        else:
            (BAD | WELL)[kind](job, emit)
        return "done", ""

    worker.run = run
    return worker.main()


def _real_run(job: dict[str, Any], emit: Any, fail: Any) -> tuple[str, str]:
    """The worker's own way to put what `fail` raises into words."""
    codec.loads = fail  # type: ignore[assignment]
    return REAL_RUN(job, emit)


REAL_RUN = worker.run


def write_down(pid: int) -> None:
    with open("started", "a") as file:
        file.write(f"{pid}\n")


def crash_once(job: Any, emit: Any) -> None:
    if job["attempt"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    emit("measurement", measurement=GOOD)


def await_leave(job: Any, emit: Any) -> None:
    """Go on once a file called `go` lies beside the journal."""
    while not Path("go").exists():
        time.sleep(0.01)
    emit("measurement", measurement=GOOD)


def illegal(job: Any, emit: Any) -> None:
    if platform.machine() not in ("x86_64", "AMD64"):
        os.kill(os.getpid(), signal.SIGILL)
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x0f\x0b")
    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


def bus_error(job: Any, emit: Any) -> None:
    with open("shrinking", "w+b") as file:
        file.truncate(8192)
        view = mmap.mmap(file.fileno(), 8192)
        file.truncate(0)
        print(view[5000])


def grow(job: Any, emit: Any) -> None:
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20)) * 8)
        time.sleep(0.01)


def grow_in_a_child(job: Any, emit: Any) -> None:
    code = "import time\nheld = []\nwhile True: held.append(b'x' * (8 << 20)); time.sleep(0.01)"
    write_down(subprocess.Popen([sys.executable, "-c", code]).pid)
    time.sleep(600)


def spin(job: Any, emit: Any) -> None:
    while True:
        pass


def hold_the_interpreter(job: Any, emit: Any) -> None:
    ctypes.PyDLL(None).pause()


def ignore_sigterm(job: Any, emit: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    spin(job, emit)


def fill_the_disk(job: Any, emit: Any) -> None:
    while True:
        emit("note", text="x" * 5000)


def flood(job: Any, emit: Any) -> None:
    while True:
        emit("progress", stage="x" * 5000, share=0.5)


def fork_storm(job: Any, emit: Any) -> None:
    while True:
        with contextlib.suppress(OSError):
            pid = os.fork()
            if pid == 0:
                os.setsid()
                time.sleep(600)
                os._exit(0)
            write_down(pid)


def thread_storm(job: Any, emit: Any) -> None:
    for _ in range(500):
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    time.sleep(600)


def daemon(job: Any, emit: Any) -> None:
    """Leave a process behind that has its own session and no living parent, then die."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        left = subprocess.Popen(SLEEPER, start_new_session=True)
        os.write(write, b"%d\n" % left.pid)
        os._exit(0)
    write_down(int(os.read(read, 20)))
    os._exit(3)


def journal_deleted(job: Any, emit: Any) -> None:
    Path(job["journal"]).unlink()
    emit("measurement", measurement=GOOD)


def journal_emptied(job: Any, emit: Any) -> None:
    emit("measurement", measurement=GOOD)
    os.truncate(job["journal"], 0)


def exec_another(job: Any, emit: Any) -> None:
    os.execv(SLEEPER[0], SLEEPER)


def raise_error(text: str) -> None:
    raise RuntimeError(text)


def end_by_exit(text: str) -> None:
    sys.exit(3)


def hostile_error(text: str) -> None:
    raise RuntimeError("\x1b[2J\x07\0<script>alert(1)</script>\u202e" + "A" * (1 << 20))


def memory_error(text: str) -> None:
    bytearray(1 << 45)


def say(job: Any, *lines: str) -> None:
    for line in lines:
        os.write(1, line.encode() + b"\n")


def forged(job: Any, **changes: Any) -> str:
    """A measurement of this attempt, but for the changes."""
    found = {"study": job["study"], "trial": job["trial"], "attempt": job["attempt"], **changes}
    number = Measurement("tokens_per_s", (1e9,), "1/s", "measured", "forged")
    line = to_line(MeasurementTaken(found["attempt"], number).event(found["study"], found["trial"]))
    data = json.loads(line)
    data["id"] = changes.get("id", data["id"])
    return json.dumps(data)


def other_trial(job: Any) -> None:
    say(job, forged(job, trial="t-00000000000000"))


def other_study(job: Any) -> None:
    say(job, forged(job, study="s-00000000000000"))


def other_attempt(job: Any) -> None:
    say(job, forged(job, attempt=99))


def forged_id(job: Any) -> None:
    say(job, forged(job, id="e-zzzzzzzzzzzzzz"))


def forged_state(job: Any) -> None:
    say(job, to_line(event("study-state", job["study"], state="done", reason="forged")))


def forged_journal(job: Any) -> None:
    Path(job["journal"]).write_text(forged(job, trial="t-00000000000000") + "\n")
    os._exit(3)


def damaged_measurement(job: Any) -> None:
    say(job, forged(job).replace("1000000000.0", "NaN"))


def garbage(job: Any) -> None:
    say(job, "Loading weights: 100%|#########| 12/12", '{"id": 1}', "Traceback (most recent call")


def binary(job: Any) -> None:
    os.write(1, bytes(range(256)) * 64 + b"\n")


def long_line(job: Any) -> None:
    for _ in range(50):
        os.write(1, b"x" * (1 << 20))


def close_output(job: Any) -> None:
    os.close(1)
    time.sleep(600)


def forged_end(job: Any) -> None:
    """Say that all went well without having written it down."""
    begun = to_line(event("trial-started", job["study"], job["trial"], attempt=job["attempt"]))
    over = event(
        "trial-ended", job["study"], job["trial"], attempt=job["attempt"], state="done", reason=""
    )
    say(job, begun, to_line(over))


# What happens in the middle of a trial, in the worker's own surroundings.
BAD = {
    "segfault": lambda job, emit: ctypes.string_at(0),
    "abort": lambda job, emit: os.abort(),
    "illegal-instruction": illegal,
    "bus-error": bus_error,
    "kill-itself": lambda job, emit: os.kill(os.getpid(), signal.SIGKILL),
    "terminate-itself": lambda job, emit: os.kill(os.getpid(), signal.SIGTERM),
    "memory-growth": grow,
    "memory-growth-in-a-child": grow_in_a_child,
    "spin": spin,
    "processor-limit": spin,
    "hang": lambda job, emit: time.sleep(600),
    "hang-with-the-interpreter": hold_the_interpreter,
    "stop-itself": lambda job, emit: os.kill(os.getpid(), signal.SIGSTOP),
    "ignore-sigterm": ignore_sigterm,
    "disk-full": fill_the_disk,
    "flood-of-events": flood,
    "fork-storm": fork_storm,
    "thread-storm": thread_storm,
    "daemon": daemon,
    "exit-0": lambda job, emit: os._exit(0),
    "exit-3": lambda job, emit: os._exit(3),
    "journal-deleted": journal_deleted,
    "journal-emptied": journal_emptied,
    "exec-another-program": exec_another,
}
# What a library may raise; the worker itself puts it into words.
WORDS = {
    "exception": lambda text: raise_error("the kernel met a shape of 0 rows"),
    "hostile-exception": hostile_error,
    "python-out-of-memory": memory_error,
    "sys-exit": end_by_exit,
    "endless-recursion": lambda text: WORDS["endless-recursion"](text),
}
# Ways that end well, for other tests.
WELL = {
    "none": lambda job, emit: emit("measurement", measurement=GOOD),
    "crash-once": crash_once,
    "await-leave": await_leave,
}
# What stands in for the whole worker.
RAW = {
    "garbage-on-stdout": garbage,
    "binary-on-stdout": binary,
    "line-of-50-MB": long_line,
    "stdout-closed": close_output,
    "event-of-another-trial": other_trial,
    "event-of-another-study": other_study,
    "event-of-another-attempt": other_attempt,
    "event-with-a-forged-id": forged_id,
    "event-of-the-supervisor": forged_state,
    "event-forged-in-the-journal": forged_journal,
    "damaged-measurement": damaged_measurement,
    "end-that-no-journal-holds": forged_end,
}
KINDS = ("import-error", "unreadable-job", *BAD, *WORDS, *RAW)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
