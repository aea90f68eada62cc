"""Build ids change with sources, headers, flags and compiler, and with nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from kernels import build, build_ids


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "add").mkdir()
    (tmp_path / "top.cpp").write_text("int a;")
    (tmp_path / "shared.h").write_text("// shared")
    (tmp_path / "add/cpu.cpp").write_text("int b;")
    (tmp_path / "add/own.h").write_text("// own")
    (tmp_path / "add/gpu.py").write_text("# triton")
    (tmp_path / "add/gpu_code.py").write_text("# its device code")
    (tmp_path / "add/device.py").write_text("import triton\n\nimport triton.language as tl\n")
    (tmp_path / "add/__init__.py").write_text("# checks and chooses")
    monkeypatch.setattr(build_ids, "ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def forget() -> None:
    build_ids.build_ids.cache_clear()
    build_ids.compiler_version.cache_clear()
    build_ids.sources_id.cache_clear()


def test_every_source_has_an_id_of_its_own(sources: Path) -> None:
    found = build_ids.build_ids()
    assert set(found) == {"top", "add"}
    assert len(set(found.values())) == 2
    assert set(build_ids.build_ids(triton=True)) == {"top", "add", "add.gpu"}


@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("shared.h", {"top", "add"}),
        ("add/own.h", {"add"}),
        ("add/cpu.cpp", {"add"}),
        ("top.cpp", {"top"}),
        ("add/gpu.py", {"add.gpu"}),
        ("add/gpu_code.py", {"add.gpu"}),
        ("add/device.py", {"add.gpu"}),
        ("add/__init__.py", set()),
    ],
)
def test_a_changed_file_changes_what_is_built_from_it(
    sources: Path, file: str, changed: set[str]
) -> None:
    before = build_ids.build_ids(triton=True)
    (sources / file).write_text("another")
    forget()
    after = build_ids.build_ids(triton=True)
    assert {name for name in before if before[name] != after[name]} == changed


def test_flags_and_compiler_change_the_id(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = build_ids.build_ids()
    monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
    forget()
    assert build_ids.build_ids() != before
    monkeypatch.undo()
    monkeypatch.setattr(build_ids, "ROOT", sources)
    forget()
    assert build_ids.build_ids() == before
    monkeypatch.setattr(build, "find_compiler", lambda: build.Compiler("/x", "x 1.0", False))
    forget()
    assert build_ids.build_ids() != before


def test_without_a_compiler_nothing_is_built(
    sources: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "COMPILERS", ("no-such-compiler",))
    forget()
    assert build_ids.compiler_version() == ""
    assert build_ids.build_ids() == {}


def test_asking_imports_no_torch() -> None:
    code = (
        "import sys; from kernels.build_ids import build_ids; assert build_ids();"
        "print('torch' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("file", ["shared.h", "top.cpp", "add/own.h", "add/__init__.py", "new.py"])
def test_any_source_changes_the_id_of_all(sources: Path, file: str) -> None:
    before = build_ids.sources_id()
    (sources / file).write_text("another")
    forget()
    assert build_ids.sources_id() != before


def test_device_code_of_any_name_is_in_an_id(monkeypatch: pytest.MonkeyPatch) -> None:
    files: set[str] = set()

    def digest(words: tuple[str, ...], read: Iterable[Path]) -> str:
        files.update(f"{file.parent.name}/{file.name}" for file in read)
        return ""

    monkeypatch.setattr(build_ids, "_digest", digest)
    forget()
    build_ids.build_ids(triton=True)
    forget()
    assert {f"attention/{name}.py" for name in ("append", "device", "kv_encode", "kv_gpu")} <= files
    assert {"gpu/tiles.py", "linear_fp8/gpu_rows.py", "rms_norm/gpu.py"} <= files
