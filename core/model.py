"""What is to be made cheaper, and the arithmetic of its size and work.

A Model is a description: it holds no weights and no files are read here.
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHT_BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 1.0, "int4": 0.5}


@dataclass(frozen=True)
class DecoderShape:
    """Shape numbers of a decoder-only transformer with gated MLPs and grouped-query attention.

    `layer_vectors` counts a layer's weights that are not matrices beyond its two norms: the biases
    of Qwen2 and of Llamas with attention_bias or mlp_bias, the head norms of Qwen3.
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

    def layer_params(self) -> int:
        """Weights of one layer's matrices: q, k, v, o and gate, up, down."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return attention + 3 * self.hidden * self.intermediate

    def params(self) -> int:
        """All weights: matrices, norms, and biases as far as `layer_vectors` counts them."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        vectors = self.layers * (2 * self.hidden + self.layer_vectors) + self.hidden
        return self.layers * self.layer_params() + embeddings + vectors

    def read_params(self) -> int:
        """Weights that one decode step reads: every matrix and the head once."""
        return self.layers * self.layer_params() + self.vocabulary * self.hidden

    def kv_values_per_token(self) -> int:
        """Numbers that the KV cache keeps for one token."""
        return 2 * self.layers * self.kv_heads * self.head_dim

    def token_flops(self, context: int) -> float:
        """FLOPs of one token behind `context` others: 2 per weight, 4 per head value attended."""
        attention = 4.0 * self.layers * self.heads * self.head_dim * (context + 1)
        return 2.0 * self.read_params() + attention


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
    commit); `bits` is the width of a stored weight. Models of source `shape` carry random weights:
    their quality is unavailable.
    """

    id: str
    family: str
    source: str
    revision: str
    shape: DecoderShape | ClassifierShape
    bits: int = 16
    title: str = ""
    origin: str = ""

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

    def weight_bytes(self, bits: float | None = None) -> float:
        """Bytes of the weights at `bits` per weight (the stored width when not given)."""
        return self.params() * (self.bits if bits is None else bits) / 8

    def kv_bytes_per_token(self, bits: int = 16) -> float:
        """Bytes of KV cache for one token of one sequence."""
        return self.decoder().kv_values_per_token() * bits / 8

    def prefill_flops(self, tokens: int) -> float:
        """FLOPs to read a prompt of `tokens`; the head runs on the last position only."""
        shape = self.decoder()
        head = 2.0 * shape.vocabulary * shape.hidden
        attention = 2.0 * shape.layers * shape.heads * shape.head_dim * tokens * (tokens + 1)
        return 2.0 * shape.layers * shape.layer_params() * tokens + head + attention

    def decode_flops(self, context: int) -> float:
        """FLOPs of one decode step behind `context` tokens."""
        return self.decoder().token_flops(context)

    def example_flops(self) -> float:
        """FLOPs of one image; TypeError on a decoder."""
        if not isinstance(self.shape, ClassifierShape):
            raise TypeError(f"{self.id} is not a classifier")
        return 2.0 * self.shape.macs
