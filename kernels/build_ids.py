"""Names each of our compiled kernels by what it is built from: sources, flags and compiler.

Compiles and loads nothing and imports no torch: two processes that print the same ids run the same
kernels. What is in a kernel's cache key beside this (torch's OpenMP runtime) is a package version.
"""

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path

from kernels import build
from kernels.registry import KernelUnavailable

ROOT = Path(__file__).parent


@functools.lru_cache(maxsize=1)
def compiler_version() -> str:
    """The first line of the compiler's --version; empty when there is none."""
    try:
        return build.find_compiler().version
    except KernelUnavailable:
        return ""


@functools.lru_cache(maxsize=2)
def build_ids(triton: bool = False) -> dict[str, str]:
    """`{"attention": 12 hex digits, ...}` for every .cpp here, by its folder (or its own name at
    the top); with `triton` also the GPU sources (gpu.py, gpu/, and what else imports triton), as
    `linear_lowbit.gpu`. Empty without a compiler.
    """
    ids = {}
    compiler = compiler_version()
    if compiler:
        shared = sorted(ROOT.glob("*.h"))
        for source in sorted(ROOT.rglob("*.cpp")):
            top = source.parent == ROOT
            headers = shared if top else sorted((*source.parent.glob("*.h"), *shared))
            name = source.stem if top else source.parent.name
            ids[name] = _digest((compiler, *build.FLAGS), (source, *headers))
    if triton:
        for folder in sorted(path for path in ROOT.iterdir() if path.is_dir()):
            named = {*folder.glob("gpu*.py"), *folder.glob("gpu/*.py")}
            sources = [
                file
                for file in sorted(folder.rglob("*.py"))
                if file in named or b"\nimport triton" in file.read_bytes()
            ]
            if sources:
                ids[f"{folder.name}.gpu"] = _digest((), sources)
    return ids


@functools.lru_cache(maxsize=1)
def sources_id() -> str:
    """12 hex digits of every source here, the flags and the compiler: operations take code from
    each other, and all of them from the files at the top.
    """
    sources = (file for kind in ("*.py", "*.cpp", "*.h") for file in ROOT.rglob(kind))
    return _digest((compiler_version(), *build.FLAGS), sorted(sources))


def _digest(words: tuple[str, ...], files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode() + b"\0")
    for file in files:
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
