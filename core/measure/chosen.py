"""What a trial says of kernels that were chosen by measuring: one line an operation.

The answers themselves, with their samples, stay on the machine (kernels.choice, `trimtab doctor`).
"""

from __future__ import annotations

from collections.abc import Iterable

from kernels.choice import Answer, asked


def notes() -> list[str]:
    """The lines of what this process asked."""
    by_op: dict[str, list[Answer]] = {}
    for answer in asked():
        by_op.setdefault(answer.question.op, []).append(answer)
    return [
        f"{op}: kernels chosen by measuring them here: {_wins(answers)}"
        for op, answers in sorted(by_op.items())
    ]


def _wins(answers: Iterable[Answer]) -> str:
    """`triton/few at 1 row (1.21 to 1.40 times as fast as the next, 4 shapes), ...`."""
    margins: dict[tuple[int, str], list[float]] = {}
    for answer in answers:
        here = margins.setdefault((answer.question.rows, answer.name), [])
        if answer.margin is not None:
            here.append(answer.margin)
    parts = []
    for (rows, name), found in sorted(margins.items()):
        told = ""
        if found:
            low, high = f"{min(found):.2f}", f"{max(found):.2f}"
            span = low if low == high else f"{low} to {high}"
            shapes = f", {len(found)} shapes" if len(found) > 1 else ""
            told = f" ({span} times as fast as the next{shapes})"
        parts.append(f"{name} at {rows} row{'s' * (rows > 1)}{told}")
    return ", ".join(parts)
