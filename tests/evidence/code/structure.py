"""How the code hangs together: circles of files, packages that import each other, imports inside
functions, tables keyed by metric, full folders, lines.

    python -m tests.evidence structure [--root FOLDER]

FOLDER is another checkout, to compare with. The last line is the figure; exit 1 when there is a
circle, a pair, a folder of more than 16 files, or a needless import inside a function or a table
keyed by metric outside the metrics' own file that tests/structure/allowed.py does not name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from core.metrics import BY_NAME
from tests.evidence import ROOT
from tests.structure import allowed, imports, sizes, tables

FULL = 16


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", type=Path, default=ROOT)


def main(options: argparse.Namespace) -> int:
    """Print every measure with its cases; 0 when all are as they should be."""
    root = options.root.resolve()
    graph = imports.read_imports(root)
    circles = imports.circles(graph)
    pairs = {
        pair: steps
        for package in imports.OURS
        for pair, steps in imports.two_way(graph, package).items()
    }
    needless = imports.needless(graph)
    keyed = tables.metric_tables(root, frozenset(BY_NAME), ("app", "core", "store"))
    folders = sizes.full_folders(root, (*sizes.PRODUCTION, "tests"), 0)
    largest = max(folders, key=folders.__getitem__)
    total = sum(sizes.lines(root / path) for path in sizes.code_files(root, sizes.PRODUCTION))
    for circle in circles:
        print(f"circle: {', '.join(circle)}")
    for (one, other), steps in pairs.items():
        print(f"pair: {one} and {other}, by {'; '.join(steps)}")
    for step in needless:
        print(f"inside a function: {step.module}:{step.line} imports {step.target}")
    for place in keyed:
        print(f"table keyed by metric: {place}")
    ours = sum(step.ours for step in graph.inside)
    print(
        f"{len(graph.files)} files of Python: {len(circles)} circles with"
        f" {sum(map(len, circles))} files, {len(pairs)} two-way pairs of packages,"
        f" {len(graph.inside)} imports inside functions ({ours} of ours; {len(needless)} that bring"
        f" nothing heavy), {len(keyed)} tables keyed by metric outside the metrics,"
        f" {folders[largest]} files in the largest folder ({largest}), {total:,} lines of"
        " production code."
    )
    unknown = {f"{step.module} -> {step.target}" for step in needless} - set(allowed.INSIDE)
    unknown |= {place.split(":")[0] for place in keyed} - set(allowed.KEYED)
    return int(bool(circles or pairs or unknown or folders[largest] > FULL))
