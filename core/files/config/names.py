"""Owns the Hugging Face tensor names of a decoder: which there must be, and their shapes.

It needs no torch at import: the pre-flight uses it before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import BadInput
from core.files.config.decoder_config import DecoderConfig

# Tables that older exporters wrote beside the weights; they follow from the config.
IGNORED = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias")


def expected(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the config asks for."""
    hidden, query, kv = config.hidden_size, config.query_size, config.kv_size
    wanted: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config.vocab_size, hidden)}
    for i, width in enumerate(config.intermediate_sizes):
        at = f"model.layers.{i}."
        wanted[f"{at}input_layernorm.weight"] = (hidden,)
        wanted[f"{at}post_attention_layernorm.weight"] = (hidden,)
        for name, rows, columns, bias in (
            ("self_attn.q_proj", query, hidden, config.qkv_bias),
            ("self_attn.k_proj", kv, hidden, config.qkv_bias),
            ("self_attn.v_proj", kv, hidden, config.qkv_bias),
            ("self_attn.o_proj", hidden, query, config.o_bias),
            ("mlp.gate_proj", width, hidden, config.mlp_bias),
            ("mlp.up_proj", width, hidden, config.mlp_bias),
            ("mlp.down_proj", hidden, width, config.mlp_bias),
        ):
            wanted[f"{at}{name}.weight"] = (rows, columns)
            if bias:
                wanted[f"{at}{name}.bias"] = (rows,)
        if config.qk_norm:
            wanted[f"{at}self_attn.q_norm.weight"] = (config.head_dim,)
            wanted[f"{at}self_attn.k_norm.weight"] = (config.head_dim,)
    wanted["model.norm.weight"] = (hidden,)
    if not config.tied_embeddings:
        wanted["lm_head.weight"] = (config.vocab_size, hidden)
    return wanted


def check(config: DecoderConfig, shapes: Mapping[str, tuple[int, ...]], file: str = "") -> None:
    """Raise BadInput naming the first missing, unexpected or wrongly shaped tensor."""
    wanted = expected(config)
    # A tied head may be stored twice, and exporters wrote tables that follow from the config.
    spare = {name for name in shapes if name not in wanted and name.endswith(IGNORED)}
    if config.tied_embeddings:
        spare.add("lm_head.weight")
        wanted_head = wanted["model.embed_tokens.weight"]
        if tuple(shapes.get("lm_head.weight", wanted_head)) != wanted_head:
            wanted["lm_head.weight"] = wanted_head
    compare(wanted, {n: s for n, s in shapes.items() if n in wanted or n not in spare}, file)


def compare(
    wanted: Mapping[str, tuple[int, ...]], shapes: Mapping[str, tuple[int, ...]], file: str = ""
) -> None:
    """Raise BadInput at the first difference between the tensors wanted and those there."""
    where = f"{file}: " if file else ""
    for name, shape in wanted.items():
        if name not in shapes:
            raise BadInput(
                f"{where}the tensor {name} {list(shape)} that config.json asks for is missing."
            )
        if tuple(shapes[name]) != shape:
            raise BadInput(
                f"{where}the tensor {name} has the shape {list(shapes[name])}, "
                f"config.json asks for {list(shape)}."
            )
    for name in shapes:
        if name not in wanted:
            raise BadInput(
                f"{where}the tensor {name[:200]} is not part of the model in config.json."
            )
