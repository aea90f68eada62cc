"""Where names of number formats are the keys of a table outside kernels/dtypes.py."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from kernels.dtypes import DTYPES, FILE_FLOATS

OWNER = Path("kernels/dtypes.py")
_FLOATS = tuple(one for one in DTYPES if one.file in FILE_FLOATS)
NAMES = frozenset(
    word
    for one in _FLOATS
    for word in (one.name, one.file, one.torch, f"torch.{one.torch}", f"<{one.torch}")
)
# So many of them make a table.
TABLE = 2


def dtype_tables(root: Path, packages: Iterable[str]) -> list[str]:
    """`file:line` of every dictionary with two floats among its keys."""
    found = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root)
            if where != OWNER:
                found += [f"{where}:{line}" for line in tables(path.read_text(encoding="utf-8"))]
    return found


def tables(source: str) -> list[int]:
    """The lines on which such a dictionary begins."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Dict) and sum(_word(key) in NAMES for key in node.keys) >= TABLE
    ]


def _word(key: ast.expr | None) -> str:
    """The text of a key: a string's own, or `torch.float32`."""
    if isinstance(key, ast.Constant):
        return str(key.value)
    return "" if key is None else ast.unparse(key)
