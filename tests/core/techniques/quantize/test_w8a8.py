"""W8A8: smoothing leaves the function as it was, static scales come from calibration, and the
kernels that ran are int8's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.engine.modules import KernelLinear
from core.errors import Refused
from core.model import ClassifierShape
from core.techniques import parse
from core.techniques.deployment import Deployment
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.quantize.w8a8 import W8A8
from core.techniques.solve import calibration, smoothquant
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.smoothquant import Folded, smooth_layer, smoothing, through_norm
from kernels import calls
from kernels.linear_w8a8 import W8A8Weight

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
GQA = {"num_heads": 4, "num_kv_heads": 2}
SHAPES = [GQA, {"num_kv_heads": 4}, {"num_kv_heads": 1, "qk_norm": True, "family": "qwen3"}]
BIASED = {"qkv_bias": True, "o_bias": True, "mlp_bias": True}


@pytest.fixture
def ids(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Calibration tokens, so that no text is needed."""
    random = torch.Generator().manual_seed(3)
    found = torch.randint(0, 131, (6, 24), generator=random)
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: found)
    return found


def uneven(engine: Decoder, seed: int = 5) -> Decoder:
    """The engine with norms, biases and MLP rows of very different sizes: there are outliers."""
    random = torch.Generator().manual_seed(seed)

    def sizes(count: int) -> torch.Tensor:
        return torch.exp(torch.randn(count, generator=random)).to(engine.dtype)

    for layer in engine.layers:
        layer.attn_norm, layer.mlp_norm = sizes(64), sizes(64)
        layer.mlp_norm[7] *= 50
        for name in ("qkv", "o", "gate_up", "down"):
            linear: Linear = getattr(layer, name)
            bias = None if linear.bias is None else sizes(linear.out_features)
            weight = linear.dense() * 4
            if name == "gate_up":
                weight[100] *= 40
            setattr(layer, name, Linear.from_dense(weight, bias, linear.format))
    engine.final_norm = sizes(64)
    return engine


def fold(engine: Decoder, alpha: float, deploy: Deploy) -> None:
    """Smooth every layer and keep the matrices dense: the same function in other numbers."""
    seen: dict[str, Inputs] = {}
    each_matrix(
        deploy(engine)[0],
        CalibrationSet(),
        lambda one, inputs: seen.update({one.name: inputs}),
        second_order=False,
    )
    for index, layer in enumerate(engine.layers):
        absmax = {name: seen[f"layers.{index}.{name}"].absmax for name in MATRICES}
        for name, folded in smooth_layer(layer, engine.config, absmax, alpha).items():
            assert not torch.allclose(folded.s, torch.ones_like(folded.s))
            setattr(layer, name, Linear.from_dense(folded.weight, folded.bias, "fp32"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [{}, BIASED])
@pytest.mark.parametrize("alpha", [0.3, 0.8])
def test_folding_leaves_the_fp32_function_as_it_was(
    shape: dict[str, Any],
    bias: dict[str, Any],
    alpha: float,
    tiny: Callable[..., Any],
    deploy: Deploy,
    ids: torch.Tensor,
) -> None:
    if shape.get("qk_norm") and bias:
        bias = {"mlp_bias": True}
    engine = uneven(tiny("fp32", **shape, **bias))
    before = engine.forward(ids).double()
    norms = [layer.attn_norm.clone() for layer in engine.layers]
    fold(engine, alpha, deploy)
    assert all(not torch.equal(a, b.attn_norm) for a, b in zip(norms, engine.layers, strict=True))
    assert ((engine.forward(ids) - before).norm() / before.norm()) < 1e-5


def test_smoothed_inputs_and_columns_share_the_range(
    tiny: Callable[..., Any], deploy: Deploy, ids: torch.Tensor
) -> None:
    engine = uneven(tiny("fp32"))
    seen: list[dict[str, torch.Tensor]] = []

    def look() -> None:
        found: dict[str, torch.Tensor] = {}
        each_matrix(
            deploy(engine)[0], CalibrationSet(), lambda one, i: found.update({one.name: i.absmax})
        )
        seen.append(found)

    look()
    fold(engine, 0.5, deploy)
    look()
    for name in MATRICES:
        before, after = (one[f"layers.0.{name}"] for one in seen)
        assert after.max() / after.median() < before.max() / before.median()
    # At alpha = 1/2 a column's largest input and largest weight meet (section 4.1).
    for name in ("qkv", "gate_up", "down"):
        columns = getattr(engine.layers[0], name).dense().abs().amax(dim=0)
        assert torch.allclose(seen[1][f"layers.0.{name}"], columns, rtol=1e-3)


def test_the_scale_is_equation_4() -> None:
    # Worked by hand: 16^(1/2) / 4^(1/2) = 2, and 8^(3/4) / 16^(1/4) = 2^(9/4) / 2.
    found = smoothing(torch.tensor([16.0, 0.0, 3.0]), torch.tensor([4.0, 1.0, 0.0]), 0.5)
    assert torch.allclose(found, torch.tensor([2.0, 1.0, 1.0]))
    found = smoothing(torch.tensor([8.0]), torch.tensor([16.0]), 0.75)
    assert found.item() == pytest.approx(2 ** (9 / 4) / 2)


def test_a_rounded_norm_divides_by_what_it_really_divides_by() -> None:
    norm = torch.tensor([1.0, 0.3, 0.0, 2.0]).bfloat16()
    divided, s = through_norm(norm, torch.tensor([3.0, 1.7, 5.0, 1e-5]))
    assert divided.dtype == torch.bfloat16
    assert torch.allclose(divided.float() * s, norm.float(), rtol=1e-6)
    assert s[2] == 1
    assert s[0] != 3


def logits_of(
    technique: W8A8, make: Callable[[], Decoder], deploy: Deploy, ids: torch.Tensor
) -> tuple[Decoder, float, list[str]]:
    """The engine after the technique, and how far its logits are off, as a share."""
    engine = make()
    before = make().forward(ids).double()
    deployment, notes = deploy(engine)
    technique.apply(deployment)
    wrong = engine.forward(ids).double() - before
    return engine, float(wrong.norm() / before.norm()), notes


def test_smoothing_helps_where_there_are_outliers(
    tiny: Callable[..., Any], deploy: Deploy, ids: torch.Tensor
) -> None:
    def make() -> Decoder:
        return uneven(tiny("fp32"))

    _, plain, _ = logits_of(W8A8(mode="static"), make, deploy, ids)
    _, smooth, notes = logits_of(W8A8(mode="static", smooth=0.5), make, deploy, ids)
    _, dynamic, _ = logits_of(W8A8(), make, deploy, ids)
    assert smooth < plain / 2
    assert dynamic < plain
    assert "smoothed with alpha 0.5" in notes[-1]


@pytest.mark.parametrize("technique", [W8A8(), W8A8("static", 0.5), W8A8("static", 0.0, 99.0)])
@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_and_the_head_are_int8_and_the_kernel_says_so(
    technique: W8A8,
    dtype: str,
    tied: bool,
    tiny: Callable[..., Any],
    deploy: Deploy,
    ids: torch.Tensor,
) -> None:
    def make() -> Decoder:
        return tiny(dtype, tied_embeddings=tied, seed=3)  # type: ignore[no-any-return]

    engine, wrong, notes = logits_of(technique, make, deploy, ids)
    assert wrong < 0.1
    static = technique.mode == "static"
    for _, linear in engine.linears():
        assert isinstance(linear.kernel_weight, W8A8Weight)
        assert linear.format == ("w8a8-static" if static else "w8a8")
        assert (linear.kernel_weight.form().x_scale is not None) == static
    assert torch.equal(engine.embedding, make().embedding)
    assert f"to {engine.weight_bytes():,} bytes" in notes[-1]
    calls.reset()
    cache = engine.new_cache(1, 30)
    engine.forward(ids[:1, :20], cache, last_only=True)
    stepped = engine.forward(ids[:1, 20:22], cache)
    ops = {str(one["op"]) for one in calls.snapshot()}
    assert "linear_w8a8" in ops
    assert "linear_dense" not in ops
    whole = engine.forward(ids[:1, :22])[:, 20:]
    assert torch.allclose(stepped, whole, atol=2e-2 if dtype == "bf16" else 1e-4)


def test_a_static_scale_is_the_largest_input_or_a_percentile() -> None:
    inputs = Inputs(4, keep=400)
    rows = torch.arange(1, 101).float()[:, None].expand(-1, 4).clone()
    rows[-1] = -1000
    for part in rows.split(10):
        inputs.add(part)
    ones, s = torch.ones(4), torch.tensor([1.0, 2, 2, 2])
    assert smoothquant.static_scale(inputs, ones, 100) == pytest.approx(1000 / 127)
    assert smoothquant.static_scale(inputs, 10 * s, 100) == pytest.approx(100 / 127)
    assert smoothquant.static_scale(inputs, ones, 90) == pytest.approx(90 / 127, rel=0.02)
    empty = Inputs(2, keep=4)
    empty.add(torch.zeros(3, 2))
    assert smoothquant.static_scale(empty, torch.ones(2), 100) == 1.0


@pytest.mark.parametrize("mode", ["dynamic", "static"])
def test_a_classifiers_linears_are_int8_too(mode: str, deploy: Deploy, case: Any) -> None:
    from dataclasses import replace

    from core.engine.classifier import DigitsMLP

    torch.manual_seed(0)
    module = DigitsMLP((24,)).eval()
    images = torch.rand(5, 1, 8, 8)
    before = module(images)
    shape = ClassifierShape(1800, 1800, 64, 10, 64)
    image_case = replace(case, model=replace(case.model, shape=shape, family="mlp"))
    W8A8(mode).apply(deploy(module, image_case)[0])
    assert all(isinstance(one, KernelLinear) for one in module.linears)
    found = module(images)
    assert not torch.equal(found, before)
    assert torch.allclose(found, before, atol=0.03)
    with pytest.raises(Refused, match="use smooth=0"):
        W8A8(smooth=0.5).apply(deploy(module, image_case)[0])
    assert "use smooth=0" in str(W8A8(smooth=0.5).refuse(image_case))
    assert all(not one.technique.smooth for one in W8A8.proposals(image_case))


def test_weights_that_are_quantized_already_are_rounded_again(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    deployment, _ = deploy(engine)
    RoundToNearest(2).apply(deployment)
    coarse = engine.layers[0].qkv.dense()
    W8A8().apply(deployment)
    step = coarse.abs().amax(dim=1, keepdim=True) / 127
    assert bool(((engine.layers[0].qkv.dense() - coarse).abs() <= 0.51 * step).all())


def test_folding_works_on_memory_of_its_own(tiny: Callable[..., Any]) -> None:
    for dtype in ("fp32", "bf16"):
        layer = tiny(dtype, mlp_bias=True).layers[0]
        before, bias = layer.gate_up.dense().clone(), layer.gate_up.bias.clone()
        folded = Folded.of(layer.gate_up)
        folded.scale_columns(torch.full((64,), 3.0))
        folded.divide_rows(96, torch.full((96,), 2.0))
        assert torch.equal(layer.gate_up.dense(), before)
        assert torch.equal(layer.gate_up.bias, bias)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "both"}, "one of dynamic, static"),
        ({"smooth": 1.5}, "between 0 and 1"),
        ({"smooth": float("nan")}, "between 0 and 1"),
        ({"mode": "static", "percentile": 20.0}, "between 50 and 100"),
        ({"percentile": 99.0}, "belongs to mode=static"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        W8A8(**given)


def test_the_command_lines_words_are_read(case: Any) -> None:
    assert parse("w8a8:mode=static,smooth=0.8") == W8A8("static", 0.8)
    assert parse("w8a8") == W8A8()
    assert W8A8("static", 0.8) in [one.technique for one in W8A8.proposals(case)]
