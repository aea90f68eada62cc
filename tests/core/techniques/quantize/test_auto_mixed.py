"""Automatic mixed precision: the choice against brute force, the scores against their definition,
and limits that hold when measured.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from core import techniques
from core.catalogue import models
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import BadInput, Refused
from core.measurement import Measurement
from core.plan import Case
from core.predict.effects import effects
from core.techniques.deployment import Deployment
from core.techniques.quantize.auto_mixed import WIDTHS
from core.techniques.solve.allocation import Option, within_cost, within_loss
from core.techniques.solve.calibration import CalibrationSet, calibration_ids
from core.techniques.solve.matrices import matrices
from core.techniques.solve.sensitivity import Judge, MatrixPlace, by_gradient, by_trying
from kernels.linear_lowbit import quantize

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def nothing(share: float) -> None:
    """Progress that nobody watches."""


def table(seed: int) -> dict[str, list[Option]]:
    chance = random.Random(seed)
    found = {}
    for name in "abcd":
        size, worth = chance.uniform(1, 9), chance.uniform(0.01, 3)
        some = [Option(bits, size * bits, worth * 4.0**-bits) for bits in (2, 3, 4, 8)]
        # Some precision may be worse than a smaller one, and an odd one dear.
        some[1] = replace(some[1], loss=some[1].loss * chance.choice((0.5, 1, 30)))
        found[name] = [*some, Option(16, size * 16, 0.0)]
    return found


def every(options: dict[str, list[Option]]) -> list[tuple[float, float]]:
    """(cost, loss) of every choice there is."""
    return [
        (sum(one.cost for one in some), sum(one.loss for one in some))
        for some in itertools.product(*options.values())
    ]


@pytest.mark.parametrize("seed", range(8))
def test_the_choice_keeps_its_limit_and_is_near_the_best_there_is(seed: int) -> None:
    options = table(seed)
    both = every(options)
    step = max(row[-1].cost - row[-2].cost for row in options.values())
    for most in (0.0, 1e-4, 1e-3, 0.01, 0.1, 1.0, 9.0):
        chosen = within_loss(options, most).values()
        assert sum(one.loss for one in chosen) <= most
        best = min(cost for cost, loss in both if loss <= most)
        # Greedy along the hull is at most one move away from the optimum of the relaxation.
        assert best <= sum(one.cost for one in chosen) <= best + step
    low, high = min(cost for cost, _ in both), max(cost for cost, _ in both)
    for most in (low + 1e-6, 0.7 * low + 0.3 * high, 0.3 * low + 0.7 * high, high):
        found = within_cost(options, most)
        assert found is not None
        assert sum(one.cost for one in found.values()) <= most
        best = min(loss for cost, loss in both if cost <= most)
        assert sum(one.loss for one in found.values()) >= best - 1e-12
    assert within_cost(options, low - 0.01) is None
    assert sum(one.loss for one in (within_cost(options, high) or {}).values()) == 0


def test_more_room_never_loses_more() -> None:
    options = table(3)
    losses = []
    for most in (20, 40, 80, 160, 320):
        found = within_cost(options, most)
        if found is not None:
            losses.append(sum(one.loss for one in found.values()))
    assert losses == sorted(losses, reverse=True)
    assert len(losses) > 2


def test_what_was_saved_in_excess_is_given_back() -> None:
    options = {
        "large": [Option(2, 10, 0.5), Option(16, 100, 0.0)],
        "small": [Option(2, 1, 0.001), Option(16, 10, 0.0)],
    }
    # The small one moves first, being cheaper a byte; after the large one there is room for it.
    found = within_cost(options, 30)
    assert found is not None
    assert {name: one.bits for name, one in found.items()} == {"large": 2, "small": 16}


class OneLayer(nn.Module):
    """Logits = W pixels: what its KL is to second order can be written down."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)
        nn.init.normal_(self.layer.weight, std=0.3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(images.flatten(1))
        return logits

    def weight_bytes(self) -> int:
        return 0


def test_the_score_by_gradient_is_half_the_variance_of_the_change(
    deploy: Deploy, case: Case
) -> None:
    """For one layer: KL ~ 1/2 Var_p(d_y x) exactly, in fp64; the estimate draws y."""
    engine = OneLayer()
    images = models.resolve("digits-mlp")
    deployment, _ = deploy(engine, replace(case, model=images))
    found = matrices(deployment)
    x = torch.rand(4096, 1, 8, 8)
    scores = by_gradient(deployment, found, list(x.split(16)), (2, 3, 4), 32, nothing)
    weight = engine.layer.weight.detach().double()
    chances = torch.softmax(engine(x).detach().double(), 1)
    for bits in (2, 3, 4):
        form = quantize(weight.float(), bits, 32, symmetric=False)
        moved = x.flatten(1).double() @ (form.dequantize().double() - weight).T
        variance = (chances * moved**2).sum(1) - (chances * moved).sum(1) ** 2
        exact = float(0.5 * variance.mean())
        assert scores["layer", bits] == pytest.approx(exact, rel=0.15)
    assert engine.layer.weight.grad is None
    assert isinstance(deployment.engine.layer, nn.Linear)


def test_the_score_by_trying_is_the_kl_with_one_matrix_rounded(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    engine, other = tiny("bf16", seed=2), tiny("bf16", seed=2)
    for one in (engine, other):
        for layer in one.layers:
            layer.down.weight.mul_(20)
    deployment, _ = deploy(engine)
    ids = torch.randint(0, 131, (2, 24))
    judge = Judge(deployment, [ids[:1], ids[1:]])
    assert judge.kl() == 0.0
    places = [MatrixPlace(one) for one in matrices(deployment)]
    scores = by_trying(judge, places, (2,), 32, nothing)
    before = torch.log_softmax(other.forward(ids), -1).double()
    other.layers[1].down = other.layers[1].down.to_format("int2-g32")
    after = torch.log_softmax(other.forward(ids), -1).double()
    expected = float((before.exp() * (before - after)).sum(-1).mean())
    assert scores["layers.1.down", 2] == pytest.approx(expected, rel=0.01)
    assert judge.kl() == 0.0, "everything stands where it stood"
    assert isinstance(engine.head.weight, torch.Tensor)


def on_pycode(deploy: Deploy, case: Case, **fields: Any) -> tuple[Deployment, list[str]]:
    model = models.resolve("pycode-small")
    case = replace(case, model=model)
    return deploy(load_engine(model), case, tokenizer=load_tokenizer(model), **fields)


def test_a_backward_pass_ranks_as_trying_does(deploy: Deploy, case: Case) -> None:
    deployment, _ = on_pycode(deploy, case)
    ids = calibration_ids(deployment, CalibrationSet(samples=4, length=128))
    found = matrices(deployment)
    cheap = by_gradient(deployment, found, list(ids.split(1)), (3,), 32, nothing)
    judge = Judge(deployment, [ids])
    tried = by_trying(judge, [MatrixPlace(one) for one in found], (3,), 32, nothing)
    ranks = spearmanr([tried[key] for key in tried], [cheap[key] for key in tried])
    assert ranks.statistic >= 0.8


# Trying and GPTQ take long: one limit is enough for each.
@pytest.mark.parametrize(
    ("score", "method", "limits"),
    [
        ("gradient", "nearest", (0.2, 0.01)),
        ("gradient", "gptq", (0.01,)),
        ("trying", "nearest", (0.01,)),
    ],
)
def test_the_measured_kl_is_within_the_limit(
    score: str, method: str, limits: tuple[float, ...], deploy: Deploy, case: Case
) -> None:
    sizes = []
    for limit in limits:
        kept: list[Measurement] = []
        deployment, notes = on_pycode(deploy, case, keep=kept.append)
        words = f"auto-mixed:max_kl={limit},samples=2,score={score},method={method}"
        techniques.parse(words).apply(deployment)
        engine = deployment.engine
        told = float(notes[-1].partition("KL ")[2].partition(" ")[0])
        # Some is left for text of another kind.
        assert told <= 0.75 * limit
        sizes.append(sum(one.nbytes for _, one in engine.linears()))
        chosen = {str(one.condition): one.value for one in kept if one.metric == "chosen_bits"}
        for name, one in engine.linears():
            dense = "bf16" if chosen[name] == 16 else f"int{chosen[name]:.0f}-g32"
            assert one.format == dense
        scored = [one for one in kept if one.metric == "sensitivity_kl"]
        assert len(scored) == len(chosen) * len(WIDTHS) == 17 * 5
        assert str(scored[0].condition) == "layers.0.qkv/int2"
        assert {one.origin for one in scored} == {
            "estimated" if score == "gradient" else "measured"
        }
    assert sizes == sorted(set(sizes))


def test_the_weights_stay_within_the_size(deploy: Deploy, case: Case) -> None:
    deployment, _ = on_pycode(deploy, case)
    techniques.parse("auto-mixed:max_mib=1.5,samples=2").apply(deployment)
    engine = deployment.engine
    assert 1.4 * 2**20 < engine.weight_bytes() <= 1.5 * 2**20
    # The head is the embedding: rounding it would need memory of its own.
    assert engine.head.weight.data_ptr() == engine.embedding.data_ptr()


def test_gptq_loses_less_at_the_same_size(deploy: Deploy, case: Case) -> None:
    lost = {}
    for method in ("nearest", "gptq"):
        deployment, _ = on_pycode(deploy, case)
        ids = calibration_ids(deployment, CalibrationSet(samples=16, draw=5))
        judge = Judge(deployment, list(ids.split(4)))
        techniques.parse(f"auto-mixed:max_mib=1.3,samples=4,method={method}").apply(deployment)
        lost[method] = judge.kl()
        assert deployment.engine.weight_bytes() <= 1.3 * 2**20
    assert lost["gptq"] < 0.7 * lost["nearest"]


def test_another_draw_gives_other_sequences(deploy: Deploy, case: Case) -> None:
    deployment, _ = on_pycode(deploy, case)
    first, again, other = (
        calibration_ids(deployment, CalibrationSet(samples=4, draw=draw)) for draw in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not (first[:, None] == other[None]).all(-1).any()


def test_a_size_that_cannot_be_is_refused_with_what_could(deploy: Deploy, case: Case) -> None:
    deployment, _ = on_pycode(deploy, case)
    with pytest.raises(Refused, match=r"max_mib=0\.5 cannot be reached: at 2 bit .* allow more"):
        techniques.parse("auto-mixed:max_mib=0.5,samples=2").apply(deployment)


def test_a_limit_that_no_rounding_meets_leaves_the_model_as_it_was(
    deploy: Deploy, case: Case
) -> None:
    deployment, notes = on_pycode(deploy, case)
    before = deployment.engine.weight_bytes()
    techniques.parse("auto-mixed:max_kl=1e-12,samples=2").apply(deployment)
    assert {one.format for _, one in deployment.engine.linears()} == {"bf16"}
    assert deployment.engine.weight_bytes() == before
    assert "17 at 16 bit; KL 0 nats" in notes[-1]


@pytest.mark.parametrize("model", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("score", ["gradient", "trying"])
def test_classifiers_keep_the_limit(model: str, score: str, deploy: Deploy, case: Case) -> None:
    found = models.resolve(model)
    deployment, notes = deploy(load_engine(found), replace(case, model=found))
    before = deployment.engine.weight_bytes()
    techniques.parse(f"auto-mixed:max_kl=0.01,score={score}").apply(deployment)
    assert float(notes[-1].partition("KL ")[2].partition(" ")[0]) <= 0.01
    assert deployment.engine.weight_bytes() < before
    assert all(one.grad is None for one in deployment.engine.parameters())


def test_a_model_of_transformers_is_searched_too(deploy: Deploy, case: Case) -> None:
    transformers = pytest.importorskip("transformers")
    from core.engine.transformers_engine import TransformersEngine

    config = transformers.GPTNeoXConfig(
        vocab_size=4096,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    engine = TransformersEngine(transformers.GPTNeoXForCausalLM(config).to(torch.bfloat16))
    deployment, notes = deploy(engine, case, tokenizer=load_tokenizer("pycode-small"))
    techniques.parse("auto-mixed:max_kl=0.001,samples=2").apply(deployment)
    assert float(notes[-1].partition("KL ")[2].partition(" ")[0]) <= 0.001
    assert all(one.grad is None and one.requires_grad for one in engine.model.parameters())
    assert "9 at" in notes[-1] or sum(map(int, _counts(notes[-1]))) == 9


def _counts(note: str) -> list[str]:
    listed = note.removeprefix("auto-mixed: ").partition(";")[0]
    return [part.split(" at ")[0] for part in listed.split(", ")]


def test_a_model_that_is_infinite_on_the_scored_text_is_refused(deploy: Deploy, case: Case) -> None:
    deployment, _ = on_pycode(deploy, case)
    found = matrices(deployment)
    deployment.engine.final_norm.fill_(float("inf"))
    ids = calibration_ids(deployment, CalibrationSet(samples=1, length=16))
    with pytest.raises(Refused, match="answers of pycode-small are not finite"):
        by_gradient(deployment, found, [ids], (4,), 32, nothing)


def test_broken_weights_random_weights_and_bad_settings_are_refused(
    deploy: Deploy, case: Case
) -> None:
    deployment, _ = on_pycode(deploy, case)
    deployment.engine.layers[2].o.weight[0, 0] = float("nan")
    with pytest.raises(Refused, match="answers of pycode-small are not finite"):
        techniques.parse("auto-mixed:samples=2").apply(deployment)
    shape = replace(case, model=replace(case.model, source="shape"))
    assert "needs a trained model" in str(techniques.parse("auto-mixed").refuse(shape))
    for text in (
        "max_kl=0",
        "max_kl=nan",
        "max_mib=-1",
        "score=luck",
        "samples=1",
        "group_size=8",
        "method=awq",
    ):
        name = text.partition("=")[0]
        with pytest.raises(BadInput, match=f"{name} must"):
            techniques.parse(f"auto-mixed:{text}")


def test_what_will_be_chosen_is_not_predicted(case: Case) -> None:
    from core.plan import Plan

    assert effects(Plan(case, (techniques.parse("auto-mixed"),))).unknown == ("auto-mixed",)
