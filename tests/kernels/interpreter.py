"""Runs the cases of a test file in Triton's interpreter, in a process of its own: the variable that
asks for it is read when triton is imported.

A case is a function of a device that raises AssertionError; on a GPU the same one is called with
"cuda". Nothing but torch, triton, numpy and pytest is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import kernels

ROOT = Path(kernels.__file__).parents[1]
Cases = Mapping[str, Callable[[str], None]]


def failures(module: str) -> dict[str, str]:
    """What each of the CASES of a test module says on the CPU; nothing where it passes."""
    program = (
        f"from {module} import CASES\nfrom tests.kernels.interpreter import report\nreport(CASES)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return said


def report(cases: Cases) -> None:
    """Run all of them on the CPU and print what each says, as JSON."""
    said = {}
    for name, case in cases.items():
        try:
            case("cpu")
            said[name] = ""
        except Exception:
            said[name] = traceback.format_exc()[-1500:]
    print(json.dumps(said))
