"""Owns random weights made where they are used: matrix after matrix in its stacked form, so that a
model of 16 GB needs 16 GB of a GPU, none of the host, and no time to be copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.engine.decoder import Decoder
from core.engine.linear import DENSE, Linear
from core.files.config import names
from core.files.config.decoder_config import DecoderConfig
from core.files.formats.layout import EMBEDDING, Stack

# The usual spread of a decoder's weights before it is trained.
STD = 0.02


def random_decoder(config: DecoderConfig, dtype: str, seed: int, device: str) -> Decoder:
    """A decoder with normal weights, std STD, norms of 1 and biases of 0, drawn on `device`.

    The same numbers for one seed on one kind of device; those of another kind are others.
    """
    generator = torch.Generator(device).manual_seed(seed)
    kind, shapes = DENSE[dtype], names.expected(config)

    def normal(rows: int, columns: int) -> Tensor:
        weight = torch.empty((rows, columns), dtype=kind, device=device)
        return weight.normal_(0, STD, generator=generator)

    embedding = normal(*shapes[EMBEDDING])

    def vector(name: str) -> Tensor:
        return torch.ones(shapes[name], dtype=kind, device=device)

    def matrix(stack: Stack) -> Linear:
        if stack.name == "head" and config.tied_embeddings:
            return Linear(embedding)
        rows = sum(rows for _, rows in stack.parts)
        bias = torch.zeros(rows, dtype=kind, device=device) if stack.bias else None
        return Linear(normal(rows, stack.columns), bias)

    return Decoder.assemble(config, embedding, vector, matrix)
