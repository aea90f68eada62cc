"""The supervisor with real worker processes on the small bundled model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from app.jobs import Supervisor
from app.services import plan_study
from core.errors import BadInput
from core.events import Event
from core.journal import read
from core.plan import Plan
from core.priorities import Priorities
from core.study import ENDED, Study
from store import open_store
from store.interface import Store

BASELINE = "pycode-small"


def planned(*techniques: str) -> tuple[Study, tuple[Plan, ...]]:
    return plan_study(BASELINE, "local", "autocomplete", Priorities(), techniques)


@pytest.fixture
def store() -> Store:
    return open_store("memory:")


def until(condition, seconds: float = 60.0) -> None:
    """Wait for something another process does; the test fails when it never happens."""
    over = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < over, "it never happened"
        pause.wait(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0]
    except OSError:
        return False


def pids_of(events: list[Event]) -> list[int]:
    return [one.body["pid"] for one in events if one.kind == "trial-started"]


def test_a_study_runs_to_its_end_and_names_its_kernels(store: Store, tmp_path: Path) -> None:
    supervisor = Supervisor(store, tmp_path)
    study, plans = planned("weight-int8", "static-batch:size=2")
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    supervisor.close()
    assert ended.state == "done"
    assert [trial.state for trial in ended.trials] == ["done"] * 4
    int8 = next(trial for trial in ended.trials if trial.plan.title == "weight-int8")
    assert any(kernel.op == "linear_w8" and kernel.calls > 0 for kernel in int8.kernels)
    assert int8.value("model_bytes") < ended.baseline.value("model_bytes")
    assert 0 < int8.value("kl_nats") < 0.1
    # A journal on disk tells the same story: the store can be rebuilt from it.
    rebuilt = open_store("memory:")
    Supervisor(rebuilt, tmp_path).ingest_journals(study.id)
    assert rebuilt.study(study.id) == ended


def test_a_refused_plan_is_a_refused_trial_with_its_sentence(store: Store, tmp_path: Path) -> None:
    supervisor = Supervisor(store, tmp_path)
    study, plans = planned("speculative:draft=pycode-small")
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    supervisor.close()
    refused = [trial for trial in ended.trials if trial.state == "refused"]
    assert len(refused) == 1
    assert "another, smaller model" in refused[0].reason


def test_a_killed_child_is_a_failed_trial_and_the_study_goes_on(
    store: Store, tmp_path: Path
) -> None:
    events: list[Event] = []
    supervisor = Supervisor(store, tmp_path, events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    os.kill(pids_of(events)[0], signal.SIGKILL)
    ended = supervisor.wait(study.id)
    supervisor.close()
    first, second = ended.trials
    assert first.state == "failed"
    assert "SIGKILL" in first.reason
    assert second.state == "done"


def test_cancel_kills_the_child_and_gives_up_the_rest(store: Store, tmp_path: Path) -> None:
    events: list[Event] = []
    supervisor = Supervisor(store, tmp_path, events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    supervisor.cancel(study.id)
    ended = supervisor.wait(study.id)
    supervisor.close()
    assert ended.state == "cancelled"
    assert {trial.state for trial in ended.trials} == {"cancelled"}
    assert not any(alive(pid) for pid in pids_of(events))


def test_a_paused_study_resumes_where_it_stopped(store: Store, tmp_path: Path) -> None:
    events: list[Event] = []
    supervisor = Supervisor(store, tmp_path, events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    supervisor.pause(study.id)
    paused = supervisor.wait(study.id)
    assert paused.state == "paused"
    assert [trial.state for trial in paused.trials] == ["done", "queued"]
    supervisor.resume(study.id)
    ended = supervisor.wait(study.id)
    supervisor.close()
    assert [trial.state for trial in ended.trials] == ["done", "done"]
    assert ended.trials[0] == paused.trials[0]


def test_resuming_a_finished_or_unknown_study_is_said_in_a_sentence(
    store: Store, tmp_path: Path
) -> None:
    supervisor = Supervisor(store, tmp_path)
    with pytest.raises(BadInput, match="no study"):
        supervisor.resume("s-unknown")
    with pytest.raises(BadInput, match="no study"):
        supervisor.cancel("s-unknown")
    supervisor.close()


def test_a_kill_of_the_owner_loses_nothing_and_resume_doubles_nothing(tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    command = [sys.executable, "-m", "app.cli"]
    words = [
        "--model",
        BASELINE,
        "--workload",
        "autocomplete",
        "--technique",
        "weight-int8",
        "--technique",
        "weight-int4",
    ]
    owner = subprocess.Popen(
        [*command, "run", *words, "--store", str(file), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "store.duckdb.studies"

    def journals() -> list[Path]:
        return sorted(folder.glob("*/t-*.jsonl"))

    until(lambda: len(journals()) >= 2 and pids_of(read(journals()[-1])[0]))
    owner.kill()
    owner.wait()
    running = pids_of(read(journals()[-1])[0])[0]
    until(lambda: not alive(running))
    study_id = next(folder.iterdir()).name
    acknowledged = {
        one.id for path in journals() for one in read(path)[0] if one.kind == "measurement"
    }

    resumed = subprocess.run(
        [*command, "resume", study_id, "--store", str(file), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    document = json.loads(resumed.stdout)
    assert [trial["state"] for trial in document["trials"]] == ["done"] * len(document["trials"])
    store = open_store(str(file))
    study = store.study(study_id)
    kept = {one.id for path in journals() for one in read(path)[0] if one.kind == "measurement"}
    store.close()
    assert acknowledged <= kept
    assert study is not None
    assert all(trial.state in ENDED for trial in study.trials)
    for trial in study.trials:
        names = [measurement.metric for measurement in trial.measurements]
        assert len(names) == len(set(names)), f"{trial.plan.title} has a metric twice"
    assert "Traceback" not in resumed.stderr
