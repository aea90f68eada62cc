"""A journal keeps what it was given, and says what of it was damaged."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from core import disk
from core.errors import TrimtabError
from core.journal import events
from core.journal.events import Event
from core.journal.journal import Journal, JournalError, damage, examine, read
from core.journal.lines import from_line, to_line

ROOT = Path(__file__).resolve().parents[3]


def note(text: str = "hello") -> Event:
    return events.event("note", "s-1", "t-1", attempt=1, text=text)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "studies" / "s-1" / "journal.jsonl"


def test_what_is_appended_is_read_in_order(path):
    told = [
        note(text) for text in ("one", "line\nbreak", "a\0b", "\ud800", "🧪\u2028", "x" * 300_000)
    ]
    with Journal(path) as written:
        for event in told[:3]:
            written.append(event)
    with Journal(path) as written:
        for event in told[3:]:
            written.append(event)

    assert read(path) == (told, True)
    assert damage(path) == ()
    assert path.read_bytes().isascii()
    assert len(path.read_bytes().splitlines()) == 6


def test_an_event_is_on_the_disk_when_append_returns(path, monkeypatch):
    synced = []
    monkeypatch.setattr(disk.system, "sync", lambda handle: synced.append(path.read_bytes()))
    event = note()

    with Journal(path) as written:
        line = written.append(event)

    assert from_line(line) == event
    assert synced[-1] == line.encode() + b"\n"


def test_a_journal_that_is_not_there_is_empty_and_complete(path):
    assert read(path) == ([], True)
    with Journal(path):
        pass
    assert read(path) == ([], True)


def test_at_every_place_where_the_last_line_is_cut_the_lines_before_it_are_read(path):
    told = [note("first"), note("grün"), note("last")]
    with Journal(path) as written:
        for event in told:
            written.append(event)
    whole = path.read_bytes()
    begin = whole[:-1].rindex(b"\n") + 1
    for cut in range(begin, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert read(path) == (told[:2], cut == begin)
    path.write_bytes(whole[:-1])
    assert read(path) == (told, True)


def test_after_a_cut_the_next_append_begins_a_line_of_its_own(path):
    told = [note("first"), note("cut"), note("after")]
    with Journal(path) as written:
        written.append(told[0])
        written.append(told[1])
    path.write_bytes(path.read_bytes()[:-9])

    with Journal(path) as written:
        written.append(told[2])

    assert read(path) == ([told[0], told[2]], True)
    assert damage(path) == ()


def test_a_line_cut_by_others_stays_named_when_more_is_written(path):
    told = [note("first"), note("cut"), note("after")]
    with Journal(path) as written:
        written.extend(told[:2])
    path.write_bytes(path.read_bytes()[:-9] + b"\n")

    with Journal(path) as written:
        written.append(told[2])

    assert read(path) == ([told[0], told[2]], False)
    assert damage(path) == (
        f"{path}, line 2 (note of trial t-1) was changed or cut: "
        "a journal line is not an event: it was cut off or damaged",
    )


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense",
        b"\xff\xfe\x00",
        b"\0\0\0\0",
        b"[]",
        b"{}",
        b"null",
        b'{"id":1,"kind":"note","study":"s","trial":"t","at":"x","body":{}}',
        b'{"id":"e","kind":"teleport","study":"s","trial":"t","at":"x","body":{}}',
        b'{"id":"e","kind":"note","study":"s","trial":"t","at":"x","body":[]}',
        b"[" * 100_000,
    ],
    ids=range(10),
)
def test_a_damaged_line_is_named_and_skipped(path, line):
    told = [note("before"), note("after")]
    with Journal(path) as written:
        written.append(told[0])
    with open(path, "ab") as file:
        file.write(line + b"\n")
    with Journal(path) as written:
        written.append(told[1])

    assert read(path) == (told, False)
    (sentence,) = damage(path)
    assert sentence.startswith(f"{path}, line 2 (")


def test_an_event_that_is_no_json_leaves_the_journal_whole(path):
    with Journal(path) as written:
        written.append(note("before"))
        with pytest.raises(ValueError, match="not JSON compliant"):
            written.append(events.event("note", "s", "t", attempt=1, text=float("nan")))
        written.append(note("after"))

    assert [event.body["text"] for event in read(path)[0]] == ["before", "after"]
    assert read(path)[1]


class Full(disk.System):
    """A disk with room for ten bytes more."""

    room = 10

    def write(self, handle: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = super().write(handle, data[: self.room])
        self.room -= count
        return count


class Broken(disk.System):
    """A disk that takes the bytes and then says that it could not keep them."""

    def sync(self, handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_write_that_failed_half_way_does_not_spoil_the_next(path, monkeypatch):
    told = [note("before"), note("lost"), note("after")]
    with Journal(path) as written:
        written.append(told[0])
        with monkeypatch.context() as patched:
            patched.setattr(disk, "system", Full())
            with pytest.raises(JournalError, match=r"\(No space left on device\), so nothing more"):
                written.append(told[1])
        written.append(told[2])

    assert read(path) == ([told[0], told[2]], True)


def test_an_event_whose_fate_is_unknown_may_be_kept_and_is_never_doubled(path, monkeypatch):
    told = [note("before"), note("unsure"), note("after")]
    with Journal(path) as written:
        written.append(told[0])
        with monkeypatch.context() as patched:
            patched.setattr(disk, "system", Broken())
            with pytest.raises(TrimtabError, match="Input/output error"):
                written.append(told[1])
        written.append(told[2])

    assert read(path) == (told, True)


def test_a_journal_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "s-1").write_text("a file where the folder should be")
    with pytest.raises(JournalError, match="cannot be written") as caught:
        Journal(tmp_path / "s-1" / "study.jsonl")
    assert "\n" not in str(caught.value)


def test_two_writers_of_one_journal_continue_one_chain(path):
    with Journal(path) as one, Journal(path) as other:
        for place in range(6):
            (one, other)[place % 2].append(note(str(place)))
        assert one.mark().size == -1
        assert other.mark() == examine(path).mark

    assert [event.body["text"] for event in read(path)[0]] == list("012345")
    assert read(path)[1]


def test_a_journal_of_the_older_version_is_read_and_continued(path):
    told = [note("old one"), note("old two"), note("new")]
    path.parent.mkdir(parents=True)
    path.write_text("".join(to_line(event) + "\n" for event in told[:2]))
    assert read(path) == (told[:2], True)
    with Journal(path) as written:
        written.append(told[2])

    assert read(path) == (told, True)
    assert examine(path).mark.number == 1


def test_threads_do_not_tear_each_others_lines(path):
    with Journal(path) as written:

        def write(number: int) -> None:
            for place in range(20):
                written.append(note(f"{number}-{place}-" + "x" * 5000))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found, complete = read(path)
    assert complete
    texts = [event.body["text"].rsplit("-", 1)[0] for event in found]
    assert sorted(texts) == sorted(
        f"{number}-{place}" for number in range(8) for place in range(20)
    )


def test_a_killed_writer_leaves_every_line_that_it_said_was_written(path):
    program = (
        "import sys\n"
        "from core.journal import events\n"
        "from core.journal.journal import Journal\n"
        "written = Journal(sys.argv[1])\n"
        "while True:\n"
        "    event = events.event('note', 's', 't', attempt=1, text='x' * 2000)\n"
        "    written.append(event)\n"
        "    print(event.id, flush=True)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said = [child.stdout.readline().strip() for _ in range(50)]
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().split()
    child.wait(timeout=60)
    child.stdout.close()

    assert [event.id for event in read(path)[0]][: len(said)] == said


def test_the_journal_needs_no_torch_and_no_store():
    program = (
        "import sys, core.journal.journal\n"
        "print([name for name in ('torch', 'store', 'sqlalchemy') if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert out.stdout == "[]\n"
