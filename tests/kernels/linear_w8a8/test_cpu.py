"""The C++ kernel, on every instruction set that this processor has, against int64 and fp64."""

from __future__ import annotations

import pytest
import torch

from kernels.linear_w8a8 import W8A8, cpu, quantize, reference
from kernels.linear_w8a8.codes import quantize_rows

NO_CPP = cpu.available()
pytestmark = [
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.skipif(NO_CPP is not None, reason=NO_CPP or ""),
]
HERE = cpu.INSTRUCTION_SETS.index(cpu.best_instruction_set()) if NO_CPP is None else 0
ISAS = cpu.INSTRUCTION_SETS[: HERE + 1]
SHAPES = [(1, 1), (1, 70), (5, 7), (16, 4), (17, 100), (33, 576), (70, 61)]
# A rounding to nearest at the end, and fp32 arithmetic before it.
TOLERANCE = {torch.bfloat16: 2**-8, torch.float32: 1e-6}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def random_codes(n: int, k: int, low: int = -128) -> torch.Tensor:
    return torch.randint(low, 128, (n, k), dtype=torch.int8)


def run(
    form: W8A8,
    x: torch.Tensor,
    isa: str | None = None,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
) -> torch.Tensor:
    out = torch.empty(len(x), form.n, dtype=x.dtype)
    cpu.Product(form, x.dtype, bias, isa).run(x, out, residual)
    return out


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 7, 8, 12, 13, 25, 40])
def test_the_sum_of_integers_is_exact(isa: str, rows: int) -> None:
    torch.manual_seed(rows)
    for n, k in SHAPES:
        codes, weight = random_codes(rows, k, -127), random_codes(n, k)
        exact = reference.product(codes, weight)
        # Two static unit scales: y is the sum itself, which fp32 holds up to 2^24.
        got = run(W8A8(weight, torch.ones(n), 1.0), codes.float(), isa)
        assert torch.equal(got.long(), exact), (n, k)


@pytest.mark.parametrize("isa", ISAS)
def test_the_largest_sums_neither_wrap_nor_saturate(isa: str) -> None:
    n, k = 18, 65536
    weight = torch.full((n, k), -128, dtype=torch.int8)
    weight[1::2] = 127
    x = torch.full((3, k), 127.0)
    x[1] = -127
    got = run(W8A8(weight, torch.full((n,), 2.0**-14), 1.0), x, isa).double() * 2**14
    exact = reference.product(x.long(), weight).double()
    assert torch.equal(got, exact.float().double())
    assert exact.abs().max() > 2**30 - 2**24


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("x_scale", [None, 0.02])
def test_scales_bias_and_residual_agree_with_fp64(
    isa: str, dtype: torch.dtype, x_scale: float | None
) -> None:
    torch.manual_seed(1)
    for rows in (1, 3, 9, 14):
        for n, k in SHAPES:
            form = quantize(torch.randn(n, k), x_scale)
            x, bias = torch.randn(rows, k).to(dtype), torch.randn(n).to(dtype)
            residual = torch.randn(rows, n).to(dtype)
            codes, scales = quantize_rows(x, x_scale)
            exact = reference.linear(codes, scales, form, bias) + residual.double()
            got = run(form, x, isa, bias, residual).double()
            size = exact.abs() + bias.double().abs() + residual.double().abs() + k**0.5 / 8
            assert ((got - exact).abs() / size).max() < TOLERANCE[dtype], (rows, n, k)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_x_is_rounded_to_the_nearest_code(isa: str, dtype: torch.dtype) -> None:
    # An identity as the weight gives the codes back.
    k = 37
    form = W8A8(torch.eye(k, dtype=torch.int8), torch.ones(k), None)
    x = torch.randn(6, k).to(dtype)
    codes, scales = reference.quantize_rows(x, None)
    got = run(form, x, isa).double() / scales[:, None]
    assert (got - codes).abs().max() < 127 * TOLERANCE[dtype]
    assert codes.abs().amax(dim=1).tolist() == [127] * 6


def test_halves_go_to_the_even_code() -> None:
    values = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.0]
    form = W8A8(torch.eye(7, dtype=torch.int8), torch.ones(7))
    assert run(form, torch.tensor([values]))[0].tolist() == [0, 2, 2, 0, -2, 126, 127]


@pytest.mark.parametrize("isa", ISAS)
def test_a_fixed_scale_saturates_at_127_on_both_sides(isa: str) -> None:
    form = W8A8(torch.eye(5, dtype=torch.int8), torch.ones(5), 0.5)
    x = torch.tensor([[63.5, 63.9, 1e30, -1e30, -63.75]])
    assert run(form, x, isa)[0].tolist() == [63.5, 63.5, 63.5, -63.5, -63.5]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("x_scale", [None, 0.1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_makes_its_own_row_nan_and_no_other(
    isa: str, x_scale: float | None, bad: float
) -> None:
    form = quantize(torch.randn(20, 33), x_scale)
    for dtype in TOLERANCE:
        x = torch.randn(4, 33).to(dtype)
        clean = run(form, x, isa)
        x[2, 32] = bad
        got = run(form, x, isa)
        assert got[2].isnan().all()
        x[2] = 0
        assert torch.equal(got[[0, 1, 3]], clean[[0, 1, 3]])


@pytest.mark.parametrize("isa", ISAS)
def test_zero_and_tiny_rows_give_the_bias(isa: str) -> None:
    form, bias = quantize(torch.randn(9, 12)), torch.randn(9)
    x = torch.zeros(3, 12)
    x[1, 4], x[2] = 1e-35, -1e-38
    got = run(form, x, isa, bias)
    assert torch.equal(got, bias.expand(3, -1))


@pytest.mark.parametrize("isa", ISAS)
def test_columns_apart_are_read_out_and_left_out(isa: str) -> None:
    torch.manual_seed(2)
    for dtype in TOLERANCE:
        for columns in ([0], [36], [0, 1, 2, 17, 36], list(range(36))):
            apart = torch.tensor(columns, dtype=torch.int32)
            form = quantize(torch.randn(21, 37), None, apart)
            x = torch.randn(5, 37).to(dtype)
            x[:, columns] = torch.tensor([1e4, float("inf"), -3, float("nan"), 7]).to(dtype)[
                :, None
            ]
            product = cpu.Product(form, dtype, None, isa)
            seen, out = torch.empty(5, len(columns), dtype=dtype), torch.empty(5, 21, dtype=dtype)
            product.run(x, out, None, seen)
            assert torch.equal(seen.nan_to_num(9), x[:, columns].nan_to_num(9))
            codes, scales = quantize_rows(x.index_fill(1, apart.long(), 0))
            exact = reference.linear(codes, scales, form)
            assert ((out.double() - exact).abs() / (exact.abs() + 1)).max() < TOLERANCE[dtype]
            again = torch.empty_like(out)
            product.run(x, again)
            assert torch.equal(again, out)


def test_the_form_comes_back_as_it_was() -> None:
    for n, k in SHAPES:
        for apart in (None, torch.tensor([k - 1], dtype=torch.int32)):
            if apart is not None and k == 1:
                continue
            form = quantize(torch.randn(n, k), 0.25, apart)
            back = cpu.Product(form, torch.float32, None).undo()
            assert torch.equal(back.codes, form.codes)
            assert torch.equal(back.scale, form.scale)
            assert back.x_scale == 0.25
            assert (back.apart is None) == (apart is None)


def test_rows_and_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    form, x = quantize(torch.randn(203, 512)), torch.randn(29, 512).bfloat16()
    outs = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        outs.append(run(form, x))
    torch.set_num_threads(before)
    outs.append(torch.cat([run(form, row[None]) for row in x]))
    assert all(torch.equal(outs[0], out) for out in outs[1:])


def test_every_instruction_set_gives_the_same_integers() -> None:
    form, x = quantize(torch.randn(50, 130)), torch.randn(14, 130).bfloat16()
    outs = [run(form, x, isa).float() for isa in ISAS]
    for out in outs[1:]:
        assert torch.allclose(out, outs[0], rtol=2**-7)
