"""Owns the two image classifiers for sensor-sized targets, as plain torch modules.

It does not train them and reads no files. Both take one 8 x 8 grey image per row, values in
[0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.held import HeldByModule
from core.errors import BadInput

SIDE = 8
MODEL_TYPES = ("trimtab-mlp", "trimtab-cnn")


class _Classifier(HeldByModule, nn.Module):
    """What both classifiers share: their config, the image check and the weight count."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.classes = classes

    def _checked(self, images: Tensor) -> Tensor:
        """The images where the model lies, in the dtype that it was cast to."""
        if images.ndim != 4 or images.shape[1:] != (1, SIDE, SIDE):
            raise BadInput(f"images must have the shape [B, 1, 8, 8], not {list(images.shape)}.")
        dense = next(self.parameters(), None)
        return images.to(self.device) if dense is None else images.to(dense.device, dense.dtype)

    @property
    def module(self) -> nn.Module:
        """Itself, see core.engine.protocol.Engine."""
        return self

    @property
    def device(self) -> str:
        """Where its weights lie."""
        return str(next(tensor.device for _, _, tensor in self.tensors()))


class DigitsMLP(_Classifier):
    """64 pixels -> each width of `layers` with ReLU -> classes."""

    def __init__(self, layers: Sequence[int], classes: int = 10) -> None:
        super().__init__(layers, classes)
        sizes = (SIDE * SIDE, *layers, classes)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def config(self) -> dict[str, Any]:
        """The content of this model's config.json."""
        return {"model_type": "trimtab-mlp", "layers": list(self.widths), "classes": self.classes}

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of float images [B, 1, 8, 8]."""
        x = self._checked(images).flatten(1)
        for linear in self.linears[:-1]:
            x = torch.relu(linear(x))
        logits: Tensor = self.linears[-1](x).float()
        return logits


class DigitsCNN(_Classifier):
    """One 3 x 3 convolution with ReLU and 2 x 2 max pooling per entry of `channels` -> classes."""

    def __init__(self, channels: Sequence[int], classes: int = 10) -> None:
        super().__init__(channels, classes)
        if SIDE >> len(channels) < 1:
            raise BadInput("config.json: channels has too many entries, an 8 x 8 image allows 3.")
        sizes = (1, *channels)
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))
        self.head = nn.Linear(sizes[-1] * (SIDE >> len(channels)) ** 2, classes)

    def config(self) -> dict[str, Any]:
        """The content of this model's config.json."""
        return {
            "model_type": "trimtab-cnn",
            "channels": list(self.widths),
            "classes": self.classes,
        }

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of float images [B, 1, 8, 8]."""
        x = self._checked(images)
        for convolution in self.convolutions:
            x = torch.max_pool2d(torch.relu(convolution(x)), 2)
        logits: Tensor = self.head(x.flatten(1)).float()
        return logits


def new_classifier(config: Mapping[str, Any]) -> DigitsMLP | DigitsCNN:
    """An untrained classifier from its config.json; BadInput names the field that is wrong."""
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise BadInput(f"config.json: model_type {kind!r} is not one of {', '.join(MODEL_TYPES)}.")
    field = "layers" if kind == "trimtab-mlp" else "channels"
    widths, classes = config.get(field), config.get("classes")
    if not isinstance(widths, list) or not 1 <= len(widths) <= 8:
        raise BadInput(f"config.json: {field} must be a list of 1 to 8 widths.")
    for value in (*widths, classes):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 4096:
            raise BadInput(f"config.json: {field} and classes must be integers from 1 to 4096.")
    assert isinstance(classes, int)
    if kind == "trimtab-mlp":
        return DigitsMLP(widths, classes)
    return DigitsCNN(widths, classes)


def classifier_from_tensors(
    config: Mapping[str, Any], tensors: Mapping[str, Tensor], dtype: torch.dtype = torch.float32
) -> DigitsMLP | DigitsCNN:
    """A classifier in evaluation mode with the given weights, named as in its state_dict.

    Raises BadInput for a missing, unexpected or wrongly shaped tensor.
    """
    model = new_classifier(config)
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in tensors:
            raise BadInput(f"model.safetensors: the tensor {name} is missing.")
        if tensors[name].shape != value.shape:
            raise BadInput(
                f"model.safetensors: {name} has the shape {list(tensors[name].shape)}, "
                f"config.json asks for {list(value.shape)}."
            )
    for name in tensors:
        if name not in wanted:
            raise BadInput(f"model.safetensors: the tensor {name} is not part of this model.")
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.to(dtype).eval()
