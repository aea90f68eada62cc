"""Where a model shall run: the numbers of a device, each with its source."""

from __future__ import annotations

from dataclasses import dataclass

# What a machine calls itself while a study is planned on it; elsewhere it is another one.
HERE = "This machine: "


@dataclass(frozen=True)
class Target:
    """A device. Unknown numbers are None, never zero.

    `memory_bytes` is what a model may fill; `bandwidth` in bytes/s; `peaks` are operations/s by
    format (`fp32`, `bf16`, `fp16`, `int8`, `int4`, ...); `power_w` is the stated board or package
    power; `usd_per_hour` the stated rent.
    """

    id: str
    title: str
    kind: str  # cuda | cpu | mcu
    place: str  # cloud | laptop | desktop | phone | sensor | local
    memory_bytes: int
    bandwidth: float | None
    peaks: tuple[tuple[str, float], ...]
    power_w: float | None = None
    usd_per_hour: float | None = None
    flash_bytes: int | None = None
    source: str = ""
    dated: str = ""
    local: bool = False

    @property
    def name(self) -> str:
        """The title as it reads on any machine: what a local target is, without calling it this
        one."""
        return self.title.removeprefix(HERE) if self.local else self.title

    def peak(self, format_: str) -> float | None:
        """Operations/s in `format_`, or None when not known."""
        return dict(self.peaks).get(format_)
