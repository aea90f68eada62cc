"""Training a model under the rounding that it will have, then packing the codes it ended with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from core.artefacts.layout import stacks
from core.deployment import Deployment
from core.engine.config import DecoderConfig
from core.engine.reference import TrainableDecoder
from core.techniques.learn import LOSSES, Course, Forward, Part, learn
from core.techniques.quantize.fake import FakeLinear, FakeQuantized, stack
from core.techniques.quantize.matrices import Matrix, matrices
from core.techniques.quantize.replace import lean, replace_each
from kernels.linear_lowbit import LowBit

if TYPE_CHECKING:
    from core.techniques.quantize.qat import Qat

# The scales learn more slowly than the weights, in shares of themselves.
SCALE_RATE = 0.3

# The rounded parts that stand stacked in each matrix of the deployment, by the matrix's name.
Rounded = dict[str, list[FakeQuantized]]


def train(deployment: Deployment, settings: Qat) -> None:
    """Train every matrix under rounding and replace it by what it was rounded to.

    Embedding, norms and biases stay as they are. Raises Refused for a model that is no decoder of
    the Llama family and no classifier, and when the loss diverged.
    """
    of = _of_module if deployment.case.model.task == "image" else _of_decoder
    student, rounded = of(deployment, settings)
    parts = []
    for one in (one for parts in rounded.values() for one in parts):
        step = float(one.scale.detach().abs().mean())
        parts.append(Part([one.weight], settings.learning_rate * step))
        parts.append(Part([one.scale], settings.learning_rate * step * SCALE_RATE))
    course = Course("qat", settings.steps, settings.learning_rate)
    learn(deployment, course, student, parts, LOSSES[settings.loss])
    pack(deployment, rounded)


def pack(deployment: Deployment, rounded: Rounded) -> None:
    """Replace every matrix by the codes that its parts round to."""

    def form(matrix: Matrix) -> LowBit:
        return stack([one.form() for one in rounded[matrix.name]])

    replace_each(deployment, form)


class QuantizedDecoder(TrainableDecoder):
    """A decoder whose matrices, the head included, are rounded whenever they multiply.

    `rounded` holds them by the names of their modules; nothing else is trained.
    """

    def __init__(self, config: DecoderConfig, tensors: Mapping[str, Tensor], settings: Qat) -> None:
        if config.tied_embeddings:
            # The head is rounded, the embedding that looks tokens up is not.
            tensors = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
        super().__init__(replace(config, tied_embeddings=False), tensors)
        self.requires_grad_(False)
        self.rounded: dict[str, FakeQuantized] = {}
        for stacked in stacks(config):
            for name, _ in stacked.parts:
                weight = self.weights.pop(f"{name}.weight".replace(".", "/"))
                self.rounded[name] = _fake(weight, settings)

    def project(self, x: Tensor, name: str) -> Tensor:
        """See TrainableDecoder.project."""
        bias = self.weights.get(f"{name}.bias".replace(".", "/"), None)
        return linear(x, self.rounded[name](), bias)


def _of_decoder(deployment: Deployment, settings: Qat) -> tuple[Forward, Rounded]:
    decoder = lean(deployment, "quantization-aware training")
    student = QuantizedDecoder(decoder.config, decoder.export_tensors(), settings)
    return student, {
        one.name: [student.rounded[name] for name, _ in one.parts] for one in stacks(decoder.config)
    }


def _of_module(deployment: Deployment, settings: Qat) -> tuple[Forward, Rounded]:
    student: nn.Module = copy.deepcopy(deployment.engine).requires_grad_(False)
    rounded: Rounded = {}
    for matrix in matrices(deployment):
        one = _fake(matrix.dense(), settings)
        owner, _, leaf = matrix.name.rpartition(".")
        setattr(student.get_submodule(owner), leaf, FakeLinear(one, matrix.bias))
        rounded[matrix.name] = [one]
    return student, rounded


def _fake(weight: Tensor, settings: Qat) -> FakeQuantized:
    with torch.inference_mode(False):
        return FakeQuantized(weight, settings.bits, settings.group_size, bool(settings.symmetric))
