"""Weight-only quantization: the formats change, the bytes shrink, the logits are those of the
rounded weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.techniques.deployment import Deployment
from core.techniques.quantize.weight_int import WeightInt4, WeightInt8

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
PAIRS = [(WeightInt8(), "int8"), (WeightInt4(), "int4-g32"), (WeightInt4(64), "int4-g64")]


@pytest.mark.parametrize(("technique", "format_"), PAIRS)
@pytest.mark.parametrize("tied", [True, False])
def test_every_matrix_and_the_head_change_and_the_embedding_stays(
    technique: Any, format_: str, tied: bool, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16", tied_embeddings=tied)
    before, embedding = engine.weight_bytes(), engine.embedding.clone()
    deployment, notes = deploy(engine)
    technique.apply(deployment)
    # A group of a whole row has no group in its name.
    whole = {64: format_.removesuffix("-g64")}
    for _, linear in engine.linears():
        assert linear.format == whole.get(linear.in_features, format_)
    assert [name for name, _ in engine.linears()][-1] == "head"
    assert torch.equal(engine.embedding, embedding)
    assert engine.embedding.dtype == torch.bfloat16
    assert f"{before:,} to {engine.weight_bytes():,} bytes" in notes[0]
    if not tied:
        assert engine.weight_bytes() < before


@pytest.mark.parametrize(("technique", "format_"), PAIRS)
def test_the_bytes_are_the_sum_of_every_tensor_that_is_kept(
    technique: Any, format_: str, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    technique.apply(deploy(engine)[0])
    kept = [engine.embedding, engine.final_norm]
    for layer in engine.layers:
        kept += [layer.attn_norm, layer.mlp_norm]
    for _, linear in engine.linears():
        kept += linear.tensors()
        assert all(t.dtype not in (torch.float32,) or t.numel() < 10_000 for t in linear.tensors())
    assert engine.weight_bytes() == sum(t.numel() * t.element_size() for t in kept)


@pytest.mark.parametrize(
    ("technique", "bits"), [(WeightInt8(), 8 + 16 / 128), (WeightInt4(32), 4 + 24 / 32)]
)
def test_codes_and_scales_take_the_bits_that_the_format_promises(
    technique: Any, bits: float, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    shape = {"hidden_size": 128, "head_dim": 32, "intermediate_sizes": (128, 128)}
    engine = tiny("bf16", vocab_size=128, **shape)
    technique.apply(deploy(engine)[0])
    for _, linear in engine.linears():
        promised = linear.out_features * linear.in_features * bits / 8
        # A table of 256 bytes is kept with every matrix.
        assert linear.nbytes == pytest.approx(promised + 256, rel=0.01)


@pytest.mark.parametrize(("technique", "format_"), PAIRS)
def test_the_logits_are_those_of_the_dequantized_weights(
    technique: Any, format_: str, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16", seed=3)
    untouched = tiny("bf16", seed=3)
    technique.apply(deploy(engine)[0])
    rounded = TrainableDecoder.from_decoder(engine)
    ids = torch.randint(0, 131, (2, 19))
    with torch.no_grad():
        expected = rounded(ids)
    found = engine.forward(ids)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 0.02 * scale
    moved = (untouched.forward(ids) - found).abs().max()
    assert moved > 0


def test_int8_rounds_each_row_to_its_own_steps(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine, original = tiny("bf16", seed=4), tiny("bf16", seed=4)
    WeightInt8().apply(deploy(engine)[0])
    for (_, now), (_, was) in zip(engine.linears(), original.linears(), strict=True):
        step = was.dense().abs().amax(dim=1, keepdim=True) / 128
        # The largest value opposite to the one that sets the scale may end a step early.
        assert bool(((now.dense() - was.dense()).abs() <= step * 1.1).all())
        assert (now.dense() - was.dense()).abs().mean() < 0.3 * step.mean()


def test_int4_loses_more_than_int8(tiny: Callable[..., Any], deploy: Deploy) -> None:
    errors = []
    for technique in (WeightInt8(), WeightInt4(), WeightInt4(128)):
        engine, original = tiny("bf16", seed=5), tiny("bf16", seed=5)
        technique.apply(deploy(engine)[0])
        lost = original.layers[0].down.dense() - engine.layers[0].down.dense()
        errors.append(float(lost.norm()))
    assert errors == sorted(errors)


def test_progress_is_told_matrix_by_matrix(tiny: Callable[..., Any], deploy: Deploy) -> None:
    shares: list[float] = []
    WeightInt8().apply(deploy(tiny("bf16"), report=shares.append)[0])
    assert shares == pytest.approx([step / 9 for step in range(1, 10)])


def test_what_has_no_linear_layer_is_refused(deploy: Deploy) -> None:
    with pytest.raises(Refused, match="tiny has no linear layer that could be quantized"):
        WeightInt8().apply(deploy(torch.nn.ReLU())[0])
