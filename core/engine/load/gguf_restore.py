"""Owns making a decoder of a checked GGUF file: rows back in Hugging Face's order, modules stacked.

What lies in super-blocks keeps its codes; scales are those of KBlocks.low_bit. Modules of different
types in one stack become codes of the wider type, which changes no value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from core.engine.decoder import Decoder
from core.engine.linear import DENSE, Linear
from core.errors import BadInput
from core.files.config.decoder_config import DecoderConfig
from core.files.config.hf_config import from_hf
from core.files.folder import CheckedFolder
from core.files.formats.foreign import join
from core.files.formats.layout import EMBEDDING, Stack
from core.files.formats.sound import check_scales, finite
from core.files.gguf import blocks as gguf_blocks
from core.files.gguf.model import read_bytes
from core.files.gguf.names import gguf_name, order
from core.files.gguf.parse import Gguf, parse
from core.files.values import check_values
from kernels.linear_lowbit import LowBit, LowBitWeight


def restore_gguf(folder: CheckedFolder, dtype: str, device: str) -> Decoder:
    """The lean decoder of a GGUF file; BadInput names the tensor whose values are not sound."""
    file, config = parse(folder.weight_files[0]), from_hf(folder.config)
    stored = _Stored(file, config, dtype)
    table = stored.held(gguf_name(EMBEDDING))
    embedding = stored.floats(EMBEDDING, table).to(device).contiguous()

    def vector(name: str) -> Tensor:
        return stored.floats(name, stored.held(gguf_name(name))).reshape(-1).to(device)

    def matrix(stack: Stack) -> Linear:
        if stack.name == "head" and config.tied_embeddings:
            # A tied table of codes is looked up in floats and multiplied as codes.
            return (
                _linear(table, None, dtype, device)
                if isinstance(table, LowBit)
                else (Linear(embedding))
            )
        forms = [stored.rows(module.name) for module in stack.modules()]
        bias = None
        if stack.bias:
            parts = [stored.bias(module.name) for module in stack.modules()]
            bias = torch.cat(parts).to(device)
        if all(isinstance(form, LowBit) for form in forms):
            return _linear(join(stack.name, forms), bias, dtype, device)
        dense = [form.dequantize() if isinstance(form, LowBit) else form for form in forms]
        weight = torch.cat([rows.to(DENSE[dtype]) for rows in dense])
        return Linear.from_dense(weight.to(device), bias, dtype)

    return Decoder.assemble(config, embedding, vector, matrix)


class _Stored:
    """A file's tensors as forms and floats, each judged."""

    def __init__(self, file: Gguf, config: DecoderConfig, dtype: str) -> None:
        self.file, self.config, self.dtype = file, config, dtype

    def held(self, name: str) -> LowBit | Tensor:
        """The tensor as it lies there."""
        place = self.file.tensors[name]
        rows = place.shape[0] if len(place.shape) == 2 else 1
        try:
            data = read_bytes(self.file, place)
            tensor = gguf_blocks.unpack(data, place.type, rows, place.shape[-1])
        except ValueError as error:
            raise BadInput(f"{self.file.path.name}: the tensor {name}: {error}") from None
        if isinstance(tensor, LowBit):
            tensor = gguf_blocks.collapsed(tensor)
            finite(f"{self.file.path.name}: {name}", tensor.scale)
        return tensor

    def floats(self, name: str, held: LowBit | Tensor) -> Tensor:
        """In the engine's dtype; `name` is Hugging Face's."""
        dense = held.dequantize() if isinstance(held, LowBit) else held
        check_values(self.file.path.name, name, dense, self.dtype)
        return dense.to(DENSE[self.dtype])

    def rows(self, module: str) -> LowBit | Tensor:
        """A module's matrix, its rows in Hugging Face's order."""
        name = f"{module}.weight"
        matrix = self.held(gguf_name(name))
        back = self._back(module)
        if isinstance(matrix, LowBit):
            check_scales(f"{self.file.path.name}: {module}.scale", matrix.scale)
            return matrix if back is None else gguf_blocks.reordered(matrix, back)
        check_values(self.file.path.name, name, matrix, self.dtype)
        return matrix if back is None else matrix[back]

    def bias(self, module: str) -> Tensor:
        """A module's bias in the same order, in the engine's dtype."""
        name = f"{module}.bias"
        values = self.floats(name, self.held(gguf_name(name))).reshape(-1)
        back = self._back(module)
        return values if back is None else values[back]

    def _back(self, module: str) -> Tensor | None:
        there = order(self.config, module)
        return None if there is None else there.argsort()


def _linear(form: Any, bias: Tensor | None, dtype: str, device: str) -> Linear:
    moved = gguf_blocks.moved(form, device)
    return Linear.from_kernel(LowBitWeight(moved, bias, DENSE[dtype]))
