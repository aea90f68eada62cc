"""The training loop of distillation: a student learns from a frozen teacher on training text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.data import training_stream
from core.deployment import Deployment
from core.engine.decoder import Decoder
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.measure.trial import start_id
from core.techniques.quantize.replace import lean

if TYPE_CHECKING:
    from core.techniques.distill.soft_targets import SoftTargets

SEQUENCES = 4
LENGTH = 256


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


def rehearse_training(engine: Decoder) -> None:
    """One step on `engine`'s weights: imports what training needs and keeps nothing."""
    student = TrainableDecoder.from_decoder(engine)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = student(torch.zeros(1, 4, dtype=torch.int64))
    loss: Tensor = logits.float().square().mean()
    loss.backward()
    optimizer.step()


def distill(deployment: Deployment, settings: SoftTargets) -> None:
    """Train the deployment's decoder for `settings.steps` steps of SEQUENCES x LENGTH tokens;
    AdamW, cosine to zero.

    The teacher is the unchanged model; the data is the training part of the text, drawn by the
    plan's seed.
    """
    engine = lean(deployment, "distillation")
    if deployment.tokenizer is None:
        raise Refused(
            "distill-soft: the model folder has no tokenizer.json, so there is no text to learn"
            " from"
        )
    length = min(LENGTH, engine.max_positions)
    stream = training_stream(
        deployment.tokenizer, start_id(deployment), settings.steps * SEQUENCES * length
    )
    if len(stream) <= length + 1:
        raise Refused(f"distill-soft: the training text has only {len(stream)} tokens")
    teacher = deployment.load_baseline()
    student = TrainableDecoder.from_decoder(engine)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    random = torch.Generator().manual_seed(deployment.seed)
    losses: list[float] = []
    for step in range(settings.steps):
        rate = (
            settings.learning_rate
            * min(1.0, (step + 1) / 5)
            * 0.5
            * (1 + math.cos(math.pi * step / settings.steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(0, len(stream) - length - 1, (SEQUENCES,), generator=random).tolist()
        windows = torch.stack([stream[start : start + length + 1] for start in starts]).to(
            deployment.device
        )
        # A clone leaves inference mode behind, so that autograd may use the logits as constants.
        targets = teacher.forward(windows[:, :-1]).float().clone()
        with torch.autocast(deployment.device, torch.bfloat16):
            logits = student(windows[:, :-1])
        loss = soft_target_loss(
            logits.float(), targets, windows[:, 1:], settings.alpha, settings.temperature
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        deployment.report((step + 1) / settings.steps)
    if not math.isfinite(losses[-1]):
        raise Refused(
            f"distill-soft: the loss diverged at learning_rate {settings.learning_rate:g};"
            " use a smaller one"
        )
    deployment.engine = student.to_decoder("bf16", deployment.device)
    deployment.note(
        f"{settings.steps} steps of {SEQUENCES} x {length} tokens:"
        f" loss {losses[0]:.3f} -> {losses[-1]:.3f}"
    )
