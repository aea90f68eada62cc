"""The watchdog, the limits and the table of processes: with a clock that the test moves, and with
real processes.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.planning import plan_study
from core.measure.child import watchdog
from core.measure.child.limits import TrialLimits, impose, limits_for, reserve_bytes
from core.measure.child.processes import (
    TRIAL,
    Process,
    ProcessTree,
    find,
    kill,
    marks,
    shared_bytes,
)
from core.measure.child.watchdog import Watchdog
from core.priorities import Priorities

MIB = 1 << 20
LIMITS = TrialLimits(
    wall_s=300.0,
    cpu_s=600,
    memory_bytes=500 * MIB,
    reserve_bytes=100 * MIB,
    address_bytes=None,
    file_bytes=MIB,
)
WAIT = "import sys; sys.stdin.readline()"


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Tree:
    """A family that the test makes up."""

    pid = 7

    def __init__(self) -> None:
        self.found = [process()]

    def members(self) -> list[Process]:
        return self.found


def process(pid: int = 7, **changes: object) -> Process:
    one = Process(pid, 1, 1, 7, 7, "S", 3, 1.0, 50 * MIB)
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(tree: Tree, clock: Clock, tmp_path: Path) -> Watchdog:
    """A watchdog whose trial has said what it runs on."""
    made = Watchdog(LIMITS, tree, tmp_path, clock)  # type: ignore[arg-type]
    made.look(1, 1, ready=True)
    return made


def test_a_silent_trial_is_shown_as_stuck_and_then_ended(watch: Watchdog, clock: Clock) -> None:
    for second in range(1, 31):
        clock.now += 1.0
        assert watch.look(0, 0) is None
        assert bool(watch.health("t-1", 1).sentence) == (second >= LIMITS.notice_s)
    assert "stuck: it does not answer" in watch.health("t-1", 1).sentence
    clock.now += 1.0
    verdict = watch.look(0, 0)
    assert verdict is not None
    assert verdict.retry
    assert "no sign of life for 30 s" in verdict.reason


def test_a_beat_ends_the_silence(watch: Watchdog, clock: Clock, tree: Tree) -> None:
    for second in range(200):
        clock.now += 1.0
        tree.found = [process(cpu_s=float(second))]
        assert watch.look(second % 2, 0) is None
    assert "without progress for 200 s" in watch.health("t-1", 1).sentence


def test_while_the_supervisor_itself_was_stopped_nobody_listened(
    watch: Watchdog, clock: Clock
) -> None:
    clock.now += 120.0
    assert watch.look(0, 0) is None


def test_importing_libraries_may_be_silent_for_longer(
    tree: Tree, clock: Clock, tmp_path: Path
) -> None:
    watch = Watchdog(LIMITS, tree, tmp_path, clock)  # type: ignore[arg-type]
    for _ in range(int(LIMITS.starting_s)):
        clock.now += 1.0
        assert watch.look(0, 0) is None
    clock.now += 1.0
    assert watch.look(0, 0) is not None


def test_a_stopped_process_gets_no_time_to_import(tree: Tree, clock: Clock, tmp_path: Path) -> None:
    watch = Watchdog(LIMITS, tree, tmp_path, clock)  # type: ignore[arg-type]
    tree.found = [process(state="T")]
    verdict = None
    for _ in range(31):
        clock.now += 1.0
        verdict = watch.look(0, 0)
    assert verdict is not None
    assert "stopped by a signal" in verdict.reason


def test_one_that_beats_but_only_waits_is_ended(watch: Watchdog, clock: Clock, tree: Tree) -> None:
    verdict = None
    for second in range(61):
        clock.now += 1.0
        # The beats themselves take processor time: a little.
        tree.found = [process(cpu_s=1.0 + second * 0.0002)]
        assert verdict is None
        verdict = watch.look(1, 0)
    assert verdict is not None
    assert "used no processor time" in verdict.reason


def test_the_wall_limit_holds_for_the_liveliest(watch: Watchdog, clock: Clock) -> None:
    clock.now += LIMITS.wall_s + 1
    verdict = watch.look(1, 1)
    assert verdict is not None
    assert not verdict.retry
    assert "longer than the 300 s" in verdict.reason


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([process(pid) for pid in range(7, 7 + LIMITS.processes + 1)], "161 processes"),
        ([process(threads=5000)], "5000 threads"),
        ([process(resident=600 * MIB)], "out of memory: it used 629 MB, more than the 524 MB"),
    ],
)
def test_too_much_ends_a_trial_with_the_numbers(
    watch: Watchdog, clock: Clock, tree: Tree, members: list[Process], words: str
) -> None:
    tree.found = members
    clock.now += 2.0
    verdict = watch.look(1, 0)
    assert verdict is not None
    assert words in verdict.reason
    assert not verdict.retry


def test_shared_pages_of_forked_processes_are_counted_once(
    watch: Watchdog, clock: Clock, tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "shared_bytes", lambda members: 300 * MIB)
    tree.found = [process(pid, resident=300 * MIB) for pid in (7, 8, 9)]
    clock.now += 2.0
    assert watch.look(1, 0) is None
    assert watch.memory == 300 * MIB


def test_a_machine_that_others_fill_ends_the_trial_before_the_kernel_does(
    watch: Watchdog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "available_bytes", lambda: 10 * MIB)
    clock.now += 2.0
    verdict = watch.look(1, 0)
    assert verdict is not None
    assert "other programs use the rest" in verdict.reason


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process that waits for a line, in a session of its own, with the mark of a trial."""
    started = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, TRIAL: "t-family"},
    )
    yield started
    started.kill()
    started.communicate()


def test_the_kernel_keeps_the_limits_of_a_running_process(child: subprocess.Popen[str]) -> None:
    impose(child.pid, replace(LIMITS, address_bytes=4 << 30, open_files=99))
    assert resource.prlimit(child.pid, resource.RLIMIT_CORE)[0] == 0
    assert resource.prlimit(child.pid, resource.RLIMIT_CPU)[0] == 600
    assert resource.prlimit(child.pid, resource.RLIMIT_FSIZE)[0] == MIB
    assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE)[0] == 99
    assert resource.prlimit(child.pid, resource.RLIMIT_AS)[0] == 4 << 30


def test_limits_follow_the_plan_and_the_preset() -> None:
    _, plans = plan_study("pycode-small", "local", "autocomplete", Priorities(), ("weight-int8",))
    found = limits_for(plans[0], "quick")
    assert found.wall_s == 300.0
    assert found.cpu_s >= found.wall_s * (os.cpu_count() or 1)
    assert found.address_bytes is not None
    assert found.memory_bytes < found.address_bytes
    case = plans[0].case
    cuda = replace(plans[0], case=replace(case, target=replace(case.target, kind="cuda")))
    # CUDA reserves far more addresses than it uses.
    assert limits_for(cuda, "quick").address_bytes is None


@pytest.mark.parametrize("free", [0, 1 << 28, 1 << 30, 1 << 34, 1 << 40])
def test_the_reserve_stays_within_its_bounds(free: int) -> None:
    assert 256 * MIB <= reserve_bytes(free) <= 2048 * MIB


def test_a_family_has_its_children_and_what_left_it(child: subprocess.Popen[str]) -> None:
    family = ProcessTree(child.pid, "t-family")
    # Not a child of the child, in another session: only the mark tells.
    stranger = subprocess.Popen(
        [sys.executable, "-c", WAIT],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, TRIAL: "t-family"},
    )
    other = subprocess.Popen(
        [sys.executable, "-c", WAIT], stdin=subprocess.PIPE, env={**os.environ, TRIAL: "t-other"}
    )
    try:
        assert marks(stranger.pid) == {TRIAL: "t-family"}
        assert {one.pid for one in family.members()} == {child.pid, stranger.pid}
        assert family.kill() == []
        assert stranger.wait(30) == -9
        assert child.wait(30) == -9
        assert other.poll() is None
    finally:
        for one in (stranger, other):
            one.kill()
            one.communicate()


def test_a_process_with_another_start_time_is_not_killed(child: subprocess.Popen[str]) -> None:
    found = find(child.pid)
    assert found is not None
    kill(replace(found, start=found.start + 1))
    child.communicate("\n", timeout=30)
    assert child.returncode == 0


def test_a_process_that_is_not_there_is_none() -> None:
    assert find(2**22 + 5) is None
    assert marks(2**22 + 5) == {}
    assert shared_bytes([process(2**22 + 5)]) == 50 * MIB
