"""Owns what a zoo classifier's config.json says: its tensors and its counts. It needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from core.errors import BadInput
from core.model import ClassifierShape

CLASSIFIERS = ("trimtab-mlp", "trimtab-cnn")
# An image of the digits is SIDE x SIDE numbers.
SIDE = 8


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
        sizes = [SIDE**2, *widths, classes]
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
        "head.weight": (classes, channels[-1] * (SIDE >> len(widths)) ** 2),
        "head.bias": (classes,),
    }


def classifier_shape(config: Mapping[str, Any]) -> ClassifierShape:
    """Parameters and multiply-accumulates of a classifier on one image; BadInput as above."""
    shapes = classifier_shapes(config)
    parameters = sum(map(math.prod, shapes.values()))
    linears, macs, largest, side = [], 0, SIDE**2, SIDE
    for name, shape in shapes.items():
        if not name.endswith(".weight"):
            continue
        outputs, inputs = shape[:2]
        # A convolution works on every pixel, and halves the image behind it.
        pixels = side**2 if len(shape) == 4 else 1
        macs += math.prod(shape) * pixels
        if len(shape) == 4:
            largest = max(largest, (inputs + outputs) * pixels)
            side //= 2
        else:
            linears.append((outputs, inputs))
    if config["model_type"] == "trimtab-mlp":
        largest = max(largest, *(inputs + outputs for outputs, inputs in linears))
    classes = int(config["classes"])
    return ClassifierShape(parameters, macs, SIDE**2, classes, largest, tuple(linears))
