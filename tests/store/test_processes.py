"""A store between processes: the second is told who holds it, and a killed writer loses nothing it
was told is kept.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import StoreError
from store import open_store

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys
from store import open_store
store = open_store(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""

# Each batch is acknowledged on stdout only after ingest returned.
WRITE = """
import sys
from core.journal import events
from core.measurement import Measurement
from store import open_store
store = open_store(sys.argv[1])
print("open", flush=True)
while True:
    told = [
        events.MeasurementTaken(2, Measurement("tpot_s", (1.0,), "s", "measured", place))
        .event("s-1", "s-1-t0")
        for place in "012"
    ]
    assert store.ingest(told) == 3
    print(told[0].id, flush=True)
"""


def start(program: str, file: Path) -> subprocess.Popen[str]:
    """A child that has the store open."""
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert child.stdout.readline() == "open\n"
    return child


def test_the_second_process_is_told_who_holds_the_store(file: Path):
    child = start(HOLD, file)
    try:
        with pytest.raises(StoreError) as caught:
            open_store(str(file))
    finally:
        child.communicate("\n", timeout=60)

    said = str(caught.value)
    program = os.path.basename(os.path.realpath(sys.executable))
    assert said.startswith(f"the store {file} is in use by {program} (PID {child.pid}): ")
    assert "--store" in said
    assert "\n" not in said
    open_store(str(file)).close()


def test_looking_at_a_store_twice_does_not_give_its_lock_away(file: Path):
    first, second = open_store(str(file)), open_store(f"duckdb:///{file}")
    second.close()

    program = "import sys\nfrom store import open_store\nopen_store(sys.argv[1])"
    other = subprocess.run(
        [sys.executable, "-c", program, str(file)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert f"(PID {os.getpid()})" in other.stderr
    first.close()


def test_a_killed_writer_loses_nothing_that_was_acknowledged(file: Path, make):
    store = open_store(str(file))
    study, told = make.whole()
    store.ingest(told)
    store.ingest(make.story(study, study.trials[0], attempt=2)[:1])
    store.close()
    chance = random.Random(5)
    acknowledged: list[str] = []
    for _ in range(4):
        child = start(WRITE, file)
        for _ in range(chance.randint(1, 40)):
            acknowledged.append(child.stdout.readline().strip())
        child.send_signal(signal.SIGKILL)
        acknowledged += child.stdout.read().split()
        child.wait(timeout=60)
        child.stdin.close()
        child.stdout.close()

        store = open_store(str(file))
        kept = store.trial("s-1-t0").measurements
        # A batch may be kept without its acknowledgement, never the other way round, and never in
        # part.
        assert len(kept) % 3 == 0
        assert len(acknowledged) <= len(kept) // 3 <= len(acknowledged) + 6
        assert [one.method for one in kept] == ["0", "1", "2"] * (len(kept) // 3)
        assert store.trial("s-1-t1").measurements == make.measurements()
        store.close()
