"""The supervisor with child processes: the real worker on the small bundled model where that
matters, else a worker that is done at once (failing_worker.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app.jobs.supervisor import CANCEL, Supervisor
from app.planning import plan_study
from core.errors import BadInput
from core.journal.events import Event
from core.journal.journal import read
from core.measure.child.processes import find
from core.measure.child.spawn import Spawned
from core.plan import Plan
from core.priorities import Priorities
from core.study import ENDED, Study
from store import open_store
from store.interface import Store
from tests.evidence.jobs import failing_worker

BASELINE = "pycode-small"
SCRIPT = Path(failing_worker.__file__)
BRIEFLY = partial(
    Spawned, command=(sys.executable, str(Path(__file__).with_name("brief_worker.py")))
)
Make = Callable[..., Supervisor]


def planned(*techniques: str) -> tuple[Study, tuple[Plan, ...]]:
    return plan_study(BASELINE, "local", "autocomplete", Priorities(), techniques)


def on_a_gpu(study: Study, plans: tuple[Plan, ...]) -> tuple[Study, tuple[Plan, ...]]:
    """The same study for a CUDA device of this machine, which need not be there."""

    def moved(case):
        target = replace(case.target, id="local-gpu", kind="cuda", memory_bytes=8 << 30)
        return replace(case, target=target)

    return (
        replace(study, case=moved(study.case)),
        tuple(replace(plan, case=moved(plan.case)) for plan in plans),
    )


def until(condition, seconds: float = 60.0) -> None:
    """Wait for something another process does; the test fails when it never happens."""
    over = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < over, "it never happened"
        pause.wait(0.02)


def alive(pid: int) -> bool:
    found = find(pid)
    return found is not None and found.state not in "ZX"


def pids_of(events: list[Event]) -> list[int]:
    return [one.body["pid"] for one in events if one.kind == "trial-started"]


def test_a_study_runs_to_its_end_and_names_its_kernels(store: Store, tmp_path: Path) -> None:
    supervisor = Supervisor(store, tmp_path, starter=BRIEFLY)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    supervisor.close()
    assert ended.state == "done"
    assert [trial.state for trial in ended.trials] == ["done"] * 2, ended.trials[-1].reason
    int8 = ended.trials[1]
    assert any(kernel.op == "linear_lowbit" and kernel.calls > 0 for kernel in int8.kernels)
    assert int8.value("model_bytes") < ended.baseline.value("model_bytes")
    assert 0 < int8.value("kl_nats") < 0.1
    # A journal on disk tells the same story: the store can be rebuilt from it.
    rebuilt = open_store("memory:")
    Supervisor(rebuilt, tmp_path).ingest_journals(study.id)
    assert rebuilt.study(study.id) == ended


def test_a_refused_plan_is_a_refused_trial_with_its_sentence(make: Make) -> None:
    supervisor = make()
    study, plans = planned("speculative:draft=pycode-small")
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    refused = [trial for trial in ended.trials if trial.state == "refused"]
    assert len(refused) == 1
    assert "another, smaller model" in refused[0].reason


def test_a_crash_is_tried_again_and_its_reason_kept(make: Make) -> None:
    supervisor = make("crash-once")
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    first, second = supervisor.wait(study.id).trials
    assert (first.state, first.attempt) == ("done", 2)
    assert first.notes == (
        "attempt 1 of 3 crashed: its process died by SIGKILL: it was killed from outside",
    )
    assert [one.metric for one in first.measurements] == ["tokens_per_s"]
    assert (second.state, second.attempt) == ("done", 1)


def test_a_study_whose_baseline_failed_stops_and_says_what_to_change(make: Make) -> None:
    supervisor = make("exit-3")
    study, plans = planned("weight-int8", "weight-int4")
    supervisor.submit(study, plans)
    stopped = supervisor.wait(study.id)
    first, *others = stopped.trials
    assert (first.state, first.attempt) == ("failed", 3)
    assert "code 3" in first.reason
    assert "3 attempts, each ended so" in first.reason
    assert stopped.state == "paused"
    assert stopped.reason.startswith(f"the unchanged model failed ({first.reason.rstrip('.')})")
    assert "2 other trials did not start" in stopped.reason
    assert "a longer preset" in stopped.reason
    assert [trial.state for trial in others] == ["queued", "queued"]
    # Whoever wants the others all the same resumes.
    supervisor.resume(study.id)
    assert [trial.state for trial in supervisor.wait(study.id).trials] == ["failed", "done", "done"]


def test_cancel_kills_the_child_and_gives_up_the_rest(make: Make) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    supervisor.cancel(study.id)
    ended = supervisor.wait(study.id)
    assert ended.state == "cancelled"
    assert {trial.state for trial in ended.trials} == {"cancelled"}
    assert not any(alive(pid) for pid in pids_of(events))


def test_a_marker_in_the_folder_cancels_from_another_process(make: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    (tmp_path / study.id / CANCEL).touch()
    assert supervisor.wait(study.id).state == "cancelled"
    assert not any(alive(pid) for pid in pids_of(events))


def test_a_paused_study_resumes_where_it_stopped(make: Make, tmp_path: Path) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    supervisor.pause(study.id)
    assert supervisor.on_its_way(study.id) == "paused"
    (tmp_path / study.id / "go").touch()
    paused = supervisor.wait(study.id)
    assert paused.state == "paused"
    assert [trial.state for trial in paused.trials] == ["done", "queued"]
    assert supervisor.on_its_way(study.id) == ""
    supervisor.resume(study.id)
    ended = supervisor.wait(study.id)
    assert [trial.state for trial in ended.trials] == ["done", "done"]
    assert ended.trials[0] == paused.trials[0]


def test_a_study_waits_for_its_device_and_another_device_does_not_wait(
    make: Make, tmp_path: Path
) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    first, second, third = planned("weight-int8"), planned("weight-int8"), planned("weight-int8")
    third = on_a_gpu(*third)
    for study, plans in (first, second, third):
        supervisor.submit(study, plans[:1])
    until(lambda: len(pids_of(events)) == 2)
    assert {one.study_id for one in events if one.kind == "trial-started"} == {
        first[0].id,
        third[0].id,
    }
    assert [supervisor.ahead(study.id) for study, _ in (first, second, third)] == [0, 1, 0]
    health = supervisor.health(first[0].id)
    assert health is not None
    assert (health.trial_id, health.sentence) == (events_trial(events, first[0].id), "")
    assert supervisor.health(second[0].id) is None
    for study, _ in (first, second, third):
        (tmp_path / study.id / "go").touch()
    for study, _ in (first, second, third):
        assert supervisor.wait(study.id).state == "done"


def events_trial(events: list[Event], study_id: str) -> str:
    return next(
        one.trial_id for one in events if one.kind == "trial-started" and one.study_id == study_id
    )


def test_a_waiting_study_can_be_cancelled_without_touching_the_running_one(
    make: Make, tmp_path: Path
) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    (running, plans), (waiting, others) = planned("weight-int8"), planned("weight-int8")
    supervisor.submit(running, plans[:1])
    supervisor.submit(waiting, others)
    until(lambda: pids_of(events))
    assert supervisor.running() == (running.id,)
    assert supervisor.active() == (running.id, waiting.id)
    supervisor.cancel(waiting.id)
    assert supervisor.wait(waiting.id).state == "cancelled"
    assert alive(pids_of(events)[0])
    (tmp_path / running.id / "go").touch()
    assert supervisor.wait(running.id).state == "done"


def test_closing_kills_the_child_and_leaves_the_trial_to_be_resumed(
    make: Make, store: Store
) -> None:
    events: list[Event] = []
    supervisor = make("await-leave", events.append)
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    until(lambda: pids_of(events))
    supervisor.close()
    assert not alive(pids_of(events)[0])
    left = store.study(study.id)
    assert left is not None
    assert [trial.state for trial in left.trials] == ["running", "queued"]
    other = make("none")
    assert other.recover() == (study.id,)
    other.resume(study.id)
    assert [trial.state for trial in other.wait(study.id).trials] == ["done", "done"]


def test_a_full_disk_pauses_the_study_with_the_reason(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = make()
    monkeypatch.setattr(
        "core.measure.child.watchdog.shutil.disk_usage",
        lambda path: type("Usage", (), {"free": 1000}),
    )
    study, plans = planned("weight-int8")
    supervisor.submit(study, plans)
    ended = supervisor.wait(study.id)
    assert ended.state == "paused"
    assert "has 1.00 kB left" in ended.reason
    assert {trial.state for trial in ended.trials} == {"queued"}


def test_resuming_a_finished_or_unknown_study_is_said_in_a_sentence(make: Make) -> None:
    supervisor = make()
    with pytest.raises(BadInput, match="no study"):
        supervisor.resume("s-unknown")
    with pytest.raises(BadInput, match="no study"):
        supervisor.cancel("s-unknown")


# Its short twin is in tests/app/pages/test_notices.py, with trials that measure nothing.
@pytest.mark.slow
def test_a_kill_of_the_owner_loses_nothing_and_resume_doubles_nothing(tmp_path: Path) -> None:
    file = tmp_path / "store.duckdb"
    command = [sys.executable, "-m", "app.cli"]
    words = ["--model", BASELINE, "--workload", "autocomplete", "--technique", "weight-int8"]
    owner = subprocess.Popen(
        [*command, "run", *words, "--store", str(file), "--json"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = tmp_path / "store.duckdb.studies"

    def journals() -> list[Path]:
        return sorted(folder.glob("*/t-*.jsonl"))

    until(lambda: len(journals()) >= 2 and pids_of(read(journals()[-1])[0]), 300)
    owner.kill()
    owner.wait()
    running = pids_of(read(journals()[-1])[0])[0]
    until(lambda: not alive(running))
    study_id = journals()[0].parent.name
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
        names = [(one.metric, one.condition) for one in trial.measurements]
        assert len(names) == len(set(names)), f"{trial.plan.title} has a metric twice"
    assert "Traceback" not in resumed.stderr
