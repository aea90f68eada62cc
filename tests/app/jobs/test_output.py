"""Reading the lines of a pipe and judging events, whatever a broken process writes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from app.jobs.accept import NOTE, refusal
from app.jobs.attempt import sentence
from app.jobs.output import TOO_LONG, TOO_MUCH, Output
from app.jobs.queues import Queues, device_environment, devices
from app.jobs.runner import summary
from core.journal.events import Event, MeasurementTaken, event
from core.journal.lines import from_line, to_line
from core.measurement import Measurement
from core.target import Target

ABOUT = ("s-0000000000000a", "t-0000000000000a", 2)
NUMBER = Measurement("tokens_per_s", (10.0,), "1/s", "measured", "made up")


@pytest.fixture
def pipe() -> Iterator[tuple[Output, int]]:
    """An Output for lines of 1,000 bytes and 100 kB in all, and the end to write to."""
    read, write = os.pipe()
    yield Output(read, 1000, 100_000), write
    for end in (write,):
        try:
            os.close(end)
        except OSError:
            continue


def test_lines_arrive_whole_however_they_are_cut(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    for piece in (b"one\ntw", b"o\n", b"\n", b"cut off by a death"):
        os.write(write, piece)
    os.close(write)
    assert output.drain(5.0) == [b"one", b"two", b""]


def test_a_line_without_end_is_named_and_the_rest_is_not_read(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    for piece in (b"good\n", b"x" * 5000, b"\nnot read\n"):
        os.write(write, piece)
    os.close(write)
    found = output.drain(5.0)
    assert found[0] == b"good"
    assert TOO_LONG in found
    assert b"not read" not in found


def test_output_without_end_is_named(pipe: tuple[Output, int]) -> None:
    output, write = pipe
    taken: list[bytes] = []
    for _ in range(150):
        os.write(write, b"y" * 999 + b"\n")
        taken += output.take(0)[0]
    os.close(write)
    taken += output.drain(5.0)
    assert taken[-1] == TOO_MUCH
    assert len(taken) <= 102


def good(**changes: Any) -> Event:
    data = json.loads(to_line(MeasurementTaken(ABOUT[2], NUMBER).event(*ABOUT[:2])))
    data["body"] |= changes.pop("body", {})
    return from_line(json.dumps(data | changes))


def test_an_event_of_this_attempt_is_believed() -> None:
    assert refusal(good(), *ABOUT) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trial": "t-0000000000000b"}, "another trial"),
        ({"study": "s-0000000000000b"}, "another trial"),
        ({"body": {"attempt": 1}}, "another attempt"),
        ({"body": {"attempt": True}}, "another attempt"),
        ({"id": "e-zzzzzzzzzzzzzz"}, "forged id"),
        ({"id": "e-1'; drop table"}, "forged id"),
        ({"at": "yesterday"}, "damaged"),
        ({"body": {"measurement": {"type": "Plan"}}}, "damaged"),
        ({"body": {"measurement": None}}, "damaged"),
        ({"kind": "study-state"}, "not its to send"),
        ({"kind": "study-created"}, "not its to send"),
        ({"kind": "trial-ended", "body": {"state": "cancelled"}}, "no trial can declare"),
        ({"kind": "trial-ended", "body": {"state": ["done"]}}, "damaged"),
        ({"kind": "note", "body": {"text": "x" * (NOTE + 1)}}, "a note of more than"),
        ({"kind": "progress", "body": {"stage": "load", "share": float("inf")}}, "damaged"),
    ],
)
def test_what_is_not_believed_is_named(changes: dict[str, Any], words: str) -> None:
    found = refusal(good(**changes), *ABOUT)
    assert found is not None
    assert words in found


def test_a_process_speaks_in_the_name_of_whom_it_runs_for() -> None:
    assert refusal(good(who="Ada"), *ABOUT, "Ada") is None
    assert refusal(good(who="Ada"), *ABOUT) is None
    assert refusal(good(who="Eve"), *ABOUT, "Ada") == "an event in another name"


def test_a_reason_is_one_printable_line() -> None:
    assert sentence("a\n\tb\x1b[2J\0c") == "a b [2J c"
    assert len(sentence("x" * 10**6)) == 600


def test_all_attempts_are_named_in_the_reason() -> None:
    assert summary(["a"]) == "a"
    assert summary(["a", "a", "a"]) == "a (3 attempts, each ended so)"
    assert summary(["a", "b"]) == "2 attempts failed; attempt 1: a; attempt 2: b"


def target(**changes: Any) -> Target:
    given = {"id": "x", "title": "x", "kind": "cuda", "place": "local", "local": True, **changes}
    return Target(memory_bytes=1, bandwidth=None, peaks=(), **given)


def test_devices_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 5")
    assert devices(target()) == ("cuda:3", "cuda:5")
    assert device_environment("cuda:5") == {"CUDA_VISIBLE_DEVICES": "5"}
    assert device_environment("cpu") == {}
    # What is not here is measured on this processor and projected.
    assert devices(target(local=False)) == devices(target(kind="cpu")) == ("cpu",)


def test_a_study_goes_where_fewest_wait_and_each_device_runs_one() -> None:
    queues = Queues()
    keys = ("cuda:0", "cuda:1")
    assert [queues.add(name, keys) for name in "abcd"] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert queues.add("c", keys) == "cuda:0"
    assert (queues.take("cuda:0"), queues.take("cuda:1")) == ("a", "b")
    assert queues.active() == ("a", "b", "c", "d")
    assert [queues.ahead(name) for name in "abcdx"] == [0, 0, 1, 1, 0]
    assert queues.remove("c")
    assert not queues.remove("a")
    queues.done("cuda:0")
    queues.wait("a")
    queues.close()
    assert queues.take("cuda:1") is None


def test_events_made_by_the_worker_are_believed() -> None:
    study_id, trial_id, attempt = ABOUT
    for kind, body in (
        ("trial-started", {"pid": 1}),
        ("progress", {"stage": "load", "share": 0.5}),
        ("note", {"text": "said"}),
        ("trial-ended", {"state": "done", "reason": ""}),
    ):
        assert refusal(event(kind, study_id, trial_id, attempt=attempt, **body), *ABOUT) is None
    facts = event("environment", study_id, trial_id, environment="e", facts={"cpu": "x"})
    assert refusal(facts, *ABOUT) is None


def test_whoever_asks_after_the_last_line_does_not_wait(
    pipe: tuple[Output, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = pipe
    os.close(write)
    assert output.take(5.0) == ([], True)
    monkeypatch.setattr(output._lines, "get", lambda timeout: pytest.fail("it waits"))
    assert output.take(5.0) == ([], True)
    assert output.drain(5.0) == []
