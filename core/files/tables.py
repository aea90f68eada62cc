"""Owns what the pre-flight demands of a config and of its tensor table, family by family."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from core.errors import BadInput
from core.files import others, quantized
from core.files.architectures import LEAN as FAMILIES
from core.files.architectures import OTHERS
from core.files.config import fields, hf_config, names
from core.files.config.classifier import CLASSIFIERS, classifier_shapes
from core.files.gguf import folder as gguf_files
from core.files.header import TensorEntry
from kernels.dtypes import FILE_FLOATS

MODEL_TYPES = (*FAMILIES, *OTHERS, *CLASSIFIERS)
# What older exporters wrote beside the weights of other families: masks, which transformers skips.
MASKS, MASK_DTYPES = (".bias", ".masked_bias"), ("BOOL", "U8")


def check_config(config: Mapping[str, Any]) -> None:
    """Raise BadInput unless an engine of ours can honour this config.json."""
    kind = config.get("model_type")
    if kind is None:
        raise BadInput("config.json: model_type is missing.")
    _refuse_code(config)
    if gguf_files.MARK in config:
        raise BadInput(f"config.json: {gguf_files.MARK} belongs to no config.json.")
    if kind not in MODEL_TYPES:
        raise BadInput(
            f"config.json: model_type {kind!r:.60} is not supported; "
            f"supported are {', '.join(MODEL_TYPES)}."
        )
    _check_finite(config)
    if kind in FAMILIES:
        quantized.method(config)
        hf_config.from_hf(config)
    elif kind in CLASSIFIERS:
        quantized.method(config)
        classifier_shapes(config)
    else:
        others.check_config(config)
    quantized.saved_dtype(config)


def check_dtypes(config: Mapping[str, Any], entries: Iterable[TensorEntry], file: str) -> None:
    """Raise BadInput naming the first tensor whose numbers are not floating point."""
    for entry in entries:
        mask = config["model_type"] in OTHERS and entry.dtype in MASK_DTYPES
        if entry.dtype not in FILE_FLOATS and not (mask and entry.name.endswith(MASKS)):
            raise BadInput(
                f"{file}: the tensor {entry.name[:200]!r} has the dtype {entry.dtype!r}, "
                f"weights must be one of {', '.join(FILE_FLOATS)}."
            )


def spare(config: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor of a file is no weight of its own: a mask, rotary frequencies, a copy of a
    tied head.
    """
    if name.endswith((*names.IGNORED, ".attention.bias")):
        return True
    return name == "lm_head.weight" and fields.tied(config)


def check_tensors(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: str
) -> None:
    """Raise BadInput naming the first tensor that is missing, unexpected or wrongly shaped.

    For families that transformers runs only layers and vocabulary are counted here; the names are
    checked at loading, by its own report.
    """
    kind = config["model_type"]
    if kind in FAMILIES:
        names.check(hf_config.from_hf(config), shapes, file)
    elif kind in CLASSIFIERS:
        names.compare(classifier_shapes(config), shapes, file)
    else:
        others.check_tensors(config, shapes, file)


def check_memory(name: str, needed: int, free: int | None = None) -> None:
    """Raise BadInput when `needed` bytes of weights do not fit into the memory that is free now:
    `free` bytes of a device, by default those of this machine.
    """
    free = available_bytes() if free is None else free
    if free is not None and needed > free:
        raise BadInput(
            f"{name}: the weights take {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB of memory are "
            "free; choose a smaller model."
        )


def available_bytes() -> int | None:
    """Memory that a process could take now without swapping; None when the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def _refuse_code(config: Mapping[str, Any]) -> None:
    """Fields by which a config asks to run code, or to load other weights than those checked."""
    for field in ("auto_map", "trust_remote_code"):
        if config.get(field):
            raise BadInput(
                f"config.json: {field} asks to run code from the folder, which is never done; "
                "remove it if the architecture is a standard one."
            )
    for field in ("attn_implementation", "_attn_implementation", "experts_implementation"):
        value = config.get(field)
        if value is not None and not (isinstance(value, str) and value.isidentifier()):
            raise BadInput(
                f"config.json: {field} {value!r:.60} is no plain name; kernels are not fetched from"
                " elsewhere."
            )
    if config.get("transformers_weights") is not None:
        raise BadInput("config.json: transformers_weights names other weights; remove it.")


def _check_finite(value: Any, where: str = "") -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for item in value:
            _check_finite(item, where)
    elif isinstance(value, float) and not math.isfinite(value):
        raise BadInput(f"config.json: {where[:200]} is not a finite number.")
