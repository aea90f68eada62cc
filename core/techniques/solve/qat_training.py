"""Training a model under the rounding that it will have, then packing the codes it ended with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from core.engine.matrices import Matrix
from core.engine.modules import KernelLinear
from core.engine.protocol import Engine
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.files.config.decoder_config import DecoderConfig
from core.files.formats.layout import stacks
from core.techniques.deployment import Deployment
from core.techniques.solve.fake import FakeLinear, FakeQuantized, nearest_form, stack
from core.techniques.solve.matrices import lean, matrices
from core.techniques.training_loop import LOSSES, Course, Forward, LossPart, learn
from kernels.linear_lowbit import LowBit, LowBitWeight
from kernels.weight import KernelWeight

if TYPE_CHECKING:
    from core.techniques.quantize.qat import Qat

# The scales learn more slowly than the weights, in shares of themselves.
SCALE_RATE = 0.2

# The rounded parts that stand stacked in each matrix of the deployment, by the matrix's name.
Rounded = dict[str, list[FakeQuantized]]
Forms = dict[str, LowBit]


def train(deployment: Deployment, settings: Qat) -> None:
    """Train every matrix under rounding and replace it by what it was rounded to.

    Embedding, norms and biases stay as they are. Raises Refused for a model that is no decoder of
    the Llama family and no classifier, and when the loss diverged.
    """
    of = _of_module if deployment.case.model.task == "image" else _of_decoder
    student, rounded, targets = of(deployment, settings)
    parts = []
    for fake in (fake for parts in rounded.values() for fake in parts):
        # The finer the grid, the less may move: at equal rates 4 bit lost what 2 bit gained.
        rate = settings.learning_rate / settings.bits * float(fake.scale.detach().abs().mean())
        parts += [LossPart([fake.weight], rate), LossPart([fake.scale], rate * SCALE_RATE)]
    course = Course("qat", settings.steps, settings.learning_rate)
    learn(deployment, course, student, parts, LOSSES[settings.loss])
    pack(rounded, targets)
    deployment.note(f"qat: the weights take {deployment.engine.weight_bytes():,} bytes")


def pack(rounded: Rounded, targets: Sequence[Matrix]) -> None:
    """Replace every matrix by the codes that its parts round to."""
    for matrix in targets:
        form = stack([part.form() for part in rounded[matrix.name]])
        matrix.replace(LowBitWeight(form, matrix.bias, matrix.dtype))


class QuantizedDecoder(TrainableDecoder):
    """A decoder whose matrices, the head included, are rounded whenever they multiply.

    `tensors` are its weights in Hugging Face names, `forms` where the rounding of each stacked
    matrix starts. `rounded` holds the matrices by the names of their modules; nothing else is
    trained.
    """

    def __init__(self, config: DecoderConfig, tensors: Mapping[str, Tensor], forms: Forms) -> None:
        if config.tied_embeddings:
            # The head is rounded, the embedding that looks tokens up is not.
            tensors = {**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"]}
        super().__init__(replace(config, tied_embeddings=False), tensors)
        self.requires_grad_(False)
        self.rounded: dict[str, FakeQuantized] = {}
        for stacked in stacks(config):
            row = 0
            for name, rows in stacked.parts:
                weight = self.weights.pop(f"{name}.weight".replace(".", "/"))
                form = forms[stacked.name].rows(row, row + rows)
                self.rounded[name] = FakeQuantized(weight, form)
                row += rows

    def project(self, x: Tensor, name: str) -> Tensor:
        """See TrainableDecoder.project."""
        bias = self.weights.get(f"{name}.bias".replace(".", "/"), None)
        return linear(x, self.rounded[name](), bias)


def _of_decoder(deployment: Deployment, settings: Qat) -> tuple[Forward, Rounded, list[Matrix]]:
    decoder = lean(deployment, "quantization-aware training")
    targets, tensors = matrices(deployment), decoder.export_tensors()
    forms = _start(deployment, settings, targets)
    with torch.inference_mode(False):
        student = QuantizedDecoder(decoder.config, tensors, forms)
    rounded = {
        stacked.name: [student.rounded[name] for name, _ in stacked.parts]
        for stacked in stacks(decoder.config)
    }
    return student, rounded, targets


def _of_module(deployment: Deployment, settings: Qat) -> tuple[Forward, Rounded, list[Matrix]]:
    student: nn.Module = copy.deepcopy(deployment.engine).requires_grad_(False)
    targets = matrices(deployment)
    weights = {matrix.name: matrix.dense() for matrix in targets}
    rounded: Rounded = {}
    for name, form in _start(deployment, settings, targets).items():
        with torch.inference_mode(False):
            rounded[name] = [FakeQuantized(weights[name], form)]
        owner, _, leaf = name.rpartition(".")
        bias = next(matrix.bias for matrix in targets if matrix.name == name)
        setattr(student.get_submodule(owner), leaf, FakeLinear(rounded[name][0], bias))
    return student, rounded, targets


def _start(deployment: Deployment, settings: Qat, targets: Sequence[Matrix]) -> Forms:
    """The form that each matrix starts from. GPTQ's replace the deployment's own matrices."""
    bits, size, symmetric = settings.bits, settings.group_size, bool(settings.symmetric)
    forms = {}
    before = settings.beginning()
    if before is not None:
        before.apply(deployment)
        forms = _packed(deployment.engine)
    for matrix in targets:
        if matrix.name not in forms:
            try:
                forms[matrix.name] = nearest_form(matrix.dense(), bits, size, symmetric)
            except ValueError as error:
                raise Refused(f"{matrix.name}: {error}") from None
    return forms


def _packed(engine: Engine) -> Forms:
    """The forms of the low-bit matrices of an engine, by name."""
    weights: dict[str, KernelWeight] = {}
    if engine.lean is not None:
        weights = {name: layer.kernel_weight for name, layer in engine.lean.linears()}
    elif engine.module is not None:
        layers = {
            name: layer
            for name, layer in engine.module.named_modules()
            if isinstance(layer, KernelLinear)
        }
        weights = {name: layer.weight_of_kernel for name, layer in layers.items()}
    return {
        name: weight.form() for name, weight in weights.items() if isinstance(weight, LowBitWeight)
    }
