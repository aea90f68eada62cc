"""The user's own data for judging quality, as a plan names it: which file, and what its bytes were.

Reading it is core.data.files'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

KINDS = ("text", "choices", "answers", "images", "lm-eval")


@dataclass(frozen=True)
class Dataset:
    """One file of the user's, or one lm-eval task.

    `kind` is one of KINDS; `path` is absolute; `sha256` (hex) is of the file's bytes; `items` are
    documents, tasks or images (for lm-eval the limit, 0: all); `bytes` is the file's size. An
    lm-eval task has neither path nor digest: its id names it.
    """

    id: str
    kind: str
    path: str
    sha256: str
    items: int
    bytes: int

    @property
    def identity(self) -> str:
        """What makes two data sets the same on any machine: the content, wherever it lies."""
        return f"{self.kind} {self.sha256 or self.id}"


def digest(*parts: bytes) -> str:
    """The identity of data that were judged: 16 hex digits of the SHA-256 of `parts`, in order."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return whole.hexdigest()[:16]
