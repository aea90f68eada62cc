"""Training low-rank adapters beside the frozen matrices of a quantized decoder."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from core.engine.adapted import Adapted
from core.engine.decoder import Decoder
from core.engine.linear import DENSE
from core.engine.matrices import Matrix, of_decoder
from core.engine.reference import TrainableDecoder
from core.files.formats.layout import stacks
from core.techniques.deployment import Deployment
from core.techniques.solve.matrices import lean, replace_each
from core.techniques.training_loop import Course, LossPart, divergence, learn
from kernels.linear_lowbit import quantize
from kernels.linear_lowbit.codes import bits_of

if TYPE_CHECKING:
    from core.techniques.recover.lora import Lora


def train(deployment: Deployment, settings: Lora) -> None:
    """Put adapters of rank `settings.rank` beside every quantized matrix and train them alone.

    Where nothing is quantized yet, every matrix is rounded to `settings.base_format` first. Raises
    Refused for a model that is no decoder of the Llama family, and when the loss diverged.
    """
    decoder = lean(deployment, "training adapters")
    if not quantized(decoder):
        _quantize(deployment, settings.base_format)
    chosen = quantized(decoder)
    random = torch.Generator().manual_seed(deployment.seed)
    with torch.inference_mode(False):
        student = AdaptedDecoder(decoder, chosen, settings, random)
    course = Course("lora", settings.steps, settings.learning_rate)
    parts = [LossPart(list(student.adapters.parameters()), settings.learning_rate)]
    learn(deployment, course, student, parts, divergence)
    before = decoder.weight_bytes()
    for matrix in chosen:
        a, b = student.adapter(matrix.name)
        linear_now = dict(decoder.linears())[matrix.name]
        matrix.replace(Adapted(linear_now.kernel_weight, a.to(matrix.dtype), b.to(matrix.dtype)))
    deployment.note(
        f"adapters of rank {settings.rank} beside {len(chosen)} matrices: weights went from"
        f" {before:,} to {decoder.weight_bytes():,} bytes"
    )


def quantized(decoder: Decoder) -> list[Matrix]:
    """The matrices that are not dense."""
    formats = {name: layer.format for name, layer in decoder.linears()}
    return [matrix for matrix in of_decoder(decoder) if formats[matrix.name] not in DENSE]


class AdaptedDecoder(TrainableDecoder):
    """A decoder with frozen weights and an adapter beside each of the `chosen` matrices.

    Matrices that stand stacked (q, k, v) share A. A starts uniform in +-1 / sqrt(k), B at zero, so
    that the adapters change nothing before they are trained.
    """

    def __init__(
        self,
        decoder: Decoder,
        chosen: list[Matrix],
        settings: Lora,
        random: torch.Generator,
    ) -> None:
        tensors = decoder.export_tensors()
        tied = "lm_head.weight" not in tensors
        super().__init__(replace(decoder.config, tied_embeddings=tied), tensors)
        self.requires_grad_(False)
        self.factor = settings.alpha / settings.rank
        self.adapters = nn.ParameterDict()
        # The matrix that a module stands in, and its rows there.
        self.places: dict[str, tuple[str, int, int]] = {}
        parts = {stack.name: stack.parts for stack in stacks(decoder.config)}
        for matrix in chosen:
            a = (2 * torch.rand(settings.rank, matrix.k, generator=random) - 1) / math.sqrt(
                matrix.k
            )
            self.adapters[_key(matrix.name, "a")] = nn.Parameter(a.to(decoder.device))
            b = torch.zeros(matrix.n, settings.rank, device=decoder.device)
            self.adapters[_key(matrix.name, "b")] = nn.Parameter(b)
            row = 0
            for part, rows in parts[matrix.name]:
                self.places[part] = matrix.name, row, row + rows
                row += rows

    def project(self, x: Tensor, name: str) -> Tensor:
        """See TrainableDecoder.project."""
        y = super().project(x, name)
        if name not in self.places:
            return y
        matrix, begin, end = self.places[name]
        inner = linear(x, self.adapters[_key(matrix, "a")])
        return y + self.factor * linear(inner, self.adapters[_key(matrix, "b")][begin:end])

    def adapter(self, matrix: str) -> tuple[Tensor, Tensor]:
        """(A [r, k], (alpha / r) B [n, r]), fp32 and detached."""
        a, b = self.adapters[_key(matrix, "a")], self.adapters[_key(matrix, "b")]
        return a.detach(), b.detach() * self.factor


def _quantize(deployment: Deployment, format_: str) -> None:
    name, _, group = format_.partition("-g")
    kind = "int" if name.startswith("int") else name
    bits = bits_of(kind) or int(name[3:])
    replace_each(
        deployment, lambda matrix: quantize(matrix.dense(), bits, int(group), kind, symmetric=False)
    )


def _key(matrix: str, side: str) -> str:
    # Parameter names may not contain dots.
    return f"{matrix}/{side}".replace(".", "/")
