"""Numbers as people read them: three significant digits and a unit that fits.

Pages, command line and reports ask here. Nothing here rounds a stored number: JSON and CSV carry
the full ones.
"""

from __future__ import annotations

import math

from core import metrics

UNKNOWN = "unknown"
MINUS = "−"

# (factor, suffix) from large to small: the first whose factor the value reaches, else the last.
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((3600.0, " h"), (60.0, " min"), (1.0, " s"), (1e-3, " ms"), (1e-6, " µs"), (1e-9, " ns")),
    "B": ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")),
    "J": ((1e3, " kJ"), (1.0, " J"), (1e-3, " mJ"), (1e-6, " µJ"), (1e-9, " nJ")),
    "1/s": ((1.0, " /s"),),
    "B/s": ((1e12, " TB/s"), (1e9, " GB/s"), (1e6, " MB/s")),
    "op/s": ((1e12, " Top/s"), (1e9, " Gop/s"), (1e6, " Mop/s")),
    "W": ((1.0, " W"),),
    "nat": ((1.0, " nat"),),
    "nat/B": ((1.0, " nat/B"),),
    "%": ((0.01, " %"),),
    "tokens/s": ((1.0, " tokens/s"),),
    "images/s": ((1.0, " images/s"),),
}
# Minutes only from two minutes on: people read 75 s as 75 s.
_FROM = {" h": 7200.0, " min": 120.0}


def plain(value: float | None, digits: int = 3) -> str:
    """`value` without a unit at `digits` significant digits: 0.0123, 12.3, 1,234.

    `unknown` for None and for a value that is not finite.
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    sign = MINUS if value < 0 else ""
    size = float(f"{abs(value):.{digits - 1}e}")
    if size < 1e-4 or size >= 1e9:
        mantissa, _, exponent = f"{size:.{digits - 1}e}".partition("e")
        return f"{sign}{mantissa}e{int(exponent)}".replace("e-", f"e{MINUS}")
    decimals = max(digits - 1 - math.floor(math.log10(size)), 0)
    return f"{sign}{abs(value) if decimals == 0 else size:,.{decimals}f}"


def weights(count: int, active: int) -> str:
    """`10.1 million weights`, `46.7 billion weights, 12.9 billion active` in a mixture."""
    size, word = (1e9, "billion") if count >= 1e9 else (1e6, "million")
    text = f"{plain(count / size)} {word} weights"
    return text if active == count else f"{text}, {plain(active / size)} {word} active"


def scale(value: float | None, unit: str, metric: str = "") -> tuple[float, str]:
    """(factor, suffix) that fit `value`: divide by the factor, append the suffix."""
    if unit == "$":
        return 1.0, ""
    entry = metrics.BY_NAME.get(metric)
    scales = _SCALES.get((entry.shown_in if entry else "") or unit)
    if scales is None:
        return 1.0, f" {unit}" if unit else ""
    # 999.96 ms reads as 1.00 s, so the choice follows the rounded number.
    size = float(f"{abs(value):.2e}") if value is not None and math.isfinite(value) else 0.0
    if size == 0:
        return next((pair for pair in scales if pair[0] == 1.0), scales[0])
    return next((pair for pair in scales if size >= _FROM.get(pair[1], pair[0])), scales[-1])


def number(value: float | None, unit: str = "", metric: str = "") -> str:
    """`12.3 ms`, `20.3 MB`, `$0.12`, `98.1 %`; `unknown` for None or a value that is not finite.

    `unit` is one of core.metrics; `metric` makes the unit say what is counted (`123 tokens/s`).
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    factor, suffix = scale(value, unit, metric)
    text = _scaled(value / factor, suffix)
    if unit == "$":
        return f"{MINUS}${text[1:]}" if text.startswith(MINUS) else f"${text}"
    return text + suffix


def binary(size: int) -> str:
    """A size that is a whole number of binary units, as caches are: `48 KiB`, `32 MiB`; else as
    number() says it.
    """
    for factor, suffix in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= factor and size % factor == 0:
            return f"{size // factor} {suffix}"
    return number(float(size), "B")


def of_metric(name: str, value: float | None) -> str:
    """`value` of the metric `name` with its unit; BadInput names an unknown metric."""
    return number(value, metrics.metric(name).unit, name)


def interval(
    value: float | None, low: float | None, high: float | None, unit: str = "", metric: str = ""
) -> str:
    """`11.9 to 12.8` in the scale that number() gives `value`; empty when there is no interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    factor, suffix = scale(high if value is None else value, unit, metric)
    return f"{_scaled(low / factor, suffix)} to {_scaled(high / factor, suffix)}"


def signed(value: float | None, unit: str = "", metric: str = "") -> str:
    """A difference with its sign: `+1.2 ms`, `−20.3 MB`, `0 B`.

    A difference of shares is in percentage points: `−1.2 pp`.
    """
    text = number(value, unit, metric)
    if text.endswith(" %"):
        text = text[:-2] + " pp"
    return f"+{text}" if value is not None and math.isfinite(value) and value > 0 else text


def percent(share: float | None, digits: int = 3) -> str:
    """A signed change in percent from a share: 0.123 -> `+12.3 %`; `unknown` for None."""
    if share is None or not math.isfinite(share):
        return UNKNOWN
    text = plain(share * 100, digits if abs(share) >= 0.1 else digits - 1)
    return f"+{text} %" if share > 0 else f"{text} %"


def ratio(value: float | None, digits: int = 3) -> str:
    """`1.90x`; `unknown` for None or a value that is not finite."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{plain(value, digits)}x"


def duration(seconds: float) -> str:
    """Whole seconds, with minutes from one on: `7 s`, `3 min`, `1 min 20 s`."""
    minutes, rest = divmod(round(seconds), 60)
    parts = [f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest or not minutes)
    return " ".join(parts)


def _scaled(value: float, suffix: str) -> str:
    """Whole bytes and percents near 100 without false decimals, everything else at three digits."""
    if suffix == " B":
        return plain(float(round(value)), 3)
    if suffix == " %" and 90 <= abs(value) < 100:
        return plain(value, 4)
    return plain(value)
