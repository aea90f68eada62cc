"""Owns what the pre-flight demands of a folder whose matrices are quantized. It needs no torch.

Which tensors a format has is said by its module in core.files.formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import BadInput
from core.files.architectures import LEAN as FAMILIES
from core.files.config.classifier import classifier_shapes
from core.files.config.fields import tied
from core.files.config.hf_config import from_hf
from core.files.formats import foreign, native
from core.files.formats.foreign import MODULES
from core.files.formats.layout import HEAD, Stack, others, stacks
from core.files.header import TensorEntry
from kernels.dtypes import FILE_FLOATS, FLOATS

FIELD = "quantization_config"
METHODS = (native.METHOD, *MODULES)


def method(config: Mapping[str, Any]) -> str | None:
    """The quant_method of a config, None for plain weights. BadInput for one that nobody here
    reads.
    """
    settings = config.get(FIELD)
    if not settings:
        return None
    name = settings.get("quant_method") if isinstance(settings, Mapping) else None
    if not isinstance(name, str) or name not in METHODS:
        raise BadInput(
            f"config.json: {FIELD}.quant_method {name!r:.60} is not supported; supported are "
            f"{', '.join(METHODS)}, and unquantized weights."
        )
    return name


def saved_dtype(config: Mapping[str, Any]) -> str | None:
    """The dtype that the engine had when `apply` wrote the folder; None for other folders."""
    ours = config.get("trimtab")
    if ours is None:
        return None
    dtype = ours.get("dtype") if isinstance(ours, Mapping) else None
    if not isinstance(dtype, str) or dtype not in FLOATS:
        raise BadInput(
            f"config.json: trimtab.dtype must be one of {', '.join(FLOATS)}, not {dtype!r:.40}."
        )
    return dtype


def check(config: Mapping[str, Any], entries: Iterable[TensorEntry], file: str) -> None:
    """BadInput naming the first tensor that is missing, unexpected, of a wrong shape or dtype."""
    wanted = expected(config)
    stored = {entry.name: entry for entry in entries}
    for name, (dtypes, shape) in wanted.items():
        entry = stored.get(name)
        if entry is None:
            raise BadInput(
                f"{file}: the tensor {name} {list(shape)} that config.json asks for is missing."
            )
        if entry.shape != shape:
            raise BadInput(
                f"{file}: the tensor {name} has the shape {list(entry.shape)}, config.json asks for"
                f" {list(shape)}."
            )
        if entry.dtype not in dtypes:
            raise BadInput(
                f"{file}: the tensor {name} has the dtype {entry.dtype!r}, it must be one of"
                f" {', '.join(dtypes)}."
            )
    for name in stored:
        if name not in wanted:
            raise BadInput(
                f"{file}: the tensor {name[:200]} is not part of the model in config.json."
            )


def expected(config: Mapping[str, Any]) -> native.Shapes:
    """Dtypes and shape of every tensor that the folder must have."""
    known = matrices(config)
    if method(config) != native.METHOD:
        return _foreign(config, known) | plain(config)
    records = native.records(config, known)
    if "head" in records and tied(config):
        raise BadInput(
            f"config.json: tie_word_embeddings is true, but {FIELD} has a head of its own."
        )
    wanted: native.Shapes = {}
    for name, stack in known.items():
        if name in records:
            wanted |= native.expected(stack, records[name])
        else:
            wanted |= _dense(stack, tied(config))
    return wanted | plain(config)


def matrices(config: Mapping[str, Any]) -> dict[str, Stack]:
    """The matrices of a decoder or a classifier by the engine's names."""
    if config["model_type"] in FAMILIES:
        return {stack.name: stack for stack in stacks(from_hf(config))}
    known = {}
    for name, shape in classifier_shapes(config).items():
        if name.endswith(".weight") and len(shape) == 2:
            part = name.removesuffix(".weight")
            known[part] = Stack(part, ((part, shape[0]),), shape[1], bias=True)
    return known


def plain(config: Mapping[str, Any]) -> native.Shapes:
    """What is no matrix: the embedding and the norms, or a classifier's convolutions."""
    if config["model_type"] in FAMILIES:
        shapes = others(from_hf(config))
    else:
        inside = tuple(f"{name}." for name in matrices(config))
        shapes = {n: s for n, s in classifier_shapes(config).items() if not n.startswith(inside)}
    return {name: (FILE_FLOATS, shape) for name, shape in shapes.items()}


def bits(config: Mapping[str, Any], entries: Iterable[TensorEntry]) -> int:
    """Bits a weight takes in the file, embedding and scales included, rounded."""
    stored = sum(entry.nbytes for entry in entries)
    numbers = 0
    for stack in matrices(config).values():
        if stack.name != "head" or not tied(config):
            numbers += stack.rows * stack.columns
    for _, shape in plain(config).values():
        size = 1
        for side in shape:
            size *= side
        numbers += size
    return max(1, round(8 * stored / numbers))


def _foreign(config: Mapping[str, Any], known: Mapping[str, Stack]) -> native.Shapes:
    name = str(method(config))
    if config["model_type"] not in FAMILIES:
        raise BadInput(f"config.json: {FIELD}.quant_method {name} is for language models.")
    schemes = foreign.schemes(config, known)
    wanted: native.Shapes = {}
    for stack in known.values():
        for module in stack.modules():
            if module.name in schemes:
                wanted |= foreign.expected(name, module, schemes[module.name])
        if stack.parts[0][0] not in schemes:
            wanted |= _dense(stack, tied(config))
    return wanted


def _dense(stack: Stack, is_tied: bool) -> native.Shapes:
    shapes: native.Shapes = {}
    for name, rows in stack.parts:
        if name == HEAD and is_tied:
            continue
        shapes[f"{name}.weight"] = (FILE_FLOATS, (rows, stack.columns))
        if stack.bias:
            shapes[f"{name}.bias"] = (FILE_FLOATS, (rows,))
    return shapes
