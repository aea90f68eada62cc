"""Owns what the lean decoder is made of, as data: its norms, its stacked matrices, and what files
call them. Whoever needs a layer's parts asks here.

Sizes are letters: h hidden, q and k the rows of queries and of keys (or values), m the MLP's width,
d a head.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.files.config.decoder_config import DecoderConfig


@dataclass(frozen=True)
class OuterTensor:
    """A tensor outside of the layers: Hugging Face's module and llama.cpp's."""

    module: str
    gguf: str

    @property
    def tensor(self) -> str:
        """Name of the tensor."""
        return f"{self.module}.weight"


@dataclass(frozen=True)
class LayerNorm:
    """A norm's weights, `name` in the engine; there only where the config's field `given` says."""

    name: str
    module: str
    gguf: str
    size: str = "h"
    given: str = ""


@dataclass(frozen=True)
class StackedModule:
    """A module of Hugging Face that is some rows of a matrix. llama.cpp's llama `turns` neighbours
    where Hugging Face turns halves of a head. A sound file has no `filled` module of zeros; the
    others may begin so, that a block changes nothing at first.
    """

    module: str
    rows: str
    gguf: str
    turns: bool = False
    filled: bool = True

    @property
    def leaf(self) -> str:
        """The last word of the module's name, which other families share."""
        return self.module.rpartition(".")[2]


@dataclass(frozen=True)
class LayerMatrix:
    """A matrix of the engine: `parts` stacked along its rows, as they share their input.

    `bias` is the config's field that says whether it has one. Its input comes from the norm `norm`;
    where that is empty, from rows of the matrix before it.
    """

    name: str
    parts: tuple[StackedModule, ...]
    columns: str
    bias: str
    norm: str = ""


EMBEDDING = OuterTensor("model.embed_tokens", "token_embd")
FINAL_NORM = OuterTensor("model.norm", "output_norm")
HEAD = OuterTensor("lm_head", "output")
NORMS = (
    LayerNorm("attn_norm", "input_layernorm", "attn_norm"),
    LayerNorm("mlp_norm", "post_attention_layernorm", "ffn_norm"),
    LayerNorm("q_norm", "self_attn.q_norm", "attn_q_norm", "d", "qk_norm"),
    LayerNorm("k_norm", "self_attn.k_norm", "attn_k_norm", "d", "qk_norm"),
)
MATRICES = (
    LayerMatrix(
        "qkv",
        (
            StackedModule("self_attn.q_proj", "q", "attn_q", turns=True),
            StackedModule("self_attn.k_proj", "k", "attn_k", turns=True),
            StackedModule("self_attn.v_proj", "k", "attn_v", filled=False),
        ),
        "h",
        "qkv_bias",
        norm="attn_norm",
    ),
    LayerMatrix(
        "o",
        (StackedModule("self_attn.o_proj", "h", "attn_output", filled=False),),
        "q",
        "o_bias",
    ),
    LayerMatrix(
        "gate_up",
        (
            StackedModule("mlp.gate_proj", "m", "ffn_gate"),
            StackedModule("mlp.up_proj", "m", "ffn_up"),
        ),
        "h",
        "mlp_bias",
        norm="mlp_norm",
    ),
    LayerMatrix(
        "down",
        (StackedModule("mlp.down_proj", "h", "ffn_down", filled=False),),
        "m",
        "mlp_bias",
    ),
)
NAMES = tuple(matrix.name for matrix in MATRICES)
FILLED = tuple(part.leaf for matrix in MATRICES for part in matrix.parts if part.filled)
# Matrices with the norm that they read, which takes a factor from their columns.
NORMED = tuple((matrix.name, matrix.norm) for matrix in MATRICES if matrix.norm)


def sizes(config: DecoderConfig, layer: int) -> dict[str, int]:
    """The numbers behind the letters in one layer."""
    return {
        "h": config.hidden_size,
        "q": config.query_size,
        "k": config.kv_size,
        "m": config.intermediate_sizes[layer],
        "d": config.head_dim,
    }


def in_layer(layer: int, module: str) -> str:
    """`model.layers.3.` and a module's name."""
    return f"model.layers.{layer}.{module}"


def norms(config: DecoderConfig) -> tuple[LayerNorm, ...]:
    """The norms that each layer of this decoder has."""
    return tuple(norm for norm in NORMS if not norm.given or getattr(config, norm.given))
