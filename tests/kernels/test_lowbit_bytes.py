"""The predicted bytes of a quantized matrix against the tensors that the kernels keep."""

import pytest
import torch

from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.linear_lowbit.codes import bits_of
from kernels.lowbit_bytes import DenseBytes, LowBitBytes, scratch_bytes
from kernels.registry import kernels_available

SHAPES = [(1, 1), (17, 33), (40, 257), (5, 16)]
KINDS = [*(("int", bits) for bits in range(1, 9)), ("nf4", 4), ("fp4", 4), ("ternary", 2)]
RUNNING = {
    info.name
    for info, why in kernels_available("cpu")
    if info.op == "linear_lowbit" and why is None
}


@pytest.mark.parametrize("kernel", ["cpp", "torch"])
@pytest.mark.parametrize(("kind", "bits"), [*KINDS, ("binary", 1), ("e4m3", 8)])
def test_the_bytes_are_those_of_the_tensors(kernel: str, kind: str, bits: int) -> None:
    if kernel not in RUNNING:
        pytest.skip(f"{kernel} does not run here")
    for n, k in SHAPES:
        for group in (0, 16, 32, 128):
            for symmetric in (True, False) if kind == "int" else (True,):
                for scales in ("fp16", "fp32", "u8"):
                    weight = torch.randn(n, k)
                    size = group or k
                    form = quantize(weight, bits, size, kind, symmetric, scale_format=scales)
                    zero = "" if symmetric else "int8"
                    one = LowBitBytes(bits, group, kind, scales, zero)
                    held = LowBitWeight(form, kernel=kernel)
                    assert one.nbytes(n, k, kernel) == sum(t.nbytes for t in held.tensors())
                    assert one.format(k) == held.format


@pytest.mark.parametrize("bits", [3, 4, 8])
def test_with_x_of_32_bits_ours_takes_what_it_can_and_torchs_own_the_rest(bits: int) -> None:
    names = set()
    for n, k in [*SHAPES, (33, 64), (16, 128)]:
        for group in (0, 8, 16, 24, 32, 64):
            for symmetric in (True, False):
                form = quantize(torch.randn(n, k), bits, group or k, symmetric=symmetric)
                held = LowBitWeight(form, dtype=torch.float32)
                one = LowBitBytes(bits, group, zero="" if symmetric else "int8")
                if {"cpp", "torch-int4pack", "torch-int8pack"} <= RUNNING:
                    assert one.kernel_of_fp32(k) == held.kernel
                assert one.nbytes(n, k, held.kernel) == sum(t.nbytes for t in held.tensors())
                names.add(held.kernel)
    assert {"torch"} < names


@pytest.mark.parametrize(("zeros", "name"), [(0.5, "fp16"), (1 / 3, "fp32")])
def test_zeros_that_are_not_whole_take_the_format_that_holds_them(zeros: float, name: str) -> None:
    from dataclasses import replace

    form = quantize(torch.randn(20, 100), 4, 32, symmetric=False)
    form = replace(form, zero=torch.full_like(form.scale, zeros))
    one = LowBitBytes(4, 32, zero=name)
    for kernel in sorted(RUNNING & {"cpp", "torch"}):
        held = LowBitWeight(form, kernel=kernel).tensors()
        assert one.nbytes(20, 100, kernel) == sum(t.nbytes for t in held)


def test_dense_matrices_take_their_values() -> None:
    assert DenseBytes("fp32").nbytes(3, 5) == 60
    assert (DenseBytes().nbytes(3, 5), DenseBytes().format(5)) == (30, "bf16")


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="the bytes of kernel 'triton' are not known"):
        LowBitBytes(4).nbytes(1, 1, "triton")


def test_few_rows_need_no_scratch_and_many_one_tile() -> None:
    assert scratch_bytes(1000, 500, 24) == 0
    assert scratch_bytes(100, 500, 65) == 2 * 100 * (500 + 65)
    rows = (4 << 20) // (2 * 500) // 16 * 16
    assert scratch_bytes(10**6, 500, 65) == 2 * rows * (500 + 65)


def test_the_numbers_are_those_of_the_kernels() -> None:
    from kernels import lowbit_bytes
    from kernels.linear_lowbit import codes, cpu, layout, planes

    if cpu.available() is None:
        assert lowbit_bytes.writes_tiles() == (cpu.few_rows() < 1000)
    assert (lowbit_bytes.MANY_ROWS, lowbit_bytes.TILE_BYTES) == (
        cpu.ROWS_BESIDE_TORCH,
        cpu.TILE_BYTES,
    )
    assert (lowbit_bytes.ROWS, lowbit_bytes.COLUMNS) == (layout.ROWS, layout.COLUMNS)
    assert codes.DOUBLE_ROWS == lowbit_bytes.DOUBLE_ROWS
    assert planes.WIDTHS == lowbit_bytes.PLANES
    assert {kind: bits_of(kind) for kind in ("nf4", "binary")} == {"nf4": 4, "binary": 1}
