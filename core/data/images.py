"""Images with labels from a .npz file or JSON lines, as arrays.

Reads the array format itself: nothing is unpickled, and a header cannot ask for more memory than
its bytes fill.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from tokenize import TokenError
from typing import Any

import numpy as np

from core.errors import BadInput
from core.model import ClassifierShape, Model

MAX_ARRAY = 256_000_000
PIXELS, LABELS = ("pixels", "images"), ("labels", "label")


@dataclass(frozen=True, eq=False)
class Images:
    """`pixels` float32 [n, inputs] in [0, 1] and `labels` int64 [n]."""

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def refusal(self, name: str, model: Model) -> str | None:
        """Why `model` cannot classify these images, or None."""
        shape = model.shape
        assert isinstance(shape, ClassifierShape)
        if self.pixels.shape[1] != shape.inputs:
            return (
                f"{name} has images of {self.pixels.shape[1]} pixels, {model.id} reads"
                f" {shape.inputs}"
            )
        if int(self.labels.max()) >= shape.classes:
            return (
                f"{name} has the label {int(self.labels.max())}, {model.id} knows"
                f" {shape.classes} classes, counted from 0"
            )
        return None


def from_zip(name: str, data: bytes) -> Images:
    """The arrays `pixels` (or `images`) [n, ...] and `labels` [n], optionally a number `scale`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {
                member.filename.removesuffix(".npy"): member
                for member in archive.infolist()
                if member.filename.endswith(".npy")
            }
            pixels = _array(name, archive, _named(name, members, PIXELS))
            labels = _array(name, archive, _named(name, members, LABELS))
            scale = 1.0
            if "scale" in members:
                scale = float(_array(name, archive, members["scale"]).reshape(-1)[0])
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise BadInput(f"{name} cannot be read as .npz: {str(error)[:120]}") from None
    except (IndexError, NotImplementedError, SyntaxError, MemoryError, TokenError) as error:
        raise BadInput(f"{name} cannot be read as .npz: {type(error).__name__}") from None
    return _checked(name, pixels, labels, scale)


def from_rows(name: str, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Images:
    """The images of JSON lines {"pixels": numbers, nested or not, "label": int, "scale": 1}."""
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for where, item in rows:
        label, scale = item.get("label"), item.get("scale", 1)
        if type(label) is not int or not 0 <= label < 1 << 31:
            raise BadInput(f"{where}: 'label' must be a class, counted from 0")
        if type(scale) not in (int, float) or not 0 < scale < 1e9:
            raise BadInput(f"{where}: 'scale' must be a number above 0")
        try:
            values = np.asarray(item["pixels"], dtype=np.float64).reshape(-1) / scale
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise BadInput(f"{where}: 'pixels' must be a list of numbers") from None
        if not len(values) or (pixels and len(values) != len(pixels[0])):
            raise BadInput(f"{where}: {len(values)} pixels; every image needs the same number")
        _range(where, values)
        pixels.append(values)
        labels.append(label)
    return _checked(name, np.stack(pixels), np.array(labels), 1.0)


def _named(
    name: str, members: Mapping[str, zipfile.ZipInfo], names: tuple[str, ...]
) -> zipfile.ZipInfo:
    for key in names:
        if key in members:
            return members[key]
    listed = ", ".join(sorted(members))[:100] or "nothing"
    raise BadInput(f"{name} holds {listed}; it needs the arrays {PIXELS[0]} and {LABELS[0]}")


def _array(name: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        raw = file.read(MAX_ARRAY + 1)
    if len(raw) > MAX_ARRAY:
        raise BadInput(f"{name}: {member.filename} has more than {MAX_ARRAY // 1_000_000} MB")
    stream = io.BytesIO(raw)
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise BadInput(f"{name}: {member.filename} has the array format {version}")
    shape, fortran, dtype = read(stream)
    body = raw[stream.tell() :]
    if dtype.kind not in "biuf":
        raise BadInput(f"{name}: {member.filename} holds {dtype}, not numbers")
    if prod(shape) * dtype.itemsize != len(body):
        raise BadInput(f"{name}: {member.filename} has not the size that its header gives")
    return np.frombuffer(body, dtype).reshape(shape, order="F" if fortran else "C")


def _checked(name: str, pixels: np.ndarray, labels: np.ndarray, scale: float) -> Images:
    if pixels.ndim < 2 or labels.ndim != 1 or len(pixels) != len(labels) or 0 in pixels.shape:
        raise BadInput(
            f"{name}: pixels {list(pixels.shape)} and labels {list(labels.shape)} must be [n, ...]"
            " and [n]"
        )
    if labels.dtype.kind not in "iu":
        raise BadInput(f"{name}: labels must be whole numbers, not {labels.dtype}")
    if int(labels.min()) < 0 or int(labels.max()) >= 1 << 31:
        raise BadInput(f"{name}: labels are classes, counted from 0")
    if not 0 < scale < 1e9:
        raise BadInput(f"{name}: scale must be a number above 0")
    flat = pixels.reshape(len(pixels), -1).astype(np.float64) / scale
    _range(name, flat)
    return Images(flat.astype(np.float32), labels.astype(np.int64))


def _range(where: str, values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise BadInput(f"{where}: a pixel is not finite")
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        raise BadInput(
            f"{where}: pixels go from {low:g} to {high:g}; they must lie in 0 to 1: divide them,"
            " or give a 'scale' to divide by"
        )
