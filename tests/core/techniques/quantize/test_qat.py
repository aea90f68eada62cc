"""Training under rounding: what runs is what was trained, and it beats rounding alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core.catalogue.models import resolve
from core.data.passages import Windows, digits, held_out_windows
from core.engine.linear import Linear
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import Refused
from core.measure.quality.text import text_quality
from core.plan import Case
from core.techniques import training_loop
from core.techniques.deployment import Deployment
from core.techniques.quantize.qat import Qat
from core.techniques.solve import qat_training
from core.techniques.solve.matrices import replace_each
from kernels.linear_lowbit import quantize

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
Tiny = Callable[..., Any]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 32 tokens instead of 256, so that a step is quick."""
    monkeypatch.setattr(training_loop, "LENGTH", 32)


def sharp(tiny: Tiny, **fields: Any) -> Any:
    """A random decoder over the zoo's vocabulary whose answers depend on its weights."""
    engine = tiny("bf16", seed=6, vocab_size=4096, bos_token_id=0, num_layers=1,
                  intermediate_sizes=(96,), **fields)  # fmt: skip
    engine.embedding *= 8
    for layer in engine.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            getattr(layer, name).weight.mul_(4)
    return engine


def deployed(deploy: Deploy, tiny: Tiny, **fields: Any) -> tuple[Deployment, list[str], Any]:
    teacher = sharp(tiny, **fields)
    deployment, notes = deploy(sharp(tiny, **fields), tokenizer=load_tokenizer("pycode-small"))
    deployment.load_baseline = lambda: teacher
    return deployment, notes, teacher


def kl(engine: Any, teacher: Any, windows: Windows) -> float:
    found = text_quality(engine, teacher, windows)
    return next(float(one.value or 0.0) for one in found if one.metric == "kl_nats")


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("bits", "start"), [(2, "nearest"), (3, "gptq"), (4, "nearest")])
def test_it_beats_rounding_to_nearest_on_held_out_text(
    bits: int, start: str, tiny: Tiny, deploy: Deploy
) -> None:
    deployment, notes, teacher = deployed(deploy, tiny)
    windows = held_out_windows(deployment.tokenizer, (0,), 4, 48)
    nearest = deployed(deploy, tiny)[0]
    replace_each(nearest, lambda one: quantize(one.dense(), bits, 32, symmetric=False))
    weights = {name: value.clone() for name, value in teacher.export_tensors().items()}
    Qat(bits, steps=15, start=start).apply(deployment)
    assert kl(deployment.engine, teacher, windows) < kl(nearest.engine, teacher, windows)
    assert {one.format for _, one in deployment.engine.linears()} == {f"int{bits}-g32"}
    assert deployment.engine.weight_bytes() == nearest.engine.weight_bytes()
    assert any("15 steps of 4 x 32 tokens: loss" in note for note in notes)
    for name, value in teacher.export_tensors().items():
        assert torch.equal(value, weights[name]), f"the teacher's {name} changed"


@pytest.mark.parametrize("symmetric", [0, 1])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("shape", [{}, {"qkv_bias": True, "tied_embeddings": False}])
def test_the_packed_model_computes_what_the_trained_one_did(
    symmetric: int, bits: int, shape: dict[str, Any], tiny: Tiny, deploy: Deploy
) -> None:
    deployment, _ = deploy(tiny("fp32", seed=4, **shape))
    settings = Qat(bits, 32, symmetric, start="nearest")
    student, rounded, found_matrices = qat_training._of_decoder(deployment, settings)
    with torch.no_grad():
        for one in (one for parts in rounded.values() for one in parts):
            one.weight += 0.3 * one.weight.std() * torch.randn_like(one.weight)
            one.scale *= 1.01
    ids = torch.randint(0, 131, (2, 23))
    with torch.no_grad():
        expected = student(ids)
    qat_training.pack(rounded, found_matrices)
    for name, linear in deployment.engine.linears():
        seen = torch.cat([one().detach() for one in rounded[name]])
        assert torch.equal(linear.dense(), seen), f"{name} is packed as something else"
    found = deployment.engine.forward(ids)
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.usefixtures("short")
def test_only_matrices_change(tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, teacher = deployed(deploy, tiny, qkv_bias=True)
    Qat(3, steps=2, start="nearest").apply(deployment)
    own, theirs = deployment.engine.export_tensors(), teacher.export_tensors()
    for name, value in theirs.items():
        if "proj.weight" not in name:
            assert torch.equal(own[name], value), f"{name} changed"
    assert {one.kernel_weight.kernel for _, one in deployment.engine.linears()} <= {"cpp", "torch"}


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_codes(tiny: Tiny, deploy: Deploy) -> None:
    found = []
    for seed in (1, 1, 2):
        deployment, _, _ = deployed(deploy, tiny)
        deployment.seed = seed
        Qat(2, steps=3, start="nearest").apply(deployment)
        found.append(deployment.engine.layers[0].down.dense())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.usefixtures("short")
def test_next_tokens_can_be_the_goal_instead_of_the_teacher(tiny: Tiny, deploy: Deploy) -> None:
    ends = []
    for loss in ("kl", "ce"):
        deployment, _, _ = deployed(deploy, tiny)
        Qat(4, steps=3, loss=loss, start="nearest").apply(deployment)
        ends.append(deployment.engine.layers[0].down.dense())
    assert not torch.equal(*ends)


@pytest.mark.usefixtures("short")
def test_a_pruned_student_keeps_its_shape_and_its_teacher(tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, teacher = deployed(deploy, tiny)
    layer = deployment.engine.layers[0]
    gate_up = layer.gate_up.weight.view(2, 96, 64)[:, :64].reshape(128, 64)
    layer.gate_up = Linear(gate_up.contiguous())
    layer.down = Linear(layer.down.weight[:, :64].contiguous())
    deployment.engine.config = replace(deployment.engine.config, intermediate_sizes=(64,))
    Qat(4, steps=2, start="nearest").apply(deployment)
    assert deployment.engine.layers[0].gate_up.out_features == 128
    assert teacher.layers[0].gate_up.out_features == 192


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("spoiled", ["rate", "teacher"])
def test_a_loss_that_diverges_is_refused(spoiled: str, tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, teacher = deployed(deploy, tiny)
    rate = 1e4 if spoiled == "rate" else 0.01
    if spoiled == "teacher":
        teacher.embedding.fill_(float("inf"))
    sentence = {
        "rate": "qat: the loss diverged at learning_rate 10000",
        "teacher": r"qat: the answers of .* are not finite",
    }
    with pytest.raises(Refused, match=sentence[spoiled]):
        Qat(4, steps=12, learning_rate=rate, start="nearest").apply(deployment)


def test_a_classifier_learns_under_two_bits(deploy: Deploy, case: Case) -> None:
    model = resolve("digits-mlp")
    images, _ = digits("held_out")
    teacher = load_engine("digits-mlp")

    def lost(engine: Any) -> float:
        with torch.no_grad():
            return float(training_loop.divergence(engine(images), teacher(images), images))

    engines = []
    for technique in (None, Qat(2, steps=40)):
        deployment, _ = deploy(load_engine("digits-mlp"), replace(case, model=model))
        deployment.load_baseline = lambda: teacher
        if technique is None:
            replace_each(deployment, lambda one: quantize(one.dense(), 2, 32, symmetric=False))
        else:
            assert technique.refuse(deployment.case) is None
            technique.apply(deployment)
        engines.append(deployment.engine)
    nearest, trained = engines
    assert lost(trained) < 0.3 * lost(nearest)
    assert trained.weight_bytes() == nearest.weight_bytes()
    assert trained.linears[0].format == "int2-g32"


def test_random_weights_are_refused(case: Case) -> None:
    shape = replace(case, model=resolve("shape:smollm2-135m"))
    assert "random weights: there is nothing to learn" in (Qat().refuse(shape) or "")
    assert Qat().refuse(case) is None


def test_another_kind_of_model_is_refused(deploy: Deploy) -> None:
    with pytest.raises(Refused, match="needs a model of the Llama family"):
        Qat().apply(deploy(torch.nn.Linear(2, 2))[0])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"bits": 5}, "bits must be one of 2, 3, 4"),
        ({"group_size": 33}, "group_size must be one of 32, 64, 128"),
        ({"symmetric": 2}, "symmetric must be one of 0, 1"),
        ({"steps": 0}, "steps must lie between"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite"),
        ({"learning_rate": 0.0}, "learning_rate must be finite"),
        ({"loss": "mse"}, "loss must be one of kl, ce"),
        ({"start": "awq"}, "start must be one of gptq, nearest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Qat(**fields)
