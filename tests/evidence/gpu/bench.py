"""The figure `gpu`, the kernels' benchmark, in the time that this part has.

Its file is written anew after every case.
"""

from __future__ import annotations

import json

from tests.evidence.__main__ import main
from tests.evidence.gpu.place import Place

FILE = "bench.json"
# A case that began in time goes on for so long: it compiles and measures several ways.
LAST_CASE_S = {"cuda": 15.0, "cpu": 2.0}


def run(place: Place) -> tuple[bool, str]:
    """Content when every way that was timed was right; what it reached is for the figures."""
    out = place.work / FILE
    seconds = max(1.0, place.left - LAST_CASE_S[place.device])
    main(["gpu", "--seconds", f"{seconds:.1f}", "--out", str(out)])
    if not out.exists():
        return False, "it wrote nothing"
    data = json.loads(out.read_text(encoding="utf-8"))
    wrong = [row for row in data["rows"] if not row.get("right", False)]
    return bool(data["rows"]) and not wrong and not data["failed"], data["sentence"]
