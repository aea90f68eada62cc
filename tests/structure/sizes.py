"""How long files are and how many lie in one folder; data does not count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

CODE = frozenset({".py", ".cpp", ".h", ".css", ".js", ".html"})
PRODUCTION = ("app", "core", "kernels", "store")
# Names that say nothing of what a folder holds.
FRAME = frozenset({"__init__.py", "README.md"})


def code_files(root: Path, packages: Iterable[str]) -> Iterator[Path]:
    """Every file of code under `packages`, as a path relative to `root`."""
    for package in packages:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in CODE and "__pycache__" not in path.parts:
                yield path.relative_to(root)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def long_files(root: Path, packages: Iterable[str], most: int) -> dict[str, int]:
    """Files of more than `most` lines, and how many they have."""
    counted = {str(path): lines(root / path) for path in code_files(root, packages)}
    return {name: count for name, count in counted.items() if count > most}


def full_folders(root: Path, packages: Iterable[str], most: int) -> dict[str, int]:
    """Folders with more than `most` files of code, and how many they hold."""
    counted = Counter(
        str(path.parent) for path in code_files(root, packages) if path.name not in FRAME
    )
    return {name: count for name, count in counted.items() if count > most}
