"""The one calibration pass: what each matrix's inputs look like, streamed layer by layer.

A lean decoder's layers are visited in order, and inside a layer qkv, o, gate_up, down: each matrix
is replaced before the inputs of the next are collected, so that later ones make up for what earlier
ones lost (GPTQ's "true sequential" order). In memory: the hidden states of the calibration set
(twice, when those of the unchanged model are asked for), and one matrix's statistics. A torch
module is run once with hooks on every nn.Linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from core.data.passages import drawn
from core.engine.allocator import give_back
from core.engine.decoder import Decoder, Layer
from core.engine.linear import Linear
from core.engine.matrices import Matrix, of_decoder
from core.errors import Refused
from core.files.lean_layer import NAMES as MATRICES
from core.techniques import training_text
from core.techniques.deployment import Deployment
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.matrices import matrices
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu
from kernels.weight import KernelWeight

# Sequences that go through a layer at once.
TOGETHER = 8


@dataclass(frozen=True)
class CalibrationSet:
    """The calibration set: `samples` sequences of `length` tokens, or images, of what
    core.techniques.training_text gives, drawn by the plan's seed; `rows` inputs of each matrix are
    kept as they are. Another `draw` gives other sequences.
    """

    samples: int = 64
    length: int = 256
    rows: int = 512
    draw: int = 0


# A new weight for a matrix, or None to leave it.
Choose = Callable[[Matrix, Inputs], KernelWeight | None]
# Called before the first matrix of a layer (None: before the head) with the inputs that its
# matrices, by name, have as they are.
Prepare = Callable[[Layer | None, dict[str, Inputs]], None]


@torch.inference_mode()
def each_matrix(
    deployment: Deployment,
    settings: CalibrationSet,
    choose: Choose,
    second_order: bool = True,
    clean: bool = False,
    prepare: Prepare | None = None,
) -> None:
    """Visit every matrix with its inputs and replace it by what `choose` returns.

    Without `second_order` no Hessian is summed. With `clean` the unchanged model is run beside the
    changed one, for `Inputs.cross`. `prepare` may change the norms of a decoder's layer before it
    is visited, and is not called for other models, which have no cross moments either. Raises
    Refused when there is nothing to calibrate on.
    """
    engine: Decoder | None = deployment.engine.lean
    if engine is None:
        _each_of_module(deployment, settings, choose, second_order)
        return
    ids = calibration_ids(deployment, settings)
    targets = of_decoder(engine)
    hidden = [engine.embedding[part] for part in ids.split(TOGETHER)]
    untouched = list(hidden) if clean else None
    visit = Visit(settings, choose, second_order, prepare)
    for index, layer in enumerate(engine.layers):
        now = _Stream(engine, layer, hidden)
        was = None if untouched is None else _Stream(engine, replace(layer), untouched)
        if prepare is not None:
            ahead = _Stream(engine, replace(layer), list(hidden))
            visit.prepare_layer(layer, {name: ahead.inputs(name) for name in MATRICES})
        here = [matrix for matrix in targets if matrix.layer == index]
        for name, matrix in zip(MATRICES, here, strict=True):
            visit.matrix(matrix, now.inputs(name), None if was is None else was.inputs(name))
        for stream in (now, was):
            if stream is not None:
                stream.finish()
        deployment.report((index + 1) / (len(engine.layers) + 1))

    def normed(states: list[Tensor]) -> list[Tensor]:
        return [rms_norm(x, engine.final_norm, engine.config.rms_norm_eps) for x in states]

    kept = None if untouched is None else normed(untouched)
    if prepare is not None:
        visit.prepare_layer(None, {"head": normed(hidden)})
    visit.matrix(targets[-1], normed(hidden), kept)
    deployment.report(1.0)


def calibration_ids(deployment: Deployment, settings: CalibrationSet) -> Tensor:
    """int64 [samples, length]: windows of what there is to learn from
    (core.techniques.training_text), each behind what the tokenizer puts before a text; random ids
    for random weights.
    """
    engine = deployment.engine
    length = min(settings.length, engine.max_positions)
    random = torch.Generator().manual_seed(deployment.seed + 7919 * settings.draw)
    stream = training_text.stream(deployment, 4 * settings.samples * length)
    if len(stream.ids) < length:
        raise Refused(
            f"{stream.words} has {len(stream.ids)} tokens, fewer than one sequence of {length}"
        )
    what = f"{settings.samples} sequences of {length} tokens: {stream.words}"
    training_text.say(deployment, "calibration", settings.samples * length, stream.source, what)
    return drawn(stream.ids, deployment.prefix, settings.samples, length, random)


def calibration_images(deployment: Deployment) -> Tensor:
    """float32 [n, 1, 8, 8]: all images that a classifier may be calibrated on."""
    images, _, source, words = training_text.images(deployment)
    training_text.say(deployment, "calibration", len(images), source, f"images: {words}")
    return images


@dataclass(frozen=True)
class Visit:
    """What is done with each matrix and its inputs."""

    settings: CalibrationSet
    choose: Choose
    second_order: bool
    prepare: Prepare | None

    def prepare_layer(self, layer: Layer | None, inputs: dict[str, list[Tensor]]) -> None:
        """Let `prepare` see the inputs, by matrix, that the layer has as it is."""
        assert self.prepare is not None
        seen = {}
        for name, parts in inputs.items():
            seen[name] = self._inputs(parts[0].shape[-1], parts, None)
        with torch.inference_mode(False), torch.no_grad():
            self.prepare(layer, seen)

    def matrix(self, matrix: Matrix, parts: list[Tensor], clean: list[Tensor] | None) -> None:
        """Choose a matrix's new weight by its inputs."""
        _replace(matrix, self._inputs(matrix.k, parts, clean), self.choose)

    def _inputs(self, k: int, parts: list[Tensor], clean: list[Tensor] | None) -> Inputs:
        # Gaps that were left in the heap would add up, matrix by matrix.
        give_back()
        inputs = Inputs(k, self.settings.rows, second_order=self.second_order)
        for index, x in enumerate(parts):
            inputs.add(x, None if clean is None else clean[index])
        return inputs


class _Stream:
    """The calibration set on its way through one layer; `hidden` becomes the layer's output.

    The matrices are called when the next one's inputs are asked for: by then they may be others.
    """

    def __init__(self, engine: Decoder, layer: Layer, hidden: list[Tensor]) -> None:
        self.engine, self.layer, self.hidden = engine, layer, hidden
        self.parts: list[Tensor] = []

    def inputs(self, name: str) -> list[Tensor]:
        """The inputs of the matrix `name`; to be asked for in the order of MATRICES."""
        layer, eps = self.layer, self.engine.config.rms_norm_eps
        if name == "qkv":
            self.parts = [rms_norm(x, layer.attn_norm, eps) for x in self.hidden]
        elif name == "o":
            self.parts = [self._attention(x) for x in self.parts]
        elif name == "gate_up":
            self._add(layer.o)
            self.parts = [rms_norm(x, layer.mlp_norm, eps) for x in self.hidden]
        else:
            self.parts = [swiglu(layer.gate_up(x)) for x in self.parts]
        return self.parts

    def finish(self) -> None:
        """Add the output of `down`: the hidden states behind the layer."""
        self._add(self.layer.down)
        self.parts = []

    def _attention(self, x: Tensor) -> Tensor:
        cache = self.engine.new_cache(x.shape[0], x.shape[1])
        heads = self.engine.heads(self.layer, x.shape[1])
        return cache.attend(0, self.layer.qkv(x), 0, heads)

    def _add(self, matrix: Linear) -> None:
        for index, x in enumerate(self.parts):
            self.hidden[index] = self.hidden[index] + matrix(x)


def _replace(matrix: Matrix, inputs: Inputs, choose: Choose) -> None:
    # Statistics and codes live longer than inference mode: training may read them.
    with torch.inference_mode(False), torch.no_grad():
        weight = choose(matrix, inputs)
    if weight is not None:
        matrix.replace(weight)


def _each_of_module(
    deployment: Deployment, settings: CalibrationSet, choose: Choose, second_order: bool
) -> None:
    targets = matrices(deployment)
    module: nn.Module = deployment.engine.module
    inputs = {
        matrix.name: Inputs(matrix.k, settings.rows, second_order=second_order)
        for matrix in targets
    }
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(_collector(statistics))
        for name, statistics in inputs.items()
    ]
    try:
        if deployment.case.model.task == "text":
            for part in calibration_ids(deployment, settings).split(TOGETHER):
                deployment.engine.forward(part)
        else:
            deployment.engine(calibration_images(deployment)[: settings.samples * 4])
    finally:
        for hook in hooks:
            hook.remove()
    unseen = [matrix for matrix in targets if not inputs[matrix.name].count]
    for matrix in unseen:
        # Nobody chose this expert: no input is likelier than another.
        inputs[matrix.name].add(torch.eye(matrix.k))
    if unseen:
        deployment.note(
            f"{len(unseen)} of {len(targets)} matrices, of experts that no calibration token chose,"
            " are rounded without knowing their inputs"
        )
    for position, matrix in enumerate(targets):
        _replace(matrix, inputs[matrix.name], choose)
        deployment.report((position + 1) / len(targets))


def _collector(inputs: Inputs) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def collect(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.add(args[0])

    return collect
