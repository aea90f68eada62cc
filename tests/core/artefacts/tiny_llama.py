"""A tiny Llama, random and odd enough to be wrong about, and engines with quantized matrices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from core.artefacts.contents import contents
from core.artefacts.save import native_layout, write_folder
from core.engine.decoder import Decoder
from core.engine.linear import Linear
from core.files.config import names
from core.files.config.hf_config import from_hf
from kernels.linear_lowbit import LowBit, LowBitWeight, quantize

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "eos_token_id": 3,
}
IDS = torch.tensor([[5, 90, 17, 33, 2, 71, 8, 44, 63]])


def write_source(folder: Path, **changes: Any) -> Path:
    """A folder of random weights in bf16 whose names and shapes are the config's."""
    config = CONFIG | changes
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    generator = torch.Generator().manual_seed(7)
    tensors = {
        name: (torch.randn(shape, generator=generator) * 0.15 + (len(shape) == 1)).bfloat16()
        for name, shape in names.expected(from_hf(config)).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    vocab = {chr(33 + i): i for i in range(94)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": "!"}
    text = {"version": "1.0", "model": model, "added_tokens": []}
    (folder / "tokenizer.json").write_text(json.dumps(text), encoding="utf-8")
    return folder


def replace_all(decoder: Decoder, make: Callable[[torch.Tensor], LowBit]) -> None:
    """Every matrix, the head included, by the low-bit form made of it."""
    for layer in decoder.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            linear = getattr(layer, name)
            weight = LowBitWeight(make(linear.dense()), linear.bias, linear.dtype)
            setattr(layer, name, Linear.from_kernel(weight))
    form = make(decoder.head.dense())
    decoder.head = Linear.from_kernel(LowBitWeight(form, None, decoder.dtype))


def rounded(*given: Any, **named: Any) -> Callable[[torch.Tensor], LowBit]:
    """quantize with these arguments."""
    return lambda weight: quantize(weight, *given, **named)


def write(engine: Any, folder: Path, format: str = "trimtab", **config: Any) -> None:
    """What apply writes of an engine, the manifest left out."""
    from core.artefacts import foreign

    found = contents(engine, CONFIG | config)
    layout = native_layout(found) if format == "trimtab" else foreign.layout(found, format)
    write_folder(folder, layout.files(), 0)
