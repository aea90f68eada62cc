"""The child process that calibrates for the Hardware page: progress as JSON lines on stdout, then
the result, which it stores.

    python -m core.machine.calibration [SECONDS]
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from core.errors import TrimtabError
from core.machine import calibrate
from core.machine.calibration.record import to_data
from core.machine.parent import die_with_parent


def main(arguments: list[str]) -> int:
    """0 when a calibration was stored, else 1 after a line with the reason."""
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    # Whatever a library prints goes to standard error: standard output belongs to the lines alone.
    os.dup2(2, 1)

    def say(**body: Any) -> None:
        lines.write(json.dumps(body) + "\n")
        lines.flush()

    try:
        die_with_parent()
        seconds = float(arguments[0]) if arguments else calibrate.SECONDS
        calibration = calibrate.calibrate(
            seconds, report=lambda stage, at: say(stage=stage, share=at)
        )
        calibrate.store(calibration)
    except (TrimtabError, OSError, ValueError, RuntimeError, MemoryError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        say(error=f"the calibration failed: {first}")
        return 1
    say(calibration=to_data(calibration))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
