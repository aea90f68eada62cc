"""Pruning MLP channels: the rest computes what a masked dense model does, and really shrinks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.linear import Linear
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.techniques.deployment import Deployment
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.prune.slicing import activities, channel_scores, slice_mlp
from core.techniques.prune.width import kept_width
from core.techniques.solve import calibration

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = torch.randint(0, 131, (6, 40), generator=torch.Generator().manual_seed(3))
Deploy = Callable[..., tuple[Deployment, list[str]]]


@pytest.fixture(autouse=True)
def _text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: TEXT)


def hidden(engine: Any, index: int) -> torch.Tensor:
    """fp64 [tokens, I]: what the channels of a layer say on TEXT, by plain arithmetic behind the
    hooks of the untouched layers.
    """
    seen: list[torch.Tensor] = []
    layer = engine.layers[index]
    whole = layer.down

    class Looking:
        def __getattr__(self, name: str) -> Any:
            return getattr(whole, name)

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return whole(x)

    layer.down = Looking()
    engine.forward(TEXT)
    layer.down = whole
    return torch.cat(seen).flatten(0, 1).double()


def changes(engine: Any, index: int) -> list[float]:
    """The mean squared change of a layer's MLP output for each channel, removed and measured."""
    said, layer = hidden(engine, index), engine.layers[index]
    down, bias = layer.down.dense().double(), layer.down.bias
    want = said @ down.T
    found = []
    for channel in range(said.shape[1]):
        without = said.clone()
        without[:, channel] = 0.0 if bias is None else said[:, channel].mean()
        found.append(float((without @ down.T - want).square().sum(dim=1).mean()))
    return found


@pytest.mark.parametrize("biases", [False, True])
def test_a_score_is_what_removing_the_channel_changes(
    biases: bool, tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = with_biases(tiny()) if biases else tiny()
    found = activities(deploy(engine)[0])
    assert len(found) == 2
    for index, activity in enumerate(found):
        layer = engine.layers[index]
        scores = channel_scores(activity, layer.down.dense(), biases)
        want = torch.tensor(changes(engine, index), dtype=torch.float64)
        torch.testing.assert_close(scores, want, rtol=1e-4, atol=1e-9 * float(want.max()))


def with_biases(engine: Any) -> Any:
    """Biases that matter more than the inputs in some channels; one channel says a constant."""
    generator = torch.Generator().manual_seed(8)
    for layer in engine.layers:
        width = layer.down.in_features
        gate_up = layer.gate_up.dense() * 3
        bias = torch.randn(2 * width, generator=generator)
        bias[:20], bias[width : width + 20] = 3.0, 3.0
        gate_up[[5, width + 5]] = 0.0
        layer.gate_up = Linear.from_dense(gate_up, bias, "fp32")
        down = torch.randn(64, generator=generator)
        layer.down = Linear.from_dense(layer.down.dense() * 3, down, "fp32")
    return engine


def test_a_constant_channel_goes_first_and_its_constant_stays(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = with_biases(tiny(mlp_bias=True))
    said, layer = hidden(engine, 0), engine.layers[0]
    before = layer.down.dense().double(), layer.down.bias.double()
    assert float(said[:, 5].std()) < 1e-6 < float(said[:, 5].abs().mean())
    scores = channel_scores(activities(deploy(engine)[0])[0], layer.down.dense(), folds=True)
    assert int(scores.argmin()) == 5
    kept = sorted(scores.argsort(descending=True)[:64].tolist())
    slice_mlp(deploy(engine)[0], 0.3)
    gone = sorted(set(range(96)) - set(kept))
    folded = before[1] + before[0][:, gone] @ said[:, gone].mean(dim=0)
    after = engine.layers[0].down
    torch.testing.assert_close(after.bias.double(), folded, rtol=1e-5, atol=1e-6)
    # Nearer to the whole layer than the same cut with its bias as it was.
    whole = said @ before[0].T + before[1]
    cut = said[:, kept] @ before[0][:, kept].T
    assert (cut + folded - whole).square().mean() < 0.5 * (cut + before[1] - whole).square().mean()


def test_without_a_bias_in_down_a_loud_constant_channel_is_kept(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = with_biases(tiny())
    for layer in engine.layers:
        layer.down = Linear.from_dense(layer.down.dense(), None, "fp32")
    constant = engine.layers[0].down.dense()[:, 5].clone()
    slice_mlp(deploy(engine)[0], 0.3)
    assert bool((engine.layers[0].down.dense() == constant[:, None]).all(dim=0).any())


def test_channels_that_never_wake_go_however_large_their_weights(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine = tiny(intermediate_sizes=(64, 64))
    layer = engine.layers[0]
    gate_up = layer.gate_up.dense()
    asleep = torch.arange(0, 64, 2)
    gate_up[asleep] = 0.0
    gate_up[64 + asleep] *= 1000
    layer.gate_up = Linear.from_dense(gate_up, None, "fp32")
    ids = torch.randint(0, 131, (2, 30))
    want = engine.forward(ids)
    first = engine.layers[0].down.dense()
    slice_mlp(deploy(engine)[0], 0.5)
    assert torch.equal(engine.layers[0].down.dense(), first[:, asleep + 1])
    assert engine.forward(ids).shape == want.shape


def test_a_folder_without_a_tokenizer_is_cut_by_what_the_model_writes(
    tiny: Callable[..., Any], deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    deployment, notes = deploy(tiny())
    slice_mlp(deployment, 0.3)
    assert "text that the unchanged model wrote itself" in notes[0]
    assert deployment.engine.config.intermediate_sizes == (64, 64)


def scores_of(engine: Any, deploy: Deploy) -> list[torch.Tensor]:
    """The scores of every layer's channels."""
    found = activities(deploy(engine)[0])
    return [
        channel_scores(one, layer.down.dense(), layer.down.bias is not None)
        for one, layer in zip(found, engine.layers, strict=True)
    ]


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
    scores = scores_of(dense, deploy)
    slice_mlp(deployment, 0.4)
    assert engine.config.intermediate_sizes == (96, 64)
    # The masked copy: zero the same channels of the untouched weights, in fp64.
    weights = {name: value.double() for name, value in dense.export_tensors().items()}
    for index, kept in enumerate((96, 64)):
        at = f"model.layers.{index}.mlp."
        gate, up, down = (weights[f"{at}{part}_proj.weight"] for part in ("gate", "up", "down"))
        gone = scores[index].argsort(descending=True)[kept:]
        gate[gone], up[gone], down[:, gone] = 0.0, 0.0, 0.0
    masked = TrainableDecoder(dense.config, {n: v.float() for n, v in weights.items()}).double()
    ids = torch.randint(0, 131, (2, 17))
    with torch.no_grad():
        expected = masked(ids)
    scale = expected.abs().max()
    tolerance = 1e-5 if dtype == "fp32" else 0.02
    assert (engine.forward(ids).double() - expected).abs().max() < tolerance * scale
    assert "from 160 to 96" in notes[-1]


def test_what_is_kept_are_rows_of_the_original_in_their_order(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine, original = tiny("bf16"), tiny("bf16")
    slice_mlp(deploy(engine)[0], 0.3)
    before, after = original.layers[0], engine.layers[0]
    gate, up = before.gate_up.dense().chunk(2)
    scores = scores_of(original, deploy)[0]
    kept = sorted(scores.argsort(descending=True)[:64].tolist())
    assert torch.equal(after.gate_up.dense(), torch.cat([gate[kept], up[kept]]))
    assert torch.equal(after.down.dense(), before.down.dense()[:, kept])
    assert after.gate_up.format == after.down.format == "bf16"


def test_biases_are_sliced_with_their_rows(tiny: Callable[..., Any], deploy: Deploy) -> None:
    engine = tiny(mlp_bias=True)
    bias = torch.arange(192.0)
    layer = engine.layers[0]
    layer.gate_up = Linear.from_dense(layer.gate_up.dense(), bias, "fp32")
    layer.down = Linear.from_dense(layer.down.dense(), torch.ones(64), "fp32")
    scores = scores_of(engine, deploy)[0]
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
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


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
