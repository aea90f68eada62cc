"""Energy of processor packages and memory from RAPL's counters, which Linux shows under powercap.

Intel and AMD share the driver and its names: zones `intel-rapl:0` with the name `package-0`, below
them `core`, `uncore` and `dram`, beside them `psys` for the whole platform. A counter runs in
microjoules and starts anew above its stated range. Nothing is guessed here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from core.measure.energy.reader import Lap, Unreadable

POWERCAP = Path("/sys/class/powercap")
# RAPL's registers advance about every millisecond (Intel SDM volume 3, section 16.10).
RESOLUTION_S = 0.001
# Watts that no package exceeds, where the zone states no limit of its own.
MOST_WATTS = 1000.0
# What drivers call the zone around everything.
PLATFORM = ("psys", "platform")


@dataclass(frozen=True)
class Counter:
    """One zone's energy counter in microjoules that wraps at `range_uj`; `most_watts` is what it
    can draw at most.
    """

    path: Path
    range_uj: int
    name: str = "package-0"
    most_watts: float = MOST_WATTS

    def read(self) -> int:
        """Microjoules now; OSError or ValueError when it cannot be read."""
        return int((self.path / "energy_uj").read_text(encoding="utf-8", errors="replace"))

    def between(self, began: int, now: int, seconds: float) -> float:
        """Joules from `began` to `now`, a wrap in between undone.

        Unreadable when the span is so long that the counter may have wrapped twice, which looks
        like once, and when the result is more than the zone can draw: then it was reset.
        """
        longest = self.range_uj / 1e6 / self.most_watts
        if seconds > longest:
            raise Unreadable(
                f"{self.name}: the counter starts anew every {self.range_uj / 1e6:,.0f} J, at "
                f"{self.most_watts:,.0f} W after {longest:,.0f} s; over the {seconds:,.0f} s of one"
                " span it may have done so twice: measure in shorter rounds"
            )
        joules = (now - began) % self.range_uj / 1e6
        if joules > self.most_watts * seconds + 1.0:
            raise Unreadable(
                f"{self.name}: {joules:,.0f} J in {seconds:.3f} s is more than"
                f" {self.most_watts:,.0f} W: the counter was reset within the span"
                " (a suspend does that); measure again"
            )
        return joules


def counters(root: Path = POWERCAP) -> tuple[tuple[Counter, ...], str]:
    """The counters of packages and, below them, of memory; or none and the sentence that says why.

    All packages or none: the energy of some would be too little.
    """
    inside, _, why = zones(root)
    return inside, why


def zones(root: Path = POWERCAP) -> tuple[tuple[Counter, ...], tuple[Counter, ...], str]:
    """(packages and dram, psys, why there are none)."""
    if not root.is_dir():
        return (), (), f"no energy counter: {root} does not exist on this machine"
    inside: list[Counter] = []
    around: list[Counter] = []
    packages: set[str] = set()
    psys = False
    # Registers and memory-mapped registers show the same package twice: the first one counts.
    for zone in sorted(root.glob("*-rapl*:*"), key=lambda path: ("mmio" in path.name, path.name)):
        parent, _, _ = zone.name.rpartition(":")
        try:
            name = _name(zone)
            dram = name == "dram" and parent in packages
            psys = ":" not in parent and name in PLATFORM
            if not (dram or psys or (":" not in parent and name.startswith("package"))):
                continue
            if name in (counter.name for counter in inside):
                continue
            if dram:
                name = f"dram of {_name(zone.with_name(parent))}"
            counter = _counter(zone, name)
        except (OSError, ValueError):
            if psys:
                continue
            return (), (), _unreadable(zone)
        if psys:
            around.append(counter)
            continue
        inside.append(counter)
        if not dram:
            packages.add(zone.name)
    if not packages:
        return (), (), "no energy counter: powercap lists no RAPL package on this machine"
    return tuple(inside), tuple(around), ""


def _name(zone: Path) -> str:
    return (zone / "name").read_text(encoding="utf-8", errors="replace").strip()


def _counter(zone: Path, name: str) -> Counter:
    counter = Counter(
        zone,
        int((zone / "max_energy_range_uj").read_text(encoding="utf-8", errors="replace")),
        name,
        _most(zone),
    )
    counter.read()
    if counter.range_uj <= 0:
        raise ValueError("a counter without a range cannot be unwrapped")
    return counter


def _most(zone: Path) -> float:
    """Watts at most: four times the zone's highest stated limit, at least MOST_WATTS.

    A short turbo goes beyond the limit; the bound only has to keep two wraps apart.
    """
    stated = 0.0
    for path in zone.glob("constraint_*_max_power_uw"):
        try:
            stated = max(stated, int(path.read_text(encoding="utf-8", errors="replace")) / 1e6)
        except (OSError, ValueError):
            continue
    return max(MOST_WATTS, 4 * stated)


def _unreadable(zone: Path) -> str:
    return (
        f"the energy counter {zone}/energy_uj cannot be read: it needs root or a readable powercap"
        f" (as root: chmod a+r {zone.parent}/*/energy_uj)"
    )


class RaplReader:
    """Joules of all packages and their memory; see core.measure.energy.reader.Reader."""

    resolution_s = RESOLUTION_S
    origin = "measured"
    spread = (1.0, 1.0)
    draws_idle = True

    def __init__(self, inside: tuple[Counter, ...], around: tuple[Counter, ...] = ()) -> None:
        self._all = (*inside, *around)
        self._inside = len(inside)
        self._began: tuple[int, ...] = ()
        self._at = 0.0
        self.name = f"RAPL counters ({', '.join(counter.name for counter in inside)})"

    def start(self) -> None:
        """Read every counter."""
        self._began, self._at = self._read(), time.perf_counter()

    def lap(self) -> Lap:
        """Joules since the last reading."""
        now, at = self._read(), time.perf_counter()
        began, seconds = self._began, at - self._at
        self._began, self._at = now, at
        joules = tuple(
            (counter.name, counter.between(a, b, seconds))
            for counter, a, b in zip(self._all, began, now, strict=True)
        )
        return Lap(seconds, joules[: self._inside], joules[self._inside :])

    def _read(self) -> tuple[int, ...]:
        try:
            return tuple(counter.read() for counter in self._all)
        except (OSError, ValueError) as error:
            raise Unreadable(f"an energy counter stopped answering: {error}") from None


def find(root: Path = POWERCAP) -> tuple[RaplReader | None, str]:
    """The reader of this machine's packages, or None and why."""
    inside, around, why = zones(root)
    return (RaplReader(inside, around), "") if inside else (None, why)
