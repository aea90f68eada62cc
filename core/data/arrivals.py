"""When requests arrive: a Poisson process, or a trace file of real traffic.

Plain data without torch; core.measure.traffic serves it.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.times import nanoseconds
from core.errors import BadInput
from core.workload import Workload

MOST_BYTES = 64 << 20
# One clock a trace: seconds as numbers, or times as text, whose differences are exact.
Clock = float | int
# Names of the three columns in the traces that the field shares: our own, Azure's LLM inference
# traces (2023, 2024), and Mooncake's (its time stamps are milliseconds).
COLUMNS = (
    ("arrival_s", "prompt_tokens", "output_tokens", 1.0),
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens", 1.0),
    ("timestamp", "input_length", "output_length", 1e-3),
)


@dataclass(frozen=True)
class Arrival:
    """One request: seconds after the first, and its lengths in tokens."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def with_arrivals(workload: Workload, text: str) -> Workload:
    """`workload` under the traffic that `--arrival` names: requests per second, or `trace:FILE`.

    BadInput names what cannot be used.
    """
    if not text:
        return workload
    if workload.task != "text":
        raise BadInput(f"--arrival {text}: workload {workload.id} is not for text models")
    if text.startswith("trace:"):
        path = Path(os.path.expanduser(text.removeprefix("trace:"))).absolute()
        trace = read_trace(path)
        longest = max(arrival.prompt_tokens + arrival.output_tokens for arrival in trace)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return replace(workload, trace=str(path), trace_digest=digest, trace_tokens=longest)
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= 1e6:
        raise BadInput(f"--arrival {text!r} is neither requests per second above 0 nor trace:FILE")
    return replace(workload, arrival_per_s=rate)


def arrivals(workload: Workload, count: int, seed: int) -> tuple[Arrival, ...]:
    """The first `count` requests of the workload's traffic, or none when it states none.

    BadInput when the trace cannot be read or is not the one that was planned with.
    """
    if workload.trace:
        path = Path(workload.trace)
        trace = read_trace(path, count)
        if hashlib.sha256(path.read_bytes()).hexdigest() != workload.trace_digest:
            raise BadInput(f"the trace {path} has changed since the study was planned")
        return trace
    if workload.arrival_per_s is None:
        return ()
    gaps = np.random.default_rng(seed).exponential(1 / workload.arrival_per_s, count)
    gaps[0] = 0.0
    return tuple(
        Arrival(at, workload.prompt_tokens, workload.output_tokens)
        for at in np.cumsum(gaps).tolist()
    )


def read_trace(path: Path, most: int | None = None) -> tuple[Arrival, ...]:
    """The first `most` requests of a trace, in order of time, the first at 0 s.

    CSV with a header or JSON lines, with one of the sets of COLUMNS; BadInput names file, line and
    column.
    """
    try:
        if not path.is_file():
            raise BadInput(f"the trace {path} is not a file")
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"the trace {path} is larger than {MOST_BYTES >> 20} MiB: cut it")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the trace {path} cannot be read: {error}") from None
    rows = _rows(path, lines)
    requests: list[tuple[Clock, int, int]] = []
    for number, row in rows:
        if len(requests) == most:
            break
        requests.append(_request(row, f"{path}, line {number}"))
        if type(requests[-1][0]) is not type(requests[0][0]):
            raise BadInput(
                f"{path}, line {number}: a number of seconds and a time of day stand in one column"
            )
    if not requests:
        raise BadInput(f"the trace {path} holds no request")
    requests.sort(key=lambda request: request[0])
    first, unit = requests[0][0], 1e9 if isinstance(requests[0][0], int) else 1.0
    return tuple(Arrival((at - first) / unit, *tokens) for at, *tokens in requests)


def _rows(path: Path, lines: list[str]) -> list[tuple[int, Any]]:
    """(line number, record) of every line that is not empty."""
    if lines and not lines[0].lstrip().startswith("{"):
        try:
            reader = csv.DictReader(lines, strict=True)
            return [(reader.line_num, row) for row in reader]
        except csv.Error as error:
            raise BadInput(f"the trace {path} is not CSV: {error}") from None
    records: list[tuple[int, Any]] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                records.append((number, json.loads(line)))
            except (ValueError, RecursionError):
                raise BadInput(f"{path}, line {number}: not an object of JSON") from None
    return records


def _request(row: Any, where: str) -> tuple[Clock, int, int]:
    names = next(
        (names for names in COLUMNS if isinstance(row, dict) and set(names[:3]) <= set(row)), None
    )
    if names is None:
        wanted = " or ".join(", ".join(names[:3]) for names in COLUMNS)
        raise BadInput(f"{where}: it needs the columns {wanted}")
    at, prompt, output, scale = names
    return (
        _when(row[at], scale, f"{where}: {at}"),
        _tokens(row[prompt], f"{where}: {prompt}"),
        _tokens(row[output], f"{where}: {output}"),
    )


def _when(value: Any, scale: float, where: str) -> Clock:
    """Seconds as a float of a number, nanoseconds in UTC as an int of a time."""
    try:
        seconds = float(value) * scale
    except (TypeError, ValueError, OverflowError):
        try:
            return nanoseconds(str(value))
        except ValueError:
            raise BadInput(f"{where} {value!r:.60} is neither a number nor a time") from None
    if not math.isfinite(seconds):
        raise BadInput(f"{where} is not finite")
    return seconds


def _tokens(value: Any, where: str) -> int:
    try:
        count = int(str(value))
    except ValueError:
        count = -1
    if isinstance(value, bool) or not 1 <= count <= 10_000_000:
        raise BadInput(f"{where} must be a whole number from 1 to 10,000,000, not {value!r:.60}")
    return count
