"""Every test that needs a GPU, in processes of their own: a kernel that crashes one, or hangs it,
takes no other's results along.

A box with many cores runs a process a file, one with two runs all files in one. A process that did
not end stands in tests.xml as an error with the end of its output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from kernels import build
from tests.evidence.gpu import poison, results
from tests.evidence.gpu.place import ROOT, Place
from tests.evidence.gpu.schedule import end

FOLDERS = ("tests/kernels", "tests/core")
MARK = re.compile(r"\bmark\.gpu\b")
# A line of pytest -v, and what junit calls the outcome.
ENDED = re.compile(r"^(\S+\.py::\S+) (PASSED|FAILED|SKIPPED|ERROR)\b", re.MULTILINE)
CHILDREN = {"FAILED": "failure", "SKIPPED": "skipped", "ERROR": "error"}
MOST_PROCESSES = 8
# Of one group: each costs the import of torch.
MOST_STARTS = 4
TAIL = 4_000
NAMED = 3


class Group:
    """Files of tests that share a process; another follows where a test broke the device for it."""

    def __init__(self, files: Sequence[str], base: Path) -> None:
        self.files, self._base = files, base
        self._ended: list[str] = []
        self.logs: list[Path] = []
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        log = self._base.with_name(f"{self._base.name}-{len(self.logs)}.log")
        self.logs.append(log)
        words = ["-m", "pytest", "-m", "gpu", "-v", "-p", "no:cacheprovider", "--tb=short"]
        words += ["-p", poison.__name__, f"--junitxml={log.with_suffix('.xml')}"]
        words += [f"--deselect={name}" for name in self._ended]
        with log.open("wb") as output:
            return subprocess.Popen(
                [sys.executable, *words, *self.files],
                cwd=ROOT,
                env=_environment(self._base.parent),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def go_on(self) -> bool:
        """Whether it still runs; behind the test that broke the device in another process."""
        status = self.process.poll()
        if status == poison.BROKEN and len(self.logs) < MOST_STARTS:
            text = self.logs[-1].read_text(encoding="utf-8", errors="replace")
            self._ended += [name for name, _ in ENDED.findall(text)]
            self.process = self._start()
            return True
        return status is None

    def suites(self) -> Iterator[ElementTree.Element]:
        """What its processes wrote, or printed where they did not come so far."""
        for log in self.logs:
            try:
                root = ElementTree.parse(log.with_suffix(".xml")).getroot()
            except (OSError, ElementTree.ParseError):
                status = self.process.poll() if log == self.logs[-1] else poison.BROKEN
                yield _unfinished(self.files, log, status)
                continue
            yield from root.iter("testsuite")


def run(place: Place) -> tuple[bool, str]:
    """Run them; content when some passed and none failed, in a rehearsal when none failed."""
    folder = place.work / "tests"
    folder.mkdir(parents=True, exist_ok=True)
    dealt = grouped(files(), max(1, len(os.sched_getaffinity(0)) // 2))
    groups = [Group(names, folder / f"{number}") for number, names in enumerate(dealt)]
    while place.left > 1:
        running = [group.go_on() for group in groups]
        if not any(running):
            break
        time.sleep(0.2)
        _merge(place, groups)
    for group in groups:
        end(group.process)
    _forget_tuning()
    suites = _merge(place, groups)
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    bad = counts["failures"] + counts["errors"]
    passed = counts["tests"] - bad - counts["skipped"]
    good = bad == 0 and (place.rehearsal or passed > 0)
    return good, f"{passed} passed, {counts['skipped']} skipped, {bad} failed{_first_bad(suites)}"


def files() -> list[str]:
    """The files that have tests for a GPU, relative to the root."""
    paths = (path for folder in FOLDERS for path in (ROOT / folder).rglob("test_*.py"))
    marked = (path for path in paths if MARK.search(path.read_text(encoding="utf-8")))
    return sorted(str(path.relative_to(ROOT)) for path in marked)


def grouped(names: Sequence[str], most: int) -> list[list[str]]:
    """The files in at most so many groups, dealt in turn."""
    count = min(most, MOST_PROCESSES, len(names))
    return [list(names[start::count]) for start in range(count)]


def _environment(folder: Path) -> dict[str, str]:
    """Without plugins that this box happens to have, and with a cache apart: which kernel is the
    fastest is not to be learned from several processes at a time.
    """
    cache = folder / "cache" / "trimtab"
    cache.mkdir(parents=True, exist_ok=True)
    compiled = cache / "kernels"
    if not compiled.exists():
        compiled.symlink_to(build.cache_folder())
    return os.environ | {
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "XDG_CACHE_HOME": str(cache.parent),
    }


def _forget_tuning() -> None:
    """Which blocks are the fastest is not, either; what Triton compiled stays."""
    for path in Path(os.environ.get("TRITON_CACHE_DIR") or "/nowhere").rglob("*.autotune.json"):
        path.unlink(missing_ok=True)


def _merge(place: Place, groups: Sequence[Group]) -> list[ElementTree.Element]:
    """One document of all that ended; what is still running, crashed or was killed is an error."""
    root = ElementTree.Element("testsuites", name="rehearsal" if place.rehearsal else "gpu")
    for group in groups:
        root.extend(group.suites())
    suites = list(root)
    for suite in suites:
        suite.attrib.pop("hostname", None)
    results.write(place.work, "tests.xml", ElementTree.tostring(root, encoding="utf-8"))
    return suites


def _unfinished(group: Sequence[str], log: Path, status: int | None) -> ElementTree.Element:
    """What a process that wrote no results printed of the tests that it ended, and an error."""
    text = log.read_bytes().decode("utf-8", "replace") if log.is_file() else ""
    name = ", ".join(group)
    suite = ElementTree.Element("testsuite", name=name)
    for test, outcome in ENDED.findall(text):
        file, _, title = test.partition("::")
        case = ElementTree.SubElement(
            suite, "testcase", classname=file.removesuffix(".py").replace("/", "."), name=title
        )
        if outcome in CHILDREN:
            ElementTree.SubElement(case, CHILDREN[outcome], message="see the end of the output")
    how = "did not end in time" if status in (None, -9) else f"ended with status {status}"
    case = ElementTree.SubElement(suite, "testcase", classname=name, name="process")
    error = ElementTree.SubElement(case, "error", message=f"the process {how}")
    error.text = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text[-TAIL:])
    suite.attrib |= {
        count: str(len(suite.findall(f"testcase{kind}")))
        for count, kind in {
            "tests": "",
            "failures": "/failure",
            "errors": "/error",
            "skipped": "/skipped",
        }.items()
    }
    return suite


def _first_bad(suites: Sequence[ElementTree.Element]) -> str:
    """`: NAME, NAME and 3 more`."""
    names = [
        f"{case.get('classname')}::{case.get('name')}"
        for suite in suites
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return f": {', '.join(names[:NAMED])}{more}" if names else ""
