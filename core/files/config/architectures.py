"""What a decoder of each family is made of: the matrices of a layer, norms, biases, experts.

One description a family, as transformers builds it (its modeling files are the source). Sizes are
named by letters, see `_sizes`. The families of the lean decoder are those of core.model's own
arithmetic, and are described here only where their layers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadInput
from core.files.config import fields
from core.files.config.decoder_config import FAMILIES as LEAN
from core.files.config.windows import windows
from core.model import DecoderShape, Layers, Projection

# A bias is there, is not, or as the field of this name says (its default behind it).
Flag = bool | tuple[str, bool]
# Name, rows, columns, bias.
Part = tuple[str, str, str, Flag]


@dataclass(frozen=True)
class Family:
    """`norms` and `final` count vectors of the hidden size in a layer and outside of the layers (a
    LayerNorm with a bias is two); `head_norms` is their size a layer; `positions` is how many more
    rows a learned table has than there are positions.
    """

    attention: tuple[Part, ...]
    mlp: tuple[Part, ...]
    norms: int = 2
    final: int = 1
    head_norms: str = ""
    head_norms_if: Flag = True
    head_bias: bool = False
    positions: int | None = None


def _attention(bias: Flag = False, out: Flag = False, name: str = "o_proj") -> tuple[Part, ...]:
    inner = tuple((f"self_attn.{one}_proj", one, "h", bias) for one in "qkv")
    return (*inner, (f"self_attn.{name}", "h", "q", out))


def _fused(module: str, bias: Flag = True) -> tuple[Part, ...]:
    return ((f"{module}.query_key_value", "q+k+v", "h", bias), (f"{module}.dense", "h", "q", bias))


def _plain(first: str, second: str, bias: Flag = True) -> tuple[Part, ...]:
    return ((f"mlp.{first}", "m", "h", bias), (f"mlp.{second}", "h", "m", bias))


def _gated(bias: Flag = False) -> tuple[Part, ...]:
    return (
        ("mlp.gate_proj", "m", "h", bias),
        ("mlp.up_proj", "m", "h", bias),
        ("mlp.down_proj", "h", "m", bias),
    )


_ASKED: Flag = ("attention_bias", False)
_MLP_ASKED: Flag = ("mlp_bias", False)
_FOUR_H = _plain("dense_h_to_4h", "dense_4h_to_h")
_GATE_UP: tuple[Part, ...] = (
    ("mlp.gate_up_proj", "m+m", "h", False),
    ("mlp.down_proj", "h", "m", False),
)
_C_ATTN: tuple[Part, ...] = (
    ("attn.c_attn", "q+k+v", "h", True),
    ("attn.c_proj", "h", "q", True),
)
_GPT2 = Family(_C_ATTN, _plain("c_fc", "c_proj"), 4, 2, positions=0)
_GEMMA2 = Family(_attention(_ASKED, _ASKED), _gated(), 4)
_FALCON: Flag = ("bias", False)
_STAR: Flag = ("use_bias", True)
_QWEN: Flag = ("qkv_bias", True)
# OPT's projections are no part of a module called mlp.
_OPT: tuple[Part, ...] = (
    ("fc1", "m", "h", ("enable_bias", True)),
    ("fc2", "h", "m", ("enable_bias", True)),
)

FAMILIES: dict[str, Family] = {
    "bloom": Family(_fused("self_attention"), _FOUR_H, 4, 4),
    "cohere": Family(_attention(_ASKED, _ASKED), _gated(), 1, 1, "q+k", ("use_qk_norm", False)),
    "falcon": Family(
        _fused("self_attention", _FALCON), _plain("dense_h_to_4h", "dense_4h_to_h", _FALCON), 2, 2
    ),
    "gemma": Family(_attention(_ASKED, _ASKED), _gated()),
    "gemma2": _GEMMA2,
    "gemma3_text": replace(_GEMMA2, head_norms="d+d"),
    "glm": Family(_attention(("attention_bias", True)), _GATE_UP),
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": Family(
        tuple((f"attn.attention.{one[0].rpartition('.')[2]}", *one[1:]) for one in
              _attention(False, True, "out_proj")),
        _plain("c_fc", "c_proj"), 4, 2, positions=0,
    ),
    "gpt_neox": Family(_fused("attention", ("attention_bias", True)), _FOUR_H, 4, 2),
    "gptj": Family(
        tuple((one[0].replace("self_attn", "attn"), *one[1:]) for one in
              _attention(name="out_proj")),
        _plain("fc_in", "fc_out"), 2, 2, head_bias=True,
    ),
    "granite": Family(_attention(_ASKED, _ASKED), _gated(_MLP_ASKED)),
    "mixtral": Family(_attention(), ()),
    "olmo": Family(_attention(_ASKED, _ASKED), _gated(), 0, 0),
    "olmo2": Family(_attention(_ASKED, _ASKED), _gated(), 2, 1, "q+k"),
    "opt": Family(
        _attention(("enable_bias", True), ("enable_bias", True), "out_proj"), _OPT, 4, 2,
        positions=2,
    ),
    "phi": Family(
        _attention(True, True, "dense"), _plain("fc1", "fc2"), 2, 2, "d+d+d+d",
        ("qk_layernorm", False), head_bias=True,
    ),
    "phi3": Family(
        (("self_attn.qkv_proj", "q+k+v", "h", False), ("self_attn.o_proj", "h", "q", False)),
        _GATE_UP,
    ),
    "qwen2_moe": Family(_attention(_QWEN), _gated()),
    "qwen3_moe": Family(_attention(_ASKED, _ASKED), _gated(), head_norms="d+d"),
    "smollm3": Family(_attention(_ASKED, _ASKED), _gated(_MLP_ASKED)),
    "stablelm": Family(
        _attention(("use_qkv_bias", False)), _gated(), 4, 2, "q+k", ("qk_layernorm", False)
    ),
    "starcoder2": Family(_attention(_STAR, _STAR), _plain("c_fc", "c_proj", _STAR), 4, 2),
}  # fmt: skip


def decoder_shape(config: Mapping[str, Any]) -> DecoderShape:
    """Shape numbers from a Hugging Face config; BadInput names a field that is missing."""
    try:
        return _shape(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"config.json: a shape field is missing or not a number: {error}") from None


def _shape(config: Mapping[str, Any]) -> DecoderShape:
    family = str(config.get("model_type"))
    hidden = fields.required(config, "hidden_size")
    heads = fields.required(config, "num_attention_heads")
    shape = DecoderShape(
        hidden=hidden,
        layers=fields.required(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=fields.kv_heads(config, heads),
        head_dim=fields.head_dim(config, hidden, heads),
        intermediate=fields.intermediate(config, hidden),
        vocabulary=int(config["vocab_size"]),
        context=fields.number(config, "max_position_embeddings") or 2048,
        tied=fields.tied(config),
    )
    if family in FAMILIES:
        return _described(config, FAMILIES[family], shape)
    return _lean(config, shape)


def _described(config: Mapping[str, Any], family: Family, shape: DecoderShape) -> DecoderShape:
    sizes, asked = _sizes(config, shape), _Asked(config)
    attention = [_projection(one, sizes) for one in family.attention]
    common = family.norms * shape.hidden * asked.norms_have_numbers()
    common += sum(sizes.of(rows) for _, rows, _, bias in family.attention if asked.flag(bias))
    if family.head_norms and asked.flag(family.head_norms_if):
        common += sizes.of(family.head_norms)
    common += asked.more_norms() * shape.hidden
    alike: dict[tuple[int, bool], list[int]] = {}
    for index, window in enumerate(windows(config, shape.layers)):
        alike.setdefault((window, asked.sparse(index)), []).append(index)
    kinds = []
    for (window, sparse), indices in alike.items():
        mlp = _experts(config, sizes) if sparse else [_projection(one, sizes) for one in family.mlp]
        biases = 0 if sparse else sum(
            sizes.of(rows) for _, rows, _, bias in family.mlp if asked.flag(bias)
        )  # fmt: skip
        kinds.append(Layers(tuple(indices), (*attention, *mlp), common + biases, window))
    loose = (family.final * asked.norms_have_numbers() + asked.more_final()) * shape.hidden
    loose += shape.vocabulary if family.head_bias else 0
    if family.positions is not None:
        loose += (shape.context + family.positions) * shape.hidden
    width = int(config.get("word_embed_proj_dim") or 0) if config["model_type"] == "opt" else 0
    width = 0 if width == shape.hidden else width
    outside = (
        (
            Projection("project_in", shape.hidden, width),
            Projection("project_out", width, shape.hidden),
        )
        if width
        else ()
    )
    return replace(
        shape, kinds=tuple(kinds), loose=loose, outside=outside, embedding=width, trims=True
    )


def _experts(config: Mapping[str, Any], sizes: _Sizes) -> list[Projection]:
    """Router, experts and the shared expert of a mixture's layer."""
    hidden, width = sizes.of("h"), fields.expert_width(config)
    count, used = fields.experts(config), fields.experts_used(config)
    found = [
        Projection("mlp.gate", count, hidden, linear=False),
        Projection("mlp.experts.gate_up_proj", 2 * width, hidden, count, used),
        Projection("mlp.experts.down_proj", hidden, width, count, used),
    ]
    shared = fields.shared_width(config)
    if shared:
        found += [
            Projection("mlp.shared_expert.gate_proj", shared, hidden),
            Projection("mlp.shared_expert.up_proj", shared, hidden),
            Projection("mlp.shared_expert.down_proj", hidden, shared),
            Projection("mlp.shared_expert_gate", 1, hidden),
        ]
    return found


def _lean(config: Mapping[str, Any], shape: DecoderShape) -> DecoderShape:
    """A family of the lean decoder: layers are spelled out where a window or uneven MLPs ask."""
    family = config.get("model_type")
    query, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    asked = family in ("llama", "qwen3") and bool(config.get("attention_bias"))
    vectors = query + 2 * kv if family == "qwen2" or asked else 0
    vectors += shape.hidden if asked else 0
    vectors += 2 * shape.head_dim if family == "qwen3" else 0
    mlp_bias = family == "llama" and bool(config.get("mlp_bias"))
    widths = [int(one) for one in config.get("intermediate_sizes") or ()]
    seen = windows(config, shape.layers) if family in LEAN else [0] * shape.layers
    bias = 2 * shape.intermediate + shape.hidden if mlp_bias else 0
    if not any(seen) and not widths:
        return replace(shape, layer_vectors=vectors + bias)
    alike: dict[tuple[int, int], list[int]] = {}
    for index, window in enumerate(seen):
        width = widths[index] if index < len(widths) else shape.intermediate
        alike.setdefault((window, width), []).append(index)
    kinds = []
    for (window, width), indices in alike.items():
        bias = 2 * width + shape.hidden if mlp_bias else 0
        numbers = 2 * shape.hidden + vectors + bias
        kinds.append(Layers(tuple(indices), shape.stacks(width), numbers, window))
    widest = max(widths, default=shape.intermediate)
    return replace(shape, intermediate=widest, kinds=tuple(kinds), loose=shape.hidden)


def _projection(part: Part, sizes: _Sizes) -> Projection:
    name, rows, columns, _ = part
    return Projection(name, sizes.of(rows), sizes.of(columns))


@dataclass(frozen=True)
class _Sizes:
    letters: dict[str, int]

    def of(self, sum_of: str) -> int:
        """`q+k+v` -> the sum of these sizes."""
        return sum(self.letters[one] for one in sum_of.split("+"))


def _sizes(config: Mapping[str, Any], shape: DecoderShape) -> _Sizes:
    kv = fields.projected_kv_heads(config, shape.heads) * shape.head_dim
    return _Sizes(
        {
            "h": shape.hidden,
            "q": shape.heads * shape.head_dim,
            "k": kv,
            "v": kv,
            "d": shape.head_dim,
            "m": shape.intermediate,
        }
    )


@dataclass(frozen=True)
class _Asked:
    """What single fields of a config change."""

    config: Mapping[str, Any]

    def flag(self, wanted: Flag) -> bool:
        if isinstance(wanted, bool):
            return wanted
        value = self.config.get(wanted[0])
        return wanted[1] if value is None else bool(value)

    def norms_have_numbers(self) -> bool:
        """OPT can do without."""
        return self.flag(("layer_norm_elementwise_affine", True)) or not self._is("opt")

    def more_norms(self) -> int:
        """Vectors of norms that a layer has beside its family's."""
        if self._is("stablelm") and self.config.get("use_parallel_residual"):
            return -2
        if not self._is("falcon"):
            return 0
        if not self.flag(("parallel_attn", True)):
            return 2
        count = self.config.get("num_ln_in_parallel_attn")
        new = bool(self.config.get("new_decoder_architecture"))
        return 2 if count == 2 or (count is None and new) else 0

    def more_final(self) -> int:
        """Vectors of the norm behind the layers that OPT leaves out when norms come after."""
        first = self.flag(("do_layer_norm_before", True))
        gone = not first or self.flag(("_remove_final_layer_norm", False))
        return -2 if self._is("opt") and gone and self.norms_have_numbers() else 0

    def sparse(self, index: int) -> bool:
        """Whether the layer is a mixture of experts."""
        if self._is("mixtral"):
            return True
        if not (self._is("qwen2_moe") or self._is("qwen3_moe")):
            return False
        step = int(self.config.get("decoder_sparse_step") or 1)
        dense = self.config.get("mlp_only_layers") or ()
        return index not in dense and fields.experts(self.config) > 0 and (index + 1) % step == 0

    def _is(self, family: str) -> bool:
        return self.config.get("model_type") == family
