"""A release of somebody else's must not break the README's two commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Each build of torch asks for its own triton.
FREE = {"triton"}


def pinned() -> dict[str, str]:
    """Version by name of .ci/constraints.txt."""
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins), pins
    return dict(pin.split("==") for pin in pins)


@pytest.mark.parametrize("text", PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"])
def test_every_dependency_has_a_tested_version_within_its_bounds(text: str) -> None:
    wanted = Requirement(text)
    name = canonicalize_name(wanted.name)
    assert (name in pinned()) != (name in FREE)
    assert name in FREE or wanted.specifier.contains(pinned()[name])


@pytest.mark.parametrize(("file", "commands"), [("README.md", 2), (".ci/run", 1)])
def test_every_command_that_installs_takes_the_tested_versions(file: str, commands: int) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if re.search(r"pip\"? install .*-e", line)]
    assert len(installs) == commands
    assert all("-c .ci/constraints.txt" in line for line in installs)


WARNS = """
import sys, types, warnings
import pytest

THEIRS = types.ModuleType("theirs")
WARN = "import warnings\\ndef call(kind, level): warnings.warn('w', kind, stacklevel=level)"
exec(WARN, vars(THEIRS))
OURS = {"__name__": "core.made_up", "theirs": THEIRS, "warnings": warnings}
exec("def call(kind, level): theirs.call(kind, level)", OURS)

@pytest.mark.parametrize("kind", [DeprecationWarning, PendingDeprecationWarning, FutureWarning])
@pytest.mark.parametrize("level", [1, 2])
def test_deprecations_of_theirs_are_shown(kind, level):
    OURS["call"](kind, level)

@pytest.mark.parametrize("kind", [UserWarning, ImportWarning])
def test_a_warning_at_their_lines_is_shown(kind):
    OURS["call"](kind, 1)

def test_numbers_that_overflow_are_ours():
    with pytest.raises(RuntimeWarning):
        OURS["call"](RuntimeWarning, 1)

@pytest.mark.parametrize("kind", [UserWarning, RuntimeWarning])
def test_a_warning_at_ours_is_an_error(kind):
    with pytest.raises(kind):
        OURS["call"](kind, 2)

@pytest.mark.parametrize("name", ["corelib", "application.views", "scipy.stats", "my.core"])
def test_their_names_are_not_ours(name):
    place = {"__name__": name}
    exec("import warnings\\ndef call(): warnings.warn('w', UserWarning)", place)
    place["call"]()
"""


def test_warnings_are_errors_at_our_lines_alone(tmp_path: Path) -> None:
    (tmp_path / "test_warns.py").write_text(WARNS, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"),
         "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)],
        capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout
    assert re.search(r"^15 passed, \d+ warnings", run.stdout, re.MULTILINE), run.stdout
    assert "FutureWarning: w" in run.stdout


PIP = """#!/bin/sh
case "$1" in
  install)
    echo 3 > "$0.installed"
    [ -z "$NO_INSTALL" ] || { echo "No matching distribution"; exit 1; } ;;
  freeze)
    torch=$(cat "$0.installed" 2>/dev/null || echo "$HAD")
    printf 'duckdb==1\\nplotly==2\\ntorch==%s\\n' "$torch" ;;
esac
"""
PYTEST = """#!/bin/sh
printf '%s\\n' "$SAID"
exit "$ENDED"
"""
FAILED = (
    "FAILED tests/a.py::test_b - TypeError: no\nb.py:3: FutureWarning: old is deprecated\n1 failed"
)


@pytest.mark.parametrize(
    ("had", "ended", "no_install", "wanted"),
    [
        ("3", 0, "", ["Newest versions: they are the tested ones."]),
        ("2", 0, "", ["Newest versions: nothing breaks with torch==3."]),
        ("2", 124, "", 
         ["Newest versions: the tests did not end within six minutes with torch==3."]),
        ("2", 0, "yes", ["Newest versions: they could not be installed: No matching distribution"]),
        (
            "2", 1, "",
            [
                "Newest versions: 1 tests would break with torch==3:",
                "  would break: tests/a.py::test_b - TypeError: no",
                "  deprecated: FutureWarning: old is deprecated",
            ],
        ),
        (
            "2", 4, "",
            ["Newest versions: the tests could not run (pytest ended with 4) with torch==3: bad"],
        ),
    ],
)  # fmt: skip
def test_the_newest_versions_fail_nothing_and_are_told_in_sentences(
    tmp_path: Path, had: str, ended: int, no_install: str, wanted: list[str]
) -> None:
    for name, text in (("pip", PIP), ("pytest", PYTEST)):
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    said = {0: "7 passed", 1: FAILED, 4: "usage\nbad", 124: ""}[ended]
    path = f"{tmp_path}:{os.environ['PATH']}"
    run = subprocess.run(
        [ROOT / ".ci" / "newest"], capture_output=True, text=True, check=False,
        env={"PATH": path, "HAD": had, "ENDED": str(ended), "SAID": said, "NO_INSTALL": no_install},
    )  # fmt: skip
    assert (run.returncode, run.stdout.splitlines(), run.stderr) == (0, wanted, "")


def test_the_tests_that_the_newest_versions_run_exist() -> None:
    named = re.findall(r"^  (tests/.*)$", (ROOT / ".ci" / "newest").read_text(), re.MULTILINE)
    paths = " ".join(named).split()
    assert len(paths) >= 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
