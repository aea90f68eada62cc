"""Where names of metrics are written down as a table outside the metrics' own file."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

# So many names of metrics make a table of a dictionary, and of a row of names.
KEYED, LISTED = 2, 3


def metric_tables(root: Path, names: frozenset[str], packages: Iterable[str]) -> list[str]:
    """`file:line` of every dictionary keyed by metrics and every row of names at the top level."""
    found = []
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            if path == root / "core" / "metrics.py" or "core/metrics/" in str(path):
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            where = path.relative_to(root)
            found += [f"{where}:{node.lineno}" for node in ast.walk(tree) if _keyed(node, names)]
            found += [
                f"{where}:{statement.lineno}"
                for statement in tree.body
                if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None
                for node in ast.walk(statement.value)
                if _listed(node, names)
            ]
    return sorted(set(found))


def _keyed(node: ast.AST, names: frozenset[str]) -> bool:
    return isinstance(node, ast.Dict) and _count(node.keys, names) >= KEYED


def _listed(node: ast.AST, names: frozenset[str]) -> bool:
    return isinstance(node, ast.Tuple | ast.List | ast.Set) and _count(node.elts, names) >= LISTED


def _count(nodes: Iterable[ast.AST | None], names: frozenset[str]) -> int:
    return sum(isinstance(node, ast.Constant) and node.value in names for node in nodes)
