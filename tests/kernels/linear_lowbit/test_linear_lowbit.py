"""The product on packed codes: every kernel that runs here against fp64."""

from __future__ import annotations

import pytest
import torch

from kernels import calls, registry
from kernels.linear_lowbit import LowBitWeight, planes, quantize, reference
from kernels.linear_lowbit.codes import LowBit

KINDS = [("int", bits) for bits in range(1, 9)] + [
    ("nf4", 4), ("fp4", 4), ("ternary", 2), ("binary", 1), ("e4m3", 8), ("e5m2", 8)
]  # fmt: skip
KERNELS = ("torch", "torch-int4pack", "torch-int8pack")
SHAPES = [(1, 1), (17, 33), (40, 100), (16, 64)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def laid_out(form: LowBit, bias: torch.Tensor | None, kernel: str) -> LowBitWeight | None:
    """The weight, or None where the kernel does not take the form."""
    try:
        return LowBitWeight(form, bias, torch.float32, kernel)
    except registry.KernelUnavailable:
        return None


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_the_product_is_that_of_the_reference(kernel: str, n: int, k: int) -> None:
    x, bias = random(5, k, seed=1), random(n, seed=2)
    taken = 0
    for kind, bits in KINDS:
        for symmetric in (True, False):
            for group in (32, 7, 1 << 20):
                form = quantize(random(n, k), bits, group, kind, symmetric)
                weight = laid_out(form, bias, kernel)
                if weight is None:
                    continue
                taken += 1
                exact = reference.linear(x, form, bias)
                assert (weight(x) - exact).abs().max() <= 1e-4 * (1 + exact.abs().max())
    assert taken >= (1 if kernel != "torch" else len(KINDS))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale_format", ["fp16", "fp32", "u8"])
def test_the_form_comes_back_exactly(kernel: str, scale_format: str) -> None:
    for kind, bits in KINDS:
        for group in (32, 1 << 20):
            for symmetric in (True, False):
                form = quantize(random(33, 70), bits, group, kind, symmetric, scale_format)
                weight = laid_out(form, None, kernel)
                if weight is None:
                    continue
                back = weight.form()
                assert torch.equal(back.codes, form.codes)
                assert torch.equal(back.scale, form.scale)
                assert torch.equal(back.zeros(), form.zeros())
                assert (back.format, back.scale_format) == (form.format, form.scale_format)
                assert torch.equal(weight.dequantize(), form.dequantize())


@pytest.mark.parametrize("bits", range(1, 9))
def test_planes_hold_the_codes_in_as_few_bytes(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (5, 64), dtype=torch.uint8)
    packed = planes.pack(codes, bits)
    assert sum(plane.nbytes for plane in packed) == 5 * 64 * bits // 8
    assert torch.equal(planes.unpack(packed, bits, 64), codes)
    odd = codes[:, :61]
    assert torch.equal(planes.unpack(planes.pack(odd, bits), bits, 61), odd)


def test_a_wide_matrix_is_multiplied_tile_by_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    from kernels.linear_lowbit import torch_tiles

    monkeypatch.setattr(torch_tiles, "TILE", 16 * 64)
    for scale_format in ("fp16", "u8"):
        form = quantize(random(50, 64), 4, 32, "nf4", scale_format=scale_format)
        weight = LowBitWeight(form, None, torch.float32, "torch")
        x = random(3, 64, seed=3)
        assert torch.allclose(weight(x).double(), reference.linear(x, form), atol=1e-4)


def test_calls_are_counted_by_kernel_and_shapes_kept() -> None:
    weight = LowBitWeight(quantize(random(8, 40), 3, 8), None, torch.float32)
    calls.reset()
    assert weight(random(2, 3, 40)).shape == (2, 3, 8)
    assert weight(torch.zeros(0, 40)).shape == (0, 8)
    assert calls.snapshot() == [{"op": "linear_lowbit", "name": "torch", "calls": 1}]


def test_a_bound_call_writes_where_it_was_told() -> None:
    weight = LowBitWeight(quantize(random(8, 40), 5, 8), random(8), torch.float32, "torch")
    x, out, residual = random(3, 40, seed=5), torch.zeros(3, 8), random(3, 8, seed=6)
    weight.bind(x, out)()
    assert torch.equal(out, weight(x))
    expected = residual + weight(x)
    weight.bind(x, residual, residual)()
    assert torch.allclose(residual, expected)


def test_what_does_not_fit_is_refused_with_a_sentence() -> None:
    form = quantize(random(8, 40), 4, 32)
    weight = LowBitWeight(form, None, torch.float32)
    for x in (random(2, 39), random(2, 40).half(), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"x must be \[\.\.\., 40\]"):
            weight(x)
    with pytest.raises(ValueError, match=r"bias must be \[8\]"):
        LowBitWeight(form, random(7), torch.float32)
    with pytest.raises(ValueError, match="not one of bf16"):
        LowBitWeight(form, None, torch.float64)
    with pytest.raises(registry.KernelUnavailable, match="torch-int8pack"):
        LowBitWeight(form, None, torch.float32, "torch-int8pack")


def test_a_kernel_asked_for_by_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.ENVIRONMENT, "linear_lowbit=torch")
    form = quantize(random(16, 64), 4, 32)
    assert LowBitWeight(form, None, torch.float32).kernel == "torch"
    monkeypatch.setenv(registry.ENVIRONMENT, "linear_lowbit=torch-int4pack")
    odd = quantize(random(16, 64), 4, 24)
    with pytest.raises(registry.KernelUnavailable, match="takes groups of 32, 64, 128 or 256"):
        LowBitWeight(odd, None, torch.float32)
