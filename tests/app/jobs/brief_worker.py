"""The real worker with a preset that measures little: for tests of what happens around a trial."""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import torch

from core.measure import worker
from core.planner.presets import PRESETS

if __name__ == "__main__":
    torch.set_num_threads(1)
    PRESETS["quick"] = replace(
        PRESETS["quick"], repeats=3, seconds=0.05, windows=3, window=64, settle_s=0.0
    )
    status = worker.main()
    sys.stderr.flush()
    os._exit(status)
