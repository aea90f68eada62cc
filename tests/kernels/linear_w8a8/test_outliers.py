"""LLM.int8(): a few columns in floats, the others in int8, by the two operations' own kernels."""

from __future__ import annotations

import pytest
import torch

from kernels import calls
from kernels.linear_w8a8 import W8A8Weight, cpu, quantize
from kernels.linear_w8a8.outliers import OutlierWeight
from kernels.program import BoundCalls, join

pytestmark = pytest.mark.usefixtures("poisoned", "fresh")
NO_CPP = cpu.available()
needs_cpp = pytest.mark.skipif(NO_CPP is not None, reason=NO_CPP or "")
DTYPES = [torch.bfloat16, torch.float32, torch.float16]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def planted(rows: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x whose columns 5 and 40 are a hundred times larger, a weight, and the columns."""
    random = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 96, generator=random)
    x[:, [5, 40]] *= 100
    weight = torch.randn(70, 96, generator=random) / 10
    return x.to(dtype), weight, torch.tensor([5, 40])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_planted_outlier_spoils_plain_int8_only(dtype: torch.dtype, rows: int) -> None:
    x, weight, columns = planted(rows, dtype)
    exact = x.double() @ weight.double().T
    bias = torch.randn(70).to(dtype)
    plain = W8A8Weight(quantize(weight), bias, dtype)(x).double() - bias.double() - exact
    split = OutlierWeight.of(weight, columns, bias, dtype)(x).double() - bias.double() - exact
    # bf16 itself rounds outputs of this size by about 0.1; plain int8 is off by far more.
    limit = {torch.bfloat16: 2, torch.float16: 5, torch.float32: 5}[dtype]
    assert split.norm() * limit < plain.norm()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dequantized_matrix_has_the_columns_as_they_were(dtype: torch.dtype) -> None:
    _, weight, columns = planted(1, dtype)
    found = OutlierWeight.of(weight, columns, None, dtype)
    assert torch.equal(found.dequantize()[:, columns], weight[:, columns].to(dtype).float())
    rest = [j for j in range(96) if j not in (5, 40)]
    steps = weight[:, rest].abs().amax(dim=1) / 127
    wrong = (found.dequantize()[:, rest] - weight[:, rest]).abs()
    assert (wrong <= steps[:, None] * 0.501).all()
    assert found.format == "llm-int8"


@needs_cpp
def test_the_columns_are_stored_once() -> None:
    _, weight, columns = planted(1, torch.bfloat16)
    found = OutlierWeight.of(weight, columns)
    kept = sum(tensor.nbytes for tensor in found.tensors())
    # 94 columns of 70 rows in blocks of 16 x 4, 2 in bf16, scales, and the columns' numbers.
    assert kept == 80 * 96 + 70 * 2 * 2 + 70 * 4 + 2 * (4 + 8)


@needs_cpp
@pytest.mark.parametrize("rows", [1, 2, 9])
def test_a_bound_step_runs_both_kernels_and_gives_the_same(rows: int) -> None:
    x, weight, columns = planted(rows, torch.bfloat16)
    found = OutlierWeight.of(weight, columns, torch.randn(70).bfloat16())
    wanted = found(x)
    assert found.kernel == "cpp+gemv-bf16"
    calls.reset()
    out = torch.empty(rows, 70).bfloat16()
    step = found.bind(x, out)
    assert isinstance(step, BoundCalls)
    programs = join([step])
    assert len(programs) == 1
    programs[0]()
    assert torch.equal(out, wanted)
    assert calls.snapshot() == [
        {"op": "linear_dense", "name": "gemv-bf16", "calls": 1},
        {"op": "linear_w8a8", "name": "cpp", "calls": 1},
    ]
    residual = torch.randn(rows, 70).bfloat16()
    stream = residual.clone()
    found.bind(x, stream, stream)()
    assert torch.allclose(stream.float(), (wanted + residual).float(), rtol=2**-6, atol=0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_in_other_formats_gives_the_same(dtype: torch.dtype) -> None:
    x, weight, columns = planted(3, dtype)
    found = OutlierWeight.of(weight, columns, None, dtype)
    out = torch.empty(3, 70, dtype=dtype)
    found.bind(x, out)()
    assert torch.allclose(out, found(x), rtol=1e-3, atol=1e-3)


def test_no_rows_give_no_rows() -> None:
    _, weight, columns = planted(1, torch.bfloat16)
    assert OutlierWeight.of(weight, columns)(torch.empty(2, 0, 96).bfloat16()).shape == (2, 0, 70)


def test_parts_that_do_not_fit_are_refused() -> None:
    _, weight, columns = planted(1, torch.bfloat16)
    form = quantize(weight, None, columns.int())
    same = OutlierWeight(form, weight[:, columns])
    assert torch.equal(same.dequantize()[:, columns], weight[:, columns])
    for bad, dense in ((form, weight[:, :3]), (quantize(weight), weight[:, columns])):
        with pytest.raises(ValueError, match="70 rows and the form's columns apart"):
            OutlierWeight(bad, dense)
