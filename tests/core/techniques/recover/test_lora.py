"""Adapters: nothing before training, nothing else trained, nearer afterwards, both kernels run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from core.catalogue.models import resolve
from core.data.passages import Windows, held_out_windows
from core.engine.adapted import Adapted
from core.engine.load.load import load_tokenizer
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.measure.quality.text import text_quality
from core.model import DecoderShape
from core.plan import Case, Plan, Technique
from core.predict.account import account
from core.techniques import training_loop
from core.techniques.deployment import Deployment
from core.techniques.kinds import refuse
from core.techniques.quantize.qat import Qat
from core.techniques.quantize.weight_int import WeightInt4
from core.techniques.recover import lora_training
from core.techniques.recover.lora import Lora
from core.techniques.recover.lora_training import AdaptedDecoder, quantized
from kernels import calls

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]
Tiny = Callable[..., Any]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 32 tokens instead of 256, so that a step is quick."""
    monkeypatch.setattr(training_loop, "LENGTH", 32)


def deployed(
    deploy: Deploy, tiny: Tiny, format_: str | None = None
) -> tuple[Deployment, list[str], Any]:
    """A sharp random decoder over the zoo's vocabulary, in `format_`, and its unchanged teacher."""

    def fresh() -> Any:
        engine = tiny("bf16", seed=6, vocab_size=4096, bos_token_id=0, num_layers=1,
                      intermediate_sizes=(96,))  # fmt: skip
        engine.embedding *= 8
        for name in ("qkv", "o", "gate_up", "down"):
            getattr(engine.layers[0], name).weight.mul_(4)
        return engine

    teacher = fresh()
    deployment, notes = deploy(fresh(), tokenizer=load_tokenizer("pycode-small"))
    deployment.load_baseline = lambda: teacher
    if format_:
        lora_training._quantize(deployment, format_)
    return deployment, notes, teacher


def kl(engine: Any, teacher: Any, windows: Windows) -> float:
    found = text_quality(engine, teacher, windows)
    return next(float(one.value or 0.0) for one in found if one.metric == "kl_nats")


def adapters(engine: Any) -> dict[str, Adapted]:
    found = {name: one.kernel_weight for name, one in engine.linears()}
    return {name: one for name, one in found.items() if isinstance(one, Adapted)}


def test_before_training_the_adapters_change_nothing(tiny: Tiny) -> None:
    engine = tiny("bf16", seed=3)
    for layer in engine.layers:
        layer.qkv, layer.down = layer.qkv.to_format("nf4-g64"), layer.down.to_format("int3-g32")
    student = AdaptedDecoder(engine, quantized(engine), Lora(), torch.Generator().manual_seed(0))
    ids = torch.randint(0, 131, (2, 9))
    assert len(student.places) == 2 * (3 + 1)
    with torch.no_grad():
        assert torch.equal(student(ids), TrainableDecoder.from_decoder(engine)(ids))


def test_gradients_reach_the_adapters_alone(tiny: Tiny) -> None:
    engine = tiny("bf16", seed=3, qkv_bias=True)
    for layer in engine.layers:
        layer.qkv = layer.qkv.to_format("int4-g32")
    student = AdaptedDecoder(engine, quantized(engine), Lora(), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, one in student.adapters.items():
            if name.endswith("b"):
                one.normal_()
    student(torch.randint(0, 131, (2, 9))).square().mean().backward()
    trained = {name for name, one in student.named_parameters() if one.grad is not None}
    assert trained == {f"adapters.{name}" for name in student.adapters}
    assert len(trained) == 4
    assert all(one.grad.abs().max() > 0 for one in student.adapters.values())


def test_a_stack_shares_a_and_each_part_has_its_rows_of_b(tiny: Tiny) -> None:
    engine = tiny("fp32", seed=3)
    engine.layers[0].qkv = engine.layers[0].qkv.to_format("int4-g32")
    chosen = quantized(engine)
    student = AdaptedDecoder(engine, chosen, Lora(4, 2.0), torch.Generator().manual_seed(0))
    with torch.no_grad():
        for one in student.adapters.values():
            one.normal_()
    a, b = student.adapter("layers.0.qkv")
    x = torch.randn(2, 64)
    whole = x @ (engine.layers[0].qkv.dense() + b @ a).T
    with torch.no_grad():
        parts = [student.project(x, f"model.layers.0.self_attn.{p}_proj") for p in "qkv"]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-4)
    own = dict(student.adapters.items())["layers/0/qkv/b"]
    assert torch.allclose(b, own * 2.0 / 4)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("format_", ["int3-g32", "nf4-g64"])
def test_it_recovers_what_rounding_lost_and_leaves_the_codes_alone(
    format_: str, tiny: Tiny, deploy: Deploy
) -> None:
    deployment, notes, teacher = deployed(deploy, tiny, format_)
    engine = deployment.engine
    windows = held_out_windows(deployment.tokenizer, (0,), 4, 48)
    before, size = kl(engine, teacher, windows), engine.weight_bytes()
    codes = {name: one.dense() for name, one in engine.linears()}
    Lora(rank=48, steps=30, learning_rate=0.01).apply(deployment)
    assert kl(engine, teacher, windows) < 0.9 * before
    found = adapters(engine)
    assert set(found) == set(codes)
    for name, one in found.items():
        assert torch.equal(one.base.dequantize(), codes[name])
        assert one.format == f"{one.base.format}+r48"
    extra = sum(2 * 48 * (one.n + one.k) for one in found.values())
    assert engine.weight_bytes() == size + extra
    assert f"{size:,} to {size + extra:,} bytes" in notes[-1]


@pytest.mark.usefixtures("short")
def test_both_kernels_run_at_every_token(tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, _ = deployed(deploy, tiny, "int3-g32")
    Lora(steps=1).apply(deployment)
    cache = deployment.engine.new_cache(1, 4)
    deployment.engine.forward(torch.zeros(1, 1, dtype=torch.int64), cache)
    calls.reset()
    deployment.engine.forward(torch.zeros(1, 1, dtype=torch.int64), cache)
    counted = {one["op"]: one["calls"] for one in calls.snapshot()}
    assert (counted["linear_lowbit"], counted["linear_dense"]) == (5, 10)


@pytest.mark.usefixtures("short")
def test_a_model_that_nothing_quantized_is_rounded_first(tiny: Tiny, deploy: Deploy) -> None:
    for base, format_ in (("", "nf4-g64"), ("int3", "int3-g32"), ("int4-g64", "int4-g64")):
        deployment, notes, _ = deployed(deploy, tiny)
        Lora(rank=2, steps=1, base=base).apply(deployment)
        assert deployment.engine.layers[0].down.format == f"{format_}+r2"
        assert len(adapters(deployment.engine)) == 5
        assert format_ in notes[0]


@pytest.mark.usefixtures("short")
def test_dense_matrices_of_a_mixed_model_stay_as_they_are(tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, _ = deployed(deploy, tiny)
    layer = deployment.engine.layers[0]
    layer.down = layer.down.to_format("int2-g32")
    Lora(steps=1).apply(deployment)
    assert list(adapters(deployment.engine)) == ["layers.0.down"]
    assert layer.qkv.format == "bf16"
    assert deployment.engine.head.weight is deployment.engine.embedding


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_adapters(tiny: Tiny, deploy: Deploy) -> None:
    found = []
    for seed in (1, 1, 2):
        deployment, _, _ = deployed(deploy, tiny, "int3-g32")
        deployment.seed = seed
        Lora(steps=2).apply(deployment)
        found.append(adapters(deployment.engine)["head"].dequantize())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("spoiled", ["rate", "teacher"])
def test_a_loss_that_diverges_is_refused(spoiled: str, tiny: Tiny, deploy: Deploy) -> None:
    deployment, _, teacher = deployed(deploy, tiny, "int4-g32")
    rate = 1e3 if spoiled == "rate" else 0.01
    if spoiled == "teacher":
        teacher.embedding.fill_(float("inf"))
    sentence = {
        "rate": "lora: the loss diverged at learning_rate 1000",
        "teacher": r"lora: the answers of .* are not finite",
    }
    with pytest.raises(Refused, match=sentence[spoiled]):
        Lora(steps=12, learning_rate=rate).apply(deployment)


def test_random_weights_and_classifiers_are_refused(case: Case) -> None:
    shape = replace(case, model=resolve("shape:smollm2-135m"))
    assert "random weights: there is nothing to learn" in (Lora().refuse(shape) or "")
    images = replace(case, model=resolve("digits-mlp"))
    assert "needs a decoder" in (Lora().refuse(images) or "")
    assert Lora().refuse(case) is None


def test_another_kind_of_model_is_refused(deploy: Deploy) -> None:
    with pytest.raises(Refused, match="training adapters needs a model of the Llama family"):
        Lora().apply(deploy(torch.nn.Linear(2, 2))[0])


def test_a_plan_quantizes_once_and_adapts_afterwards(case: Case) -> None:
    assert refuse(Plan(case, (WeightInt4(), Lora()))) is None
    assert refuse(Plan(case, (Lora(base="int3"),))) is None
    assert "lora must come before" not in (refuse(Plan(case, (Lora(), WeightInt4()))) or "")
    assert "weight-int4 must come before lora" in (refuse(Plan(case, (Lora(), WeightInt4()))) or "")
    assert "one technique of kind recover" in (refuse(Plan(case, (Lora(), Lora(4)))) or "")
    twice = refuse(Plan(case, (WeightInt4(), Lora(base="nf4"))))
    assert twice == "lora: the plan quantizes already, so there is nothing to do for base"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rank": 0}, "rank must lie between"),
        ({"alpha": 0.0}, "alpha must be finite"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite"),
        ({"steps": 0}, "steps must lie between"),
        ({"base": "int9"}, "base must be nf4, int4"),
        ({"base": "int4-g33"}, "base must be nf4, int4"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Lora(**fields)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("before", [(), (WeightInt4(),), (Qat(3, steps=1, start="nearest"),)])
def test_the_predicted_bytes_of_the_weights_are_those_that_are_kept(
    before: tuple[Technique, ...], tiny: Tiny, deploy: Deploy, case: Case
) -> None:
    shape = DecoderShape(64, 1, 4, 2, 16, 96, 4096, 512)
    plan = Plan(replace(case, model=replace(case.model, shape=shape)), (*before, Lora(steps=1)))
    deployment, _, _ = deployed(deploy, tiny)
    for technique in plan.techniques:
        technique.apply(deployment)
    if any(one.kernel_weight.kernel != "cpp" for _, one in deployment.engine.linears()):
        pytest.skip("the account is that of the C++ kernel's layout")
    assert account(plan).weights == deployment.engine.weight_bytes()
