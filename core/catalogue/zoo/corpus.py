"""The text that the bundled language models learn from and are judged on.

Owns the list of held-out modules and the split. The source is the standard library of the running
Python, so a text set is named by the SHA-256 of its bytes: two Python versions carry slightly
different text, and a measurement says which. This file knows nothing about tokens or models.

The split is by module. In Python 3.11 five small training modules still share more than a tenth of
their long lines with held-out ones (39 lines, 22 of them in wsgiref/headers.py), and 1.5 % of the
held-out long lines stand somewhere in the training text: imports and idioms.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

# Whole modules that are never trained on, from many corners of the library. One name of zipfile
# exists in any one Python, the others in all of 3.11 to 3.14.
HELD_OUT = (
    "argparse.py",
    "ast.py",
    "bisect.py",
    "configparser.py",
    "contextlib.py",
    "csv.py",
    "dataclasses.py",
    "difflib.py",
    "email/message.py",
    "fractions.py",
    "ftplib.py",
    "heapq.py",
    "http/cookiejar.py",
    "ipaddress.py",
    "json/decoder.py",
    "json/encoder.py",
    "json/scanner.py",
    "logging/handlers.py",
    "mailbox.py",
    "queue.py",
    "random.py",
    "sched.py",
    "statistics.py",
    "tarfile.py",
    "textwrap.py",
    "unittest/case.py",
    "urllib/parse.py",
    "zipfile.py",
    "zipfile/__init__.py",
)

# Not library code: test suites, generated tables, vendored wheels, installed packages.
_SKIPPED_FOLDERS = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_bundled"}
)
_LARGEST_FILE = 400_000


@dataclass(frozen=True)
class TextSet:
    """Named documents; `digest` is the SHA-256 over names and bytes."""

    names: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of every name and text in order."""
        state = hashlib.sha256()
        for name, text in zip(self.names, self.texts, strict=True):
            state.update(name.encode() + b"\0" + text.encode() + b"\0")
        return state.hexdigest()

    @property
    def bytes(self) -> int:
        """UTF-8 bytes of all texts together."""
        return sum(len(text.encode()) for text in self.texts)


def stdlib_root() -> Path:
    """Folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def python_files(root: Path, skipped: frozenset[str] = _SKIPPED_FOLDERS) -> list[str]:
    """Relative POSIX paths of the .py files below `root`, sorted, without tests and generated
    bulk.
    """
    paths = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if skipped.intersection(relative.parts[:-1]) or path.stat().st_size > _LARGEST_FILE:
            continue
        paths.append(relative.as_posix())
    return sorted(paths)


def read_set(root: Path, names: list[str]) -> TextSet:
    """Read the named files below `root`; files that are not UTF-8 are left out."""
    files, texts = [], []
    for name in names:
        try:
            text = (root / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if text.strip():
            files.append(name)
            texts.append(text)
    return TextSet(tuple(files), tuple(texts))


def held_out_set() -> TextSet:
    """The evaluation text: the modules of HELD_OUT that this Python has."""
    root = stdlib_root()
    return read_set(root, [name for name in HELD_OUT if (root / name).is_file()])


def training_names() -> list[str]:
    """Library modules that may be trained on: everything but HELD_OUT."""
    held = set(HELD_OUT)
    return [name for name in python_files(stdlib_root()) if name not in held]


def training_set(limit_bytes: int | None = None) -> TextSet:
    """The training text from the standard library, cut after `limit_bytes` when given."""
    root = stdlib_root()
    names = training_names()
    if limit_bytes is None:
        return read_set(root, names)
    # Spread a small budget over the whole library instead of taking its first letters.
    names = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    chosen, total = [], 0
    for name in names:
        if total >= limit_bytes:
            break
        chosen.append(name)
        total += (root / name).stat().st_size
    return read_set(root, chosen)


def shares_lines(text: str, lines: frozenset[str], most: float = 0.1) -> bool:
    """Whether more than `most` of the long lines of `text` stand in `lines`: a copy of held-out
    code.
    """
    own = long_lines(text)
    return bool(own) and sum(line in lines for line in own) > most * len(own)


def long_lines(text: str) -> list[str]:
    """Stripped lines of at least 30 characters: long enough not to coincide by chance."""
    return [line.strip() for line in text.splitlines() if len(line.strip()) >= 30]
