"""The one training loop of every technique that learns: what it reads, its optimizer and its end.

What is trained and towards what loss is the technique's; the teacher is always the unchanged model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from core.data.passages import drawn
from core.errors import Refused
from core.techniques import training_text
from core.techniques.deployment import Deployment

# A step on text reads this many windows of so many tokens; a step on images so many images.
SEQUENCES = 4
LENGTH = 256
IMAGES = 128
# A loss that ended above so many times its beginning, and by more than noise, did not learn.
DIVERGED, NOISE = 2.0, 0.01

# Logits of the student and of the teacher [..., V], labels int64 [...] -> a scalar.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Course:
    """How long and how fast: `steps` optimizer steps, warmed up over 5, then cosine to zero.

    `name` is the technique's, for sentences; `learning_rate` is what its user gave.
    """

    name: str
    steps: int
    learning_rate: float


@dataclass(frozen=True)
class LossPart:
    """Parameters that share a peak rate of AdamW."""

    parameters: Sequence[Tensor]
    rate: float


def learn(
    deployment: Deployment, course: Course, student: Forward, parts: Sequence[LossPart], loss: Loss
) -> None:
    """Train `parts` so that the student's logits come near to the unchanged model's.

    `student` maps inputs to logits with autograd. What is read is core.techniques.training_text's,
    cut by the plan's seed. Raises Refused when there is nothing to learn from and when the loss
    diverged.
    """
    batches = list(_batches(deployment, course))
    teacher = deployment.load_baseline()
    text = deployment.case.model.task == "text"
    answer = teacher.forward if text else teacher
    optimizer = torch.optim.AdamW(
        [{"params": list(part.parameters), "lr": part.rate} for part in parts],
        betas=(0.9, 0.95),
        weight_decay=0.0,
        fused=True,
    )
    losses: list[float] = []
    with torch.inference_mode(False), torch.enable_grad():
        for step, (inputs, labels) in enumerate(batches):
            share = _share(step, course.steps)
            for group, part in zip(optimizer.param_groups, parts, strict=True):
                group["lr"] = part.rate * share
            # A clone leaves inference mode behind: autograd may use the logits as constants.
            with torch.no_grad():
                targets = answer(inputs).float().clone()
            if not bool(targets.isfinite().all()):
                raise Refused(
                    f"{course.name}: the answers of {deployment.case.model.id} are not finite, so"
                    " there is nothing to learn from them"
                )
            # As the engine computes. fp16 has no room for gradients, so it is trained in fp32.
            rounds = deployment.case.model.precision == "bf16"
            with torch.autocast(deployment.device, torch.bfloat16, enabled=rounds):
                logits = student(inputs)
            lost = loss(logits.float(), targets, labels)
            losses.append(lost.item())
            if not math.isfinite(losses[-1]):
                raise _diverged(course, losses)
            optimizer.zero_grad(set_to_none=True)
            lost.backward()
            torch.nn.utils.clip_grad_norm_(
                [parameter for part in parts for parameter in part.parameters], 1.0
            )
            optimizer.step()
            deployment.report((step + 1) / course.steps)
    if not all(bool(parameter.isfinite().all()) for part in parts for parameter in part.parameters):
        raise _diverged(course, losses)
    _judge(course, losses)
    rows, length = batches[0][0].shape[:2]
    read = f"{rows} x {length} tokens" if text else f"{rows} images"
    deployment.note(f"{course.steps} steps of {read}: loss {losses[0]:.4g} -> {losses[-1]:.4g}")


def divergence(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """KL(teacher || student) in nats, mean over tokens, for a Loss."""
    return torch.nn.functional.kl_div(
        torch.log_softmax(student, -1).flatten(0, -2),
        torch.log_softmax(teacher, -1).flatten(0, -2),
        reduction="batchmean",
        log_target=True,
    )


def cross_entropy(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """-log p(label) in nats, mean over tokens, for a Loss; the teacher is not asked."""
    return torch.nn.functional.cross_entropy(student.flatten(0, -2), labels.flatten())


LOSSES: dict[str, Loss] = {"kl": divergence, "ce": cross_entropy}


def rehearse(engine: Any) -> None:
    """One step on a tiny decoder's weights: imports what training needs and keeps nothing."""
    from core.engine.reference import TrainableDecoder

    student = TrainableDecoder.from_decoder(engine)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3, fused=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = student(torch.zeros(1, 4, dtype=torch.int64))
    loss: Tensor = logits.float().square().mean()
    loss.backward()
    optimizer.step()


def _share(step: int, steps: int) -> float:
    return min(1.0, (step + 1) / 5) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _batches(deployment: Deployment, course: Course) -> Iterator[tuple[Tensor, Tensor]]:
    """(inputs, labels) of every step, drawn by the plan's seed."""
    random = torch.Generator().manual_seed(deployment.seed)
    if deployment.case.model.task == "image":
        images, labels, source, words = training_text.images(deployment)
        training_text.say(
            deployment,
            "training",
            course.steps * IMAGES,
            source,
            f"{course.steps * IMAGES:,} images: {words}",
        )
        for _ in range(course.steps):
            chosen = torch.randint(0, len(images), (IMAGES,), generator=random)
            yield images[chosen].to(deployment.device), labels[chosen].to(deployment.device)
        return
    length = min(LENGTH, deployment.engine.max_positions)
    tokens = course.steps * SEQUENCES * length
    stream = training_text.stream(deployment, tokens)
    if len(stream.ids) <= length:
        raise Refused(f"{course.name}: {stream.words} has only {len(stream.ids)} tokens")
    training_text.say(
        deployment, "training", tokens, stream.source, f"{tokens:,} tokens: {stream.words}"
    )
    for _ in range(course.steps):
        windows = drawn(stream.ids, deployment.prefix, SEQUENCES, length + 1, random)
        windows = windows.to(deployment.device)
        yield windows[:, :-1], windows[:, 1:]


def _judge(course: Course, losses: list[float]) -> None:
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    if last > DIVERGED * first + NOISE:
        raise _diverged(course, [first, last])


def _diverged(course: Course, losses: list[float]) -> Refused:
    return Refused(
        f"{course.name}: the loss diverged at learning_rate {course.learning_rate:g}"
        f" ({losses[0]:.3g} -> {losses[-1]:.3g}); use a smaller one"
    )
