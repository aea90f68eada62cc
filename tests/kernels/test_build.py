from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import build, calls
from kernels.registry import KernelUnavailable, select

SOURCE = '#include "answer.h"\nextern "C" int answer() { return 42; }\n'
ROOT = Path(build.__file__).parents[1]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small .cpp and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "kernel" / "answer.cpp"
    path.parent.mkdir()
    path.write_text(SOURCE)
    path.with_name("answer.h").write_text('#include "../question.h"\n')
    (tmp_path / "question.h").write_text("// of another kernel\n")
    path.with_name("other.h").write_text("// of nobody\n")
    return path


def libraries() -> list[Path]:
    return sorted(build.cache_folder().glob("*"))


def test_a_source_is_compiled_into_the_users_cache(source: Path, tmp_path: Path) -> None:
    assert build.load(source).answer() == 42
    (only,) = libraries()
    assert only.parent == tmp_path / "cache" / "trimtab" / "kernels"
    assert only.name.startswith("answer-")


def test_the_cache_is_used_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.load(source)
    monkeypatch.setattr(build, "_loaded", {})

    def no_compiler(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build, "_compile", no_compiler)
    assert build.load(source).answer() == 42


def test_another_source_header_or_flag_is_another_library(source: Path) -> None:
    build.load(source)
    source.write_text(SOURCE.replace("42", "43"))
    assert build.load(source).answer() == 43
    build.load(source, flags=("-DX=1",))
    (source.parent / "answer.h").write_text('// changed\n#include "../question.h"\n')
    build.load(source)
    (source.parent.parent / "question.h").write_text("// changed\n")
    build.load(source)
    assert len(libraries()) == 5
    (source.parent / "other.h").write_text("// changed\n")
    build.load(source)
    assert len(libraries()) == 5


def test_a_damaged_library_is_built_again(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build.load(source, flags=("-DDAMAGED",))
    (only,) = libraries()
    # A new file: the old one is mapped into this process.
    only.unlink()
    only.write_bytes(b"not a library")
    monkeypatch.setattr(build, "_loaded", {})
    assert build.load(source, flags=("-DDAMAGED",)).answer() == 42


def test_two_processes_may_build_at_once(source: Path) -> None:
    code = f"from kernels import build; assert build.load({str(source)!r}).answer() == 42"
    both = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT) for _ in range(2)
    ]
    assert [one.wait(120) for one in both] == [0, 0]
    assert len(libraries()) == 1


def test_a_compile_error_is_told_in_one_sentence(source: Path) -> None:
    source.write_text('extern "C" int answer() { return nonsense; }\n')
    with pytest.raises(KernelUnavailable) as error:
        build.load(source)
    assert "answer.cpp could not be compiled" in str(error.value)
    assert "nonsense" in str(error.value)
    assert "\n" not in str(error.value)
    assert libraries() == []


def test_without_a_compiler_the_sentence_says_how_to_get_one(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KernelUnavailable, match=r"none of g\+\+, clang\+\+, c\+\+ is on PATH"):
        build.load(source)


def test_a_cache_that_cannot_be_written_is_named(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(KernelUnavailable, match="XDG_CACHE_HOME"):
        build.load(source)


def test_a_relative_cache_variable_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert build.cache_folder() == Path.home() / ".cache" / "trimtab" / "kernels"


@pytest.mark.usefixtures("fresh")
def test_without_a_compiler_the_dense_layer_runs_on_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from kernels.linear_dense import cpu, linear

    cpu._library.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weight = torch.ones(4, 8, dtype=torch.bfloat16)
    assert linear(weight[:1], weight).tolist() == [[8.0] * 4]
    assert calls.snapshot() == [{"op": "linear_dense", "name": "torch", "calls": 1}]
    with pytest.raises(KernelUnavailable, match=r"gemv-bf16 needs a C\+\+ compiler"):
        select("linear_dense", "cpu", "bf16", explicit="gemv-bf16")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="Linux only")
def test_only_one_openmp_runtime_is_in_the_process() -> None:
    code = """
import json, torch
from kernels.linear_dense.cpu import Gemv
torch.set_num_threads(2)
weight = torch.randn(512, 512).bfloat16()
out = torch.empty(1, 512).bfloat16()
Gemv(weight, None).run(weight[:1], out, 1)
torch.randn(512, 512) @ torch.randn(512, 512)
files = {line.split(maxsplit=5)[-1].strip() for line in open("/proc/self/maps")}
print(json.dumps([name for name in files if "omp" in name.rsplit("/", 1)[-1]]))
print(any("/trimtab/kernels/cpu-" in name for name in files))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    runtimes, ours = done.stdout.splitlines()
    assert ours == "True"
    assert len(json.loads(runtimes)) == 1, runtimes
    assert str(build.torch_openmp()) in runtimes
