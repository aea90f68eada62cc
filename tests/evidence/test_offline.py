"""The watch of the offline figure sees what leaves; the whole figure is a slow test."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.evidence import ROOT
from tests.evidence.jobs import offline

WORDS = offline.namespace()
pytestmark = pytest.mark.skipif(
    WORDS is None, reason="no program may have a network namespace of its own here"
)
CHECK = """
import sys, tempfile
from pathlib import Path
from tests.evidence.jobs.offline_steps import Offline, listeners, raise_loopback, _loopback
import socket
raise_loopback()
watch = Offline(Path(tempfile.mkdtemp()))
watch.check_the_watch()
assert watch.found.wrong == [], watch.found.wrong
for address in ("127.0.0.1", "0.0.0.0"):
    with socket.socket() as one:
        one.bind((address, 0))
        one.listen()
        assert listeners() == [address], listeners()
"""


def test_the_watch_sees_a_program_that_leaves_and_a_port_that_is_open_to_all() -> None:
    assert WORDS is not None
    ended = subprocess.run(
        [*WORDS, sys.executable, "-c", CHECK],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_a_study_a_report_and_the_dashboard_need_no_network() -> None:
    command = [sys.executable, "-m", "tests.evidence", "offline", "--no-page"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
