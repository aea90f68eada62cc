"""How long to measure: the three presets of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.errors import BadInput
from core.statistics.interleave import MIN_PAIRS


@dataclass(frozen=True)
class Preset:
    """At least `repeats` timed rounds and `seconds` of timed work; `windows` x `window` tokens of
    held-out text.

    `sweep_rounds` rounds are timed under each varied condition (0: none is), `requests` at most
    when they arrive on their own. `settle_s` is the longest wait for a quiet machine before timing;
    `wall_s` ends a trial that hangs; `distill_steps` is the recovery budget that proposals use. A
    study promises to end within `promise_s`, None for as long as it takes: on a slow machine it
    times fewer rounds for that, at least `fewest`, and measures fewer plans. On a GPU rounds that
    do not become steady are warmed up for `gpu_warm_s` at most, not counting those that compile.
    """

    name: str
    repeats: int
    seconds: float
    windows: int
    window: int
    distill_steps: int
    settle_s: float
    wall_s: float
    sweep_rounds: int = 0
    requests: int = 24
    promise_s: float | None = None
    fewest: int = MIN_PAIRS
    gpu_warm_s: float = 20.0

    def shortened(self, rounds: int) -> Preset:
        """With so many timed rounds, and as much less timed work."""
        return replace(self, repeats=rounds, seconds=self.seconds * rounds / self.repeats)


PRESETS = {
    "quick": Preset("quick", 12, 0.8, 8, 512, 24, 1.0, 300.0, 0, 24, 180.0, gpu_warm_s=5.0),
    "standard": Preset("standard", 30, 5.0, 24, 1024, 200, 10.0, 1800.0, 8, 100),
    "deep": Preset("deep", 100, 20.0, 96, 1024, 1000, 30.0, 7200.0, 20, 400),
}


def preset(name: str) -> Preset:
    """The preset called `name`; BadInput names the known ones."""
    if name not in PRESETS:
        raise BadInput(f"unknown preset {name!r}; known presets: {', '.join(PRESETS)}")
    return PRESETS[name]
