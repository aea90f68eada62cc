"""Rounding without data, technique by technique, against its formula in fp64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core import techniques
from core.catalogue import models
from core.data.passages import digits
from core.engine.load.load import load_engine
from core.engine.reference import TrainableDecoder
from core.errors import BadInput, Refused
from core.plan import Case, Plan
from core.predict.account import account, weights_by_format
from core.predict.effects import effects
from core.predict.work import decoder_work
from core.techniques.deployment import Deployment
from core.techniques.quantize.binary import Binary
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.quantize.ternary import Ternary
from core.techniques.solve import calibration
from kernels import calls

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
SETTINGS = (
    "rtn",
    "rtn:bits=8,granularity=tensor",
    "rtn:bits=8,granularity=tensor,symmetric=1",
    "rtn:bits=8,granularity=channel",
    "rtn:bits=3,group_size=64,symmetric=1",
    "rtn:bits=2,group_size=128",
    "rtn:bits=5,group_size=0",
    "nf4",
    "nf4:double=0,group_size=32",
    "fp8",
    "fp8:format=e5m2",
    "fp8:activations=8",
    "fp4",
    "binary",
    "binary:group_size=0,head_bits=0",
    "ternary",
    "ternary:rule=absmean,head_bits=4",
)


def op_of(text: str) -> str:
    """The operation that multiplies what a technique leaves."""
    return "linear_fp8" if "activations" in text else "linear_lowbit"


# What hostile matrices have: rows of zeros, of one value, tiny ones, K no multiple of a group.
ODD = [(1, 33), (7, 100), (16, 64), (5, 1)]


def odd(n: int, k: int) -> torch.Tensor:
    weight = torch.randn(n, k)
    for row, value in ((1, 0.0), (2, 0.5), (3, -2.0)):
        if row < n:
            weight[row] = value
    if n > 4:
        weight[4] *= 1e-3
    return weight


def half(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float16).astype(np.float64)


@pytest.mark.parametrize(("n", "k"), ODD)
@pytest.mark.parametrize("symmetric", [0, 1])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_rounding_to_nearest_is_the_formula(
    bits: int, granularity: str, symmetric: int, n: int, k: int
) -> None:
    weight = odd(n, k)
    technique = RoundToNearest(bits, 32, symmetric, granularity)
    found = technique.form(weight).dequantize().double().numpy()
    w = weight.double().numpy()
    blocks = {
        "tensor": [(slice(None), slice(None))],
        "channel": [(row, slice(None)) for row in range(n)],
        "group": [(row, slice(j, j + 32)) for row in range(n) for j in range(0, k, 32)],
    }[granularity]
    most = 2**bits - 1
    # Scales that fp16 does not hold within 2^-8 are all kept in fp32.
    sizes = [np.ptp([*w[at].flat, 0]) / most for at in blocks]
    if symmetric:
        sizes = [np.abs(w[at]).max() / 2 ** (bits - 1) for at in blocks]
    wide = any(one and abs(half(one) - one) > one / 256 for one in sizes)
    kept = (lambda value: np.float32(value).astype(float)) if wide else half
    for at in blocks:
        part = w[at]
        if symmetric:
            middle: float = 2 ** (bits - 1)
            end = part.max() if part.max() >= -part.min() else part.min()
            raw = -end / middle
        else:
            low, high = min(part.min(), 0), max(part.max(), 0)
            raw = (high - low) / most
            middle = np.clip(np.round(-low / raw), 0, most) if raw else 0.0
        scale = kept(raw)
        steps = np.zeros_like(part) if scale == 0 else part / scale + middle
        exact = np.clip(np.round(steps), 0, most)
        expected = (exact - middle) * scale
        wrong = np.abs(found[at] - expected) > 1e-6 * np.abs(w).max()
        # Either neighbour is right where the value lies between two within fp32's rounding.
        between = np.abs(steps - np.floor(steps) - 0.5) < 1e-4 * (1 + np.abs(steps))
        assert (between | ~wrong).all(), (at, found[at][wrong], expected[wrong])
        assert (np.abs(found[at] - expected) <= 1.001 * abs(scale) + 1e-12).all()


def nearest_e4m3(values: np.ndarray) -> np.ndarray:
    """From the format's definition: sign, 2^(e - 7) (1 + m / 8), below 2^-6 steps of 2^-9."""
    sizes = [m * 2.0**-9 for m in range(8)]
    sizes += [2.0 ** (e - 7) * (1 + m / 8) for e in range(1, 16) for m in range(8)]
    table = np.array(sizes[:-1])
    table = np.concatenate([-table[::-1], table])
    return table[np.abs(values[..., None] - table).argmin(axis=-1)]


def test_fp8_on_both_sides_is_the_product_of_two_rounded_matrices(deploy: Deploy) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(33, 7)
    module = torch.nn.Sequential(linear)
    module.weight_bytes = lambda: 0
    techniques.parse("fp8:activations=8").apply(deploy(module)[0])
    x = torch.randn(5, 33) * torch.tensor([1.0, 1e-3, 30.0, 0.0, 1.0])[:, None]
    calls.reset()
    w, rows = linear.weight.detach().double().numpy(), x.double().numpy()
    w_scale = half(np.abs(w).max(axis=1, keepdims=True) / 448)
    x_scale = np.abs(rows).max(axis=1, keepdims=True) / 448
    safe = np.where(x_scale, x_scale, 1)
    exact = (nearest_e4m3(rows / safe) * x_scale) @ (nearest_e4m3(w / w_scale) * w_scale).T
    exact += linear.bias.detach().double().numpy()
    # Values halfway between two codes may go either way: one in a hundred at most.
    off = np.abs(module(x).double().numpy() - exact)
    assert (off > 1e-5 * (1 + np.abs(exact))).mean() < 0.05
    assert off.max() < 0.05 * (1 + np.abs(exact).max())
    assert {one["op"] for one in calls.snapshot()} == {"linear_fp8"}


@pytest.mark.parametrize("double", [0, 1])
def test_nf4_takes_the_nearest_level_under_the_largest_magnitude(
    tiny: Callable[..., Any], deploy: Deploy, double: int
) -> None:
    """Levels from their definition: quantiles of N(0, 1), 8 below and 9 above zero (QLoRA)."""
    from scipy.stats import norm

    offset = 0.9677083
    above = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0.0], below]))
    levels /= levels.max()
    engine, original = tiny("bf16"), tiny("bf16")
    techniques.parse(f"nf4:group_size=32,double={double}").apply(deploy(engine)[0])
    was = original.layers[0].down.dense().double().numpy().reshape(64, 3, 32)
    now = engine.layers[0].down.dense().double().numpy().reshape(64, 3, 32)
    scale = np.abs(was).max(axis=2, keepdims=True)
    nearest = levels[np.abs(was[..., None] / scale[..., None] - levels).argmin(-1)] * scale
    # Scales are rounded: to 11 bits, or to 255 steps of the range in 16 rows.
    spread = scale.max() - scale.min()
    error = scale * 2**-11 if not double else spread / 255
    assert (np.abs(now - nearest) <= 1.5 * error + 1e-6).mean() > 0.97
    assert np.abs(now - was).mean() <= 1.02 * np.abs(nearest - was).mean()


@pytest.mark.parametrize(("n", "k"), ODD)
@pytest.mark.parametrize("group_size", [0, 32])
def test_binary_weights_are_the_sign_times_the_mean_magnitude(
    group_size: int, n: int, k: int
) -> None:
    weight = odd(n, k)
    found = Binary(group_size).form(weight).dequantize().double().numpy()
    w, size = weight.double().numpy(), group_size or k
    for begin in range(0, k, size):
        part = w[:, begin : begin + size]
        alpha = half(np.abs(part).mean(1, keepdims=True))
        expected = np.where(part >= 0, alpha, -alpha)
        assert np.allclose(found[:, begin : begin + size], expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize(("n", "k"), ODD)
def test_ternary_weights_have_the_threshold_and_mean_of_the_paper(n: int, k: int) -> None:
    weight = odd(n, k)
    found = Ternary(32).form(weight).dequantize().double().numpy()
    w = weight.double().numpy()
    for begin in range(0, k, 32):
        part = w[:, begin : begin + 32]
        kept = np.abs(part) > 0.7 * np.abs(part).mean(1, keepdims=True)
        total = (np.abs(part) * kept).sum(1, keepdims=True)
        alpha = half(total / np.maximum(kept.sum(1, keepdims=True), 1))
        assert np.allclose(found[:, begin : begin + 32], np.sign(part) * kept * alpha, atol=2e-3)


def test_absmean_ternary_is_bitnets() -> None:
    weight = odd(7, 100)
    found = Ternary(rule="absmean").form(weight).dequantize().double().numpy()
    w = weight.double().numpy()
    gamma = half(np.abs(w).mean())
    assert np.allclose(found, np.clip(np.round(w / gamma), -1, 1) * gamma, atol=1e-6)
    assert len(np.unique(np.abs(found))) == 2


def test_eight_bit_floats_are_those_of_the_format(tiny: Callable[..., Any], deploy: Deploy) -> None:
    """E4M3 by definition: 3 mantissa bits, the smallest exponent -6, the largest value 448."""
    engine, original = tiny("bf16"), tiny("bf16")
    techniques.parse("fp8").apply(deploy(engine)[0])
    was = original.head.dense().double().numpy()
    now = engine.head.dense().double().numpy()
    scale = half(np.abs(was).max(1, keepdims=True) / 448)
    steps = was / scale
    exponent = np.maximum(np.floor(np.log2(np.maximum(np.abs(steps), 2.0**-9))), -6)
    grid = 2.0 ** (exponent - 3)
    expected = np.clip(np.round(steps / grid) * grid, -448, 448) * scale
    assert np.abs(now - expected).max() <= 0.07 * np.abs(expected).max()
    assert (np.abs(now - expected) > 1e-7).mean() < 0.01, "only ties may fall elsewhere"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("text", SETTINGS)
def test_the_engine_multiplies_the_codes_and_weighs_what_was_predicted(
    text: str, tied: bool, tiny: Callable[..., Any], deploy: Deploy, case: Case
) -> None:
    engine = tiny("bf16", seed=3, tied_embeddings=tied)
    technique = techniques.parse(text)
    deployment, notes = deploy(engine)
    technique.apply(deployment)
    ids = torch.randint(0, 131, (2, 19))
    calls.reset()
    found = engine.forward(ids)
    ran = {one["op"] for one in calls.snapshot() if one["op"].startswith("linear")}
    assert ran == {op_of(text)}
    with torch.no_grad():
        expected = TrainableDecoder.from_decoder(engine)(ids)
    # The reference keeps its activations in 16 bit.
    near = 0.15 if "activations" in text else 0.03
    assert (found - expected).abs().max() < near * expected.abs().max()
    assert "weights went from" in notes[0]
    assert not any(one.is_floating_point() and one.numel() > 64 * 64 for one in _kept(engine))
    shape = replace(case.model.decoder(), tied=tied)
    plan = Plan(replace(case, model=replace(case.model, shape=shape)), (technique,))
    if all(one.kernel_weight.kernel == "cpp" for _, one in engine.linears()):
        assert account(plan).weights == engine.weight_bytes()


def _kept(engine: Any) -> list[torch.Tensor]:
    return [tensor for _, one in engine.linears() for tensor in one.tensors()]


@pytest.mark.parametrize("model", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("text", [*SETTINGS, "weight-int8", "weight-int4"])
def test_classifiers_run_on_packed_codes_and_weigh_what_was_predicted(
    model: str, text: str, deploy: Deploy, case: Case
) -> None:
    found = models.resolve(model)
    engine, untouched = load_engine(found), load_engine(found)
    case = replace(case, model=found)
    technique = techniques.parse(text)
    assert technique.refuse(case) is None
    technique.apply(deploy(engine, case)[0])
    images = digits("held_out")[0][:60]
    calls.reset()
    with torch.inference_mode():
        got, before = engine(images), untouched(images)
    assert {one["op"] for one in calls.snapshot()} == {op_of(text)}
    assert (got - before).abs().max() > 0
    if technique.name not in ("binary", "ternary") and "bits=2" not in text:
        assert (got.argmax(1) == before.argmax(1)).float().mean() > 0.9
    assert account(Plan(case, (technique,))).weights == engine.weight_bytes()


@pytest.mark.parametrize("to", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_cast_converts_everything_and_says_what_it_weighs(
    to: str, tied: bool, tiny: Callable[..., Any], deploy: Deploy, case: Case
) -> None:
    family = {"family": "qwen3", "qk_norm": True, "tied_embeddings": tied}
    engine, original = tiny("bf16", **family), tiny("bf16", **family)
    technique = techniques.parse(f"cast:dtype={to}")
    technique.apply(deploy(engine)[0])
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[to]
    kept = [engine.embedding, engine.final_norm]
    for layer in engine.layers:
        kept += [one for one in vars(layer).values() if isinstance(one, torch.Tensor)]
    kept += _kept(engine)
    assert {one.dtype for one in kept} == {dtype}
    assert engine.dtype is engine.new_cache(1, 4).keys[0].dtype is dtype
    ids = torch.randint(0, 131, (1, 9))
    expected = original.forward(ids)
    assert (engine.forward(ids) - expected).abs().max() < 0.05 * expected.abs().max()
    cache = engine.new_cache(1, 9)
    steps = [engine.forward(ids[:, i : i + 1], cache) for i in range(9)]
    assert (torch.cat(steps, 1) - expected).abs().max() < 0.05 * expected.abs().max()
    shape = replace(case.model.decoder(), tied=tied, layer_vectors=32)
    plan = Plan(replace(case, model=replace(case.model, shape=shape)), (technique,))
    work = decoder_work(plan)
    assert weights_by_format(work) == {to: engine.weight_bytes()}
    assert account(plan).kv_per_token == engine.new_cache(1, 8).nbytes / 8


@pytest.mark.parametrize("model", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("to", ["bf16", "fp16", "fp32"])
def test_a_classifier_is_cast_and_still_takes_images_of_32_bits(
    model: str, to: str, deploy: Deploy, case: Case
) -> None:
    found = models.resolve(model)
    engine, untouched = load_engine(found), load_engine(found)
    case = replace(case, model=found)
    technique = techniques.parse(f"cast:dtype={to}")
    technique.apply(deploy(engine, case)[0])
    images = digits("held_out")[0][:9]
    with torch.inference_mode():
        got, before = engine(images), untouched(images)
    assert got.dtype == torch.float32
    assert (got - before).abs().max() < 0.03 * before.abs().max()
    assert account(Plan(case, (technique,))).weights == engine.weight_bytes()


def test_a_weight_that_fp16_cannot_hold_is_refused(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    engine.layers[1].attn_norm[3] = 1e5
    with pytest.raises(Refused, match=r"layers\.1\.attn_norm has values above 65,504"):
        techniques.parse("cast:dtype=fp16").apply(deploy(engine)[0])


@pytest.mark.parametrize("text", ["rtn", "nf4", "fp8", "fp4", "binary", "ternary"])
def test_a_weight_that_is_not_finite_is_refused_by_its_name(
    text: str, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    engine.layers[1].o.weight[2, 3] = float("nan")
    with pytest.raises(Refused, match=r"layers\.1\.o: weight has NaN or infinite values"):
        techniques.parse(text).apply(deploy(engine)[0])


@pytest.mark.parametrize(
    "text",
    [
        "gptq",
        "gptq:bits=2,clip=0",
        "awq",
        "awq:clip=0",
        "awq:then=gptq",
        "qat:start=nearest",
        "qat",
        "k-quant",
        "k-quant:mix=q6_k",
        "ternary",
        "ternary:rule=absmean",
        "binary",
    ],
)
@pytest.mark.parametrize("size", [1e-8, 1e10])
def test_weights_that_no_fp16_scale_fits_are_refused_by_name(
    size: float, text: str, tiny: Callable[..., Any], deploy: Deploy, monkeypatch: Any
) -> None:
    ids = torch.randint(0, 131, (6, 24), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: ids)
    engine = tiny("bf16")
    engine.layers[0].o.weight.mul_(size)
    with pytest.raises(Refused, match=r"layers\.0\.o: |awq: |answers of .* not finite"):
        techniques.parse(text).apply(deploy(engine)[0])


@pytest.mark.parametrize("text", ["rtn", "weight-int8", "weight-int4", "nf4", "fp8", "fp4"])
@pytest.mark.parametrize("size", [1e-12, 1e-8, 1e8])
def test_weights_of_any_size_keep_their_precision(
    size: float, text: str, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    off = []
    for scale in (1.0, size):
        engine = tiny("bf16")
        engine.layers[0].o.weight.mul_(scale)
        exact = engine.layers[0].o.dense().double()
        techniques.parse(text).apply(deploy(engine)[0])
        found = engine.layers[0].o
        off.append(float((found.dense().double() - exact).norm() / exact.norm()))
        x = torch.randn(3, 64).bfloat16()
        product = x.double() @ found.dense().double().T
        assert torch.allclose(
            found(x).double(), product, rtol=0.01, atol=0.01 * product.abs().max()
        )
    assert off[1] == pytest.approx(off[0], rel=0.1)


@pytest.mark.parametrize(
    "text",
    [
        "rtn:bits=0",
        "rtn:bits=9",
        "rtn:group_size=48",
        "rtn:symmetric=2",
        "rtn:granularity=row",
        "nf4:group_size=16",
        "nf4:double=2",
        "fp8:format=e3m4",
        "fp8:activations=4",
        "fp8:activations=8,format=e5m2",
        "fp4:group_size=0",
        "binary:group_size=7",
        "binary:head_bits=9",
        "ternary:rule=mean",
        "ternary:head_bits=-1",
        "ternary:group_size=1",
        "cast:dtype=int8",
    ],
)
def test_a_setting_out_of_range_is_bad_input(text: str) -> None:
    name = text.partition(":")[2].partition("=")[0]
    with pytest.raises(BadInput, match=f"{name}(=8)? (must|belongs)"):
        techniques.parse(text)


def test_a_vocabulary_of_one_and_one_channel_still_round(deploy: Deploy, case: Case) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 3, bias=False))
    module.weight_bytes = lambda: 0
    for text in SETTINGS:
        one = torch.nn.Sequential(*(type(m)(m.in_features, m.out_features) for m in module))
        one.weight_bytes = lambda: 0
        techniques.parse(text).apply(deploy(one, case)[0])
        assert one(torch.ones(2, 1)).shape == (2, 3)


def test_every_setting_states_its_effect(case: Case) -> None:
    for text in SETTINGS:
        found = effects(Plan(case, (techniques.parse(text),)))
        assert found.packed, text
        assert not found.unknown
