"""A sound model folder that each test may damage in its own way."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "engine")]

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
}


class Folder:
    """A small model folder, and the ways to change it."""

    def __init__(self, path: Path) -> None:
        from core.files.config import names
        from core.files.config.hf_config import from_hf

        self.path = path
        path.mkdir()
        torch.manual_seed(0)
        self.tensors = {
            name: torch.randn(shape) * 0.1
            for name, shape in names.expected(from_hf(CONFIG)).items()
        }
        self.config(CONFIG)
        self.save()
        vocab = {chr(97 + i): i for i in range(20)}
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        added = [{"id": 20, "content": "<end>", "special": True} | flags]
        model = {"type": "WordLevel", "vocab": vocab, "unk_token": "a"}
        self.write("tokenizer.json", {"version": "1.0", "model": model, "added_tokens": added})

    def config(self, content: dict[str, Any]) -> None:
        self.write("config.json", content)

    def change(self, **fields: Any) -> None:
        self.config(CONFIG | fields)

    def write(self, name: str, content: object) -> None:
        text = content if isinstance(content, str) else json.dumps(content)
        (self.path / name).write_text(text, encoding="utf-8")

    def save(self, name: str = "model.safetensors", **tensors: torch.Tensor) -> None:
        save_file(tensors or self.tensors, self.path / name, metadata={"format": "pt"})

    @property
    def weights(self) -> Path:
        return self.path / "model.safetensors"

    def header(self) -> tuple[dict[str, Any], bytes]:
        content = self.weights.read_bytes()
        length = int.from_bytes(content[:8], "little")
        return json.loads(content[8 : 8 + length]), content[8 + length :]

    def put(self, header: object, data: bytes) -> None:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        self.weights.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A sound folder; see Folder."""
    return Folder(tmp_path / "model")
