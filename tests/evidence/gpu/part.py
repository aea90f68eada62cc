"""The child that runs one part: `python -m tests.evidence.gpu.part NAME SECONDS`.

Its exit status is 0 when the part is content, 1 when it is not; what it has to say in one sentence
goes to NAME.said in the scratch folder, for the summary.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.evidence.gpu import place, results
from tests.evidence.gpu.parts import MODULES

# A part ends by itself so long before it would be killed, or after nine tenths of a short limit.
SPARE_S = 4.0


def run(name: str, seconds: float) -> int:
    """Run the part called `name` for about `seconds` at most."""
    broken(name)
    where = place.here(max(0.9 * seconds, seconds - SPARE_S))
    where.work.mkdir(parents=True, exist_ok=True)
    if where.rehearsal:
        # Neither nvidia-smi nor a compiler: building the processor's kernels takes minutes.
        os.environ["PATH"] = str(Path(sys.executable).parent)
    good, sentence = importlib.import_module(f"tests.evidence.gpu.{MODULES[name]}").run(where)
    results.write(where.work, f"{name}.said", sentence.encode())
    print(sentence)
    return 0 if good else 1


def broken(name: str, environment: Mapping[str, str] = os.environ) -> None:
    """Break as TRIMTAB_GPU_BREAK asks this part to: crash, hang or exit."""
    asked = dict(word.partition(":")[::2] for word in place.named("TRIMTAB_GPU_BREAK", environment))
    how = asked.get(name, "")
    if how == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "hang":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    elif how == "exit":
        sys.exit(3)
    elif how:
        raise ValueError(f"TRIMTAB_GPU_BREAK: {how!r} is none of crash, hang, exit")


if __name__ == "__main__":
    status = run(sys.argv[1], float(sys.argv[2]))
    sys.stdout.flush()
    sys.stderr.flush()
    # Taking torch and a CUDA context apart costs seconds, and everything is on the disk.
    os._exit(status)
