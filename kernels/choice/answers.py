"""A question with its answer, and the files that keep answers: one a question, replaced at once."""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels import build


@dataclass(frozen=True)
class Question:
    """What is to be done: an operation on a format, its shape ((N, K) for a matrix), with so many
    rows of `dtype`.
    """

    op: str
    format: str
    shape: tuple[int, ...]
    rows: int
    dtype: str


@dataclass(frozen=True)
class Answer:
    """The fastest candidate of a question on a device, and by how much.

    `samples` are seconds a candidate, in turns; `failed` says why others could not be timed.
    `made_of` names what the answer depends on: versions, and what the kernels are built from.
    `taken_at` is UTC.
    """

    question: Question
    device: str
    made_of: str
    name: str
    samples: Mapping[str, tuple[float, ...]]
    failed: Mapping[str, str]
    taken_at: str

    def seconds(self) -> dict[str, float]:
        """The median of each candidate, the fastest first."""
        medians = {name: statistics.median(times) for name, times in self.samples.items()}
        return dict(sorted(medians.items(), key=lambda pair: pair[1]))

    @property
    def margin(self) -> float | None:
        """The time of the second over that of the first; None where there is no second."""
        best, *others = self.seconds().values()
        return others[0] / best if others and best > 0 else None


def as_data(answer: Answer) -> dict[str, Any]:
    """JSON-ready: the question, the kernel, its margin, the times in seconds, the fastest first."""
    asked = answer.question
    return {
        "op": asked.op,
        "format": asked.format,
        "shape": list(asked.shape),
        "rows": asked.rows,
        "dtype": asked.dtype,
        "device": answer.device,
        "kernel": answer.name,
        "margin": answer.margin,
        "seconds": answer.seconds(),
        "samples": len(answer.samples[answer.name]),
        "failed": dict(answer.failed),
        "taken_at": answer.taken_at,
    }


def folder() -> Path:
    """Where answers are kept; it need not exist."""
    return build.cache_folder().parent / "choices"


def path_of(question: Question, where: str, made_of: str) -> Path:
    words = json.dumps([dataclasses.astuple(question), where, made_of])
    return folder() / f"{hashlib.sha256(words.encode()).hexdigest()[:24]}.json"


def read(path: Path) -> Answer | None:
    """None where the file is not there, damaged, or none of ours."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        question = data["question"]
        asked = Question(
            str(question["op"]),
            str(question["format"]),
            tuple(int(side) for side in question["shape"]),
            int(question["rows"]),
            str(question["dtype"]),
        )
        samples = {
            str(name): tuple(float(value) for value in values)
            for name, values in data["samples"].items()
        }
        failed = {str(name): str(reason) for name, reason in data["failed"].items()}
        name = str(data["name"])
        texts = (str(data["device"]), str(data["made_of"]), str(data["taken_at"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(
        values and all(math.isfinite(value) and value >= 0 for value in values)
        for values in samples.values()
    )
    if not sound or name not in samples:
        return None
    return Answer(asked, texts[0], texts[1], name, samples, failed, texts[2])


def write(choice: Answer) -> None:
    """Replace the file of the question at once; a disk that takes nothing costs the memory only."""
    path = path_of(choice.question, choice.device, choice.made_of)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, scratch = tempfile.mkstemp(prefix=".choice-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(dataclasses.asdict(choice), file)
            os.replace(scratch, path)
        except OSError:
            os.unlink(scratch)
