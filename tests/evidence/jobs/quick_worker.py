"""The real worker around a trial that measures nothing but says much, quickly: for kills at random
points. Each measurement is acknowledged in the file ACKNOWLEDGED once its journal has it.
"""

from __future__ import annotations

import os
import sys
import time

from core.condition import prompt_tokens
from core.journal.events import Event
from core.journal.journal import Journal
from core.measure import worker
from core.measurement import Measurement

MEASUREMENTS = 24


class Acknowledged(Journal):
    """Says in a file which measurements are on the disk; the file's page cache outlives a kill."""

    def append(self, event: Event) -> str:
        line = super().append(event)
        if event.kind == "measurement":
            handle = os.open(os.environ["ACKNOWLEDGED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(handle, f"{event.id}\n".encode())
            os.close(handle)
        return line


def run(job: dict[str, object], emit: object) -> tuple[str, str]:
    """Many small measurements, a few milliseconds apart, so that kills fall between and into
    them.
    """
    for number in range(MEASUREMENTS):
        one = Measurement(
            "ttft_s", (0.5, 0.25), "s", "measured", "made up", condition=prompt_tokens(number)
        )
        emit("measurement", measurement=one)  # type: ignore[operator]
        time.sleep(0.004)
    return "done", ""


if __name__ == "__main__":
    worker.Journal = Acknowledged  # type: ignore[misc]
    worker.run = run  # type: ignore[assignment]
    sys.exit(worker.main())
