"""Where names of metrics are written down as a table outside the metrics' own file."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

# So many names of metrics make a table.
TABLE = 2


def metric_tables(root: Path, names: frozenset[str], packages: Iterable[str]) -> list[str]:
    """`file:line` of every dictionary keyed by metrics, and every row or set of their names."""
    found = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root)
            if where.is_relative_to("core/metrics"):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [
                f"{where}:{node.lineno}" for node, count in _named(tree, names) if count >= TABLE
            ]
    return sorted(set(found))


def _named(tree: ast.AST, names: frozenset[str]) -> Iterable[tuple[ast.expr, int]]:
    """The literals of `tree`, each with how many names of metrics are its keys or items."""
    for node in ast.walk(tree):
        items: Iterable[ast.expr | None] = ()
        if isinstance(node, ast.Dict):
            items = node.keys
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            items = node.elts
        else:
            continue
        yield node, sum(isinstance(item, ast.Constant) and item.value in names for item in items)
