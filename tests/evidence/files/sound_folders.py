"""Small sound model folders of every kind, and a case: one of them copied, ready to be damaged.

Damage is done on the bytes, without torch and without the safetensors library.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BASE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip
GPT2 = {"vocab_size": 300, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 64}
NEOX = {"vocab_size": 300, "hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 6, "max_position_embeddings": 64}  # fmt: skip
# name -> (transformers class, config, bytes of a shard)
SOUND: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("Llama", BASE | {"head_dim": 10}, "1GB"),
    "llama-tied": ("Llama", BASE | {"tie_word_embeddings": True}, "1GB"),
    "llama-sharded": ("Llama", BASE | {"rope_parameters": LLAMA3, "attention_bias": True}, "90KB"),
    "mistral": ("Mistral", BASE | {"head_dim": 12, "sliding_window": 5}, "1GB"),
    "mistral-sharded": ("Mistral", BASE | {"sliding_window": None}, "90KB"),
    "qwen2": ("Qwen2", BASE, "1GB"),
    "qwen2-sharded": ("Qwen2", BASE | {"tie_word_embeddings": True}, "90KB"),
    "qwen3": ("Qwen3", BASE | {"head_dim": 16}, "1GB"),
    "qwen3-sharded": ("Qwen3", BASE | {"head_dim": 8, "tie_word_embeddings": True}, "90KB"),
    "gpt2": ("GPT2", GPT2, "1GB"),
    "gpt2-sharded": ("GPT2", GPT2 | {"tie_word_embeddings": False}, "90KB"),
    "gpt_neox": ("GPTNeoX", NEOX, "1GB"),
}
LEAN = tuple(name for name in SOUND if not name.startswith("gpt"))
SHARDED = tuple(name for name in SOUND if name.endswith("-sharded"))
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def make(name: str, path: Path) -> Any:
    """Save the sound folder `name` at `path`; the transformers model that it holds."""
    import torch
    import transformers

    kind, fields, shard = SOUND[name]
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
    torch.manual_seed(sum(map(ord, name)))
    head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
    config = getattr(transformers, f"{kind}Config")(**(fields | ids))
    model = getattr(transformers, f"{kind}{head}")(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.2)
            elif key.endswith("bias"):
                weight.normal_(0, 0.3)
            else:
                weight.uniform_(0.5, 1.5)
    model.save_pretrained(path, max_shard_size=shard)
    (path / "tokenizer.json").write_text(json.dumps(tokenizer()), encoding="utf-8")
    for file in path.iterdir():
        file.chmod(0o644)
    return model


def tokenizer() -> dict[str, Any]:
    """A byte-level BPE tokenizer of 300 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "<start>", "<end>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = [(a, b) for a in "erstin" for b in "erstinal"][: 300 - len(words)]
    words += [a + b for a, b in merges]
    made = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(words[:3])
    return dict(json.loads(made.to_str()))


@dataclass
class Case:
    """A copy of a sound folder that a kind of damage may change; `path` is what will be loaded.

    `payload` is Python source that leaves a mark if anybody runs it.
    """

    path: Path
    sound: str
    rng: random.Random
    payload: str = ""
    note: list[str] = field(default_factory=list)

    @property
    def lean(self) -> bool:
        return self.sound in LEAN

    def config(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "config.json").read_text(encoding="utf-8")))

    def edit(self, **fields: Any) -> None:
        self.note += fields
        self.write("config.json", self.config() | fields)

    def write(self, name: str, content: object) -> None:
        if isinstance(content, bytes):
            (self.path / name).write_bytes(content)
            return
        text = content if isinstance(content, str) else json.dumps(content)
        (self.path / name).write_text(text, encoding="utf-8")

    def json(self, name: str, change: Callable[[dict[str, Any]], object]) -> None:
        content = json.loads((self.path / name).read_text(encoding="utf-8"))
        change(content)
        self.write(name, content)

    @property
    def weights(self) -> Path:
        """A file of weights; which one of several is drawn."""
        found = sorted(self.path.glob("*.safetensors"))
        return self.rng.choice(found)

    def replace(self, name: str) -> Path:
        """Remove folder/name so that something else may stand there."""
        (self.path / name).unlink()
        return self.path / name

    def copy_from(self, folder: Path) -> None:
        shutil.copytree(folder, self.path)


Tensors = dict[str, tuple[str, list[int], bytes]]


def read(path: Path) -> tuple[Tensors, dict[str, str]]:
    """Tensors (dtype, shape, bytes) and metadata of a sound file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.pop("__metadata__", {})
    found = {}
    for name, one in header.items():
        begin, end = one["data_offsets"]
        found[name] = (one["dtype"], one["shape"], data[begin:end])
    return found, metadata


def write(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> None:
    """A sound file of these tensors."""
    header: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(content)]}  # fmt: skip
        data += content
    put(path, header, data)


def put(path: Path, header: object, data: bytes, length: int | None = None) -> None:
    """A file with this header, sound or not; `length` is what it claims the header has."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    path.write_bytes(claimed.to_bytes(8, "little") + text + data)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data behind it."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def numbers(shape: list[int]) -> int:
    return math.prod(shape)
