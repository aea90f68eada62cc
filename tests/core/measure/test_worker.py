"""The worker as a real child process: stdout belongs to events, the end is always a sentence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import core
from core.catalogue import models, workloads
from core.errors import BadInput
from core.journal import codec
from core.journal.events import Event
from core.journal.journal import read
from core.journal.lines import from_line
from core.measure.worker import (
    NO_JOB,
    NO_JOURNAL,
    REASON,
    beat,
    first_line,
    read_job,
    run,
)
from core.measurement import Measurement
from core.plan import Case, Plan
from core.study import KernelCalls
from core.target import Target
from core.techniques.decode.speculative import Speculative
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.quantize.weight_int import WeightInt8
from core.workload import Workload

ROOT = Path(core.__file__).parent.parent
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
SHORT = Workload("short", "Short", "text", 16, 8)
# Prints from Python and from below Python, while the trial's own modules are being imported.
NOISE = """
import os, sys
class Loud:
    def find_spec(self, name, path=None, target=None):
        if name in ("core.measure.trial", "core.engine.decoder"):
            print("noise from a library")
            os.write(1, b'{"noise": "from C"}\\n')
sys.meta_path.insert(0, Loud())
"""


@dataclass(frozen=True)
class Ran:
    """What a worker left: exit status, events of stdout and of the journal, its log."""

    status: int
    lines: list[str]
    journal: list[Event]
    log: str

    @property
    def events(self) -> list[Event]:
        return [from_line(line) for line in self.lines]

    @property
    def end(self) -> tuple[str, str]:
        assert self.events[-1].kind == "trial-ended"
        return self.events[-1].body["state"], self.events[-1].body["reason"]

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [one.body for one in self.events if one.kind == kind]


def start(line: str, folder: Path) -> Ran:
    (folder / "sitecustomize.py").write_text(NOISE)
    paths = os.pathsep.join((str(folder), str(ROOT)))
    done = subprocess.run(
        [sys.executable, "-m", "core.measure.worker"],
        input=line,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    events, whole = read(folder / "trial.jsonl")
    assert whole
    return Ran(done.returncode, done.stdout.splitlines(), events, done.stderr)


def job(plan: Plan, folder: Path, **changes: Any) -> str:
    fields = {
        "study": "s-1",
        "trial": "t-1",
        "attempt": 3,
        "plan": codec.dumps(plan),
        "preset": "quick",
        "journal": str(folder / "trial.jsonl"),
        "memory_bytes": None,
        **changes,
    }
    return json.dumps(fields) + "\n"


def plan(model: str = "pycode-small", *techniques: Any) -> Plan:
    return Plan(Case(models.resolve(model), TARGET, SHORT), techniques)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("worker")
    return start(job(plan(), folder), folder)


def test_a_baseline_is_done(baseline: Ran) -> None:
    assert baseline.status == 0
    assert baseline.end == ("done", "")
    kinds = [one.kind for one in baseline.events]
    assert kinds[0] == "trial-started"
    assert kinds.count("trial-ended") == kinds.count("kernels") == kinds.count("environment") == 1


def test_stdout_holds_events_alone_whatever_libraries_print(baseline: Ran) -> None:
    assert "noise from a library" in baseline.log
    assert '{"noise": "from C"}' in baseline.log
    assert not any("noise" in line for line in baseline.lines)
    assert len(baseline.events) == len(baseline.lines)
    for one in baseline.events:
        assert (one.study_id, one.trial_id) == ("s-1", "t-1")
        assert one.body["attempt"] == 3


def test_the_journal_is_stdout_without_progress(baseline: Ran) -> None:
    assert baseline.journal == [one for one in baseline.events if one.kind != "progress"]
    assert any(one.kind == "progress" for one in baseline.events)
    ids = [one.id for one in baseline.events]
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


def test_progress_lies_between_nought_and_one(baseline: Ran) -> None:
    for body in baseline.of_kind("progress"):
        assert 0.0 <= body["share"] <= 1.0
        assert body["stage"]


def test_kernels_that_ran_are_counted(baseline: Ran) -> None:
    found = codec.from_data(baseline.of_kind("kernels")[0]["kernels"])
    assert found
    assert all(isinstance(one, KernelCalls) and one.calls > 0 for one in found)
    assert any("linear" in one.op for one in found)


def test_every_measurement_has_its_environment_and_an_origin(baseline: Ran) -> None:
    environment = baseline.of_kind("environment")[0]["environment"]
    every: dict[tuple[str, str], Measurement] = {}
    for body in baseline.of_kind("measurement"):
        one = codec.from_data(body["measurement"])
        assert isinstance(one, Measurement)
        assert one.environment == environment
        assert (one.metric, one.condition) not in every
        every[one.metric, one.condition] = one
    found = {metric: one for (metric, condition), one in every.items() if not condition}
    assert {"ttft_s", "tpot_s", "tokens_per_s", "perplexity", "peak_bytes", "prepare_s"} <= set(
        found
    )
    assert found["model_bytes"].value == 1_262_720 * 2
    assert found["kl_nats"].value == 0.0
    assert found["usd_per_mtok"].value is None
    assert "no stated price" in found["usd_per_mtok"].method
    peak = found["peak_bytes"].value
    assert peak is not None
    # The weights and what serving a few tokens needs; not torch, not the tokenizer's text.
    assert 0.8 * 2_525_440 < peak < 40e6


def test_the_quality_is_that_of_the_card(baseline: Ran) -> None:
    found = [codec.from_data(one["measurement"]) for one in baseline.of_kind("measurement")]
    nats = next(one for one in found if one.metric == "nats_per_byte")
    card = models.card("pycode-small")
    assert nats.value == pytest.approx(card["held_out_nats_per_byte"], rel=0.15)


def test_a_technique_that_refuses_ends_the_trial_as_refused(tmp_path: Path) -> None:
    stack = (WeightInt8(), PruneMlpChannels())
    ran = start(job(plan("pycode-small", *stack), tmp_path), tmp_path)
    assert ran.status == 0
    state, reason = ran.end
    assert state == "refused"
    assert "prune before quantizing" in reason
    assert not ran.of_kind("measurement")


def test_a_draft_that_does_not_exist_ends_the_trial_as_refused(tmp_path: Path) -> None:
    ran = start(job(plan("pycode-small", Speculative(draft="./gone")), tmp_path), tmp_path)
    assert ran.end[0] == "refused"
    assert "there is no such folder" in ran.end[1]


def test_a_trial_without_a_compiler_says_that_its_times_are_a_fallbacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    case = Case(models.resolve("digits-mlp"), TARGET, workloads.resolve("sensor-frame"))
    ran = start(job(Plan(case, (W8A8(),)), tmp_path), tmp_path)
    assert ran.end == ("done", "")
    (note,) = [one for one in ran.of_kind("note") if one.get("caution") == "fallback"]
    assert note["text"].startswith("linear_w8a8 ran without our kernels: needs a C++ compiler")


def test_a_kernel_that_cannot_run_ends_the_trial_as_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMTAB_KERNEL", "nonsense")
    end = run(json.loads(job(plan(), tmp_path)), lambda kind, **body: None)
    assert end == (
        "refused",
        "TRIMTAB_KERNEL: 'nonsense' is not op=name; write for example linear_dense=torch.",
    )


def test_a_model_that_is_gone_fails_with_a_sentence(tmp_path: Path) -> None:
    gone = plan()
    model = replace(gone.case.model, id=str(tmp_path / "gone"), source="folder")
    ran = start(job(replace(gone, case=replace(gone.case, model=model)), tmp_path), tmp_path)
    assert ran.status == 0
    state, reason = ran.end
    assert state == "failed"
    assert "there is no folder" in reason
    assert str(tmp_path / "gone") in reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plan": "{"}, "stored data is not JSON"),
        ({"plan": '{"version":9,"value":1}'}, "version 9"),
        ({"plan": '{"version":1,"value":3}'}, "is not a Plan"),
        ({"plan": '{"version":1,"value":{"technique":"weight-int2"}}'}, "unknown technique"),
        ({"preset": "fast"}, "unknown preset 'fast'"),
    ],
)
def test_a_damaged_job_fails_with_a_sentence(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    fields = json.loads(job(plan(), tmp_path)) | changes
    state, reason = run(fields, lambda kind, **body: None)
    assert state == "failed"
    assert words in reason
    assert "\n" not in reason


def test_a_damaged_plan_still_ends_its_trial_in_the_journal(tmp_path: Path) -> None:
    ran = start(json.dumps(json.loads(job(plan(), tmp_path)) | {"plan": "{"}) + "\n", tmp_path)
    assert ran.status == 0
    assert ran.end == ("failed", "stored data is not JSON: it is damaged")
    assert [one.kind for one in ran.journal] == ["trial-started", "trial-ended"]


def test_a_job_that_cannot_be_read_is_one_sentence_in_the_log(tmp_path: Path) -> None:
    ran = start("not a job\n", tmp_path)
    assert ran.status == 2
    assert ran.lines == []
    assert ran.log.strip().splitlines()[-1] == (
        "the trial cannot start: the job on standard input is not one line of JSON"
    )
    assert "Traceback" not in ran.log


@pytest.mark.parametrize("line", ["", "[]", "3", "{}", '{"study": 1}', "[" * 100_000])
def test_every_unreadable_job_is_bad_input(line: str) -> None:
    with pytest.raises(BadInput, match="the job on standard input"):
        read_job(line)


@pytest.mark.parametrize("name", ["study", "trial", "attempt", "journal", "preset", "plan"])
def test_a_missing_field_of_the_job_is_named(name: str, tmp_path: Path) -> None:
    fields = json.loads(job(Plan(Case(*(None,) * 3)), tmp_path))  # type: ignore[arg-type]
    del fields[name]
    with pytest.raises(BadInput, match=f"has no {name} of type"):
        read_job(json.dumps(fields))


def test_too_little_memory_fails_with_a_sentence(tmp_path: Path) -> None:
    ran = start(job(plan(), tmp_path, memory_bytes=300 << 20), tmp_path)
    assert ran.status == 0
    assert ran.end[0] == "failed"
    assert "\n" not in ran.end[1]


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the child")
def test_the_worker_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'from core.machine.parent import"
        ' die_with_parent; die_with_parent(); print("ready", flush=True); import time;'
        " time.sleep(600)'], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    watch = os.pidfd_open(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    ended: Callable[..., Any] = __import__("select").select
    assert ended([watch], [], [], 60)[0] == [watch]
    os.close(watch)
    parent.stdout.close()


def test_beats_come_for_as_long_as_the_interpreter_runs() -> None:
    read, write = os.pipe()
    beat(write, 0.001)
    assert [os.read(read, 1) for _ in range(5)] == [b"."] * 5
    os.close(read)


@pytest.mark.parametrize(("pipe", "seconds"), [(None, 1.0), ("3", 1.0), (3, None)])
def test_without_a_pipe_nobody_is_told(pipe: Any, seconds: Any) -> None:
    before = threading.active_count()
    beat(pipe, seconds)
    assert threading.active_count() == before


def test_a_journal_that_cannot_be_written_is_one_sentence_in_the_log(tmp_path: Path) -> None:
    (tmp_path / "trial.jsonl").mkdir()
    fields = json.loads(job(plan(), tmp_path)) | {"journal": str(tmp_path / "trial.jsonl")}
    done = subprocess.run(
        [sys.executable, "-m", "core.measure.worker"],
        input=json.dumps(fields) + "\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NO_JOB
    assert "cannot start: the journal" in done.stderr.splitlines()[-1]


def test_a_disk_that_is_full_ends_the_worker_with_its_own_status(tmp_path: Path) -> None:
    # A file larger than 2,000 bytes cannot be written, as on a full disk.
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000));"
        "from core.measure import worker; worker.run = lambda job, emit:"
        " [emit('note', text='x' * 900) for _ in range(9)]; sys.exit(worker.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=job(plan(), tmp_path),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NO_JOURNAL
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("one\ntwo", "one"),
        ("\n  a\x1b[2Jb\0\n", "a [2Jb "),
        ("x" * 10**6, "x" * (REASON - 1) + "…"),
    ],
)
def test_a_message_becomes_one_printable_line(text: str, line: str) -> None:
    assert first_line(text) == line
