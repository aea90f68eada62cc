"""Owns the Hugging Face tensor names of a decoder: which there must be, and their shapes.

It needs no torch at import: the pre-flight uses it before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from core.errors import BadInput
from core.files import lean_layer
from core.files.config.decoder_config import DecoderConfig
from core.files.lean_layer import in_layer

# Tables that older exporters wrote beside the weights; they follow from the config.
IGNORED = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias")


def expected(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that the config asks for."""
    wanted: dict[str, tuple[int, ...]] = {
        lean_layer.EMBEDDING.tensor: (config.vocab_size, config.hidden_size)
    }
    for i in range(config.num_layers):
        size = lean_layer.sizes(config, i)
        for norm in lean_layer.norms(config):
            wanted[f"{in_layer(i, norm.module)}.weight"] = (size[norm.size],)
        for matrix in lean_layer.MATRICES:
            for part in matrix.parts:
                module, rows = in_layer(i, part.module), size[part.rows]
                wanted[f"{module}.weight"] = (rows, size[matrix.columns])
                if getattr(config, matrix.bias):
                    wanted[f"{module}.bias"] = (rows,)
    wanted[lean_layer.FINAL_NORM.tensor] = (config.hidden_size,)
    if not config.tied_embeddings:
        wanted[lean_layer.HEAD.tensor] = (config.vocab_size, config.hidden_size)
    return wanted


def check(config: DecoderConfig, shapes: Mapping[str, tuple[int, ...]], file: str = "") -> None:
    """Raise BadInput naming the first missing, unexpected or wrongly shaped tensor."""
    wanted = expected(config)
    # A tied head may be stored twice, and exporters wrote tables that follow from the config.
    spare = {name for name in shapes if name not in wanted and name.endswith(IGNORED)}
    if config.tied_embeddings:
        spare.add(lean_layer.HEAD.tensor)
        wanted_head = wanted[lean_layer.EMBEDDING.tensor]
        if tuple(shapes.get(lean_layer.HEAD.tensor, wanted_head)) != wanted_head:
            wanted[lean_layer.HEAD.tensor] = wanted_head
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
