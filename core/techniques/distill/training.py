"""Distillation: a student learns from the unchanged model. The loop is
core.techniques.training_loop's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.engine.linear import name_of
from core.engine.reference import TrainableDecoder
from core.techniques.deployment import Deployment
from core.techniques.solve.matrices import lean
from core.techniques.training_loop import Course, LossPart, learn

if TYPE_CHECKING:
    from core.techniques.distill.soft_targets import SoftTargets


def soft_target_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, temperature: float
) -> Tensor:
    """(1 - alpha) CE(y, p_s) + alpha T^2 KL(p_t^T || p_s^T), mean over tokens (Hinton et al. 2015).

    `student` and `teacher` are logits [..., V], `labels` int64 [...].
    """
    hard = torch.nn.functional.cross_entropy(student.flatten(0, -2), labels.flatten())
    soft = torch.nn.functional.kl_div(
        torch.log_softmax(student / temperature, -1).flatten(0, -2),
        torch.log_softmax(teacher / temperature, -1).flatten(0, -2),
        reduction="batchmean",
        log_target=True,
    )
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def distill(deployment: Deployment, settings: SoftTargets) -> None:
    """Train all of the deployment's weights for `settings.steps` steps."""
    decoder = lean(deployment, "distillation")
    student, dtype = TrainableDecoder.from_decoder(decoder), name_of(decoder.dtype)

    def loss(own: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return soft_target_loss(own, teacher, labels, settings.alpha, settings.temperature)

    course = Course("distill-soft", settings.steps, settings.learning_rate)
    learn(
        deployment,
        course,
        student,
        [LossPart(list(student.parameters()), course.learning_rate)],
        loss,
    )
    deployment.engine = student.to_decoder(dtype, deployment.device)
