"""How much a model's answers change when one matrix alone is rounded to few bits.

Owns the two scores: by trying, which rounds each matrix to each precision and runs the model, and
by gradient, which asks one backward pass. Chooses nothing.

By gradient. To second order KL(p || p') = 1/2 E[(d . grad log p(y))^2] with the label y drawn from
the model's own p: the Fisher information is the KL's curvature. The change d of a matrix moves its
output at position s by d x_s, so that d . grad = sum over s of g_s . d x_s with g_s the gradient at
that output. We average (g_s . d x_s)^2 over positions, leaving out the products of different
positions: what is lost is small beside the noise of few sequences (`python -m tests.evidence
sensitivity` compares with trying).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.matrices import Matrix
from core.engine.reference import TrainableDecoder
from core.errors import Refused
from core.files.lean_layer import MATRICES
from core.techniques.deployment import Deployment
from kernels.linear_lowbit import LowBitWeight, quantize

# nats a token (or image) for each matrix and precision.
Scores = dict[tuple[str, int], float]
# Positions of each matrix whose inputs and gradients are kept.
POSITIONS = 1024
# Numbers of a matrix rounded at a time.
CHUNK = 1 << 22
# Where the projections of a decoder's layer stand in its stacked matrices.
PROJECTIONS = {matrix.name: tuple(part.leaf for part in matrix.parts) for matrix in MATRICES}


class Judge:
    """KL(what the engine answered at first || what it answers now), in nats a token or image.

    Raises Refused when an answer is not finite at first.
    """

    def __init__(self, deployment: Deployment, parts: list[Tensor]) -> None:
        self._deployment, self._parts = deployment, parts
        self._before = [self._answer(part) for part in parts]
        if not all(bool(answer.isfinite().all()) for answer in self._before):
            raise Refused(f"the answers of {deployment.case.model.id} are not finite: it is broken")

    @torch.inference_mode()
    def kl(self) -> float:
        """The mean over all positions; rounding may make it a little less than 0."""
        total, count = 0.0, 0
        for part, before in zip(self._parts, self._before, strict=True):
            now = self._answer(part)
            total += float((before.exp() * (before - now)).sum(-1).double().sum())
            count += len(now)
        return total / count

    @torch.inference_mode()
    def _answer(self, part: Tensor) -> Tensor:
        engine = self._deployment.engine
        logits = engine(part) if self._images else engine.forward(part)
        return torch.log_softmax(logits.float().flatten(0, -2), -1)

    @property
    def _images(self) -> bool:
        return self._deployment.case.model.task == "image"


class MatrixPlace:
    """Where a matrix stands in the engine: what stood there first can be put back."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix, self.first = matrix, matrix.held

    def put_back(self) -> None:
        """Undo every replacement."""
        self.matrix.put(self.first)


def by_trying(
    judge: Judge,
    places: list[MatrixPlace],
    widths: tuple[int, ...],
    group_size: int,
    report: Callable[[float], None],
) -> Scores:
    """The measured KL of the model with each matrix alone in each precision."""
    scores: Scores = {}
    for done, place in enumerate(places):
        matrix = place.matrix
        weight = matrix.dense()
        for bits in widths:
            form = quantize(weight, bits, group_size, symmetric=False)
            matrix.replace(LowBitWeight(form, matrix.bias, matrix.dtype))
            scores[matrix.name, bits] = max(0.0, judge.kl())
            place.put_back()
        report((done + 1) / len(places))
    return scores


def by_gradient(
    deployment: Deployment,
    targets: list[Matrix],
    parts: list[Tensor],
    widths: tuple[int, ...],
    group_size: int,
    report: Callable[[float], None],
) -> Scores:
    """The estimate of the module's docstring; `parts` are token ids [B, T] or images."""
    engine, random = deployment.engine, torch.Generator().manual_seed(deployment.seed)
    device, draws = deployment.device, random
    if device != "cpu":
        draws = torch.Generator(device).manual_seed(deployment.seed)
    seen = Seen(max(1, POSITIONS // len(parts)), random)
    with torch.inference_mode(False), torch.enable_grad(), _watched(engine, targets, seen) as run:
        for part in parts:
            # Inference tensors cannot be saved for a backward pass.
            logits = run(part.to(device, copy=True)).float().flatten(0, -2)
            if not bool(logits.detach().isfinite().all()):
                raise Refused(f"the answers of {deployment.case.model.id} are not finite")
            chances = torch.softmax(logits.detach(), -1)
            drawn = torch.multinomial(chances, 1, generator=draws)
            torch.log_softmax(logits, -1).gather(-1, drawn).sum().backward()
    scores: Scores = {}
    for done, matrix in enumerate(targets):
        x, gradient = seen.of(matrix.name)
        for bits in widths:
            scores[matrix.name, bits] = _score(matrix.dense(), x, gradient, bits, group_size)
        report((done + 1) / len(targets))
    return scores


def _score(weight: Tensor, x: Tensor, gradient: Tensor, bits: int, group_size: int) -> float:
    """1/2 mean over rows of (gradient . d x)^2 with d the change of rounding weight [n, k]."""
    moved = x.new_zeros(len(x))
    rows = max(1, CHUNK // weight.shape[1])
    for begin in range(0, weight.shape[0], rows):
        part = weight[begin : begin + rows]
        change = quantize(part, bits, group_size, symmetric=False).dequantize() - part
        moved += (gradient[:, begin : begin + rows] * (x @ change.T)).sum(1)
    return 0.5 * float(moved.double().square().mean())


@dataclass
class Seen:
    """Inputs and output gradients at some positions of each projection: `each` of every pass."""

    each: int
    random: torch.Generator
    inputs: dict[str, list[Tensor]] = field(default_factory=dict)
    gradients: dict[str, dict[str, list[Tensor]]] = field(default_factory=dict)
    _picked: dict[int, Tensor] = field(default_factory=dict)

    def watch(self, matrix: str, projection: str, x: Tensor, y: Tensor) -> None:
        """Keep some rows of x [..., k] now and of y's gradient [..., n] when it is known."""
        pick = self._pick(x.shape[:-1].numel())
        gradients = self.gradients.setdefault(matrix, {}).setdefault(projection, [])
        # Projections of one matrix share their input: the first keeps it.
        if projection == next(iter(self.gradients[matrix])):
            rows = x.detach().reshape(-1, x.shape[-1])[pick].float()
            self.inputs.setdefault(matrix, []).append(rows)

        def keep(gradient: Tensor) -> None:
            gradients.append(gradient.reshape(-1, gradient.shape[-1])[pick].float())

        y.register_hook(keep)

    def of(self, matrix: str) -> tuple[Tensor, Tensor]:
        """(x [m, k], gradient [m, n]) of a matrix; projections are called in the order in which
        they are stacked.
        """
        sides = [torch.cat(parts) for parts in self.gradients[matrix].values()]
        return torch.cat(self.inputs[matrix]), torch.cat(sides, dim=1)

    def _pick(self, count: int) -> Tensor:
        # The same rows for x and for every projection's gradient of a pass.
        if count not in self._picked:
            rows = torch.randperm(count, generator=self.random)[: self.each]
            self._picked[count] = rows.sort().values
        return self._picked[count]


class _Watched(TrainableDecoder):
    """The decoder in fp32, every projection of which is seen."""

    seen: Seen

    def project(self, x: Tensor, name: str) -> Tensor:
        y = super().project(x, name)
        parts = name.split(".")
        if parts[0] == "model" and parts[1] == "layers":
            last = next(at for at, names in PROJECTIONS.items() if parts[-1] in names)
            self.seen.watch(f"layers.{parts[2]}.{last}", parts[-1], x, y)
        else:
            self.seen.watch("head", "head", x, y)
        return y


@contextmanager
def _watched(
    engine: Any, targets: list[Matrix], seen: Seen
) -> Iterator[Callable[[Tensor], Tensor]]:
    """A differentiable forward pass whose linear layers are seen; nothing is left behind."""
    if engine.lean is not None:
        copy = _Watched.from_decoder(engine.lean)
        assert isinstance(copy, _Watched)
        copy.seen = seen
        yield copy
        return
    module: nn.Module = engine.module
    trainable = {parameter: parameter.requires_grad for parameter in module.parameters()}
    hooks = []
    for matrix in targets:

        def hook(layer: nn.Module, args: Any, y: Tensor, name: str = matrix.name) -> None:
            seen.watch(name, name, args[0], y)

        hooks.append(module.get_submodule(matrix.name).register_forward_hook(hook))

    def run(part: Tensor) -> Tensor:
        if part.is_floating_point():
            return module(part)  # type: ignore[no-any-return]
        logits: Tensor = module(input_ids=part, use_cache=False).logits
        return logits

    try:
        for parameter in trainable:
            parameter.requires_grad_(True)
        yield run
    finally:
        for handle in hooks:
            handle.remove()
        for parameter, before in trainable.items():
            parameter.requires_grad_(before)
            parameter.grad = None
