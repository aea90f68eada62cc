"""Counts a decoder's matrices and vectors from its config.json, as its family is described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import BadInput
from core.files.architectures import Family, Flag, MatrixRow, family_of
from core.files.config import fields
from core.files.config.windows import windows
from core.model import DecoderShape, Layers, Projection


def decoder_shape(config: Mapping[str, Any]) -> DecoderShape:
    """Shape numbers from a Hugging Face config; BadInput names a field that is missing."""
    try:
        return _shape(config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise BadInput(f"config.json: a shape field is missing or not a number: {error}") from None


def _shape(config: Mapping[str, Any]) -> DecoderShape:
    family = family_of(config)
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
    lean = family.lean is not None or not family.attention
    return (_lean if lean else _described)(config, family, shape)


def _described(config: Mapping[str, Any], family: Family, shape: DecoderShape) -> DecoderShape:
    sizes, asked = _sizes(config, shape), _Asked(config)
    attention = [_projection(row, sizes) for row in family.attention]
    common = family.norms * shape.hidden * asked.norms_have_numbers()
    common += asked.biases(family.attention, sizes)
    if family.head_norms and asked.flag(family.head_norms_if):
        common += sizes.of(family.head_norms)
    common += asked.more_norms() * shape.hidden
    alike: dict[tuple[int, bool], list[int]] = {}
    for index, window in enumerate(windows(config, shape.layers)):
        alike.setdefault((window, asked.sparse(index)), []).append(index)
    kinds = []
    for (window, sparse), indices in alike.items():
        mlp = _experts(config, sizes) if sparse else [_projection(row, sizes) for row in family.mlp]
        biases = 0 if sparse else asked.biases(family.mlp, sizes)
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
    projections = [
        Projection("mlp.gate", count, hidden, linear=False),
        Projection("mlp.experts.gate_up_proj", 2 * width, hidden, count, used),
        Projection("mlp.experts.down_proj", hidden, width, count, used),
    ]
    shared = fields.shared_width(config)
    if shared:
        projections += [
            Projection("mlp.shared_expert.gate_proj", shared, hidden),
            Projection("mlp.shared_expert.up_proj", shared, hidden),
            Projection("mlp.shared_expert.down_proj", hidden, shared),
            Projection("mlp.shared_expert_gate", 1, hidden),
        ]
    return projections


def _lean(config: Mapping[str, Any], family: Family, shape: DecoderShape) -> DecoderShape:
    """A family of the lean decoder: layers are spelled out where a window or uneven MLPs ask."""
    sizes, asked = _sizes(config, shape), _Asked(config)
    vectors = asked.biases(family.attention, sizes)
    vectors += sizes.of(family.head_norms) if family.head_norms else 0
    widths = [int(width) for width in config.get("intermediate_sizes") or ()]
    seen = windows(config, shape.layers)
    bias = asked.biases(family.mlp, sizes)
    if not any(seen) and not widths:
        return replace(shape, layer_vectors=vectors + bias)
    alike: dict[tuple[int, int], list[int]] = {}
    for index, window in enumerate(seen):
        width = widths[index] if index < len(widths) else shape.intermediate
        alike.setdefault((window, width), []).append(index)
    kinds = []
    for (window, width), indices in alike.items():
        bias = asked.biases(family.mlp, _Sizes(sizes.letters | {"m": width}))
        numbers = 2 * shape.hidden + vectors + bias
        kinds.append(Layers(tuple(indices), shape.stacks(width), numbers, window))
    widest = max(widths, default=shape.intermediate)
    return replace(shape, intermediate=widest, kinds=tuple(kinds), loose=shape.hidden)


def _projection(part: MatrixRow, sizes: _Sizes) -> Projection:
    name, rows, columns, _ = part
    return Projection(name, sizes.of(rows), sizes.of(columns))


@dataclass(frozen=True)
class _Sizes:
    letters: dict[str, int]

    def of(self, sum_of: str) -> int:
        """`q+k+v` -> the sum of these sizes."""
        return sum(self.letters[letter] for letter in sum_of.split("+"))


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

    def biases(self, parts: tuple[MatrixRow, ...], sizes: _Sizes) -> int:
        """Numbers in the biases of these matrices."""
        return sum(sizes.of(rows) for _, rows, _, bias in parts if self.flag(bias))

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
        experts = family_of(self.config).experts
        if experts is None or experts.every:
            return experts is not None
        step = int(self.config.get("decoder_sparse_step") or 1)
        dense = self.config.get("mlp_only_layers") or ()
        return index not in dense and fields.experts(self.config) > 0 and (index + 1) % step == 0

    def _is(self, family: str) -> bool:
        return self.config.get("model_type") == family
