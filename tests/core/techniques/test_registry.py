"""A new technique touches four places: its file, a line of the registry, a test, a README row."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from core import techniques
from core.plan import Case, own_fields, settings
from core.techniques.base import QUICK, STANDARD, Base
from core.techniques.kinds import KINDS, STACKS

ROOT = Path(techniques.__file__).parents[2]
KIND_FOLDERS = [ROOT / "core" / "techniques" / kind for kind in KINDS]
REGISTRY = ROOT / "core" / "techniques" / "__init__.py"
CLASSES = {technique.__name__ for technique in techniques.TECHNIQUES}
MODULES = {technique.__module__ for technique in techniques.TECHNIQUES}


# Names that formats of matrices have as well.
FORMATS = {"gptq", "awq", "w8a8", "llm-int8", "nf4", "fp4", "fp8", "binary", "ternary"}


def sources() -> list[Path]:
    """Every module of core, app and store."""
    return [path for room in ("core", "app", "store") for path in (ROOT / room).rglob("*.py")]


def run_time_imports(path: Path) -> set[str]:
    """`module.name` of what a file imports, apart from what only type checkers read."""
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return names


def test_the_registry_alone_imports_techniques() -> None:
    for path in sources():
        if path == REGISTRY or any(folder in path.parents for folder in KIND_FOLDERS):
            continue
        named = {
            name
            for name in run_time_imports(path)
            if name in MODULES or name.rpartition(".")[0] in MODULES
        }
        assert {name.rpartition(".")[2] for name in named}.isdisjoint(CLASSES), path
        assert not named & MODULES, path


def test_no_module_but_its_own_decides_by_the_name_of_a_technique() -> None:
    """Comparisons and tables; sentences may name techniques."""
    names = set(techniques.BY_NAME)
    for path in sources():
        if path == REGISTRY or any(folder in path.parents for folder in KIND_FOLDERS):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            decided: list[ast.expr | None] = []
            if isinstance(node, ast.Compare):
                decided = [node.left, *node.comparators]
            elif isinstance(node, ast.Dict):
                decided = list(node.keys)
            for part in decided:
                if isinstance(part, ast.Constant) and part.value in names - FORMATS:
                    raise AssertionError(f"{path}:{node.lineno} decides by {part.value!r}")  # type: ignore[attr-defined]


@pytest.mark.parametrize("technique", techniques.TECHNIQUES)
def test_a_technique_says_all_of_itself(technique: type[Base]) -> None:
    assert technique.name
    assert technique.title
    assert technique.kind in KINDS
    assert technique.effect is not Base.effect
    folder = technique.__module__.split(".")[2]
    assert folder == technique.kind, "a technique lies in the folder of its kind"
    fields = {field.name for field in own_fields(technique)}
    assert set(technique.choices) | set(technique.limits) | set(technique.positive) <= fields
    assert settings(technique()).keys() - {"name"} == fields


@pytest.mark.parametrize("technique", techniques.TECHNIQUES)
def test_who_trains_says_how_long(technique: type[Base]) -> None:
    default = technique()
    assert technique.trains == (default.training_steps > 0)
    assert default.with_steps(7).training_steps == (7 if technique.trains else 0)
    assert not technique.trains or technique.needs_trained


def test_what_is_proposed_unasked_has_a_depth_and_a_part_in_a_known_stack(case: Case) -> None:
    parts = {part.removeprefix("?") for stack in STACKS for part in stack.parts}
    for technique in techniques.TECHNIQUES:
        for proposal in technique.proposals(case):
            assert proposal.depth in ("", QUICK, STANDARD)
            assert not proposal.role or f"{technique.kind}:{proposal.role}" in parts
            assert proposal.alone or proposal.role
    proposed = {f"{t.kind}:{one.role}" for t in techniques.TECHNIQUES for one in t.proposals(case)}
    assert parts - {"batch:full"} <= proposed


def test_stacks_keep_the_order_of_kinds() -> None:
    order = list(KINDS)
    for stack in STACKS:
        places = [order.index(part.removeprefix("?").partition(":")[0]) for part in stack.parts]
        assert places == sorted(places)
        assert len(places) > 1


@pytest.mark.parametrize(
    "parts",
    [
        ["gptq"],
        ["prune-mlp:sparsity=0.5", "distill-soft"],
        ["weight-int8", "kv-cache:bits=8", "static-batch"],
        # A plus sign inside of a setting: a number, a file's name.
        ["qat:learning_rate=1e+5", "speculative:draft=/models/a+b"],
        ["w8a8+no-such-thing"],
    ],
)
def test_a_stack_is_parted_where_a_technique_begins(parts: list[str]) -> None:
    assert list(techniques.parse_stack("+".join(parts))) == parts
