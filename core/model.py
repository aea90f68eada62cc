"""What is to be made cheaper, and the arithmetic of its size and work.

A Model is a description: it holds no weights and no files are read here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

# Tokens that a cache which trims keeps beyond a window, for speculation to take back.
WINDOW_MARGIN = 32
USUAL_DTYPE = {"text": "bf16", "image": "fp32"}


@dataclass(frozen=True)
class Projection:
    """`count` alike weight matrices [rows, columns] of one layer, of which a token multiplies
    `used`: experts of a mixture where they differ. What is no linear layer (a router) stays dense.
    """

    name: str
    rows: int
    columns: int
    count: int = 1
    used: int = 1
    linear: bool = True

    def numbers(self) -> int:
        """Weights of all of them."""
        return self.count * self.rows * self.columns

    def used_numbers(self) -> int:
        """Weights that one token multiplies."""
        return self.used * self.rows * self.columns

    def read(self, tokens: float) -> float:
        """How many of the matrices a pass over `tokens` tokens reads, when each token chooses its
        experts evenly and by itself: count (1 - (1 - used / count)^tokens).
        """
        left: float = (1 - self.used / self.count) ** tokens
        return self.count * (1 - left)


@dataclass(frozen=True)
class Layers:
    """Layers that are alike, by index: their matrices, the numbers of their norms and biases, and
    how many tokens attention sees (0: all).
    """

    indices: tuple[int, ...]
    projections: tuple[Projection, ...]
    vectors: int
    window: int = 0


@dataclass(frozen=True)
class DecoderShape:
    """Shape numbers of a decoder-only transformer; core.files.config.shape reads them.

    Without `kinds` it is a Llama: gated MLPs, grouped-query attention, matrices stacked as the lean
    decoder stacks them, two norms a layer, `layer_vectors` more numbers in each (biases of Qwen2,
    head norms of Qwen3), and one norm behind. With `kinds` these say what the layers hold, `loose`
    the numbers outside of layers, embedding and head (norms, learned positions, a head's bias) and
    `outside` the matrices there; `embedding` is the embedding's width where it is not `hidden`.
    `trims` says that a cache forgets what no window sees any more (WINDOW_MARGIN tokens later).
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    tied: bool = True
    layer_vectors: int = 0
    kinds: tuple[Layers, ...] = ()
    loose: int = 0
    outside: tuple[Projection, ...] = ()
    embedding: int = 0
    trims: bool = False

    def layer_kinds(self) -> tuple[Layers, ...]:
        """Every layer once, alike ones together."""
        if self.kinds:
            return self.kinds
        matrices = self.stacks(self.intermediate)
        vectors = 2 * self.hidden + self.layer_vectors
        return (Layers(tuple(range(self.layers)), matrices, vectors),)

    def stacks(self, width: int) -> tuple[Projection, ...]:
        """A layer's matrices as the lean decoder stacks them, with an MLP of `width`."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return (
            Projection("qkv", query + 2 * kv, self.hidden),
            Projection("o", self.hidden, query),
            Projection("gate_up", 2 * width, self.hidden),
            Projection("down", self.hidden, width),
        )

    def head(self) -> Projection:
        """The matrix of the logits."""
        return Projection("head", self.vocabulary, self.embedding or self.hidden)

    def projections(self) -> tuple[Projection, ...]:
        """Every matrix of every layer, and those outside, the head last."""
        layers = (kind.projections * len(kind.indices) for kind in self.layer_kinds())
        return (*chain.from_iterable(layers), *self.outside, self.head())

    def vectors(self) -> int:
        """Weights in no matrix but in every layer or loose: norms, biases, learned positions."""
        layers = sum(len(kind.indices) * kind.vectors for kind in self.layer_kinds())
        return layers + (self.loose if self.kinds else self.hidden)

    def params(self) -> int:
        """All weights; a tied head counts once, every expert counts."""
        matrices = sum(matrix.numbers() for matrix in self.projections())
        table = 0 if self.tied else self.head().numbers()
        return matrices + table + self.vectors()

    def active_params(self) -> int:
        """As `params`, without the experts that a token does not choose."""
        unused = (matrix.numbers() - matrix.used_numbers() for matrix in self.projections())
        return self.params() - sum(unused)

    def read_params(self) -> int:
        """Weights that one token multiplies: every matrix and the head once, its experts alone."""
        return sum(matrix.used_numbers() for matrix in self.projections())

    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache keeps for one token while every window still sees it."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def kept_tokens(self, tokens: int) -> float:
        """Of a sequence of `tokens`, how many a layer's cache keeps, on average over the layers."""
        if not self.trims:
            return float(tokens)
        return self._mean(
            lambda window: min(tokens, window - 1 + WINDOW_MARGIN) if window else tokens
        )

    def seen_tokens(self, context: float) -> float:
        """Of `context` cached tokens, how many a layer attends to, on average over the layers."""
        return self._mean(lambda window: min(context, window - 1) if window else context)

    def attended_pairs(self, tokens: int) -> float:
        """Pairs of tokens that attend in a prompt of `tokens`, on average over the layers."""
        return self._mean(lambda window: attended(tokens, window))

    def attention_flops(self, pairs: float) -> float:
        """FLOPs of attention over so many pairs of tokens in every layer."""
        return 4.0 * self.layers * self.heads * self.head_dim * pairs

    def token_flops(self, context: int) -> float:
        """FLOPs of one token behind `context` others: 2 per weight, 4 per head value attended."""
        return 2.0 * self.read_params() + self.attention_flops(self.seen_tokens(context) + 1)

    def prompt_flops(self, tokens: int) -> float:
        """FLOPs of a prompt of `tokens`; the head runs on the last position only."""
        head = 2.0 * self.head().numbers()
        body = 2.0 * self.read_params() - head
        return body * tokens + head + self.attention_flops(self.attended_pairs(tokens))

    def _mean(self, of_window: Callable[[int], float]) -> float:
        kinds = self.layer_kinds()
        total = sum(len(kind.indices) * of_window(kind.window) for kind in kinds)
        return total / max(1, sum(len(kind.indices) for kind in kinds))


def attended(tokens: int, window: int = 0) -> int:
    """Pairs of a token and one that it sees, itself included, in a sequence of `tokens`."""
    pairs = tokens * (tokens + 1) // 2
    hidden = max(0, tokens - window) if window else 0
    return pairs - hidden * (hidden + 1) // 2


@dataclass(frozen=True)
class ClassifierShape:
    """Shape numbers of an image classifier; `linears` are (rows, columns) of its linear layers,
    empty in what was stored before they were counted.
    """

    parameters: int
    macs: int
    inputs: int
    classes: int
    activations: int
    linears: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Model:
    """A model that can be chosen.

    `source` is bundled, folder, hub or shape; `revision` names the exact weights (a digest or a hub
    commit); `bits` is the width of a stored weight, `stored` the bytes that the files hold in each
    dtype (empty without files). `dtype` is the float format that the files ask for where it is not
    the usual one of the task (`precision` says it always). Models of source `shape` carry random
    weights: their quality is unavailable.
    """

    id: str
    family: str
    source: str
    revision: str
    shape: DecoderShape | ClassifierShape
    bits: int = 16
    title: str = ""
    origin: str = ""
    stored: tuple[tuple[str, int], ...] = ()
    dtype: str = ""

    @property
    def precision(self) -> str:
        """What the unchanged model is computed in, KV cache included: fp32, bf16 or fp16."""
        return self.dtype or USUAL_DTYPE[self.task]

    @property
    def task(self) -> str:
        """`text` for decoders, `image` for classifiers."""
        return "text" if isinstance(self.shape, DecoderShape) else "image"

    def decoder(self) -> DecoderShape:
        """The decoder's shape; TypeError on a classifier."""
        if not isinstance(self.shape, DecoderShape):
            raise TypeError(f"{self.id} is not a decoder")
        return self.shape

    def params(self) -> int:
        """Number of weights."""
        if isinstance(self.shape, DecoderShape):
            return self.shape.params()
        return self.shape.parameters

    def active_params(self) -> int:
        """Weights that one token or image has to do with: fewer only in a mixture of experts."""
        if isinstance(self.shape, DecoderShape):
            return self.shape.active_params()
        return self.shape.parameters

    def weight_bytes(self, bits: float | None = None) -> float:
        """Bytes of the weights at `bits` per weight; when not given, those that the files hold, or
        the stored width's.
        """
        if bits is None and self.stored:
            return float(sum(size for _, size in self.stored))
        return self.params() * (self.bits if bits is None else bits) / 8

    def kv_bytes_per_token(self, bits: int = 16) -> float:
        """Bytes of KV cache for one token of one sequence."""
        return self.decoder().kv_values_per_token() * bits / 8

    def prefill_flops(self, tokens: int) -> float:
        """FLOPs to read a prompt of `tokens`; the head runs on the last position only."""
        return self.decoder().prompt_flops(tokens)

    def decode_flops(self, context: int) -> float:
        """FLOPs of one decode step behind `context` tokens."""
        return self.decoder().token_flops(context)

    def example_flops(self) -> float:
        """FLOPs of one image; TypeError on a decoder."""
        if not isinstance(self.shape, ClassifierShape):
            raise TypeError(f"{self.id} is not a classifier")
        return 2.0 * self.shape.macs
