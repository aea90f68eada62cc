"""The one calibration pass: what each matrix's inputs look like, streamed layer by layer.

A lean decoder's layers are visited in order, and inside a layer qkv, o, gate_up, down: each matrix
is replaced before the inputs of the next are collected, so that later ones make up for what earlier
ones lost (GPTQ's "true sequential" order). In memory: the hidden states of the calibration set, and
one matrix's statistics. A torch module is run once with hooks on every nn.Linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from core.data import digits, training_stream
from core.deployment import Deployment
from core.engine.decoder import Decoder
from core.errors import Refused
from core.measure.trial import start_id
from core.techniques.quantize.matrices import Matrix, matrices, of_decoder
from kernels.attention import attention
from kernels.rms_norm import rms_norm
from kernels.swiglu import swiglu
from kernels.weight import KernelWeight

# Sequences that go through a layer at once.
TOGETHER = 8


@dataclass(frozen=True)
class Calibration:
    """The calibration set: `samples` sequences of `length` tokens of training text, drawn by the
    plan's seed (images for a classifier); `rows` inputs of each matrix are kept as they are.
    """

    samples: int = 64
    length: int = 256
    rows: int = 512


@dataclass
class Inputs:
    """What one matrix [n, k] was given: `count` rows so far. Sums are fp32."""

    k: int
    keep: int
    count: int = 0
    second_order: bool = True
    _sum: Tensor | None = None
    _abs_sum: Tensor | None = None
    _absmax: Tensor | None = None
    _kept: list[Tensor] = field(default_factory=list)

    def add(self, x: Tensor) -> None:
        """Count the rows of x [..., k]."""
        rows = x.reshape(-1, self.k).float()
        size = rows.abs()
        if self._abs_sum is None or self._absmax is None:
            self._abs_sum, self._absmax = size.sum(0), size.amax(0)
        else:
            self._abs_sum += size.sum(0)
            torch.maximum(self._absmax, size.amax(0), out=self._absmax)
        if self.second_order:
            if self._sum is None:
                self._sum = torch.zeros(self.k, self.k, device=rows.device)
            self._sum.addmm_(rows.T, rows)
        # Every part gives the same share, evenly over its rows.
        each = max(1, self.keep // 8)
        step = max(1, len(rows) // each)
        if sum(map(len, self._kept)) < self.keep:
            self._kept.append(rows[::step][:each].clone())
        self.count += len(rows)

    def hessian(self) -> Tensor:
        """2 / count * sum of x x^T, fp32 [k, k] (GPTQ, Frantar et al. 2022, section 3)."""
        if self._sum is None:
            raise ValueError("these inputs were collected without second order")
        return self._sum * (2 / max(1, self.count))

    @property
    def mean_abs(self) -> Tensor:
        """Mean of |x| by column, fp32 [k]."""
        assert self._abs_sum is not None
        return self._abs_sum / max(1, self.count)

    @property
    def absmax(self) -> Tensor:
        """Largest |x| by column, fp32 [k]."""
        assert self._absmax is not None
        return self._absmax

    @property
    def sample(self) -> Tensor:
        """Some of the rows, fp32 [m, k], m <= keep."""
        return torch.cat(self._kept)[: self.keep]


# A new weight for a matrix, or None to leave it.
Choose = Callable[[Matrix, Inputs], KernelWeight | None]


@torch.inference_mode()
def each_matrix(
    deployment: Deployment,
    settings: Calibration,
    choose: Choose,
    second_order: bool = True,
) -> None:
    """Visit every matrix with its inputs and replace it by what `choose` returns.

    Without `second_order` no Hessian is summed. Raises Refused when there is nothing to calibrate
    on.
    """
    engine = deployment.engine
    if not isinstance(engine, Decoder):
        _each_of_module(deployment, settings, choose, second_order)
        return
    ids = calibration_ids(deployment, settings)
    found = of_decoder(engine)
    hidden = [engine.embedding[part] for part in ids.split(TOGETHER)]
    every = len(engine.layers) + 1
    for index in range(len(engine.layers)):
        here = [one for one in found if one.layer == index]
        _visit_layer(engine, index, hidden, here, settings, choose, second_order)
        deployment.report((index + 1) / every)
    norm, eps = engine.final_norm, engine.config.rms_norm_eps
    _visit(found[-1], (rms_norm(x, norm, eps) for x in hidden), settings, choose, second_order)
    deployment.report(1.0)


def calibration_ids(deployment: Deployment, settings: Calibration) -> Tensor:
    """int64 [samples, length]: windows of the training text; random ids for random weights."""
    engine = deployment.engine
    length = min(settings.length, engine.max_positions)
    random = torch.Generator().manual_seed(deployment.seed)
    if deployment.case.model.source == "shape":
        deployment.note("calibrated on random tokens: a shape model has no text")
        shape = (settings.samples, length)
        return torch.randint(0, engine.vocab_size, shape, generator=random)
    if deployment.tokenizer is None:
        raise Refused("the model folder has no tokenizer.json, so there is no text to calibrate on")
    wanted = settings.samples * length
    stream = training_stream(deployment.tokenizer, start_id(deployment), 4 * wanted)
    if len(stream) < length:
        raise Refused(
            f"the training text has {len(stream)} tokens, fewer than one sequence of {length}"
        )
    starts = torch.randint(0, len(stream) - length + 1, (settings.samples,), generator=random)
    deployment.note(
        f"calibrated on {settings.samples} sequences of {length} tokens of the training text"
    )
    return torch.stack([stream[start : start + length] for start in starts.tolist()])


def _visit_layer(
    engine: Decoder,
    index: int,
    hidden: list[Tensor],
    found: list[Matrix],
    settings: Calibration,
    choose: Choose,
    second_order: bool,
) -> None:
    """Visit qkv, o, gate_up and down of one layer; `hidden` becomes the layer's output."""
    layer, eps = engine.layers[index], engine.config.rms_norm_eps
    qkv, o, gate_up, down = found
    heads = engine.heads(layer, hidden[0].shape[1])

    def visit(matrix: Matrix, inputs: list[Tensor]) -> None:
        _visit(matrix, iter(inputs), settings, choose, second_order)

    inputs = [rms_norm(x, layer.attn_norm, eps) for x in hidden]
    visit(qkv, inputs)
    mixed = []
    for x in inputs:
        cache = engine.new_cache(x.shape[0], x.shape[1])
        mixed.append(attention(layer.qkv(x), cache.keys[0], cache.values[0], 0, heads))
    visit(o, mixed)
    for i, x in enumerate(mixed):
        hidden[i] = hidden[i] + layer.o(x)
    inputs = [rms_norm(x, layer.mlp_norm, eps) for x in hidden]
    visit(gate_up, inputs)
    gated = [swiglu(layer.gate_up(x)) for x in inputs]
    visit(down, gated)
    for i, x in enumerate(gated):
        hidden[i] = hidden[i] + layer.down(x)


def _visit(
    matrix: Matrix, parts: object, settings: Calibration, choose: Choose, second_order: bool
) -> None:
    inputs = Inputs(matrix.k, settings.rows, second_order=second_order)
    for x in parts:  # type: ignore[attr-defined]
        inputs.add(x)
    _replace(matrix, inputs, choose)


def _replace(matrix: Matrix, inputs: Inputs, choose: Choose) -> None:
    # Statistics and codes live longer than inference mode: training may read them.
    with torch.inference_mode(False), torch.no_grad():
        weight = choose(matrix, inputs)
    if weight is not None:
        matrix.replace(weight)


def _each_of_module(
    deployment: Deployment, settings: Calibration, choose: Choose, second_order: bool
) -> None:
    found = matrices(deployment)
    module = getattr(deployment.engine, "model", deployment.engine)
    inputs = {one.name: Inputs(one.k, settings.rows, second_order=second_order) for one in found}
    hooks = [
        module.get_submodule(name).register_forward_pre_hook(_collector(one))
        for name, one in inputs.items()
    ]
    try:
        if deployment.case.model.task == "text":
            for part in calibration_ids(deployment, settings).split(TOGETHER):
                deployment.engine.forward(part)
        else:
            images, _ = digits("train")
            deployment.engine(images[: settings.samples * 4])
    finally:
        for hook in hooks:
            hook.remove()
    for position, one in enumerate(found):
        if inputs[one.name].count:
            _replace(one, inputs[one.name], choose)
        deployment.report((position + 1) / len(found))


def _collector(inputs: Inputs) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def collect(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        inputs.add(given[0])

    return collect
