"""k-quants: the gguf package reads the same numbers, the search finds small errors, llama.cpp's
rule gives the types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core import techniques
from core.engine.reference import TrainableDecoder
from core.errors import BadInput, Refused
from core.files.gguf.blocks import pack as pack_blocks
from core.files.gguf.blocks import type_of as type_of_blocks
from core.files.gguf.file import TYPES as GGUF_TYPES
from core.files.gguf.k_pack import pack
from core.files.gguf.k_types import FALLBACK, K_TYPES, fitting
from core.model import DecoderShape
from core.plan import Case, Plan
from core.predict.account import account
from core.techniques.deployment import Deployment
from core.techniques.quantize.k_quant import MIXES, type_of
from core.techniques.solve.k_search import SEARCHES, _search_affine, k_blocks
from core.techniques.solve.plain_blocks import plain_blocks
from kernels.linear_lowbit import quantize

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def hostile(n: int, k: int) -> torch.Tensor:
    """Rows of zeros, of one value of either sign, of tiny values, with an outlier."""
    weight = torch.randn(n, k)
    rows = (0.0, 0.25, -3.0)
    for row, value in enumerate(rows):
        weight[row] = value
    weight[3] *= 1e-5
    weight[4, 7] = 300.0
    weight[5, : k // 2] = 0.0
    weight[6] = weight[6].abs() + 5.0
    return weight


@pytest.mark.parametrize("name", K_TYPES)
def test_the_gguf_package_reads_the_same_numbers(name: str) -> None:
    gguf = pytest.importorskip("gguf")
    for weight in (torch.randn(9, 512), hostile(9, 256), torch.randn(2, 768) * 0.02):
        blocks = k_blocks(weight, name)
        packed = pack(blocks)
        assert packed.shape == (len(weight), weight.shape[1] // 256 * GGUF_TYPES[name.upper()].size)
        theirs = gguf.dequantize(packed, gguf.GGMLQuantizationType[name.upper()])
        assert np.array_equal(theirs, blocks.dequantize().numpy())


@pytest.mark.parametrize("name", K_TYPES)
@pytest.mark.parametrize("k", [256, 768])
def test_the_form_that_kernels_take_is_the_same_within_half_precision(name: str, k: int) -> None:
    weight = hostile(9, k)
    blocks = k_blocks(weight, name)
    exact, form = blocks.dequantize().double(), blocks.low_bit()
    # Scale and minimum are each rounded to 11 bits, and cancel where the weight is small.
    low = blocks.steps()[1]
    reach = weight.abs().amax(1, keepdim=True) if low is None else low.abs().amax(1, keepdim=True)
    bound = 2**-10 * (exact.abs() + reach) + 1e-7
    assert bool(((form.dequantize().double() - exact).abs() <= bound).all())
    assert (form.bits, form.scale_format) == (K_TYPES[name].bits, "fp16")


@pytest.mark.parametrize("name", K_TYPES)
def test_the_search_loses_less_than_rounding_to_nearest(name: str) -> None:
    """Against plain rounding over the same groups, with scales in 16 bit that ggml's type lacks."""
    kind, weight = K_TYPES[name], torch.randn(32, 1024)
    found = k_blocks(weight, name).dequantize()
    plain = quantize(weight, kind.bits, kind.group, symmetric=not kind.minimum).dequantize()
    lost, theirs = ((one - weight).square().mean() for one in (found, plain))
    assert lost < theirs
    # Uniform rounding of a normal distribution at so many bits: 2 ** -2 bits, within a factor.
    assert lost < 6 * 4.0**-kind.bits


def brute_force(x: np.ndarray, weight: np.ndarray, most: int) -> float:
    """The least weighted squared error of q * scale + low, low <= 0, over a fine grid of grids."""
    best = np.inf
    for share in np.linspace(0.5, 1.2, 141):
        for shift in np.linspace(0.7, 1.1, 41):
            low = min(x.min(), 0) * shift
            step = max((x.max() - low) * share / most, 1e-9)
            q = np.clip(np.round((x - low) / step), 0, most)
            best = min(best, float((weight * (q * step + low - x) ** 2).sum()))
    return best


def test_the_scale_and_minimum_are_near_the_best_there_are() -> None:
    """Without the second level of scales, against brute force in fp64."""
    search, weight = SEARCHES["q4_k"], torch.randn(6, 32)
    scale, low = _search_affine(weight[:, None], search, 15)
    ours = best = 0.0
    for row in range(6):
        w = weight[row].double().numpy()
        importance = np.sqrt((w**2).mean()) + np.abs(w)
        s, m = float(scale[row, 0]), float(low[row, 0])
        q = np.clip(np.round((w + m) / s), 0, 15)
        ours += float((importance * (q * s - m - w) ** 2).sum())
        best += brute_force(w, importance, 15)
    assert ours <= 1.3 * best


@pytest.mark.parametrize("name", K_TYPES)
def test_zeros_stay_zeros_and_constants_stay_near(name: str) -> None:
    weight = hostile(9, 256)
    found = k_blocks(weight, name).low_bit().dequantize()
    assert bool((found[0] == 0).all())
    assert found[1].numpy() == pytest.approx(0.25, rel=0.03)
    assert found[2].numpy() == pytest.approx(-3.0, rel=0.03)
    assert bool(found.isfinite().all())


def test_what_is_not_finite_or_too_large_is_refused() -> None:
    weight = torch.zeros(2, 256)
    weight[1, 3] = float("inf")
    with pytest.raises(ValueError, match="NaN or infinite"):
        k_blocks(weight, "q4_k")
    weight[1, 3] = 1e9
    with pytest.raises(ValueError, match="above 65504"):
        k_blocks(weight, "q4_k")


@pytest.mark.parametrize("k", [1, 33, 300])
def test_rows_that_are_no_whole_super_blocks_are_not_rounded_to_them(k: int) -> None:
    with pytest.raises(ValueError, match=f"{k} weights are no whole super-blocks"):
        k_blocks(torch.randn(2, k), "q4_k")


@pytest.mark.parametrize("name", sorted(set(FALLBACK.values())))
def test_blocks_of_32_are_those_of_the_gguf_package(name: str) -> None:
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[name.upper()]
    for weight in (torch.randn(9, 96), hostile(9, 64), torch.randn(2, 576) * 0.02):
        form = plain_blocks(weight, name)
        theirs = gguf.quantize(weight.numpy(), kind)
        found = type_of_blocks(form)
        assert found == GGUF_TYPES[name.upper()]
        # The written bytes, but for blocks of one value, whose codes say nothing.
        told = gguf.dequantize(pack_blocks(form, found), kind)
        expected = gguf.dequantize(theirs, kind)
        assert np.allclose(told, expected, rtol=2**-20, atol=0)
        # What was measured is what the file says.
        assert np.allclose(form.dequantize().numpy(), told, rtol=2**-18, atol=2**-22)


def test_blocks_of_32_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(ValueError, match="rows of 33 weights are no whole blocks of 32"):
        plain_blocks(torch.randn(2, 33), "q5_0")
    for name in ("q4_0", "q5_0", "q5_1", "q8_0"):
        with pytest.raises(ValueError, match="too small for fp16"):
            plain_blocks(torch.randn(2, 64) * 1e-8, name)
        with pytest.raises(ValueError, match="above 65504"):
            plain_blocks(torch.randn(2, 64) * 1e9, name)
        with pytest.raises(ValueError, match="NaN or infinite"):
            plain_blocks(torch.full((2, 64), torch.nan), name)


@pytest.mark.parametrize(
    ("columns", "type_", "kept"),
    [
        (512, "q4_k", "q4_k"),
        (576, "q2_k", "q4_0"),
        (576, "q3_k", "q4_0"),
        (576, "q4_k", "q5_0"),
        (896, "q5_k", "q5_1"),
        (896, "q6_k", "q8_0"),
        (100, "q6_k", "floats"),
    ],
)
def test_other_rows_take_llama_cpps_other_types(columns: int, type_: str, kept: str) -> None:
    """tensor_type_fallback of llama.cpp's llama-quant.cpp, read at commit 007dbbf3."""
    assert fitting(type_, columns) == kept


# What llama-quantize chooses for a Llama of 32 layers with four query heads per key head.
LARGE = DecoderShape(4096, 32, 32, 8, 128, 14336, 128256, 8192)


@pytest.mark.parametrize(
    ("mix", "name", "type_"),
    [
        ("q4_k_m", "head", "q6_k"),
        ("q4_k_m", "layers.0.down", "q6_k"),
        ("q4_k_m", "layers.3.qkv", "q6_k"),
        ("q4_k_m", "layers.4.down", "q4_k"),
        ("q4_k_m", "layers.6.down", "q6_k"),
        ("q4_k_m", "layers.27.down", "q6_k"),
        ("q4_k_m", "layers.28.qkv", "q6_k"),
        ("q4_k_m", "layers.26.qkv", "q4_k"),
        ("q4_k_m", "layers.0.gate_up", "q4_k"),
        ("q4_k_m", "layers.0.o", "q4_k"),
        ("q5_k_m", "layers.31.down", "q6_k"),
        ("q3_k_m", "layers.1.qkv", "q5_k"),
        ("q3_k_m", "layers.2.qkv", "q4_k"),
        ("q3_k_m", "layers.1.down", "q5_k"),
        ("q3_k_m", "layers.2.down", "q4_k"),
        ("q3_k_m", "layers.9.o", "q4_k"),
        ("q3_k_m", "layers.9.gate_up", "q3_k"),
        ("q2_k", "layers.9.qkv", "q4_k"),
        ("q2_k", "layers.9.o", "q3_k"),
        ("q2_k", "layers.9.gate_up", "q2_k"),
        ("q6_k", "layers.9.gate_up", "q6_k"),
        ("q4_k_m", "linears.0", "q4_k"),
    ],
)
def test_the_type_of_a_matrix_is_llama_cpps(mix: str, name: str, type_: str) -> None:
    assert type_of(mix, name, LARGE) == type_


def test_fewer_query_heads_per_key_head_get_fewer_bits() -> None:
    assert type_of("q2_k", "layers.9.qkv", replace(LARGE, kv_heads=16)) == "q3_k"


# Hidden size and MLP width: all fall back, the MLP's way back alone is whole, only that falls back.
WIDTHS = {(64, 96): "int8-g32", (64, 256): "int8-g32", (256, 96): "int6-g16"}


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize(("widths", "head"), WIDTHS.items())
def test_a_mix_runs_on_packed_codes_and_weighs_what_was_predicted(
    mix: str,
    widths: tuple[int, int],
    head: str,
    tiny: Callable[..., Any],
    deploy: Deploy,
    case: Case,
) -> None:
    hidden, width = widths
    engine = tiny("bf16", seed=3, hidden_size=hidden, intermediate_sizes=(width, width))
    shape = case.model.shape
    assert isinstance(shape, DecoderShape)
    shape = replace(shape, hidden=hidden, intermediate=width)
    case = replace(case, model=replace(case.model, shape=shape))
    technique = techniques.parse(f"k-quant:mix={mix}")
    deployment, notes = deploy(engine, case)
    technique.apply(deployment)
    ids = torch.randint(0, 131, (2, 19))
    with torch.no_grad():
        expected = TrainableDecoder.from_decoder(engine)(ids)
    assert (engine.forward(ids) - expected).abs().max() < 0.03 * expected.abs().max()
    assert engine.head.format == head
    # The 64 inputs of o are in none a whole super-block.
    assert [one for one in notes if "rows of 64 columns, no multiple of 256, and take" in one]
    if engine.head.kernel_weight.kernel == "cpp":
        assert account(Plan(case, (technique,))).weights == engine.weight_bytes()


def test_rows_of_no_type_stay_and_a_model_of_them_is_refused(
    tiny: Callable[..., Any], deploy: Deploy, case: Case
) -> None:
    engine = tiny("bf16", intermediate_sizes=(100, 100))
    deployment, notes = deploy(engine)
    techniques.parse("k-quant").apply(deployment)
    assert engine.layers[0].down.format == "bf16"
    assert engine.layers[0].gate_up.format == "int5-g32"
    said = "2 matrices have rows of 100 columns, no multiple of 32, and stay in floats, as llama"
    assert [one for one in notes if one.startswith(said)]
    shape = case.model.shape
    assert isinstance(shape, DecoderShape)
    odd = replace(case, model=replace(case.model, shape=replace(shape, intermediate=100)))
    if engine.head.kernel_weight.kernel == "cpp":
        assert account(Plan(odd, (techniques.parse("k-quant"),))).weights == engine.weight_bytes()
    engine = tiny("bf16", hidden_size=40, num_heads=2, num_kv_heads=2, head_dim=20,
                  intermediate_sizes=(100, 100))  # fmt: skip
    with pytest.raises(Refused, match="no matrix of this model has rows of a multiple of 32"):
        techniques.parse("k-quant").apply(deploy(engine)[0])


def test_a_bad_weight_and_a_bad_mix_are_named(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny("bf16")
    engine.layers[0].down.weight[2, 3] = float("inf")
    with pytest.raises(Refused, match=r"layers\.0\.down: weight has NaN"):
        techniques.parse("k-quant").apply(deploy(engine)[0])
    with pytest.raises(BadInput, match="mix must be one of q2_k"):
        techniques.parse("k-quant:mix=q4_0")


@pytest.mark.parametrize("name", ["q2_k", "q4_k", "q5_k"])
@pytest.mark.parametrize("spread", [0.0, 3e-6, 1e-4, 1e-2])
def test_groups_of_nearly_one_value_stay_near_it(name: str, spread: float) -> None:
    weight = -0.5 + spread * torch.rand(4, 256, generator=torch.Generator().manual_seed(0))
    found = k_blocks(weight, name).low_bit().dequantize()
    assert bool(found.isfinite().all())
    assert float((found - weight).abs().max()) <= max(2e-3, spread / 2)


def test_values_that_fp16_cannot_scale_are_refused() -> None:
    small = torch.randn(2, 256, generator=torch.Generator().manual_seed(0)) * 1e-6
    for name in K_TYPES:
        with pytest.raises(ValueError, match="too small for the fp16 scales of k-quants"):
            k_blocks(small, name)
        with pytest.raises(ValueError, match="above 65504"):
            k_blocks(small * 1e14, name).low_bit()
    assert not k_blocks(torch.zeros(2, 256), "q4_k").low_bit().dequantize().any()
