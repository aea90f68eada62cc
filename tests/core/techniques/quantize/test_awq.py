"""AWQ: folding changes no function, salient columns are protected, and it runs end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.catalogue import models, workloads
from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.engine.reference import TrainableDecoder
from core.errors import BadInput, Refused
from core.machine import targets
from core.plan import Case
from core.techniques import parse
from core.techniques.deployment import Deployment
from core.techniques.quantize.awq import Awq
from core.techniques.solve import calibration
from core.techniques.solve.awq_scales import Shared, clipped, fold_layer, search_columns
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.gptq_rounding import Grid
from core.techniques.solve.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    ids = torch.randint(0, 131, (8, 24), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: ids)
    return ids


def inputs_of(rows: torch.Tensor) -> Inputs:
    found = Inputs(rows.shape[1], keep=len(rows))
    for part in rows.split(max(1, len(rows) // 8)):
        found.add(part)
    return found


def salient(n: int = 24, k: int = 64) -> tuple[torch.Tensor, Inputs, int]:
    """A matrix, inputs with one column a hundred times the others, and which one."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(256, k, generator=random)
    rows[:, 17] *= 100
    return torch.randn(n, k, generator=random), inputs_of(rows), 17


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("bits", [3, 4])
def test_a_salient_column_is_protected(bits: int, symmetric: bool) -> None:
    weight, inputs, at = salient()
    grid = Grid(bits, 32, symmetric)
    s = search_columns(weight, inputs, grid)
    assert int(s.argmax()) == at
    lost = grid.nearest(weight * s).dequantize() / s - weight
    before = grid.nearest(weight).dequantize() - weight
    assert lost[:, at].square().sum() < before[:, at].square().sum() / 4
    missed, plain = (float((inputs.sample @ one.T).square().sum()) for one in (lost, before))
    assert missed < plain / 3


def test_inputs_that_are_all_alike_or_all_zero_need_no_scales() -> None:
    weight = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    for rows in (torch.ones(16, 32), torch.zeros(16, 32)):
        assert torch.equal(
            search_columns(weight, inputs_of(rows), Grid(4, 32, True)), torch.ones(32)
        )


def test_a_column_that_is_always_zero_gets_a_finite_scale() -> None:
    weight, inputs, _ = salient()
    rows = inputs.sample.clone()
    rows[:, 3] = 0
    s = search_columns(weight, inputs_of(rows), Grid(3, 32, False))
    assert bool((s > 0).all())
    assert bool(s.isfinite().all())


def test_heads_that_share_a_row_of_v_share_its_scale() -> None:
    shared = Shared(heads=4, kv_heads=2, dim=3)
    columns = torch.arange(12.0)
    mean = shared.mean(columns)
    # Heads 0 and 1 read the first head of v, 2 and 3 the second.
    assert mean.tolist() == [1.5, 2.5, 3.5, 7.5, 8.5, 9.5]
    assert shared.repeat(mean).view(4, 3)[1].tolist() == [1.5, 2.5, 3.5]
    assert shared.repeat(mean).view(4, 3)[2].tolist() == [7.5, 8.5, 9.5]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_folding_leaves_the_function_as_it_was(
    family: str, tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    fields: dict[str, Any] = {"family": family, "tied_embeddings": False}
    if family == "qwen2":
        fields["qkv_bias"] = True
    if family == "qwen3":
        fields["qk_norm"] = True
    engine: Decoder = tiny("fp32", **fields)
    random = torch.Generator().manual_seed(7)
    for layer in engine.layers:
        for norm in (layer.attn_norm, layer.mlp_norm):
            norm.copy_(torch.rand(norm.shape, generator=random) * 3 + 0.05)
        if layer.qkv.bias is not None:
            layer.qkv.bias.copy_(torch.randn(layer.qkv.bias.shape, generator=random))
    before = engine.forward(text)
    seen: dict[str, Inputs] = {}
    each_matrix(
        deploy(engine)[0], CalibrationSet(), lambda one, given: seen.update({one.name: given})
    )
    for index, layer in enumerate(engine.layers):
        inputs = {name: seen[f"layers.{index}.{name}"] for name in MATRICES}
        norms = layer.attn_norm.clone(), layer.mlp_norm.clone()
        folded = fold_layer(layer, engine.config, inputs, Grid(2, 32, False))
        for name, one in folded.items():
            assert not torch.allclose(one.s, torch.ones_like(one.s)), name
            setattr(layer, name, Linear(one.weight, one.bias))
        assert not torch.equal(layer.attn_norm, norms[0])
        assert not torch.equal(layer.mlp_norm, norms[1])
    after = engine.forward(text)
    assert torch.allclose(after, before, atol=2e-5 * float(before.abs().max()))


def test_clipping_loses_no_more_than_the_whole_range() -> None:
    weight, inputs, _ = salient(k=70)
    for symmetric in (False, True):
        for group in (0, 32):
            grid = Grid(3, group, symmetric)
            found = clipped(weight, inputs.sample, grid)
            assert found.format == grid.nearest(weight).format
            parts = range(0, 70, grid.size(70))
            for begin in parts:
                part = slice(begin, begin + grid.size(70))
                lost, before = (
                    float((inputs.sample[:, part] @ (one - weight)[:, part].T).square().sum())
                    for one in (found.dequantize(), grid.nearest(weight).dequantize())
                )
                assert lost <= before * 1.001


@pytest.mark.parametrize("then", ["nearest", "gptq"])
@pytest.mark.parametrize("tied", [True, False])
def test_it_runs_on_codes_and_the_logits_are_those_of_the_dequantized_weights(
    then: str, tied: bool, tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    engine, untouched = tiny("bf16", tied_embeddings=tied), tiny("bf16", tied_embeddings=tied)
    deployment, notes = deploy(engine)
    Awq(4, 32, then=then).apply(deployment)
    assert {linear.format for _, linear in engine.linears()} == {"int4-g32"}
    assert torch.equal(engine.embedding, untouched.embedding)
    assert "weights went from" in notes[-1]
    found = engine.forward(text)
    with torch.no_grad():
        expected = TrainableDecoder.from_decoder(engine)(text)
    scale = float(expected.abs().max())
    assert (found - expected).abs().max() < 0.03 * scale
    assert (found - untouched.forward(text)).abs().mean() < 0.1 * scale


def test_it_is_refused_where_nothing_takes_the_scales(deploy: Deploy) -> None:
    with pytest.raises(Refused, match=r"awq.*needs a model of the Llama family"):
        Awq().apply(deploy(torch.nn.Sequential(torch.nn.Linear(4, 4)))[0])
    images = Case(
        models.resolve("digits-mlp"), targets.resolve("local"), workloads.resolve("sensor-frame")
    )
    sentence = Awq().refuse(images)
    assert sentence is not None
    assert "inverse scales" in sentence


def test_weights_that_are_not_finite_are_refused(
    tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    engine = tiny("fp32")
    engine.layers[1].down.weight[3, 3] = float("nan")
    with pytest.raises(Refused, match=r"awq: .*NaN or infinite"):
        Awq().apply(deploy(engine)[0])


@pytest.mark.parametrize(
    ("words", "named"),
    [("bits=5", "bits"), ("group_size=16", "group_size"), ("then=rtn", "then"), ("clip=2", "clip")],
)
def test_settings_that_do_not_exist_are_named(words: str, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        parse(f"awq:{words}")
    assert parse("awq:then=gptq,bits=3") == Awq(3, then="gptq")


def test_the_weights_of_dead_columns_are_rounded_as_well_as_any() -> None:
    random = torch.Generator().manual_seed(4)
    weight = torch.randn(48, 64, generator=random)
    rows = torch.randn(200, 64, generator=random) * torch.rand(64, generator=random).exp()
    dead = [5, 33, 34]
    rows[:, dead] = 0.0
    given = Inputs(64, keep=200)
    given.add(rows)
    grid = Grid(4, 32, symmetric=False)
    s = search_columns(weight, given, grid)
    assert bool((s[dead] > 0.2).all())
    made = clipped(weight * s, given.sample / s, grid).dequantize() / s - weight
    nearest = grid.nearest(weight).dequantize() - weight
    assert made[:, dead].square().mean() < 4 * nearest[:, dead].square().mean()
    assert (rows @ made.T).square().sum() < (rows @ nearest.T).square().sum()
