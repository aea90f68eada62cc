"""The C++ kernel of packed codes: every instruction set of this processor against fp64."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from kernels import calls
from kernels.linear_lowbit import cpu, quantize, reference
from kernels.linear_lowbit.codes import LowBit
from kernels.program import Program
from kernels.registry import KernelUnavailable

NO_COMPILER = cpu.available()
pytestmark = [
    pytest.mark.usefixtures("poisoned", "fresh"),
    pytest.mark.skipif(NO_COMPILER is not None, reason=NO_COMPILER or ""),
]

HERE = cpu.INSTRUCTION_SETS.index(cpu.best_instruction_set()) if NO_COMPILER is None else 0
SETS = cpu.INSTRUCTION_SETS[: HERE + 1]
KINDS = [("int", bits) for bits in range(1, 9)] + [
    ("nf4", 4), ("fp4", 4), ("ternary", 2), ("binary", 1), ("e4m3", 8), ("e5m2", 8)
]  # fmt: skip
WHOLE_ROW = 1 << 20
# n, k, group: one weight, k below a block, odd k, k no multiple of the group, halves of a block.
SHAPES = [(1, 1, 32), (5, 7, WHOLE_ROW), (17, 33, 32), (33, 577, 128), (19, 50, 16), (16, 64, 64)]
# The levels of NF4 are rounded to bf16.
TOLERANCE = {"nf4": 8e-3}


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def forms(n: int, k: int, group: int) -> Iterator[LowBit]:
    """Each kind and width, symmetric and not."""
    for kind, bits in KINDS:
        for symmetric in (True, False) if kind == "int" else (True,):
            yield quantize(random(n, k, seed=bits), bits, group, kind, symmetric)


def product(
    form: LowBit,
    x: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    isa: str | None = None,
) -> torch.Tensor:
    out = torch.empty(x.shape[0], form.n, dtype=torch.bfloat16)
    cpu.Product(cpu.lay_out(form), bias, isa).run(x, out, x.shape[0], residual)
    return out


def error(got: torch.Tensor, exact: torch.Tensor, k: int) -> float:
    """The largest error relative to the size that a sum of k products has."""
    assert got.shape == exact.shape
    return float(((got.double() - exact).abs() / (exact.abs() + k**0.5)).max())


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("n", "k", "group"), SHAPES)
def test_every_instruction_set_agrees_with_fp64(isa: str, n: int, k: int, group: int) -> None:
    bias = random(n, seed=1).bfloat16()
    for i, form in enumerate(forms(n, k, group)):
        # Each number of rows with many kinds, and more than meet a block of the weight at once.
        for rows in {1, 1 + i % 9, 13, 50 if i % 5 == 0 else 2}:
            x, residual = random(rows, k, seed=2).bfloat16(), random(rows, n, seed=3).bfloat16()
            exact = reference.linear(x, form, bias) + residual.double()
            got = product(form, x, bias, residual, isa)
            assert error(got, exact, k) < TOLERANCE.get(form.kind, 5e-3), (form.format, rows)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 48, 49])
def test_every_number_of_rows_is_right(isa: str, rows: int) -> None:
    x = random(rows, 100, seed=rows).bfloat16()
    for bits, group in ((4, 32), (8, WHOLE_ROW), (6, 16)):
        form = quantize(random(37, 100), bits, group, symmetric=bits != 6)
        assert error(product(form, x, isa=isa), reference.linear(x, form), 100) < 5e-3


@pytest.mark.parametrize("isa", SETS)
def test_rows_of_the_identity_read_every_weight_exactly(isa: str) -> None:
    for n, k, group in ((17, 40, 32), (16, 48, 16), (3, 70, WHOLE_ROW)):
        for form in forms(n, k, group):
            if form.kind == "nf4":
                continue
            read = product(form, torch.eye(k).bfloat16(), isa=isa)
            assert torch.equal(read.T, form.dequantize().bfloat16()), form.format


@pytest.mark.parametrize("scale_format", ["fp16", "fp32", "u8"])
def test_the_form_comes_back_bit_for_bit(scale_format: str) -> None:
    for n, k, group in (*SHAPES, (1030, 40, 32)):
        for kind, bits in KINDS:
            form = quantize(random(n, k), bits, group, kind, scale_format=scale_format)
            same(cpu.undo(cpu.lay_out(form)), form)


@pytest.mark.parametrize(
    ("zero", "stored"),
    [(3.0, torch.int8), (8.0, torch.int8), (0.25, torch.float16), (0.1, torch.float32),
     (-500.0, torch.float16), (70001.5, torch.float32)],
)  # fmt: skip
@pytest.mark.parametrize("bits", [3, 7, 8])
@pytest.mark.parametrize("isa", SETS)
def test_zeros_of_any_kind_are_kept_and_used(
    isa: str, bits: int, zero: float, stored: torch.dtype
) -> None:
    codes = torch.randint(0, 2**bits, (18, 70), dtype=torch.uint8)
    zeros = torch.full((18, 3), zero)
    zeros[0, 1] = 2
    form = LowBit(codes, random(18, 3).half().float(), zeros, bits, 32)
    packed = cpu.lay_out(form)
    assert packed.zero is not None
    assert packed.zero.dtype is stored
    same(cpu.undo(packed), form)
    x = random(3, 70).bfloat16()
    # fp32 sums of numbers as large as the zeros are cancelled.
    large = max(1.0, abs(zero)) * 70**0.5
    got, exact = product(form, x, isa=isa).double(), reference.linear(x, form)
    assert ((got - exact).abs() <= 5e-3 * exact.abs() + 1e-5 * large * 70**0.5).all()


def same(back: LowBit, form: LowBit) -> None:
    assert torch.equal(back.codes, form.codes)
    assert torch.equal(back.scale, form.scale)
    assert (back.zero is None) == (form.zero is None)
    assert form.zero is None or torch.equal(back.zeros(), form.zero)
    assert (back.kind, back.bits, back.group_size) == (form.kind, form.bits, form.group_size)
    assert back.scale_format == form.scale_format
    assert torch.equal(back.dequantize(), form.dequantize())


@pytest.mark.parametrize("isa", SETS)
def test_doubly_quantized_scales_are_expanded(isa: str) -> None:
    x = random(3, 300, seed=1).bfloat16()
    for kind, bits in (("nf4", 4), ("int", 8)):
        form = quantize(random(50, 300), bits, 64, kind, scale_format="u8")
        exact = reference.linear(x, form)
        assert error(product(form, x, isa=isa), exact, 300) < TOLERANCE.get(kind, 5e-3)


@pytest.mark.parametrize("isa", SETS)
def test_unpacked_rows_are_the_weight_in_bf16(isa: str) -> None:
    for n, k, group in ((50, 70, 32), (33, 31, 16), (16, 64, WHOLE_ROW)):
        for form in forms(n, k, group):
            packed, exact = cpu.lay_out(form), form.dequantize().bfloat16()
            for begin, end in ((0, n), (16, n), (0, 16), (16, 16)):
                out = torch.empty(end - begin, k, dtype=torch.bfloat16)
                cpu.unpack_rows(packed, begin, end, out, isa)
                if form.kind == "nf4":
                    torch.testing.assert_close(out, exact[begin:end], rtol=1e-2, atol=0)
                else:
                    assert torch.equal(out, exact[begin:end]), form.format


def test_rows_that_cannot_be_unpacked_are_refused() -> None:
    packed, out = cpu.lay_out(quantize(random(40, 32), 4, 32)), torch.empty(40, 32).bfloat16()
    for begin, end in ((8, 40), (0, 41), (32, 16)):
        with pytest.raises(ValueError, match="multiple of 16 in range"):
            cpu.unpack_rows(packed, begin, end, out)


def test_many_rows_through_tiles_of_bf16_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "TILE_BYTES", 32 * 2 * 70)
    form, bias = quantize(random(150, 70), 4, 32), random(150, seed=1).bfloat16()
    x = random(65, 70, seed=2).bfloat16()
    got = cpu.matmul_many(x, cpu.lay_out(form), bias)
    # The weight is rounded to bf16 once more here.
    assert error(got, reference.linear(x, form, bias), 70) < 1e-2


def test_threads_change_nothing() -> None:
    before, form = torch.get_num_threads(), quantize(random(203, 2048), 4, 32)
    outs, x = [], random(3, 2048).bfloat16()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        outs.append(product(form, x))
    torch.set_num_threads(before)
    assert all(torch.equal(outs[0], out) for out in outs)


def test_bound_products_run_in_a_program_and_are_counted() -> None:
    form, bias = quantize(random(64, 64), 4, 32), random(64, seed=1).bfloat16()
    x, y = random(2, 64).bfloat16(), random(2, 64, seed=3).bfloat16()
    one = cpu.Product(cpu.lay_out(form), bias)
    twice = product(form, product(form, x, bias, y), bias)
    # The first writes over its own residual.
    last = torch.empty_like(y)
    Program([one.bind(x, y, 2, y), one.bind(y, last, 2)])()
    assert torch.equal(last, twice)
    assert calls.snapshot() == [{"op": "linear_lowbit", "name": "cpp", "calls": 2}]


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("k", [31, 33, 64, 65])
def test_nothing_beyond_the_columns_of_x_is_read(isa: str, k: int) -> None:
    around = torch.full((4 * k + 64,), float("nan"), dtype=torch.bfloat16)
    for rows in (1, 3):
        around[: rows * k] = random(rows * k).bfloat16()
        x = around[: rows * k].view(rows, k)
        for bits, group in ((4, 32), (8, WHOLE_ROW)):
            form = quantize(random(5, k), bits, group)
            assert error(product(form, x, isa=isa), reference.linear(x, form), k) < 5e-3


@pytest.mark.parametrize("isa", SETS)
def test_numbers_that_are_not_finite_stay_in_their_row_of_x(isa: str) -> None:
    form, x = quantize(random(20, 64), 8, WHOLE_ROW), random(5, 64).bfloat16()
    clean = product(form, x, isa=isa)
    x[1, 3], x[3, 60] = float("nan"), float("inf")
    got = product(form, x, isa=isa)
    assert got[1].isnan().all()
    assert not got[3].isfinite().any()
    assert torch.equal(got[[0, 2, 4]], clean[[0, 2, 4]])


@pytest.mark.parametrize("isa", SETS)
def test_zero_and_constant_rows_are_exact(isa: str) -> None:
    weight = torch.zeros(18, 64)
    weight[2], weight[17] = 0.5, -3.0
    x = torch.randint(-2, 3, (2, 64), generator=torch.Generator().manual_seed(0)).bfloat16()
    for bits in (2, 4, 8):
        for symmetric in (True, False):
            form = quantize(weight, bits, 32, symmetric=symmetric, scale_format="fp32")
            got = product(form, x, isa=isa)
            assert (got[:, [0, 1, 16]] == 0).all()
            torch.testing.assert_close(got, (x.float() @ form.dequantize().T).bfloat16())


@pytest.mark.parametrize(("kind", "bits"), KINDS)
def test_the_codes_take_their_bits_and_no_more(kind: str, bits: int) -> None:
    packed = cpu.lay_out(quantize(random(64, 256), bits, 64, kind))
    assert packed.codes.nbytes == 64 * 256 * (8 if bits == 7 else bits) // 8
    assert packed.scale.nbytes == 64 * 4 * 2
    assert packed.nbytes == sum(one.nbytes for one in packed.tensors())


def test_what_the_layout_cannot_hold_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match="group_size 48 does not fit the CPU layout"):
        cpu.lay_out(quantize(random(4, 96), 4, 48))
    codes = torch.zeros(1, 32, dtype=torch.uint8)
    with pytest.raises(ValueError, match="numbers that fp16 cannot"):
        cpu.lay_out(LowBit(codes, torch.full((1, 1), 0.1), None, 4, 32))


def test_an_instruction_set_that_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = cpu.lay_out(quantize(random(4, 32), 4, 32))
    old = SimpleNamespace(lowbit_best_isa=lambda: cpu.INSTRUCTION_SETS.index("avx2"))
    monkeypatch.setattr(cpu, "_library", lambda: old)
    with pytest.raises(KernelUnavailable, match="has no avx512_bf16 instructions"):
        cpu.Product(packed, None, "avx512_bf16")
