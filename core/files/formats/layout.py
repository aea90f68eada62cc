"""Owns which matrices a decoder's files hold, and how the engine stacks them. It needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from core.files import lean_layer
from core.files.config import names
from core.files.config.decoder_config import DecoderConfig
from core.files.formats.scheme import Module
from core.files.lean_layer import in_layer

EMBEDDING, HEAD = lean_layer.EMBEDDING.tensor, lean_layer.HEAD.module


@dataclass(frozen=True)
class Stack:
    """One matrix of the engine: `name` there (`layers.0.qkv`), and the Hugging Face modules whose
    rows it stacks, each with its number of rows.
    """

    name: str
    parts: tuple[tuple[str, int], ...]
    columns: int
    bias: bool = False

    @property
    def rows(self) -> int:
        """Rows of the whole."""
        return sum(rows for _, rows in self.parts)

    def modules(self) -> list[Module]:
        """The modules that its rows belong to."""
        return [Module(name, rows, self.columns, self.bias) for name, rows in self.parts]

    def spans(self) -> list[tuple[int, int, str]]:
        """First row, row behind the last, and name of each module."""
        ends = tuple(accumulate(rows for _, rows in self.parts))
        begins = (0, *ends)
        names = (name for name, _ in self.parts)
        return list(zip(begins, ends, names, strict=False))


def stacks(config: DecoderConfig) -> tuple[Stack, ...]:
    """Every matrix of a decoder in the engine's order; the head is last, tied or not."""
    matrices = []
    for i in range(config.num_layers):
        size = lean_layer.sizes(config, i)
        for matrix in lean_layer.MATRICES:
            parts = tuple((in_layer(i, part.module), size[part.rows]) for part in matrix.parts)
            bias = bool(getattr(config, matrix.bias))
            matrices.append(Stack(f"layers.{i}.{matrix.name}", parts, size[matrix.columns], bias))
    return (*matrices, Stack("head", ((HEAD, config.vocab_size),), config.hidden_size))


def others(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of what is no matrix of the engine: the embedding and the norms."""
    matrices = {f"{part}.{side}" for stack in stacks(config) for part, _ in stack.parts
                for side in ("weight", "bias")}  # fmt: skip
    return {name: shape for name, shape in names.expected(config).items() if name not in matrices}
