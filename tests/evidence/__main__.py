"""Runs one figure, or lists them all.

    python -m tests.evidence                     every name and what it shows
    python -m tests.evidence NAME [options]      run one; NAME --help says what it takes

Run it in the root of the repository. A figure is a module with `main`, which prints its sentence
last and returns 0 when the figure is reached, and with `arguments` where it takes any; `main` then
gets the parsed options.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.metadata
import os
import platform
import sys
from types import ModuleType

from tests.evidence import FIGURES, ROOT


def question(name: str) -> str:
    """The first paragraph of the module's docstring, read without running it."""
    path = ROOT / "tests" / "evidence" / (FIGURES[name].replace(".", "/") + ".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def machine() -> str:
    """Where the figure is taken: processors, load and the versions that matter."""
    load = os.getloadavg()[0]
    cores = len(os.sched_getaffinity(0))
    torch = importlib.metadata.version("torch")
    return (
        f"{platform.machine()}, {cores} cores, load {load:.1f},"
        f" Python {platform.python_version()}, torch {torch}"
    )


def parse(name: str, module: ModuleType, words: list[str]) -> argparse.Namespace:
    """The options of a figure from the words behind its name."""
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.evidence {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if hasattr(module, "arguments"):
        module.arguments(parser)
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    """Run the figure that the first word names; 0 when it is reached, 2 for bad input."""
    if not words or words[0] in ("-h", "--help"):
        for name in FIGURES:
            print(f"{name:17} {question(name)}")
        return 0
    name, *rest = words
    if name not in FIGURES:
        print(f"there is no figure {name!r}; known are {', '.join(FIGURES)}.", file=sys.stderr)
        return 2
    module = importlib.import_module(f"tests.evidence.{FIGURES[name]}")
    options = parse(name, module, rest)
    print(f"{name}: {machine()}", file=sys.stderr, flush=True)
    return int(module.main(options) if hasattr(module, "arguments") else module.main())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
