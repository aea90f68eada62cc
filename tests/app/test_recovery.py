"""What a killed supervisor leaves behind: orphans are told from what a living owner runs, and
journals are believed only where they speak of themselves.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.supervisor import Supervisor
from app.planning import plan_study
from core.errors import BadInput
from core.journal.events import event, study_created, trial_queued
from core.journal.journal import Journal
from core.measure.child.processes import OWNER, TRIAL, owner_lives, owner_mark
from core.priorities import Priorities
from core.study import Study, Trial
from store import open_store
from store.interface import Store


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


@pytest.fixture
def supervisor(store: Store, tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(store, tmp_path)
    yield made
    made.close()


def interrupted(store: Store, folder: Path) -> Study:
    """A study as a killed owner leaves it: one trial runs, by what is stored."""
    study, plans = plan_study(
        "pycode-small", "local", "autocomplete", Priorities(), ("weight-int8",)
    )
    trial = Trial("t-0000000000000a", study.id, plans[0])
    events = [
        study_created(study),
        trial_queued(trial),
        event("study-state", study.id, state="running", reason=""),
        event("trial-started", study.id, trial.id, attempt=1, pid=1),
    ]
    with Journal(folder / study.id / "study.jsonl") as journal:
        journal.extend(events)
    store.ingest(events)
    return study


SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def sleeper(owner: str) -> subprocess.Popen[str]:
    """A process that a trial of `interrupted` would have started for this owner."""
    marks = {TRIAL: "t-0000000000000a", OWNER: owner}
    started = subprocess.Popen(
        SLEEP, env={**os.environ, **marks}, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    started.stdout.readline()
    return started


def dead_owner() -> str:
    """The mark of a process that has ended."""
    script = "from core.measure.child.processes import owner_mark; print(owner_mark())"
    return subprocess.check_output([sys.executable, "-c", script], text=True).strip()


def test_recovery_ends_the_orphans_of_a_dead_owner(
    supervisor: Supervisor, store: Store, tmp_path: Path
) -> None:
    study = interrupted(store, tmp_path)
    orphan = sleeper(dead_owner())
    assert supervisor.recover() == (study.id,)
    assert orphan.wait(timeout=30) == -signal.SIGKILL
    found = store.study(study.id)
    assert found is not None
    assert found.state == "paused"
    assert "trimtab resume" in found.reason


def test_recovery_leaves_alone_what_a_living_owner_runs(
    supervisor: Supervisor, store: Store, tmp_path: Path
) -> None:
    study = interrupted(store, tmp_path)
    script = (
        "import sys\nfrom core.measure.child.processes import owner_mark\n"
        "print(owner_mark(), flush=True)\n"
        "sys.stdin.readline()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    theirs = sleeper(owner.stdout.readline().strip())
    try:
        assert supervisor.recover() == ()
        assert theirs.poll() is None
        with pytest.raises(BadInput, match=f"PID {owner.pid}"):
            supervisor.resume(study.id)
        found = store.study(study.id)
        assert found is not None
        assert found.state == "running"
    finally:
        theirs.kill()
        theirs.wait()
        owner.communicate("\n")


def test_a_journal_that_speaks_of_others_is_not_believed(
    supervisor: Supervisor, store: Store, tmp_path: Path
) -> None:
    study = interrupted(store, tmp_path)
    forged = [
        event("trial-ended", study.id, "t-0000000000000a", attempt=1, state="done", reason=""),
        event("study-state", "s-0000000000000b", state="done", reason=""),
    ]
    with Journal(tmp_path / study.id / "t-0000000000000c-1.jsonl") as journal:
        journal.extend(forged)
    assert supervisor.ingest_journals(study.id) == 0
    found = store.study(study.id)
    assert found is not None
    assert found.trials[0].state == "running"


def test_a_mark_tells_its_owner_even_when_the_id_is_used_again() -> None:
    pid, start, boot, space = owner_mark().split(".")
    assert owner_lives(owner_mark()) is True
    assert owner_lives(f"{pid}.{int(start) + 1}.{boot}.{space}") is False
    assert owner_lives(f"{pid}.{start}.otherboot.{space}") is False
    # In another container the same id is another process: that cannot be judged from here.
    assert owner_lives(f"{pid}.{start}.{boot}.1") is None
    assert owner_lives("damaged") is None
