"""Pruning MLP channels: the rest computes what a masked dense model does, and really shrinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.deployment import Deployment
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.prune.slicing import channel_scores, kept_width, slice_mlp

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def test_scores_are_the_product_of_three_norms_by_hand() -> None:
    gate = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    up = torch.tensor([[0.0, 2.0], [1.0, 0.0], [5.0, 5.0]])
    down = torch.tensor([[1.0, 2.0, 1.0], [0.0, 2.0, 1.0]])
    found = channel_scores(torch.cat([gate, up]), down)
    assert found.tolist() == pytest.approx([5 * 2 * 1, 1 * 1 * 8**0.5, 0.0])
    assert found.dtype == torch.float32


def test_a_score_bounds_what_its_channel_can_add() -> None:
    gate, up, down = torch.randn(40, 16), torch.randn(40, 16), torch.randn(16, 40)
    scores = channel_scores(torch.cat([gate, up]), down).double()
    for x in torch.randn(20, 16).double():
        # |silu(a)| <= |a|, so |down_i silu(g_i x) (u_i x)| <= score_i |x|^2.
        hidden = torch.nn.functional.silu(gate.double() @ x) * (up.double() @ x)
        added = down.double().norm(dim=0) * hidden.abs()
        assert bool((added <= scores * x.square().sum() * (1 + 1e-6)).all())


@pytest.mark.parametrize(
    ("width", "sparsity", "kept"),
    [
        (896, 0.25, 672),
        (896, 0.5, 448),
        (352, 0.25, 256),
        (352, 0.5, 192),
        (96, 0.99, 32),
        (96, 0.01, 64),
        (40, 0.5, 32),
        (33, 0.01, 32),
        (14336, 0.25, 10752),
    ],
)
def test_widths_stay_multiples_of_32_and_always_shrink(
    width: int, sparsity: float, kept: int
) -> None:
    assert kept_width(width, sparsity) == kept
    assert kept % 32 == 0
    assert 32 <= kept < width


@pytest.mark.parametrize("family", ["llama", "qwen3"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_pruned_decoder_equals_the_dense_one_with_the_channels_zeroed(
    family: str, dtype: str, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    fields = {"family": family, "qk_norm": family == "qwen3", "intermediate_sizes": (160, 96)}
    engine, dense = tiny(dtype, **fields), tiny(dtype, **fields)
    deployment, notes = deploy(engine)
    slice_mlp(deployment, 0.4)
    assert engine.config.intermediate_sizes == (96, 64)
    # The masked copy: zero the same channels of the untouched weights, in fp64.
    weights = {name: value.double() for name, value in dense.export_tensors().items()}
    for index, kept in enumerate((96, 64)):
        at = f"model.layers.{index}.mlp."
        gate, up, down = (weights[f"{at}{part}_proj.weight"] for part in ("gate", "up", "down"))
        scores = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
        gone = scores.argsort(descending=True)[kept:]
        gate[gone], up[gone], down[:, gone] = 0.0, 0.0, 0.0
    masked = TrainableDecoder(dense.config, {n: v.float() for n, v in weights.items()}).double()
    ids = torch.randint(0, 131, (2, 17))
    with torch.no_grad():
        expected = masked(ids)
    scale = expected.abs().max()
    tolerance = 1e-5 if dtype == "fp32" else 0.02
    assert (engine.forward(ids).double() - expected).abs().max() < tolerance * scale
    assert "from 160 to 96" in notes[0]


def test_what_is_kept_are_rows_of_the_original_in_their_order(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine, original = tiny("bf16"), tiny("bf16")
    slice_mlp(deploy(engine)[0], 0.3)
    before, after = original.layers[0], engine.layers[0]
    gate, up = before.gate_up.dense().chunk(2)
    scores = channel_scores(before.gate_up.dense(), before.down.dense())
    kept = sorted(scores.argsort(descending=True)[:64].tolist())
    assert torch.equal(after.gate_up.dense(), torch.cat([gate[kept], up[kept]]))
    assert torch.equal(after.down.dense(), before.down.dense()[:, kept])
    assert after.gate_up.format == after.down.format == "bf16"


def test_biases_are_sliced_with_their_rows(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny(mlp_bias=True)
    bias = torch.arange(192.0)
    layer = engine.layers[0]
    layer.gate_up = type(layer.gate_up).from_dense(layer.gate_up.dense(), bias, "fp32")
    scores = channel_scores(layer.gate_up.dense(), layer.down.dense())
    kept = torch.tensor(sorted(scores.argsort(descending=True)[:64].tolist()))
    slice_mlp(deploy(engine)[0], 0.3)
    assert torch.equal(engine.layers[0].gate_up.bias, torch.cat([bias[kept], bias[kept + 96]]))
    assert engine.layers[0].down.bias.shape == (64,)
    assert engine.forward(torch.zeros(1, 4, dtype=torch.int64)).shape == (1, 4, 131)


def test_the_bytes_of_the_weights_shrink_by_the_removed_matrices(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny("bf16")
    before = engine.weight_bytes()
    shares: list[float] = []
    deployment, _ = deploy(engine, report=shares.append)
    PruneMlpChannels(0.3).apply(deployment)
    assert before - engine.weight_bytes() == 2 * 3 * (96 - 64) * 64 * 2
    assert shares == [0.5, 1.0]


def test_a_pruned_decoder_steps_as_it_reads(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny("fp32")
    slice_mlp(deploy(engine)[0], 0.5)
    ids = torch.randint(0, 131, (1, 9))
    cache = engine.new_cache(1, 16)
    steps = [engine.forward(ids[:, i : i + 1], cache) for i in range(9)]
    assert torch.allclose(torch.cat(steps, dim=1), engine.forward(ids), atol=1e-4)


def test_quantized_weights_are_not_pruned(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny("bf16")
    engine.layers[0].gate_up = engine.layers[0].gate_up.to_format("int8")
    with pytest.raises(Refused, match="prune before quantizing"):
        slice_mlp(deploy(engine)[0], 0.5)


def test_one_quantized_side_is_enough_to_refuse(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny("bf16")
    engine.layers[0].down = engine.layers[0].down.to_format("int8")
    with pytest.raises(Refused, match="already quantized"):
        slice_mlp(deploy(engine)[0], 0.5)


def test_a_layer_with_nothing_to_cut_is_refused(tiny: Callable[..., Any], deploy: Deploy) -> None:
    with pytest.raises(Refused, match="layer 1 has only 32 MLP channels"):
        slice_mlp(deploy(tiny(intermediate_sizes=(96, 32)))[0], 0.5)


def test_another_kind_of_model_is_refused(deploy: Deploy) -> None:
    with pytest.raises(Refused, match="needs a model of the Llama family"):
        slice_mlp(deploy(torch.nn.Linear(2, 2))[0], 0.5)
