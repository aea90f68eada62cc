"""`trimtab doctor`: what this machine is and can do, which kernels run, what is missing."""

from __future__ import annotations

import argparse
import json
import sys

from app.cli.check import check_store
from core.measure.diagnosis import diagnose


def doctor(parsed: argparse.Namespace) -> int:
    """Say what this machine is, its measured limits, which kernels it can run, what is missing."""
    if parsed.check_store or parsed.rebuild_store:
        return check_store(parsed.store, parsed.rebuild_store)
    diagnosis = diagnose(
        parsed.calibrate, _report if parsed.calibrate else lambda stage, share: None
    )
    if parsed.json:
        json.dump(diagnosis, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for section, lines in diagnosis["summary"]:
        print(section)
        for line in lines:
            print(f"  {line}")
    return 0


def _report(stage: str, share: float) -> None:
    """Progress on a terminal's last line; nothing where nobody watches."""
    if sys.stderr.isatty():
        text = "" if share >= 1.0 else f"measuring this machine: {stage} {share:.0%}"
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
