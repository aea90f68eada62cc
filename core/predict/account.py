"""The memory account of a plan: weights by format, KV cache, workspace. The one source of these
numbers for `fit`, for predictions and for what a trial compares its measured memory with.

Only arithmetic over shapes, exact for the lean decoder and the bundled classifiers on a CPU; other
engines are taken to be alike. What libraries keep beside the tensors is measured, never predicted.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.model import ClassifierShape, DecoderShape
from core.plan import Plan
from core.predict.effects import Effects, effects
from core.predict.work import DecoderWork, decoder_work, draft_work

# Packed layouts round up: int8 rows to 32 codes, int4 matrices to 16 rows (kernels.linear_w8, _w4).
INT8_COLUMNS = 32
INT4_ROWS = 16
# Text is loaded in 16 bits and images in 32, whatever the files hold (core.loading.load).
TEXT_BYTES = 2
IMAGE_BYTES = 4
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

    def parts(self) -> tuple[tuple[str, float], ...]:
        """(name, bytes) that add up to `total`: `weights:FORMAT`, `kv`, `workspace`."""
        kv = (("kv", self.kv),) if self.kv else ()
        weights = tuple((f"weights:{name}", size) for name, size in self.formats)
        return (*weights, *kv, ("workspace", self.workspace))


def account(plan: Plan) -> MemoryAccount:
    """The account of `plan` on its case, before anything is loaded."""
    shape = plan.case.model.shape
    batch = effects(plan).batch
    if isinstance(shape, ClassifierShape):
        space = classifier_workspace(shape, batch)
        return MemoryAccount((("fp32", float(IMAGE_BYTES * shape.parameters)),), 0.0, 0.0, space)
    found = effects(plan)
    draft = draft_work(found)
    workload = plan.workload()
    # Speculation verifies up to `draft_tokens` beyond the last token, within the same capacity.
    tokens = workload.prompt_tokens + workload.output_tokens
    works = [decoder_work(plan), *([] if draft is None else [draft])]
    formats: dict[str, float] = {}
    for work in works:
        for name, size in weights_by_format(work).items():
            formats[name if work is works[0] else f"draft {name}"] = size
    per_token = sum(float(work.shape.kv_values_per_token() * TEXT_BYTES) for work in works)
    space = max(
        decoder_workspace(work.shape, batch, workload.prompt_tokens, TEXT_BYTES) for work in works
    )
    tables = sum(rotary_tables(work.shape, tokens) for work in works)
    return MemoryAccount(
        tuple(formats.items()), batch * tokens * per_token, per_token, space + tables
    )


def weights_by_format(work: DecoderWork) -> dict[str, float]:
    """Resident bytes of one decoder by storage format, padding of packed layouts included.

    The embedding, norms and biases stay dense; a tied head shares the embedding until it is packed.
    """
    shape, found = work.shape, work.found
    dense = shape.vocabulary * shape.hidden + shape.hidden * (2 * shape.layers + 1)
    dense += shape.layers * shape.layer_vectors
    packed = 0.0
    for rows, columns, count in _matrices(shape, with_head=found.packed or not shape.tied):
        if found.packed:
            packed += count * _packed_bytes(rows, columns, found)
        else:
            dense += count * rows * columns
    sizes = {"bf16": float(dense * TEXT_BYTES)}
    if found.packed:
        sizes[_format(found)] = packed
    return sizes


def decoder_workspace(shape: DecoderShape, sequences: int, prompt: int, item: int) -> float:
    """Bytes of a prompt pass beside weights and cache at its widest moment, `item` bytes a value.

    Of the moments of a layer: in SwiGLU the hidden state, the projections, gate and up and two
    results of an MLP's width; in a norm two float32 copies; in the rotation the float32 halves. At
    the head the logits in both widths. A step of few tokens takes less.
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
    return float(max(rows * (held + max(moments)), rows * held + logits))


def rotary_tables(shape: DecoderShape, tokens: int) -> float:
    """Bytes of cosines and sines in float32 for positions up to the next power of two."""
    return float(2 * 4 * (shape.head_dim // 2) * (1 << (tokens - 1).bit_length()))


def classifier_workspace(shape: ClassifierShape, batch: int) -> float:
    """Bytes of a batch of images at the widest layer, whose inputs and outputs the shape counts.

    A layer whose weights are used many times is a convolution.
    """
    copies = CONVOLUTION_COPIES if shape.macs > 2 * shape.parameters else 1
    return float(copies * IMAGE_BYTES * batch * shape.activations)


def _matrices(shape: DecoderShape, with_head: bool) -> list[tuple[int, int, int]]:
    """(rows, columns, how many) as the lean decoder stacks them."""
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    found = [
        (query + 2 * kv, shape.hidden, shape.layers),
        (shape.hidden, query, shape.layers),
        (2 * shape.intermediate, shape.hidden, shape.layers),
        (shape.hidden, shape.intermediate, shape.layers),
    ]
    return [*found, (shape.vocabulary, shape.hidden, 1)] if with_head else found


def _packed_bytes(rows: int, columns: int, found: Effects) -> float:
    """Codes, scales and zeros of one matrix [rows, columns]."""
    if not found.group:
        return _up(columns, INT8_COLUMNS) * rows * found.bits / 8 + rows * found.row_bytes
    rows, columns = _up(rows, INT4_ROWS), _up(columns, found.group)
    return rows * columns * found.bits / 8 + rows * columns / found.group * found.group_bytes


def _format(found: Effects) -> str:
    name = f"int{found.bits:g}"
    return f"{name}-g{found.group}" if found.group else name


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
