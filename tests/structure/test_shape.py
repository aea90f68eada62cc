"""The shape of the code: no circles, imports at the top, short files, folders that one can read.

What still stands against a rule is named in allowed.py, which may only get shorter.
"""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterable

import pytest

from core.metrics import BY_NAME
from tests.evidence import ROOT
from tests.structure import allowed, imports, sizes, tables


@pytest.fixture(scope="module")
def graph() -> imports.Imports:
    return imports.read_imports(ROOT)


def settled(found: Iterable[str], known: tuple[str, ...]) -> None:
    """No case that is not known, and none that is known and gone."""
    cases = set(found)
    assert sorted(cases - set(known)) == [], "new, against the rule"
    assert sorted(set(known) - cases) == [], "no more: take it out of tests/structure/allowed.py"


def test_no_file_imports_itself_through_others(graph: imports.Imports) -> None:
    settled((name for circle in imports.circles(graph) for name in circle), allowed.CIRCLES)


def test_no_two_packages_import_each_other(graph: imports.Imports) -> None:
    pairs = [pair for package in imports.OURS for pair in imports.two_way(graph, package)]
    settled((" and ".join(pair) for pair in pairs), allowed.PAIRS)


def test_only_what_is_heavy_is_imported_inside_a_function(graph: imports.Imports) -> None:
    settled((f"{one.module} -> {one.target}" for one in imports.needless(graph)), allowed.INSIDE)


def test_only_the_metrics_hold_tables_keyed_by_metrics() -> None:
    found = tables.metric_tables(ROOT, frozenset(BY_NAME), ("app", "core", "store"))
    settled((place.split(":")[0] for place in found), allowed.KEYED)


def test_files_are_short() -> None:
    settled(sizes.long_files(ROOT, sizes.PRODUCTION, 250), allowed.LONG)
    settled(sizes.long_files(ROOT, ("tests",), 350), allowed.LONG_TESTS)


def test_folders_can_be_read_at_a_glance() -> None:
    folders = sizes.full_folders(ROOT, (*sizes.PRODUCTION, "tests"), 16)
    settled(folders, allowed.FULL)


def test_no_two_public_classes_share_a_name() -> None:
    names = Counter(
        node.name
        for package in sizes.PRODUCTION
        for path in (ROOT / package).rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    settled((name for name, count in names.items() if count > 1), allowed.SHARED)


def contract(name: str) -> dict[str, list[str]]:
    """A contract of import-linter in pyproject.toml, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = project["tool"]["importlinter"]["contracts"]
    return next(one for one in found if one["name"] == name)


def names(folder: str) -> set[str]:
    """Modules and packages directly in `folder`."""
    files = {path.stem for path in (ROOT / folder).glob("*.py")}
    folders = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
    return (files | folders) - {"__init__"}


def test_the_contract_of_the_rooms_has_every_room_and_every_word() -> None:
    layers = contract("the rooms of core, in order")["layers"]
    assert {name for layer in layers for name in layer.split(" : ")} == names("core")


def test_the_contract_of_the_views_has_every_view() -> None:
    modules = contract("views do not import each other")["modules"]
    assert modules == ["app.views.*"]


def test_a_circle_a_pair_and_a_needless_import_are_found(tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("code")
    for path, text in {
        "core/__init__.py": "",
        "core/a/__init__.py": "",
        "core/b/__init__.py": "",
        "core/a/x.py": "from core.b import y\n",
        "core/b/y.py": "def late() -> None:\n    from core.a.x import z\n    import torch\n",
        "core/b/slow.py": "import torch\n",
        "core/b/late.py": "def late() -> None:\n    from core.b import slow\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    graph = imports.read_imports(root, ("core",))
    assert imports.circles(graph) == [["core.a.x", "core.b.y"]]
    assert set(imports.two_way(graph, "core")) == {("core.a", "core.b")}
    assert [one.module for one in imports.needless(graph)] == ["core.b.y"]


def test_tables_keyed_by_metrics_are_found(tmp_path_factory) -> None:
    root = tmp_path_factory.mktemp("code")
    (root / "core" / "metrics").mkdir(parents=True)
    (root / "core" / "metrics" / "entries.py").write_text(
        "A = {'m': 1, 'n': 2}\n", encoding="utf-8"
    )
    text = "A = {'m': 1, 'n': 2}\nB = ('m', 'n', 'o')\nC = {'m': 1, 'x': 2}\n"
    (root / "core" / "other.py").write_text(text, encoding="utf-8")
    found = tables.metric_tables(root, frozenset("mno"), ("core",))
    assert found == ["core/other.py:1", "core/other.py:2"]
