"""The format "gguf": a decoder as one file for llama.cpp and what is built on it.

Owns the metadata and which tensors there are; names, blocks and bytes are core.files.gguf's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from core.artefacts.arrange import refusal
from core.artefacts.contents import Contents
from core.artefacts.kept import of_form, of_weight
from core.errors import Refused
from core.files.config.decoder_config import DecoderConfig
from core.files.config.hf_config import from_hf
from core.files.formats.layout import EMBEDDING, Stack
from core.files.gguf import file as gguf_file
from core.files.gguf import tokenizer as gguf_tokenizer
from core.files.gguf.file import TYPES, GgufEntry
from core.files.gguf.names import ARCHITECTURES, STOPS, gguf_name, order
from kernels.dtypes import BY_FILE, FILE_FLOATS, FLOATS

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.weight import KernelWeight

METHOD, FILE = "gguf", "model.gguf"


@dataclass(frozen=True)
class GgufLayout:
    """The file before it is written, and sentences about what it does not hold exactly."""

    metadata: dict[str, Any]
    entries: tuple[GgufEntry, ...]
    notes: tuple[str, ...]

    def weights_bytes(self) -> int:
        """Bytes of model.gguf, metadata and vocabulary among them."""
        return gguf_file.file_bytes(self.metadata, self.entries)

    def files(self) -> list[tuple[str, Iterable[memoryview | bytes]]]:
        """Name and content of each file."""
        return [(FILE, gguf_file.pieces(self.metadata, self.entries))]


def layout(contents: Contents, tokenizer: bytes | None, name: str) -> GgufLayout:
    """The file of an engine; Refused says what it cannot hold.

    `tokenizer` is the content of a checked tokenizer.json, `name` the model's.
    """
    from core.files.gguf import blocks as gguf_blocks

    config = check_model(contents.config)
    entries = [_plain(part.name, part.make()) for part in contents.plain]
    notes: list[str] = []
    for stack, weight in contents.weights:
        for begin, end, module in stack.spans():
            rows = order(config, module)
            entries.append(_matrix(stack, module, weight, begin, end, rows))
            if weight.bias is not None:
                bias = weight.bias[begin:end]
                entries.append(_plain(f"{module}.bias", bias if rows is None else bias[rows]))
    factors = rope_factors(config)
    if factors is not None:
        entries.append(_plain("rope_freqs", factors))
    entries.sort(key=lambda entry: entry.name)
    kinds = [entry.type.name for entry in entries if entry.rows is not None]
    most = max(set(kinds), key=kinds.count)
    metadata = _metadata(config, name) | {"general.file_type": TYPES[most].mostly}
    words, told = vocabulary(config, None if tokenizer is None else json.loads(tokenizer))
    notes += told
    if any(gguf_blocks.rounds_minimum(weight) for _, weight in contents.weights):
        notes.append("gguf keeps the zero of a group as -scale * zero in fp16, which is rounded")
    widths = {str(weight.dtype).removeprefix("torch.") for _, weight in contents.weights}
    again = _computed_in(entries)
    if widths - {again}:
        notes.append(
            f"gguf does not say what to compute in: loaded here again it runs in {again}, not in"
            f" {' and '.join(sorted(widths))}, so that answers differ a little"
        )
    return GgufLayout(metadata | words, tuple(entries), tuple(notes))


def check_model(fields: Mapping[str, Any]) -> DecoderConfig:
    """The decoder of a config.json; Refused when no GGUF file holds its architecture."""
    if fields["model_type"] not in ARCHITECTURES:
        raise Refused(
            f"gguf holds {', '.join(ARCHITECTURES)} here, not {fields['model_type']}; the format"
            " that holds it: trimtab"
        )
    config = from_hf(fields)
    if config.sliding_window is not None:
        raise Refused(
            "gguf has no place for a sliding window of all layers; the format that holds it:"
            " trimtab"
        )
    return config


def _computed_in(entries: Sequence[GgufEntry]) -> str:
    """The torch dtype that core.files.config.precision will read from the matrices."""
    kinds = {
        BY_FILE[entry.type.name].torch
        for entry in entries
        if entry.rows is not None and entry.type.name in FILE_FLOATS
    }
    return "bfloat16" if not kinds else kinds.pop() if len(kinds) == 1 else "float32"


def rope_factors(config: DecoderConfig) -> Tensor | None:
    """fp32 [head_dim / 2] by which llama.cpp divides the plain frequencies, for Llama 3's rule."""
    import torch

    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return None
    half = config.head_dim // 2
    plain = [config.rope_theta ** (-2.0 * i / config.head_dim) for i in range(half)]
    return torch.tensor([a / b for a, b in zip(plain, config.inverse_frequencies(), strict=True)])


def vocabulary(
    config: DecoderConfig, tokenizer: Mapping[str, Any] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The tokenizer's metadata, and sentences where the file has to do without. Refused says what
    llama.cpp would read differently.
    """
    if tokenizer is None:
        ids = _special(config, config.eos_token_ids)
        empty = {"tokenizer.ggml.model": "no_vocab"} | ids
        return empty, ("the source has no tokenizer.json: the gguf has no vocabulary",)
    metadata, notes = gguf_tokenizer.metadata_of(tokenizer, config.vocab_size)
    if len(config.eos_token_ids) > len(STOPS):
        notes.append(
            f"gguf names {len(STOPS)} of the {len(config.eos_token_ids)} tokens that end a text"
        )
    # What the tokenizer puts around a text is its own to say, and comes first.
    end = metadata.get(STOPS[0])
    ends = config.eos_token_ids if end is None else (end, *config.eos_token_ids)
    return _special(config, tuple(dict.fromkeys(ends))) | metadata, tuple(notes)


def _special(config: DecoderConfig, ends: tuple[int, ...]) -> dict[str, int]:
    """The tokens that begin and end a text."""
    ids = dict(zip(STOPS, ends, strict=False))
    if config.bos_token_id is not None:
        ids["tokenizer.ggml.bos_token_id"] = config.bos_token_id
    return ids


def _metadata(config: DecoderConfig, name: str) -> dict[str, Any]:
    arch = ARCHITECTURES[config.family]
    sizes = config.intermediate_sizes
    metadata: dict[str, Any] = {
        "general.architecture": arch,
        "general.name": name,
        "general.quantization_version": 2,
        f"{arch}.vocab_size": config.vocab_size,
        f"{arch}.context_length": config.max_positions,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.block_count": config.num_layers,
        f"{arch}.feed_forward_length": sizes[0] if len(set(sizes)) == 1 else list(sizes),
        f"{arch}.attention.head_count": config.num_heads,
        f"{arch}.attention.head_count_kv": config.num_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{arch}.rope.dimension_count": config.head_dim,
        f"{arch}.rope.freq_base": config.rope_theta,
    }
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        metadata[f"{arch}.rope.scaling.type"] = "linear"
        metadata[f"{arch}.rope.scaling.factor"] = config.rope_scaling.factor
    return metadata


def _plain(name: str, tensor: Tensor) -> GgufEntry:
    """A vector in F32, or the embedding in the floats that it has."""
    from core.files.gguf import blocks as gguf_blocks

    if tensor.ndim == 1:
        vector = tensor.float()
        return GgufEntry(
            gguf_name(name), TYPES["F32"], None, len(vector), lambda: gguf_blocks.floats(vector)
        )
    kind = TYPES[gguf_blocks.FLOATS[tensor.dtype]]
    rows, columns = tensor.shape
    assert name == EMBEDDING
    return GgufEntry(gguf_name(name), kind, rows, columns, lambda: gguf_blocks.floats(tensor))


def _matrix(
    stack: Stack, module: str, weight: KernelWeight, begin: int, end: int, ordered: Tensor | None
) -> GgufEntry:
    from core.files.gguf import blocks as gguf_blocks
    from kernels.linear_lowbit import LowBitWeight

    name = gguf_name(f"{module}.weight")
    if weight.format in FLOATS:
        kind = TYPES[gguf_blocks.FLOATS[weight.dtype]]

        def dense() -> Any:
            rows = weight.tensors()[0][begin:end]
            return gguf_blocks.floats(rows if ordered is None else rows[ordered])

        return GgufEntry(name, kind, end - begin, weight.k, dense)
    if not isinstance(weight, LowBitWeight):
        raise Refused(refusal(of_weight(weight), stack, "gguf does not know such matrices"))
    form = weight.form()
    block = gguf_blocks.type_of(form)
    if isinstance(block, str):
        raise Refused(refusal(of_form(form), stack, block))

    def packed() -> Any:
        rows: LowBit = weight.form().rows(begin, end)
        return gguf_blocks.pack(
            rows if ordered is None else gguf_blocks.reordered(rows, ordered), block
        )

    return GgufEntry(name, block, end - begin, weight.k, packed)
