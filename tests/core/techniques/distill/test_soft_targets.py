"""Distillation: the loss is the formula, the student comes nearer, the text is training text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special

from core.catalogue.zoo import corpus
from core.data.passages import Windows, held_out_windows
from core.engine.load.load import load_tokenizer
from core.errors import Refused
from core.files.special_ids import SpecialIds
from core.measure.quality.text import text_quality
from core.techniques import training_loop, training_text
from core.techniques.deployment import Deployment
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.distill.training import distill, soft_target_loss
from core.techniques.prune.slicing import slice_mlp

pytestmark = pytest.mark.usefixtures("one_thread")
Deploy = Callable[..., tuple[Deployment, list[str]]]


def by_hand(
    student: np.ndarray, teacher: np.ndarray, labels: np.ndarray, alpha: float, temperature: float
) -> float:
    """(1 - a) CE(y, p_s) + a T^2 KL(p_t^T || p_s^T), mean over tokens, in fp64."""
    s, t = student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])
    hard = -special.log_softmax(s, -1)[np.arange(len(s)), labels.reshape(-1)].mean()
    soft = special.rel_entr(
        special.softmax(t / temperature, -1), special.softmax(s / temperature, -1)
    )
    return float((1 - alpha) * hard + alpha * temperature**2 * soft.sum(-1).mean())


def example(vocabulary: int = 23) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    student = torch.randn(3, 5, vocabulary, generator=random, dtype=torch.float64) * 3
    teacher = torch.randn(3, 5, vocabulary, generator=random, dtype=torch.float64) * 3
    return student, teacher, torch.randint(0, vocabulary, (3, 5), generator=random)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_the_loss_is_the_formula(alpha: float, temperature: float) -> None:
    student, teacher, labels = example()
    expected = by_hand(student.numpy(), teacher.numpy(), labels.numpy(), alpha, temperature)
    found = soft_target_loss(student, teacher, labels, alpha, temperature)
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_without_soft_targets_the_loss_is_the_cross_entropy_alone() -> None:
    student, teacher, labels = example()
    first = soft_target_loss(student, teacher, labels, 0.0, 2.0)
    assert first.item() == soft_target_loss(student, -teacher, labels, 0.0, 9.0).item()


def test_a_student_that_is_the_teacher_has_no_soft_loss() -> None:
    student, _, labels = example()
    found = soft_target_loss(student.float(), student.float(), labels, 1.0, 2.0)
    assert found.item() == pytest.approx(0.0, abs=1e-6)


def test_the_gradient_of_the_soft_term_is_t_times_the_difference_of_probabilities() -> None:
    student, teacher, labels = example()
    student.requires_grad_(True)
    soft_target_loss(student, teacher, labels, 1.0, 3.0).backward()
    p, q = torch.softmax(student.detach() / 3.0, -1), torch.softmax(teacher / 3.0, -1)
    assert student.grad is not None
    assert torch.allclose(student.grad, 3.0 * (p - q) / 15, atol=1e-14)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, labels = example()
    student.requires_grad_(True)
    loss = soft_target_loss(student, teacher, labels, 0.9, 2.0)
    loss.backward()
    assert teacher.grad is None


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 32 tokens instead of 256, so that a step is quick."""
    monkeypatch.setattr(training_loop, "LENGTH", 32)


def deployed(deploy: Deploy, tiny: Callable[..., Any]) -> tuple[Deployment, list[str], Any]:
    """A sharp random teacher over the zoo's vocabulary, and a copy with half its channels cut."""

    def fresh() -> Any:
        engine = tiny(
            "bf16", seed=6, vocab_size=4096, bos_token_id=0, num_layers=1, intermediate_sizes=(192,)
        )
        engine.embedding *= 8
        for layer in engine.layers:
            for name in ("gate_up", "down"):
                getattr(layer, name).weight.mul_(6)
        return engine

    teacher = fresh()
    deployment, notes = deploy(fresh(), tokenizer=load_tokenizer("pycode-small"))
    deployment.load_baseline = lambda: teacher
    slice_mlp(deployment, 0.7)
    return deployment, notes, teacher


def kl(deployment: Deployment, teacher: Any, windows: Windows) -> float:
    found = text_quality(deployment.engine, teacher, windows)
    return next(float(one.value or 0.0) for one in found if one.metric == "kl_nats")


@pytest.mark.usefixtures("short")
def test_distillation_brings_the_student_nearer_to_the_teacher_on_held_out_text(
    tiny: Callable[..., Any], deploy: Deploy
) -> None:
    deployment, notes, teacher = deployed(deploy, tiny)
    weights = {name: value.clone() for name, value in teacher.export_tensors().items()}
    windows = held_out_windows(deployment.tokenizer, (0,), 4, 48)
    before, size = kl(deployment, teacher, windows), deployment.engine.weight_bytes()
    assert before > 0.01
    SoftTargets(steps=60, alpha=1.0, learning_rate=2e-3).apply(deployment)
    after = kl(deployment, teacher, windows)
    assert after < 0.7 * before
    assert deployment.engine.weight_bytes() == size
    assert deployment.engine.config.intermediate_sizes == (64,)
    assert deployment.engine.dtype == torch.bfloat16
    assert "60 steps of 4 x 32 tokens: loss" in notes[-1]
    for name, value in teacher.export_tensors().items():
        assert torch.equal(value, weights[name]), f"the teacher's {name} changed"


@pytest.mark.usefixtures("short")
def test_the_same_seed_gives_the_same_student(tiny: Callable[..., Any], deploy: Deploy) -> None:
    students = []
    for seed in (1, 1, 2):
        deployment, _, _ = deployed(deploy, tiny)
        deployment.seed = seed
        distill(deployment, SoftTargets(steps=3))
        students.append(deployment.engine.export_tensors()["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(students[0], students[1])
    assert not torch.equal(students[0], students[2])


@pytest.mark.usefixtures("short")
def test_nothing_held_out_is_learned_from(
    tiny: Callable[..., Any], deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: list[corpus.TextSet] = []
    real = corpus.read_set

    def watched(*arguments: Any) -> corpus.TextSet:
        sets.append(real(*arguments))
        return sets[-1]

    monkeypatch.setattr(corpus, "read_set", watched)
    # Pruning reads text first, and learning goes on with it.
    deployment, _, _ = deployed(deploy, tiny)
    distill(deployment, SoftTargets(steps=1))
    monkeypatch.undo()
    held = corpus.held_out_set()
    lines = frozenset(line for text in held.texts for line in corpus.long_lines(text))
    names = {name for one in sets for name in one.names}
    texts = {text for one in sets for text in one.texts}
    assert names
    assert not names & set(corpus.HELD_OUT)
    assert not texts & set(held.texts)
    own = [line for text in texts for line in corpus.long_lines(text)]
    assert sum(line in lines for line in own) < 0.02 * len(own)


@pytest.mark.usefixtures("short")
def test_a_model_without_a_tokenizer_learns_from_what_it_writes_and_keeps_its_special_tokens(
    tiny: Callable[..., Any], deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_text, "LENGTH", 32)
    engine = tiny("bf16")
    engine.special_ids = SpecialIds(3, (4, 5), prefix=(3,))
    deployment, notes = deploy(engine)
    distill(deployment, SoftTargets(steps=1))
    assert "trained on 128 tokens: text that the unchanged model wrote itself" in notes[0]
    assert deployment.engine is not engine
    assert deployment.engine.special_ids == engine.special_ids
    assert deployment.prefix == (3,)


@pytest.mark.usefixtures("short")
def test_a_teacher_that_is_broken_is_refused(tiny: Callable[..., Any], deploy: Deploy) -> None:
    deployment, _, teacher = deployed(deploy, tiny)
    teacher.embedding.fill_(float("inf"))
    with pytest.raises(Refused, match=r"the answers of .* are not finite"):
        distill(deployment, SoftTargets(steps=1))


def test_another_kind_of_model_is_refused(deploy: Deploy) -> None:
    with pytest.raises(Refused, match="distillation needs a model of the Llama family"):
        distill(deploy(torch.nn.Linear(2, 2))[0], SoftTargets())
