"""R13: a study, a report and the dashboard in a network namespace that has nothing but loopback.

    python -m tests.evidence offline [--no-page]

Every try to reach an address beyond loopback is counted: by strace where it is installed, and by an
audit hook in every Python that our programs start. The dashboard must listen on loopback only and
turn away foreign hosts and origins, by HTTP and by websocket.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.evidence import ROOT


def namespace() -> list[str] | None:
    """The command that gives a program a network of its own; None where that is not allowed."""
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None:
        return None
    allowed = subprocess.run([*words, "true"], capture_output=True, check=False)
    return words if allowed.returncode == 0 else None


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-page", action="store_true", help="draw no page in a browser")
    parser.add_argument("--inside", default="", help=argparse.SUPPRESS)


def main(options: argparse.Namespace) -> int:
    """Go inside, do the steps, print the figure last."""
    if options.inside:
        from tests.evidence.jobs.offline_steps import steps

        found = steps(Path(options.inside), not options.no_page)
        Path(options.inside, "found.json").write_text(json.dumps(asdict(found)), encoding="utf-8")
        return 0
    words = namespace()
    if words is None:
        print("skipped: this system lets no program have a network namespace of its own.")
        return 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.evidence", "offline", "--inside", folder]
        command += ["--no-page"] if options.no_page else []
        ended = subprocess.run([*words, *command], cwd=ROOT, check=False)
        if ended.returncode != 0:
            print(f"the steps ended with {ended.returncode}.")
            return 1
        found = json.loads(Path(folder, "found.json").read_text(encoding="utf-8"))
    for one in (*found["attempts"], *found["wrong"]):
        print(one)
    how = "strace and audit hooks" if found["traced"] else "audit hooks"
    print(
        f"In an empty network namespace {', '.join(dict.fromkeys(found['steps']))} ran in "
        f"{time.monotonic() - began:.0f} s: {len(found['attempts'])} connection attempts beyond "
        f"loopback among {found['calls']} network calls ({how}), {len(found['wrong'])} faults "
        "(listening elsewhere, foreign host or origin answered, a step failed)."
    )
    return 1 if found["attempts"] or found["wrong"] else 0
