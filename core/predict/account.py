"""The memory account of a plan: weights by format, KV cache, workspace. The one source of these
numbers for `fit`, for predictions and for what a trial compares its measured memory with.

Only arithmetic over shapes, exact for the lean decoder and the bundled classifiers on a CPU; other
engines are taken to be alike. What libraries keep beside the tensors is measured, never predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.condition import Condition, part
from core.model import ClassifierShape, DecoderShape
from core.plan import Plan
from core.predict.effects import effects
from core.predict.work import DecoderWork, decoder_work, draft_work
from core.techniques.effects import Effects
from kernels.lowbit_bytes import DenseBytes, scratch_bytes, writes_tiles

# A convolution's result stands there three times at its largest: in the library's own layout, in
# the plain one, and as the result of ReLU. A linear layer has its result and that of ReLU.
CONVOLUTION_COPIES = 3


@dataclass(frozen=True)
class MemoryAccount:
    """Bytes that serving one group of a plan's batch holds at its peak.

    `formats` are the weights by storage format (`bf16`, `int4-g64`, `draft bf16`, ...); `workspace`
    is what the widest moment computes with, rotary tables included.
    """

    formats: tuple[tuple[str, float], ...]
    kv: float
    kv_per_token: float
    workspace: float

    @property
    def weights(self) -> float:
        """Bytes of all weights, a draft's included."""
        return sum(size for _, size in self.formats)

    @property
    def total(self) -> float:
        """Weights, KV cache and workspace."""
        return self.weights + self.kv + self.workspace

    def parts(self) -> tuple[tuple[Condition, float], ...]:
        """(part, bytes) that add up to `total`: `weights:FORMAT`, `kv`, `workspace`."""
        kv = ((part("kv"), self.kv),) if self.kv else ()
        weights = tuple((part("weights", name), size) for name, size in self.formats)
        return (*weights, *kv, (part("workspace"), self.workspace))


def account(plan: Plan) -> MemoryAccount:
    """The account of `plan` on its case, before anything is loaded."""
    shape = plan.case.model.shape
    effect = effects(plan)
    if isinstance(shape, ClassifierShape):
        space = classifier_workspace(shape, effect.batch, effect.item)
        sizes = classifier_by_format(shape, effect)
        return MemoryAccount(tuple(sizes.items()), 0.0, 0.0, space)
    batch, draft = effect.batch, draft_work(effect)
    workload = plan.case.workload
    # Speculation verifies up to `draft_tokens` beyond the last token, within the same capacity.
    tokens = workload.prompt_tokens + workload.output_tokens
    works = [decoder_work(plan), *([] if draft is None else [draft])]
    formats: dict[str, float] = {}
    for work in works:
        for name, size in weights_by_format(work).items():
            formats[name if work is works[0] else f"draft {name}"] = size
    kv = batch * sum(work.kv_held(tokens) for work in works)
    target = plan.case.target
    tiles = target.local and target.kind == "cpu" and writes_tiles()
    space = max(
        decoder_workspace(
            work.shape, batch, workload.prompt_tokens, work.found.item, tiles and work.found.packed
        )
        for work in works
    )
    tables = sum(rotary_tables(work.shape, tokens) for work in works)
    return MemoryAccount(tuple(formats.items()), kv, kv / (batch * tokens), space + tables)


def weights_by_format(work: DecoderWork) -> dict[str, float]:
    """Resident bytes of one decoder by storage format, padding of packed layouts included.

    The embedding, norms and biases stay dense; a tied head shares the embedding until it is packed.
    """
    shape, effect = work.shape, work.found
    dense = shape.head().numbers() + shape.vectors()
    sizes = {effect.dtype: float(dense * effect.item)}
    matrices = work.matrices()
    if shape.tied and isinstance(matrices[-1].stored, DenseBytes):
        matrices = matrices[:-1]
    for held in matrices:
        name = held.stored.format(held.what.columns)
        sizes[name] = sizes.get(name, 0.0) + held.nbytes * held.what.count
    return sizes


def classifier_by_format(shape: ClassifierShape, effect: Effects) -> dict[str, float]:
    """Resident bytes of a classifier by storage format: its linear layers are quantized, their
    biases and everything else stay dense.
    """
    stored = effect.stored
    if stored is None:
        return {effect.dtype: float(shape.parameters * effect.item)}
    sizes = {effect.dtype: 0.0}
    left = shape.parameters
    for rows, columns in shape.linears:
        name = stored.format(columns)
        # The bias counts to its matrix.
        held = stored.nbytes(rows, columns, kernel="fp32") + rows * effect.item
        sizes[name] = sizes.get(name, 0.0) + held
        left -= rows * (columns + 1)
    sizes[effect.dtype] = float(left * effect.item)
    return sizes


def decoder_workspace(
    shape: DecoderShape, sequences: int, prompt: int, item: int, packed: bool = False
) -> float:
    """Bytes of a prompt pass beside weights and cache at its widest moment, `item` bytes a value.

    Of the moments of a layer: in SwiGLU the hidden state, the projections, gate and up and two
    results of an MLP's width; in a norm two float32 copies; in the rotation the float32 halves. At
    the head the logits in both widths. With `packed` weights also gate and up while they are
    multiplied by tiles. A step of few tokens takes less.
    """
    hidden, query = shape.hidden, shape.heads * shape.head_dim
    held = item * (hidden + query + 2 * shape.kv_heads * shape.head_dim)
    moments = (
        item * 4 * shape.intermediate,
        (4 + 4 + item) * hidden,
        8 * query,
    )
    rows = sequences * prompt
    logits = sequences * shape.vocabulary * (item + 4)
    widest = max(rows * max(moments), logits)
    if packed:
        wide = 2 * shape.intermediate
        tiles = scratch_bytes(wide, hidden, rows)
        widest = max(widest, rows * item * (hidden + wide) + tiles)
    return float(rows * held + widest)


def rotary_tables(shape: DecoderShape, tokens: int) -> float:
    """Bytes of cosines and sines in float32 for positions up to the next power of two."""
    return float(2 * 4 * (shape.head_dim // 2) * (1 << (tokens - 1).bit_length()))


def classifier_workspace(shape: ClassifierShape, batch: int, item: int = 4) -> float:
    """Bytes of a batch of images at the widest layer, whose inputs and outputs the shape counts,
    `item` bytes a value.

    A layer whose weights are used many times is a convolution.
    """
    copies = CONVOLUTION_COPIES if shape.macs > 2 * shape.parameters else 1
    return float(copies * item * batch * shape.activations)
