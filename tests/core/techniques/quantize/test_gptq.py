"""GPTQ on whole models: codes that run, less loss than by rounding to nearest, sentences."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core.catalogue import models, workloads
from core.data.passages import digits
from core.engine.load.load import load_engine
from core.engine.modules import KernelLinear
from core.engine.reference import TrainableDecoder
from core.errors import BadInput, Refused
from core.machine import targets
from core.plan import Case
from core.techniques import parse, training_text
from core.techniques.deployment import Deployment
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.solve import calibration
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.inputs import Inputs

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    ids = torch.randint(0, 131, (16, 32), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: ids)
    return ids


@pytest.mark.parametrize("technique", [Gptq(), Gptq(3, 64, 1, act_order=0, refits=0, clean=0)])
def test_it_runs_on_codes_and_the_logits_are_those_of_the_dequantized_weights(
    technique: Gptq, tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    engine = tiny("bf16")
    deployment, notes = deploy(engine)
    technique.apply(deployment)
    # A head of 64 columns is a group of its own.
    short = f"int{technique.bits}"
    assert {linear.format.partition("-")[0] for _, linear in engine.linears()} == {short}
    assert "gptq: weights went from" in notes[-1]
    found = engine.forward(text)
    with torch.no_grad():
        expected = TrainableDecoder.from_decoder(engine)(text)
    assert (found - expected).abs().max() < 0.03 * float(expected.abs().max())


@pytest.mark.parametrize("symmetric", [0, 1])
def test_it_stays_nearer_to_the_unchanged_model_than_rounding_to_nearest(
    symmetric: int, tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    clean = tiny("fp32", seed=2).forward(text)

    def lost(technique: Any) -> float:
        engine = tiny("fp32", seed=2)
        technique.apply(deploy(engine)[0])
        return float((engine.forward(text) - clean).square().mean())

    nearest = lost(RoundToNearest(3, 32, symmetric))
    plain = lost(Gptq(3, 32, symmetric, refits=0, clean=0))
    best = lost(Gptq(3, 32, symmetric))
    assert plain < 0.9 * nearest
    assert best < plain


def test_every_linear_of_a_classifier_becomes_codes(deploy: Deploy) -> None:
    case = Case(
        models.resolve("digits-mlp"), targets.resolve("local"), workloads.resolve("sensor-frame")
    )
    engine, before = load_engine(case.model), load_engine(case.model)
    Gptq(4, 32).apply(deploy(engine, case)[0])
    nearest = load_engine(case.model)
    RoundToNearest(4, 32).apply(deploy(nearest, case)[0])
    made = [part for part in engine.modules() if isinstance(part, KernelLinear)]
    assert made
    assert all(one.format.startswith("int4") for one in made)
    images, labels = digits("held_out")
    with torch.inference_mode():
        clean = before(images)
        ours, theirs = ((one(images) - clean).square().mean() for one in (engine, nearest))
        right = float((engine(images).argmax(-1) == labels).float().mean())
    assert ours < theirs
    assert right > 0.9


def test_the_unchanged_models_inputs_are_seen_beside_the_changed_ones(
    tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    seen: dict[str, Inputs] = {}
    each_matrix(
        deploy(tiny("fp32"))[0],
        CalibrationSet(),
        lambda one, given: seen.update({one.name: given}),
        clean=True,
    )
    for given in seen.values():
        cross = given.cross()
        assert cross is not None
        # Nothing was changed: both are the same.
        assert torch.allclose(cross, given.hessian(), rtol=1e-4, atol=1e-6)
    assert next(iter(seen.values())).count == text.numel()
    changed: dict[str, Inputs] = {}

    def zero_first(matrix: Any, given: Inputs) -> Any:
        changed[matrix.name] = given
        if matrix.name == "layers.0.qkv":
            from kernels import linear_dense

            return linear_dense.prepare(torch.zeros(matrix.n, matrix.k), None)
        return None

    each_matrix(deploy(tiny("fp32"))[0], CalibrationSet(), zero_first, clean=True)
    cross = changed["layers.1.qkv"].cross()
    assert cross is not None
    assert not torch.allclose(cross, changed["layers.1.qkv"].hessian(), rtol=1e-3)


def test_text_shorter_than_one_sequence_is_refused(
    tiny: Callable[..., Any], deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_text, "training_stream", lambda *given: [0] * 10)
    deployment, _ = deploy(tiny("fp32"), tokenizer=SimpleNamespace())
    with pytest.raises(Refused, match="10 tokens, fewer than one sequence of 256"):
        Gptq().apply(deployment)


def test_weights_and_inputs_that_are_not_finite_are_refused_by_name(
    tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    engine = tiny("fp32")
    engine.layers[1].o.weight[0, 0] = float("nan")
    with pytest.raises(Refused, match=r"layers\.1\.o: .*NaN or infinite"):
        Gptq(clean=0).apply(deploy(engine)[0])
    engine = tiny("fp32")
    engine.layers[0].attn_norm[0] = float("inf")
    with pytest.raises(Refused, match=r"layers\.0\.qkv: the calibration inputs have NaN"):
        Gptq().apply(deploy(engine)[0])


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("bits=5", "bits"),
        ("group_size=16", "group_size"),
        ("act_order=2", "act_order"),
        ("damping=-1", "damping"),
        ("damping=nan", "damping"),
        ("refits=-1", "refits"),
        ("samples=0", "samples"),
    ],
)
def test_settings_that_do_not_exist_are_named(words: str, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        parse(f"gptq:{words}")
    assert parse("gptq:bits=3,damping=0.05") == Gptq(3, damping=0.05)
