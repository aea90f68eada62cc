"""The figure `gpu`, the kernels' benchmark, in the time that this part has.

A kernel that ends its process, hangs, or breaks the device for it is one case that failed: another
process goes on behind it with the same file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.evidence.gpu import results
from tests.evidence.gpu.place import ROOT, Place
from tests.evidence.gpu.schedule import end

FILE = "bench.json"
# A case that began in time goes on for so long: it compiles and measures several ways.
LAST_CASE_S = {"cuda": 15.0, "cpu": 2.0}
# The file is written at every case: one that takes so long has hung.
HUNG_S = 45.0
# What is left for another process to be worth its start.
FEWEST_S = {"cuda": 12.0, "cpu": 6.0}
MOST_PROCESSES = 6
ENDED_WELL = (0, 1)


def run(place: Place) -> tuple[bool, str]:
    """Content when every way that was timed was right; what it reached is for the figures."""
    out = place.work / FILE
    for _ in range(MOST_PROCESSES):
        how = _process(place, out)
        if how == "" or not note_failed(out, how):
            break
        if place.left < LAST_CASE_S[place.device] + FEWEST_S[place.device]:
            break
        print(f"{how}: going on behind that case", flush=True)
    if not out.exists():
        return False, f"it wrote nothing: {how or 'there is no GPU'}"
    data = json.loads(out.read_text(encoding="utf-8"))
    wrong = [row for row in data["rows"] + data["steps"] if not row.get("right", False)]
    told = data.get("sentence") or f"{len(data['rows'])} rows, {len(data['failed'])} cases failed"
    return bool(data["rows"]) and not wrong and not data["failed"], told


def _process(place: Place, out: Path) -> str:
    """Run one process; why another must go on, empty when it did all."""
    seconds = max(1.0, place.left - LAST_CASE_S[place.device])
    words = ["gpu", "--seconds", f"{seconds:.1f}", "--out", str(out), "--resume"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.evidence", *words],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    began, hung = time.time(), False
    while process.poll() is None and not hung and place.left > 1:
        time.sleep(0.1)
        written = out.stat().st_mtime if out.exists() else began
        hung = time.time() - max(began, written) > HUNG_S
    alive = process.poll() is None
    end(process)
    if hung:
        return f"a case did not end within {HUNG_S:.0f} s"
    if alive:
        return "the time was over"
    return "" if process.returncode in ENDED_WELL else f"it ended with {process.returncode}"


def note_failed(out: Path, how: str) -> bool:
    """Name the case that ended the process; False where it did not even measure the ceilings."""
    if not out.exists():
        return False
    data: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    if not data["ceilings"]:
        return False
    last = data["tried"][-1] if data["tried"] else {}
    known = [*data["failed"], *({**row, "format": row["beside"]} for row in data["rows"])]
    if last and not any(last.items() <= row.items() for row in known):
        data["failed"].append(last | {"reason": how})
    if not data["steps"]:
        # Before the grid, which is worth its time all the same.
        data["steps"].append({"op": "step", "kernel": "triton", "right": False, "failed": how})
    results.write(out.parent, out.name, json.dumps(data).encode())
    return True
