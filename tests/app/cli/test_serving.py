"""The command line and a server that has the store open: the same words, files and exit codes as
without one; and whom the server does not answer.

The server's side runs in a thread of the test over a store with a quick worker; the whole server is
tried in test_pages_server.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from app.cli import main as cli
from app.cli.console import here
from app.cli.link import wire
from app.cli.link.remote import server_of
from app.cli.link.serving import answering
from app.cli.run import plan
from app.jobs.supervisor import Supervisor
from app.reports import new_report
from app.services import Services, open_kept
from core.errors import StoreError, StoreHeld
from core.journal.events import Event
from core.measure.child.spawn import Spawned
from core.study import Study
from tests.app.journals import write
from tests.evidence.jobs import failing_worker

WORKER = Path(failing_worker.__file__)
RUN = ("run", "--model", "pycode-small", "--workload", "autocomplete")
RUN += ("--technique", "weight-int8")


@dataclass
class Serving:
    """A server over the store at `path`; `jobs` runs trials as it was told."""

    path: Path
    services: Services

    @property
    def jobs(self) -> Supervisor:
        return self.services.jobs

    def study(self) -> Study:
        """The newest study."""
        study = self.services.store.study(self.services.store.studies()[0].id)
        assert study is not None
        return study


@contextmanager
def serving(path: Path, kind: str = "none") -> Iterator[Serving]:
    """A server whose trials do what failing_worker.py calls `kind`."""
    store, folder, _ = open_kept(str(path))
    starter = partial(Spawned, command=(sys.executable, str(WORKER), kind))
    services = Services(store, Supervisor(store, folder, starter=starter), folder, (), str(path))
    begun, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with answering(services, "http://localhost:8501"):
            begun.set()
            while not over.is_set():
                await asyncio.sleep(0.01)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert begun.wait(20)
        yield Serving(path, services)
    finally:
        over.set()
        thread.join(30)
        services.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the store that all tests begin with."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def path(
    tmp_path: Path,
    prepared: Path,
    synthetic_study: Study,
    journal: Callable[[Study], list[Event]],
) -> Path:
    """A store that holds the synthetic study and a report of it."""
    place = prepared / "store.duckdb"
    if not place.exists():
        store, _, _ = open_kept(str(place))
        with closing(store):
            store.ingest(journal(synthetic_study))
            new_report(store, synthetic_study.id, "One")
    return Path(shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)) / place.name


def report_of(path: Path) -> str:
    """The id of the saved report."""
    store, _, _ = open_kept(str(path))
    with closing(store):
        return store.reports()[0].id


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does; the test's own time limit ends it."""
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it never happened")


COMMANDS = [
    ("studies",),
    ("studies", "--json"),
    ("show", "s-synthetic"),
    ("show", "s-synthetic", "--json"),
    ("show", "s-none"),
    ("compare", "t-0000", "t-0001", "t-0003"),
    ("compare", "t-0001", "t-0002", "--baseline", "t-0000", "--format", "json"),
    ("compare", "t-0001", "t-0002", "--baseline", "t-0000", "--format", "csv"),
    ("compare", "t-0001", "t-0002", "--baseline", "t-0000", "--format", "md"),
    ("compare", "t-0000"),
    ("compare", "t-0000", "t-none"),
    ("report", "list"),
    ("report", "list", "--json"),
    ("report", "new", "s-none", "--title", "x"),
    ("report", "export", "r-none", "-o", "out.html"),
    ("report", "export", "{report}", "--format", "docx", "-o", "out.docx"),
    ("report", "export", "{report}", "--format", "md", "-o", "no/such/folder/out.md"),
    ("resume", "s-none"),
    ("resume", "s-synthetic"),
    ("cancel", "s-none"),
    ("again", "s-none"),
    ("bundle", "s-synthetic", "-o", "plan.json"),
    ("bundle", "s-none", "-o", "plan.json"),
    ("ingest", "no/such/folder"),
    ("run", "--model", "pycod"),
    ("run", "--model", "pycode-small", "--data", "none.txt"),
]  # fmt: skip


def test_every_command_says_the_same_with_and_without_a_server(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    report = report_of(path)

    def said(words: tuple[str, ...]) -> tuple[int, str, str]:
        filled = [word.format(report=report) for word in words]
        return cli.main([*filled, "--store", str(path)]), *capsys.readouterr()

    with serving(path):
        served = [said(words) for words in COMMANDS]
        with server_of(str(path)) as server:
            assert server is not None
    alone = [said(words) for words in COMMANDS]

    for words, one, other in zip(COMMANDS, served, alone, strict=True):
        assert one == other, words
        assert one[0] in (0, 2)
    assert {code for code, _, _ in served} == {0, 2}


def test_a_study_measured_elsewhere_is_taken_in_by_the_server(
    path: Path,
    synthetic_study: Study,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(path.parent)
    study = replace(synthetic_study, id="s-elsewhere")
    trials = tuple(replace(t, id=f"{t.id}e", study_id=study.id) for t in study.trials)
    write(study.with_trials(trials), path.parent / "box")
    with serving(path) as server:
        # The server was started elsewhere.
        monkeypatch.chdir(path.parent / "box")
        assert cli.main(["ingest", ".", "--store", str(path)]) == 0
        assert server.services.store.study(study.id) is not None
        assert "measured on NVIDIA H200" in capsys.readouterr().out
        assert cli.main(["show", study.id, "--store", str(path)]) == 0


@pytest.mark.parametrize("format_", ["html", "md", "csv", "json"])
def test_a_file_is_written_by_the_command_line_itself(
    path: Path, format_: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    report = report_of(path)
    (path.parent / "here").mkdir()
    monkeypatch.chdir(path.parent / "here")
    words = ("report", "export", report, "--format", format_, "--store", str(path), "-o")

    with serving(path):
        before = os.umask(0o077)
        try:
            assert cli.main([*words, "served"]) == 0
        finally:
            os.umask(before)
    said = capsys.readouterr()
    assert cli.main([*words, "alone"]) == 0

    assert said.out == ""
    assert said.err == f"wrote served ({Path('served').stat().st_size:,} bytes)\n"
    assert stat.S_IMODE(Path("served").stat().st_mode) == 0o600
    assert Path("served").read_bytes() == Path("alone").read_bytes()


def test_a_report_saved_through_the_server_is_kept(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    with serving(path):
        words = [
            "report",
            "new",
            "s-synthetic",
            "--title",
            "Two",
            "--as",
            "Ada",
            "--store",
            str(path),
        ]
        assert cli.main(words) == 0
        said = capsys.readouterr()
    assert said.err == "saved version 1 of 'Two'\n"
    assert cli.main(["report", "list", "--json", "--store", str(path)]) == 0
    reports = {report["id"]: report for report in json.loads(capsys.readouterr().out)}
    assert reports[said.out.strip()]["who"] == "Ada"


def test_a_study_runs_in_the_server_and_is_told_as_without_one(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    Path("own.txt").write_text("a line of text that is judged\n" * 400)
    capsys.readouterr()
    with serving(path) as server:
        code = cli.main([*RUN, "--data", "own.txt", "--json", "--store", str(path)])
        said = capsys.readouterr()
        study = server.study()
        assert [one.path for one in study.case.data] == [str(Path("own.txt").resolve())]
        assert cli.main(["show", study.id, "--json", "--store", str(path)]) == 0
        assert capsys.readouterr().out == said.out
    assert code == 0
    # Each line ends in the seconds that its trial took, and in what is left.
    assert [line.partition(", ")[0] for line in said.err.splitlines()] == [
        f"study {study.id}: 2 trials", "[1/2] done      baseline", "[2/2] done      weight-int8",
    ]  # fmt: skip
    assert json.loads(said.out)["study"]["id"] == study.id


def test_a_failed_trial_is_exit_code_1(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path, "exit-3") as server:
        assert cli.main([*RUN, "--store", str(path)]) == 1
        assert server.study().trials[0].state == "failed"
    assert "[1/2] failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "code", "state", "trials"),
    [
        (signal.SIGINT, 130, "paused", ["running", "queued"]),
        (signal.SIGTERM, 0, "cancelled", ["cancelled", "cancelled"]),
    ],
)
def test_a_signal_stops_the_study_in_the_server_and_nothing_else(
    path: Path,
    number: int,
    code: int,
    state: str,
    trials: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with serving(path, "hang") as server:

            def kill() -> None:
                until(lambda: server.study().trials[0].state == "running")
                os.kill(os.getpid(), number)

            killer = threading.Thread(target=kill)
            killer.start()
            assert cli.main([*RUN, "--store", str(path)]) == code
            killer.join()
            study = server.study()
            assert (study.state, [one.state for one in study.trials]) == (state, trials)
            assert server.jobs.active() == ()
            assert cli.main(["studies", "--store", str(path)]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    said = capsys.readouterr()
    assert study.id in said.out
    if number == signal.SIGINT:
        assert f"interrupted; go on with: trimtab resume {study.id}" in said.err


def test_others_read_cancel_and_are_refused_while_a_study_runs(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = ["--store", str(path)]

    def said() -> str:
        return capsys.readouterr().out

    with serving(path, "hang") as server:
        codes: list[int] = []
        runner = threading.Thread(target=lambda: codes.append(ask(path, RUN)))
        runner.start()
        until(lambda: server.study().trials[0].state == "running")
        study_id = server.study().id
        assert cli.main(["show", study_id, *store]) == 0
        assert (
            f"{study_id}  pycode-small on local, autocomplete: running" in capsys.readouterr().out
        )
        assert cli.main(["resume", study_id, *store]) == 2
        assert "is running already" in capsys.readouterr().err
        assert cli.main(["cancel", study_id, *store]) == 0
        assert said() == f"cancelled {study_id}\n"
        runner.join(60)
        assert server.study().state == "cancelled"
    assert codes == [0]


def test_a_command_line_that_is_killed_interrupts_its_study(path: Path) -> None:
    with serving(path, "hang") as server:
        connection = begin(path, RUN)
        until(lambda: server.study().trials[0].state == "running")
        connection.close()
        until(lambda: not server.jobs.active())
        until(lambda: server.study().state == "paused")


def test_a_server_that_stops_says_how_to_go_on(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    codes: list[int] = []
    with serving(path, "hang") as server:
        runner = threading.Thread(target=lambda: codes.append(ask(path, RUN)))
        runner.start()
        until(lambda: server.study().trials[0].state == "running")
        study_id = server.study().id
    runner.join(60)
    assert codes == [1]
    said = capsys.readouterr().err
    assert f"was stopped; go on with: trimtab resume {study_id}" in said


def test_a_command_line_that_does_not_read_holds_nobody_up(path: Path) -> None:
    with serving(path) as server:
        connection = begin(path, ("show", "s-synthetic", "--json"))
        running = begin(path, RUN)
        until(lambda: server.study().state == "done")
        assert cli.main(["studies", "--store", str(path)]) == 0
        running.close()
        connection.close()


def parsed_of(path: Path, words: tuple[str, ...]):
    parsed = cli.parser().parse_args([*words, "--store", str(path)])
    parsed.who = "Ada"
    if parsed.command == "run":
        plan(parsed)
    return parsed


def ask(path: Path, words: tuple[str, ...]) -> int:
    """The command without its signals, which only a main thread may hear."""
    with server_of(str(path)) as server:
        assert server is not None
        console = replace(here(), heeding=lambda stop: nullcontext())
        return server.ask(parsed_of(path, words), console)


def begin(path: Path, words: tuple[str, ...]) -> socket.socket:
    """A connection that has asked and reads nothing."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(wire.place(str(path))))
    given = {key: value for key, value in vars(parsed_of(path, words)).items() if key != "store"}
    connection.sendall(wire.frame(request=given, terminal=False, width=80))
    return connection


def test_the_store_is_found_however_it_is_spelt(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = path.parent / "elsewhere"
    folder.mkdir()
    (folder / "link.duckdb").symlink_to(path)
    (path.parent / "linked").symlink_to(path.parent)
    monkeypatch.chdir(folder)
    spelt = ["../store.duckdb", "link.duckdb", f"duckdb:///{path}", "../linked/store.duckdb"]
    with serving(path):
        for given in spelt:
            assert cli.main(["studies", "--store", given]) == 0, given
        monkeypatch.setenv("TRIMTAB_STORE", "link.duckdb")
        assert cli.main(["studies"]) == 0
    monkeypatch.delenv("TRIMTAB_STORE")
    assert capsys.readouterr().out.count("s-synthetic") == len(spelt) + 1


def test_a_path_that_is_too_long_for_a_socket_is_none_for_us(tmp_path: Path) -> None:
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    with serving(folder / "store.duckdb"), server_of(str(folder / "store.duckdb")) as server:
        assert server is not None
        assert server.pid == os.getpid()


def test_the_socket_is_for_its_user_alone_and_goes_with_the_server(path: Path) -> None:
    place = wire.place(str(path))
    assert place is not None
    with serving(path):
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert not place.exists()


def test_another_user_is_not_even_greeted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = wire.place(str(path))
    with serving(path), socket.socket(socket.AF_UNIX) as connection:
        monkeypatch.setattr(wire, "peer", lambda connection: (1, os.getuid() + 1))
        connection.connect(str(place))
        assert connection.recv(100) == b""


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\n",
        b"[]\n",
        b"{}\n",
        b'{"request": {}, "terminal": false, "width": 80}\n',
        b'{"request": {"command": "serve"}, "terminal": false, "width": 80}\n',
        b'{"request": {"command": "show"}, "terminal": false, "width": 80}\n',
        b'{"request": {"command": "run", "planned": [{"type": 1}]}, "terminal": 1, "width": 8}\n',
    ],
)
def test_nonsense_is_survived(path: Path, line: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(path):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(wire.place(str(path))))
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        assert cli.main(["studies", "--store", str(path)]) == 0
    assert "s-synthetic" in capsys.readouterr().out


@contextmanager
def answering_with(path: Path, said: bytes) -> Iterator[None]:
    """A socket of the store where one says `said` and nothing more."""
    place = wire.place(str(path))
    assert place is not None
    with closing(wire.listen(place)) as listening:
        over = threading.Event()

        def answer() -> None:
            connection, _ = listening.accept()
            connection.sendall(said)
            over.wait(30)
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        yield
        over.set()
        thread.join()
    place.unlink()


def test_a_server_that_is_stuck_is_named(path: Path) -> None:
    with (
        answering_with(path, b""),
        pytest.raises(StoreHeld, match=rf"\(PID {os.getpid()}\) does not answer"),
        server_of(str(path), seconds=0.1),
    ):
        raise AssertionError("nobody answered")


@pytest.mark.parametrize(
    "hello",
    [
        wire.frame(trimtab="0.0.1", protocol=wire.PROTOCOL, pid=1, url="http://localhost:1"),
        wire.frame(trimtab=wire.version(), protocol=0, pid=1, url="http://localhost:1"),
    ],
)
def test_a_server_of_another_version_is_named(path: Path, hello: bytes) -> None:
    with (
        answering_with(path, hello),
        pytest.raises(StoreError, match="stop the server and start it again"),
        server_of(str(path)),
    ):
        raise AssertionError("it was understood")


def test_what_a_killed_server_left_does_not_stand_in_the_way(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = wire.place(str(path))
    assert place is not None
    wire.listen(place).close()
    assert place.exists()
    assert cli.main(["studies", "--store", str(path)]) == 0
    with serving(path):
        assert cli.main(["studies", "--store", str(path)]) == 0
    assert capsys.readouterr().out.count("s-synthetic") == 2


@pytest.mark.parametrize("url", ["memory:", "postgresql://u@h/d"])
def test_a_store_without_a_file_has_no_socket(url: str) -> None:
    if url == "memory:":
        assert wire.place(url) is None
        return
    pytest.importorskip("psycopg")
    assert wire.place(url) is None
