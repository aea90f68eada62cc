"""Compiles a kernel's .cpp once into the user's cache and loads it.

Owns: finding a compiler, the cache (XDG_CACHE_HOME or ~/.cache, then trimtab/kernels) and the link
against the OpenMP runtime that torch bundles: two runtimes in one process would keep two pools of
threads that spin against each other. Knows nothing of what a kernel computes.

No -march: a library in the cache may be run by another machine. Sources mark functions with
`__attribute__((target("avx512f,...")))` and choose with `__builtin_cpu_supports` at run time.
Without a bundled libgomp, or with a compiler that is not GCC, OpenMP pragmas are ignored and a
kernel runs on one thread: correct, only slower.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kernels.registry import KernelUnavailable

COMPILERS = ("g++", "clang++", "c++")
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-Wall")
COMPILE_SECONDS = 300
# Headers that any kernel may include by name.
SHARED_HEADERS = Path(__file__).parent

_lock = threading.Lock()
_loaded: dict[str, ctypes.CDLL] = {}


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler: its path, the text of --version, and whether it is GCC."""

    path: str
    version: str
    is_gcc: bool


def load(source: str | os.PathLike[str], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Compile `source` (a .cpp file) unless the cache holds it, and load it.

    Raises KernelUnavailable with one sentence when there is no compiler, the compilation fails
    (with the compiler's first error) or the cache cannot be written.
    """
    # torch must be loaded first: its OpenMP runtime is the one we resolve against.
    import torch  # noqa: F401

    path = Path(source)
    compiler = find_compiler()
    gomp = torch_openmp()
    options = (*FLAGS, *flags)
    target = cache_folder() / f"{path.stem}-{_key(path, compiler, gomp, options)}.so"
    with _lock:
        library = _loaded.get(str(target))
        if library is None:
            library = _open_or_build(path, target, compiler, gomp, options)
            _loaded[str(target)] = library
        return library


def why_not(library: Callable[[], object]) -> str | None:
    """None when `library`, which calls `load`, works here, else its sentence."""
    try:
        library()
    except KernelUnavailable as error:
        return str(error)
    return None


def cache_folder() -> Path:
    """The folder of compiled kernels; it need not exist."""
    root = os.environ.get("XDG_CACHE_HOME") or ""
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "trimtab" / "kernels"


def find_compiler() -> Compiler:
    """The first compiler of COMPILERS on PATH. Raises KernelUnavailable when there is none."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path:
            try:
                return _describe(path)
            except (OSError, subprocess.SubprocessError):
                continue
    names = ", ".join(COMPILERS)
    raise KernelUnavailable(
        f"needs a C++ compiler, and none of {names} is on PATH; "
        "install one (Debian: apt install g++)"
    )


@functools.lru_cache(maxsize=8)
def _describe(path: str) -> Compiler:
    done = subprocess.run(
        [path, "--version"], capture_output=True, encoding="utf-8", errors="replace",
        timeout=30, check=True,
    )  # fmt: skip
    first = done.stdout.strip().splitlines()[0] if done.stdout.strip() else path
    return Compiler(path, first, "Free Software Foundation" in done.stdout)


def torch_openmp() -> Path | None:
    """The libgomp file that torch bundles or has loaded, or None."""
    import torch

    package = Path(torch.__file__).resolve().parent
    for folder in (package / "lib", package.parent / "torch.libs"):
        bundled = sorted(folder.glob("libgomp*.so*")) if folder.is_dir() else []
        if bundled:
            return bundled[0]
    with contextlib.suppress(OSError):
        for line in os.fsdecode(Path("/proc/self/maps").read_bytes()).splitlines():
            name = line.split(maxsplit=5)[-1]
            if re.search(r"/libgomp[^/]*\.so[^/]*$", name) and Path(name).exists():
                return Path(name)
    return None


def _key(path: Path, compiler: Compiler, gomp: Path | None, options: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    runtime = f"{gomp}:{gomp.stat().st_size}" if gomp else "none"
    for part in (compiler.path, compiler.version, runtime, *options):
        digest.update(os.fsencode(part) + b"\0")
    for file in _included(path):
        digest.update(file.read_bytes() + b"\0")
    return digest.hexdigest()[:20]


def _included(path: Path) -> list[Path]:
    """The source and our headers that it includes, directly or not."""
    files = [path.resolve()]
    for file in files:
        text = file.read_text(encoding="utf-8")
        for name in re.findall(r'^#include "(.+)"', text, re.MULTILINE):
            for folder in (file.parent, SHARED_HEADERS):
                header = (folder / name).resolve()
                if header.is_file() and header not in files:
                    files.append(header)
    return files


def _open_or_build(
    path: Path, target: Path, compiler: Compiler, gomp: Path | None, options: tuple[str, ...]
) -> ctypes.CDLL:
    if target.exists():
        # A damaged file in the cache is simply built again.
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(target))
    _compile(path, target, compiler, gomp, options)
    try:
        return ctypes.CDLL(str(target))
    except OSError as error:
        raise KernelUnavailable(
            f"{path.name} was compiled but cannot be loaded: {error}"
        ) from error


def _compile(
    path: Path, target: Path, compiler: Compiler, gomp: Path | None, options: tuple[str, ...]
) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        scratch = tempfile.mkdtemp(prefix=f".{path.stem}-", dir=target.parent)
    except OSError as error:
        raise KernelUnavailable(
            f"the kernel cache {target.parent} cannot be written ({error.strerror}); "
            "set XDG_CACHE_HOME to a folder that can"
        ) from error
    try:
        object_file, library = f"{scratch}/kernel.o", f"{scratch}/kernel.so"
        threads = ("-fopenmp",) if gomp and compiler.is_gcc else ("-Wno-unknown-pragmas",)
        include = f"-I{SHARED_HEADERS}"
        _run([compiler.path, *options, *threads, include, "-c", str(path), "-o", object_file], path)
        # Linked without -fopenmp, which would add the system's own libgomp.
        runtime = [str(gomp), f"-Wl,-rpath,{gomp.parent}"] if gomp and compiler.is_gcc else []
        _run([compiler.path, "-shared", object_file, *runtime, "-o", library], path)
        os.replace(library, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str], path: Path) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=COMPILE_SECONDS,
            env=os.environ | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelUnavailable(f"{path.name} could not be compiled: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "error:" in line] or lines or ["no message"]
        raise KernelUnavailable(f"{path.name} could not be compiled by {command[0]}: {errors[0]}")
