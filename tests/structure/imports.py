"""Which file imports which, read from the source without running it, and what follows from that.

Imports for the type checker alone are left out; those inside functions count as imports, and are
listed apart.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

OURS = ("app", "core", "kernels", "store")
# Scripts that nothing imports: they train the bundled models, and may ask whom they like.
SCRIPTS = "core/catalogue/zoo/train_*.py"
# What takes long to import, or need not be installed.
HEAVY = frozenset({
    "accelerate", "alembic", "compressed_tensors", "duckdb", "duckdb_sqlalchemy", "gguf",
    "huggingface_hub", "jinja2", "lm_eval", "onnx", "onnxruntime", "pandas", "plotly", "psycopg",
    "pyarrow", "pynvml", "safetensors", "scipy", "sklearn", "sqlalchemy", "starlette", "streamlit",
    "tokenizers", "torch", "transformers", "triton", "uvicorn",
})  # fmt: skip


@dataclass(frozen=True)
class Deferred:
    """An import inside a function."""

    module: str
    line: int
    target: str

    @property
    def ours(self) -> bool:
        return self.target.split(".")[0] in OURS


@dataclass
class Imports:
    """`always` and `deferred` map a module to those of ours that it imports at the top of its file
    and inside functions; `libraries` to the other names imported at the top.
    """

    files: dict[str, Path]
    always: dict[str, set[str]] = field(default_factory=dict)
    deferred: dict[str, set[str]] = field(default_factory=dict)
    libraries: dict[str, set[str]] = field(default_factory=dict)
    inside: list[Deferred] = field(default_factory=list)

    def every(self, module: str) -> set[str]:
        """Modules of ours that `module` imports, wherever it does so."""
        return self.always[module] | self.deferred[module]

    def resolve(self, name: str) -> str:
        """The module of ours that holds `name`, or an empty text."""
        while name and name not in self.files:
            name = name.rpartition(".")[0]
        return name


def read_imports(root: Path, packages: Iterable[str] = OURS) -> Imports:
    """The imports of every file of `packages` under `root`."""
    graph = Imports({
        _name(path.relative_to(root)): path
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
        if not path.relative_to(root).match(SCRIPTS)
    })  # fmt: skip
    for module, path in graph.files.items():
        graph.always[module], graph.deferred[module] = set(), set()
        graph.libraries[module] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for line, name, within in _imported(tree, False):
            own = graph.resolve(name)
            if within:
                graph.inside.append(Deferred(module, line, name))
            if own and own != module:
                (graph.deferred if within else graph.always)[module].add(own)
            elif not own and not within:
                graph.libraries[module].add(name)
    return graph


def circles(graph: Imports) -> list[list[str]]:
    """Groups of files of which each imports, in some steps, every other."""
    return components({module: graph.every(module) for module in graph.files})


def components(edges: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            place = stack.index(node)
            if len(stack) - place > 1:
                found.append(sorted(stack[place:]))
            del stack[place:]

    for node in edges:
        if node not in index:
            visit(node)
    return sorted(found)


def two_way(graph: Imports, within: str) -> dict[tuple[str, str], list[str]]:
    """Pairs of packages directly inside `within` that import each other, with the imports of the
    direction that is rarer.
    """
    steps: dict[tuple[str, str], list[str]] = {}
    for module in graph.files:
        for other in graph.every(module):
            ends = _part(graph, module, within), _part(graph, other, within)
            if all(ends) and ends[0] != ends[1]:
                steps.setdefault(ends, []).append(f"{module} -> {other}")
    return {
        (one, other): sorted(min(there, steps[other, one], key=len))
        for (one, other), there in sorted(steps.items())
        if one < other and (other, one) in steps
    }


def heavy(graph: Imports) -> set[str]:
    """Modules of ours whose import brings a heavy library, packages around them included."""
    slow = {
        module
        for module, names in graph.libraries.items()
        if any(name.split(".")[0] in HEAVY for name in names)
    }
    grown = True
    while grown:
        more = {
            module
            for module in graph.files
            if module not in slow
            and any(name in slow for name in (*graph.always[module], *_parents(module)))
        }
        slow |= more
        grown = bool(more)
    return slow


def needless(graph: Imports) -> list[Deferred]:
    """Imports inside functions that belong to the top of the file: they bring nothing heavy."""
    slow = heavy(graph)
    return [
        one
        for one in graph.inside
        if one.target.split(".")[0] not in HEAVY and graph.resolve(one.target) not in slow
    ]


def _parents(module: str) -> Iterator[str]:
    while "." in module:
        module = module.rpartition(".")[0]
        yield module


def _part(graph: Imports, module: str, within: str) -> str:
    """The package directly inside `within` that holds `module`; empty for its own files."""
    words = module.split(".")
    if words[0] != within or len(words) < 2:
        return ""
    part = ".".join(words[:2])
    return part if graph.files[part].name == "__init__.py" else ""


def _name(path: Path) -> str:
    words = path.with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def _imported(node: ast.AST, within: bool) -> Iterator[tuple[int, str, bool]]:
    """(line, name, whether inside a function) of every import below `node`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name, within) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are not used"
            yield from ((child.lineno, f"{child.module}.{alias.name}", within)
                        for alias in child.names)  # fmt: skip
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imported(child, within or function)
