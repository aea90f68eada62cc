"""Owns what each family of models is made of, as data: one description a family.

Which matrices a layer has and how they are stacked, norms, biases, experts, sliding windows and
heads, and what its config.json calls them or means by leaving them out, as transformers builds it
(its modeling files are the source). Sizes are letters: h hidden, q, k and v the rows of queries,
keys and values, m the MLP's width, d a head. The lean decoder's layer is core.files.lean_layer's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

# A bias is there, is not, or as the field of this name says (its default behind it).
Flag = bool | tuple[str, bool]
# Name, rows, columns, bias.
MatrixRow = tuple[str, str, str, Flag]


@dataclass(frozen=True)
class Mixture:
    """A mixture's layers: `used` experts a token where the config says nothing, each as wide as the
    field `width`; `shared` adds one that all tokens go through; `every` layer is a mixture.
    """

    used: int
    width: str = "moe_intermediate_size"
    shared: bool = False
    every: bool = False


@dataclass(frozen=True)
class SlidingWindow:
    """Which layers slide (core.files.config.windows has the patterns), over `default` tokens where
    sliding_window is left out; `asked` ones only with use_sliding_window. `listed`: a config's
    layer_types say it instead.
    """

    pattern: str = "every"
    default: int | None = None
    asked: bool = False
    listed: bool = True


@dataclass(frozen=True)
class LeanFamily:
    """What a family of the lean decoder adds: the class that transformers runs it with, llama.cpp's
    architecture, and the positions where the config says nothing.
    """

    model_class: str
    gguf: str
    positions: int


@dataclass(frozen=True)
class Family:
    """`norms` and `final` count vectors of the hidden size in a layer and outside of the layers (a
    LayerNorm with a bias is two); `head_norms` is their size a layer; `positions` is how many more
    rows a learned table has than there are positions. `names` are the family's own words for fields
    of config.json; an MLP that no field describes is `four_times` as wide as the hidden state.
    `kv_heads` is "own" (as num_key_value_heads says), "all" heads whatever a config says, or "one"
    for all with multi_query. `head_dim` holds where the config leaves it out and it is not the
    hidden size by heads; `tied`: the head shares the embedding unless tie_word_embeddings says no;
    `adds_one`: norms multiply by 1 + w.
    """

    attention: tuple[MatrixRow, ...] = ()
    mlp: tuple[MatrixRow, ...] = ()
    norms: int = 2
    final: int = 1
    head_norms: str = ""
    head_norms_if: Flag = True
    head_bias: bool = False
    positions: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)
    four_times: bool = False
    kv_heads: str = "own"
    head_dim: int | None = None
    tied: bool = False
    adds_one: bool = False
    experts: Mixture | None = None
    window: SlidingWindow | None = None
    lean: LeanFamily | None = None


def _attention(
    bias: Flag = False, out: Flag = False, name: str = "o_proj", inside: str = "self_attn"
) -> tuple[MatrixRow, ...]:
    inner = tuple((f"{inside}.{letter}_proj", letter, "h", bias) for letter in "qkv")
    return (*inner, (f"{inside}.{name}", "h", "q", out))


def _fused(module: str, bias: Flag = True) -> tuple[MatrixRow, ...]:
    return ((f"{module}.query_key_value", "q+k+v", "h", bias), (f"{module}.dense", "h", "q", bias))


def _plain(first: str, second: str, bias: Flag = True) -> tuple[MatrixRow, ...]:
    return ((f"mlp.{first}", "m", "h", bias), (f"mlp.{second}", "h", "m", bias))


def _gated(bias: Flag = False) -> tuple[MatrixRow, ...]:
    return (
        ("mlp.gate_proj", "m", "h", bias),
        ("mlp.up_proj", "m", "h", bias),
        ("mlp.down_proj", "h", "m", bias),
    )


_ASKED: Flag = ("attention_bias", False)
_MLP_ASKED: Flag = ("mlp_bias", False)
_FOUR_H = ("dense_h_to_4h", "dense_4h_to_h")
_GATE_UP: tuple[MatrixRow, ...] = (
    ("mlp.gate_up_proj", "m+m", "h", False),
    ("mlp.down_proj", "h", "m", False),
)
_C_ATTN: tuple[MatrixRow, ...] = (
    ("attn.c_attn", "q+k+v", "h", True),
    ("attn.c_proj", "h", "q", True),
)
_FALCON: Flag = ("bias", False)
_STAR: Flag = ("use_bias", True)
_OPT: Flag = ("enable_bias", True)
_QUERY_NORM: Flag = ("qk_layernorm", False)
_N_LAYER = {"num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}
_N = _N_LAYER | {
    "hidden_size": "n_embd", "intermediate_size": "n_inner",
    "max_position_embeddings": "n_positions",
}  # fmt: skip
_GPT2 = Family(
    _C_ATTN, _plain("c_fc", "c_proj"), 4, 2, positions=0, names=_N, four_times=True,
    kv_heads="all", tied=True,
)  # fmt: skip
_GEMMA = Family(_attention(_ASKED, _ASKED), _gated(), head_dim=256, tied=True, adds_one=True)
_GEMMA2 = replace(_GEMMA, norms=4, window=SlidingWindow("alternate", 4096))
_LATE = SlidingWindow("late", 4096, asked=True)

# The families of the lean decoder, then those that transformers runs without code from the folder.
FAMILIES: dict[str, Family] = {
    "llama": Family(
        _attention(_ASKED, _ASKED), _gated(_MLP_ASKED),
        lean=LeanFamily("LlamaForCausalLM", "llama", 2048),
    ),
    "mistral": Family(
        _attention(), _gated(), window=SlidingWindow("every", 4096, listed=False),
        lean=LeanFamily("MistralForCausalLM", "llama", 131072),
    ),
    "qwen2": Family(
        _attention(True), _gated(), window=_LATE,
        lean=LeanFamily("Qwen2ForCausalLM", "qwen2", 32768),
    ),
    "qwen3": Family(
        _attention(_ASKED, _ASKED), _gated(), head_norms="d+d", head_dim=128, window=_LATE,
        lean=LeanFamily("Qwen3ForCausalLM", "qwen3", 32768),
    ),
    "bloom": Family(
        _fused("self_attention"), _plain(*_FOUR_H), 4, 4,
        names=_N_LAYER | {"hidden_size": "n_embed"}, four_times=True, kv_heads="all", tied=True,
    ),
    "cohere": Family(
        _attention(_ASKED, _ASKED), _gated(), 1, 1, "q+k", ("use_qk_norm", False), tied=True
    ),
    "falcon": Family(
        _fused("self_attention", _FALCON), _plain(*_FOUR_H, _FALCON), 2, 2,
        names={"intermediate_size": "ffn_hidden_size"}, four_times=True, kv_heads="one", tied=True,
    ),
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, head_norms="d+d", window=SlidingWindow("periodic", 4096)),
    "glm": Family(_attention(("attention_bias", True)), _GATE_UP, head_dim=128),
    "gpt2": _GPT2,
    "gpt_bigcode": replace(_GPT2, kv_heads="one"),
    "gpt_neo": Family(
        _attention(False, True, "out_proj", "attn.attention"), _plain("c_fc", "c_proj"), 4, 2,
        positions=0, names={"num_hidden_layers": "num_layers", "num_attention_heads": "num_heads"},
        four_times=True, kv_heads="all", tied=True,
    ),
    "gpt_neox": Family(
        _fused("attention", ("attention_bias", True)), _plain(*_FOUR_H), 4, 2, kv_heads="all"
    ),
    "gptj": Family(
        _attention(name="out_proj", inside="attn"), _plain("fc_in", "fc_out"), 2, 2,
        head_bias=True, names=_N, four_times=True, kv_heads="all",
    ),
    "granite": Family(_attention(_ASKED, _ASKED), _gated(_MLP_ASKED)),
    "mixtral": Family(
        _attention(), experts=Mixture(2, "intermediate_size", every=True), window=SlidingWindow()
    ),
    "olmo": Family(_attention(_ASKED, _ASKED), _gated(), 0, 0),
    "olmo2": Family(_attention(_ASKED, _ASKED), _gated(), 2, 1, "q+k"),
    # OPT's projections are no part of a module called mlp.
    "opt": Family(
        _attention(_OPT, _OPT, "out_proj"), (("fc1", "m", "h", _OPT), ("fc2", "h", "m", _OPT)),
        4, 2, positions=2, names={"intermediate_size": "ffn_dim"}, kv_heads="all", tied=True,
    ),
    "phi": Family(
        _attention(True, True, "dense"), _plain("fc1", "fc2"), 2, 2, "d+d+d+d", _QUERY_NORM,
        head_bias=True,
    ),
    "phi3": Family(
        (("self_attn.qkv_proj", "q+k+v", "h", False), ("self_attn.o_proj", "h", "q", False)),
        _GATE_UP, window=SlidingWindow(),
    ),
    "qwen2_moe": Family(
        _attention(("qkv_bias", True)), _gated(), experts=Mixture(4, shared=True),
        window=SlidingWindow("early", 4096, asked=True),
    ),
    "qwen3_moe": Family(
        _attention(_ASKED, _ASKED), _gated(), head_norms="d+d", experts=Mixture(8),
        window=SlidingWindow("every", 4096, asked=True),
    ),
    "smollm3": Family(
        _attention(_ASKED, _ASKED), _gated(_MLP_ASKED), tied=True,
        window=SlidingWindow("no_rope", asked=True),
    ),
    "stablelm": Family(
        _attention(("use_qkv_bias", False)), _gated(), 4, 2, "q+k", _QUERY_NORM
    ),
    "starcoder2": Family(
        _attention(_STAR, _STAR), _plain("c_fc", "c_proj", _STAR), 4, 2, tied=True,
        window=SlidingWindow(),
    ),
}  # fmt: skip
LEAN = tuple(name for name, family in FAMILIES.items() if family.lean is not None)
OTHERS = tuple(name for name, family in FAMILIES.items() if family.lean is None)
_UNKNOWN = Family()


def family_of(config: Mapping[str, Any]) -> Family:
    """The description of a config's model_type; of an unknown one that of nothing special."""
    return FAMILIES.get(str(config.get("model_type")), _UNKNOWN)
