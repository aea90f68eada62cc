"""The number formats are stated once, and say what torch and the files say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from kernels import dtypes
from tests.structure.dtypes import dtype_tables, tables

ROOT = Path(__file__).parents[2]


def test_bytes_and_names_are_those_of_torch() -> None:
    for one in dtypes.DTYPES:
        dtype = dtypes.as_torch(one.name)
        assert dtype.itemsize == one.bytes
        assert dtypes.of_torch(dtype) is one
    assert list(dtypes.FLOAT_OF) == [str(dtypes.as_torch(name)) for name in dtypes.FLOATS]


def test_the_words_of_files_are_those_of_safetensors(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = {one.file: torch.zeros(1, dtype=dtypes.as_torch(one.name)) for one in dtypes.DTYPES}
    save_file(tensors, tmp_path / "all.safetensors")
    with safe_open(str(tmp_path / "all.safetensors"), "pt") as file:
        for name in tensors:
            assert file.get_slice(name).get_dtype() == name


def test_no_other_module_has_a_table_of_number_formats() -> None:
    assert dtype_tables(ROOT, ("app", "core", "kernels", "store")) == []


def test_a_table_is_seen_however_its_keys_are_written() -> None:
    assert tables('a = {"fp32": 4, "bf16": 2}') == [1]
    assert tables("a = {torch.float32: 0, None: 1, torch.float16: 2}") == [1]
    assert tables('a = {"F32": 4, "I8": 1}') == []


def test_importing_the_formats_imports_no_torch() -> None:
    code = "import sys, kernels.dtypes; print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert shown.stdout.strip() == "False"
