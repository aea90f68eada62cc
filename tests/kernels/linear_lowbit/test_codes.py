"""The canonical form: rounding, tables and scales against formulas in fp64."""

from __future__ import annotations

import pytest
import torch

from kernels.linear_lowbit import LowBit, codes, quantize, reference
from kernels.linear_lowbit.codes import DoubleScale, levels

INTEGERS = [("int", bits) for bits in range(1, 9)]
TABLES = [("nf4", 4), ("fp4", 4), ("ternary", 2), ("binary", 1), ("e4m3", 8), ("e5m2", 8)]


def random(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("kind", "bits"), INTEGERS + TABLES)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("n", "k", "group"), [(5, 100, 32), (1, 1, 32), (3, 64, 16), (2, 7, 1000)])
def test_every_code_is_the_nearest_of_all(
    kind: str, bits: int, symmetric: bool, n: int, k: int, group: int
) -> None:
    weight = random(n, k)
    form = quantize(weight, bits, group, kind, symmetric, scale_format="fp32")
    table = levels(kind)
    values = torch.arange(2**bits).double() if table is None else table.double()
    column = torch.arange(k) // group
    scale, zero = form.scale.double()[:, column], form.zeros().double()[:, column]
    choices = scale[..., None] * (values - zero[..., None])
    if kind in ("e4m3", "e5m2"):
        # Codes of NaN and infinity have no value of their own.
        finite = torch.arange(256, dtype=torch.uint8).view(codes._FLOAT8[kind]).float().isfinite()
        choices = choices[..., finite]
    best = (choices - weight.double()[..., None]).abs().amin(dim=2)
    got = (reference.dequantize(form) - weight.double()).abs()
    assert (got <= best + 1e-6 * (1 + weight.abs())).all()


@pytest.mark.parametrize("bits", range(1, 9))
def test_symmetric_keeps_zero_and_the_largest_value(bits: int) -> None:
    weight = random(4, 64)
    weight[0, 3], weight[1, 40] = 9.0, -9.0
    weight[2, 5] = 0.0
    form = quantize(weight, bits, 64, scale_format="fp32")
    back = form.dequantize()
    assert back[0, 3] == 9.0
    assert back[1, 40] == -9.0
    assert back[2, 5] == 0.0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_affine_has_whole_zeros_within_the_codes_and_keeps_zero(bits: int) -> None:
    weight = random(6, 96).abs() + 0.5
    weight[:, 0] = 0.0
    form = quantize(weight, bits, 32, symmetric=False)
    assert form.zero is not None
    assert torch.equal(form.zero, form.zero.round())
    assert form.zero.min() >= 0
    assert form.zero.max() <= 2**bits - 1
    assert (form.dequantize()[:, 0] == 0).all()


@pytest.mark.parametrize(("kind", "bits"), INTEGERS + TABLES)
@pytest.mark.parametrize("scale_format", ["fp16", "fp32", "u8"])
def test_zero_and_constant_rows_stay_finite(kind: str, bits: int, scale_format: str) -> None:
    weight = torch.stack((torch.zeros(40), torch.full((40,), 2.5), torch.full((40,), -1e-3)))
    for symmetric in (True, False):
        form = quantize(weight, bits, 32, kind, symmetric, scale_format)
        back = form.dequantize()
        assert back.isfinite().all()
        assert (back[0] == 0).all() or scale_format == "u8"


def test_dequantizing_is_the_reference_in_single_precision() -> None:
    for kind, bits in INTEGERS + TABLES:
        form = quantize(random(5, 70), bits, 32, kind, symmetric=False)
        assert torch.allclose(form.dequantize().double(), reference.dequantize(form), rtol=1e-6)


def test_nf4_has_the_quantiles_of_the_normal_distribution() -> None:
    # QLoRA: 8 positive and 9 negative quantiles of N(0, 1), scaled to [-1, 1], zero shared.
    scipy = pytest.importorskip("scipy.stats")
    import numpy as np

    offset = 0.9677083
    high = scipy.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    low = -scipy.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    wanted = np.sort(np.concatenate((high, [0.0], low))) / high.max()
    table = levels("nf4")
    assert table is not None
    assert np.allclose(table.numpy(), wanted, atol=1e-5)


def test_double_scales_are_within_half_a_step() -> None:
    scale = random(40, 12).abs()
    double = codes.double_quantize(scale)
    for block in range(3):
        part = scale[16 * block : 16 * block + 16]
        error = (double.values()[16 * block : 16 * block + 16] - part).abs().max()
        assert error <= (part.max() - part.min()) / 255 / 2 * 1.001


def test_rows_are_those_of_the_whole() -> None:
    form = quantize(random(50, 70), 4, 32, "nf4", scale_format="u8")
    part = form.rows(16, 45)
    assert torch.equal(part.dequantize(), form.dequantize()[16:45])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    weight = random(2, 40)
    weight[1, 7] = value
    with pytest.raises(ValueError, match="NaN or infinite"):
        quantize(weight, 4, 32)


def test_a_scale_beyond_fp16_is_refused_where_fp16_was_asked_for() -> None:
    with pytest.raises(ValueError, match="above 65504"):
        quantize(torch.full((1, 32), 1e7), 4, 32, scale_format="fp16")


@pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-6, 1e-5, 1.0, 1e7, 1e30])
@pytest.mark.parametrize(
    ("bits", "group", "kind"),
    [(8, 1 << 20, "int"), (4, 32, "int"), (4, 64, "nf4"), (8, 1 << 20, "e4m3"), (1, 32, "binary")],
)
def test_weights_of_any_size_are_rounded_as_well_as_those_of_size_1(
    size: float, bits: int, group: int, kind: str
) -> None:
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    lost = []
    for scale in (1.0, size):
        form = quantize(weight * scale, bits, group, kind)
        off = form.dequantize().double() / scale - weight.double()
        lost.append(float(off.norm() / weight.double().norm()))
    assert lost[1] == pytest.approx(lost[0], rel=0.05)
    if size != 1e-5:
        assert form.scale_format == ("fp16" if size == 1 else "fp32")


def test_a_scale_that_is_not_finite_makes_no_form() -> None:
    scale = torch.tensor([[float("inf")]])
    with pytest.raises(ValueError, match="scale has NaN or infinite values"):
        LowBit(torch.zeros(1, 4, dtype=torch.uint8), scale, None, 4, 4)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"bits": 0}, "1 to 8 bits"),
        ({"bits": 9}, "1 to 8 bits"),
        ({"bits": 3, "kind": "nf4"}, "have 4 bits"),
        ({"kind": "int5"}, "kind must be one of"),
        ({"group_size": 0}, "at least 1"),
        ({"scale_format": "bf16"}, "scale_format must be"),
    ],
)
def test_a_form_that_cannot_be_is_refused(change: dict[str, object], sentence: str) -> None:
    given = {"bits": 4, "group_size": 32} | change
    with pytest.raises(ValueError, match=sentence):
        quantize(random(2, 40), **given)  # type: ignore[arg-type]


def test_parts_that_do_not_fit_are_refused() -> None:
    form = quantize(random(4, 64), 4, 32)
    for codes_, scale, zero in (
        (form.codes.int(), form.scale, None),
        (form.codes, form.scale[:, :1], None),
        (form.codes, form.scale, form.scale[:2]),
        (form.codes, form.scale.half(), None),
        (form.codes + 16, form.scale, None),
    ):
        with pytest.raises(ValueError, match=r"must be|does not fit"):
            LowBit(codes_, scale, zero, 4, 32)
    double = DoubleScale(form.codes[:, :2], form.scale[:1, 0], form.scale[:1, 0])
    with pytest.raises(ValueError, match="u8"):
        LowBit(form.codes, form.scale, None, 4, 32, double=double)
