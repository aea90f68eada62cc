"""Owns what the pre-flight demands of a config and of its tensor table, family by family."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from core.engine import config as lean
from core.engine import names
from core.errors import BadInput

CLASSIFIERS = ("trimtab-mlp", "trimtab-cnn")
# Causal models that transformers runs for us without code from the folder.
OTHERS = (
    "bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "gpt2", "gpt_bigcode",
    "gpt_neo", "gpt_neox", "gptj", "granite", "mixtral", "olmo", "olmo2", "opt", "phi", "phi3",
    "qwen2_moe", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
)  # fmt: skip
MODEL_TYPES = (*lean.FAMILIES, *OTHERS, *CLASSIFIERS)
BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16}
# Upper ends for the size fields of other families, so that a config cannot ask for endless work.
LIMITS = {
    "vocab_size": 1 << 24, "hidden_size": 1 << 20, "n_embd": 1 << 20, "d_model": 1 << 20,
    "num_hidden_layers": 1024, "n_layer": 1024, "num_layers": 1024, "num_attention_heads": 4096,
    "n_head": 4096, "num_key_value_heads": 4096, "intermediate_size": 1 << 22, "n_inner": 1 << 22,
    "max_position_embeddings": 1 << 28, "n_positions": 1 << 28, "head_dim": 4096,
}  # fmt: skip


def check_config(config: Mapping[str, Any]) -> None:
    """Raise BadInput unless an engine of ours can honour this config.json."""
    kind = config.get("model_type")
    if kind is None:
        raise BadInput("config.json: model_type is missing.")
    for field in ("auto_map", "trust_remote_code"):
        if config.get(field):
            raise BadInput(
                f"config.json: {field} asks to run code from the folder, which is never done; "
                "remove it if the architecture is a standard one."
            )
    if kind not in MODEL_TYPES:
        raise BadInput(
            f"config.json: model_type {kind!r:.60} is not supported; "
            f"supported are {', '.join(MODEL_TYPES)}."
        )
    if kind in lean.FAMILIES:
        lean.from_hf(config)
    elif kind in CLASSIFIERS:
        classifier_shapes(config)
    else:
        _check_sizes(config)


def check_tensors(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], file: str
) -> None:
    """Raise BadInput naming the first tensor that is missing, unexpected or wrongly shaped.

    For families that transformers runs the names are checked at loading, by its own report.
    """
    kind = config["model_type"]
    if kind in lean.FAMILIES:
        names.check(lean.from_hf(config), shapes, file)
    elif kind in CLASSIFIERS:
        names.compare(classifier_shapes(config), shapes, file)


def classifier_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a zoo classifier, see core.engine.classifier."""
    kind = config["model_type"]
    field = "layers" if kind == "trimtab-mlp" else "channels"
    widths, classes = config.get(field), config.get("classes")
    if not isinstance(widths, list) or not 1 <= len(widths) <= (8 if field == "layers" else 3):
        raise BadInput(f"config.json: {field} must be a list of a few widths.")
    for value in (*widths, classes):
        if type(value) is not int or not 1 <= value <= 4096:
            raise BadInput(f"config.json: {field} and classes must be integers from 1 to 4096.")
    assert isinstance(classes, int)
    shapes: dict[str, tuple[int, ...]] = {}
    if field == "layers":
        sizes = [64, *widths, classes]
        for i, (columns, rows) in enumerate(pairwise(sizes)):
            shapes |= {f"linears.{i}.weight": (rows, columns), f"linears.{i}.bias": (rows,)}
        return shapes
    channels = [1, *widths]
    for i, (before, after) in enumerate(pairwise(channels)):
        shapes |= {
            f"convolutions.{i}.weight": (after, before, 3, 3),
            f"convolutions.{i}.bias": (after,),
        }
    return shapes | {
        "head.weight": (classes, channels[-1] * (8 >> len(widths)) ** 2),
        "head.bias": (classes,),
    }


def check_memory(name: str, needed: int) -> None:
    """Raise BadInput when `needed` bytes of weights do not fit into the memory that is free now."""
    free = available_bytes()
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


def vocabulary(config: Mapping[str, Any]) -> int | None:
    """The config's vocab_size, or None for a model without one."""
    size = config.get("vocab_size")
    return size if type(size) is int else None


def _check_sizes(config: Mapping[str, Any]) -> None:
    for field, high in LIMITS.items():
        value = config.get(field)
        if value is None:
            continue
        if type(value) is not int or not 1 <= value <= high:
            shown = f"{value!r}"[:60]
            raise BadInput(
                f"config.json: {field} must be an integer from 1 to {high}, not {shown}."
            )
    if config.get("quantization_config"):
        raise BadInput(
            "config.json: quantization_config says the weights are already quantized; "
            "use the model's unquantized weights."
        )
    for value in config.values():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadInput("config.json holds a number that is not finite.")
