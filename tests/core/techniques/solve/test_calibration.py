"""The calibration pass: what it collects is what the matrices are really given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.matrices import Matrix, of_decoder
from core.engine.modules import KernelLinear
from core.errors import Refused
from core.techniques import training_text
from core.techniques.deployment import Deployment
from core.techniques.solve import calibration
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.matrices import matrices
from kernels.linear_lowbit import LowBitWeight, quantize

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def test_sums_are_those_of_the_rows_together() -> None:
    random = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 5, 7, generator=random) for _ in range(4)]
    inputs = Inputs(7, keep=16)
    for part in parts:
        inputs.add(part)
    rows = torch.cat(parts).reshape(-1, 7).double()
    assert inputs.count == len(rows)
    assert torch.allclose(inputs.hessian().double(), 2 / len(rows) * rows.T @ rows, rtol=1e-4)
    assert torch.allclose(inputs.mean_abs.double(), rows.abs().mean(0), rtol=1e-5)
    assert torch.equal(inputs.absmax, rows.abs().amax(0).float())
    kept = inputs.sample
    assert kept.shape[0] <= 16
    assert all((rows.float() == row).all(dim=1).any() for row in kept)


def test_a_pass_without_second_order_refuses_a_hessian() -> None:
    inputs = Inputs(3, keep=4, second_order=False)
    inputs.add(torch.ones(2, 3))
    with pytest.raises(ValueError, match="without second order"):
        inputs.hessian()


@pytest.fixture
def text(monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    ids = torch.randint(0, 131, (6, 24), generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: ids)
    return ids


def test_inputs_are_those_of_an_ordinary_forward_pass(
    tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tiny("fp32", tied_embeddings=False)
    real: dict[str, torch.Tensor] = {}
    for name, linear in engine.linears():

        def spy(x: torch.Tensor, name: str = name, kernel: Any = linear.kernel_weight) -> Any:
            real[name] = x.reshape(-1, x.shape[-1]).clone()
            return kernel(x)

        monkeypatch.setattr(linear, "kernel_weight", spy)
    engine.forward(text)
    monkeypatch.undo()
    monkeypatch.setattr(calibration, "calibration_ids", lambda deployment, settings: text)
    seen: dict[str, Inputs] = {}
    each_matrix(
        deploy(engine)[0], CalibrationSet(), lambda one, inputs: seen.update({one.name: inputs})
    )
    assert list(seen) == [name for name, _ in engine.linears()]
    for name, rows in real.items():
        assert seen[name].count == len(rows)
        assert torch.allclose(seen[name].mean_abs, rows.abs().mean(0), atol=1e-5)


def test_later_matrices_see_what_the_replaced_ones_give(
    tiny: Callable[..., Any], deploy: Deploy, text: torch.Tensor
) -> None:
    def outputs(bits: int) -> dict[str, torch.Tensor]:
        engine, seen = tiny("fp32"), {}

        def choose(matrix: Matrix, inputs: Inputs) -> Any:
            seen[matrix.name] = inputs.mean_abs
            if matrix.name != "layers.0.qkv":
                return None
            return LowBitWeight(quantize(matrix.dense(), bits, 32), None, matrix.dtype)

        each_matrix(deploy(engine)[0], CalibrationSet(), choose)
        return seen

    fine, coarse = outputs(8), outputs(1)
    assert torch.equal(fine["layers.0.qkv"], coarse["layers.0.qkv"])
    assert not torch.allclose(fine["layers.0.o"], coarse["layers.0.o"], rtol=1e-2)
    assert not torch.equal(fine["layers.1.qkv"], coarse["layers.1.qkv"])


def test_a_tied_head_becomes_a_matrix_of_its_own(tiny: Callable[..., Any]) -> None:
    engine = tiny("fp32", tied_embeddings=True)
    embedding = engine.embedding.clone()
    head = of_decoder(engine)[-1]
    head.replace(LowBitWeight(quantize(head.dense(), 2, 32), None, head.dtype))
    assert torch.equal(engine.embedding, embedding)
    assert engine.head.format == "int2-g32"


def test_a_torch_modules_linears_are_collected_and_replaced(deploy: Deploy) -> None:
    from core.engine.classifier import DigitsMLP

    torch.manual_seed(0)
    module = DigitsMLP((24,)).eval()
    deployment, _ = deploy(module)
    found = matrices(deployment)
    assert [(one.name, one.n, one.k) for one in found] == [
        ("linears.0", 24, 64),
        ("linears.1", 10, 24),
    ]
    images = torch.rand(5, 1, 8, 8)
    before, held = module(images), module.weight_bytes()
    for one in found:
        one.replace(LowBitWeight(quantize(one.dense(), 8, 32), one.bias, one.dtype))
    assert all(isinstance(one, KernelLinear) for one in module.linears)
    assert torch.allclose(module(images), before, atol=0.05)
    assert not torch.equal(module(images), before)
    assert module.weight_bytes() < held / 2


def test_random_weights_are_calibrated_on_random_tokens(
    tiny: Callable[..., Any], deploy: Deploy, case: Any
) -> None:
    from dataclasses import replace

    shape = replace(case, model=replace(case.model, source="shape"))
    deployment, notes = deploy(tiny(), shape)
    ids = calibration.calibration_ids(deployment, CalibrationSet(5, 4096))
    assert ids.shape == (5, 512)
    assert torch.equal(ids, calibration.calibration_ids(deployment, CalibrationSet(5, 4096)))
    assert "random tokens" in notes[0]


def test_without_a_tokenizer_the_model_writes_what_it_is_calibrated_on(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    deployment, notes = deploy(tiny())
    ids = calibration.calibration_ids(deployment, CalibrationSet(3, 24))
    assert ids.shape == (3, 24)
    assert "text that the unchanged model wrote itself" in notes[0]


def test_too_little_text_is_refused(
    tiny: Callable[..., Any], deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment, _ = deploy(tiny(), tokenizer=object())
    monkeypatch.setattr(training_text, "training_stream", lambda *_: [0] * 7)
    with pytest.raises(Refused, match="7 tokens, fewer than one sequence of 256"):
        calibration.calibration_ids(deployment, CalibrationSet())
