"""Owns what a GGUF file says of its model: a config in Hugging Face's words, and the tensors that
it must have. It needs no torch.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from core.errors import BadInput
from core.files.config import names
from core.files.config.decoder_config import DecoderConfig
from core.files.config.hf_config import from_hf
from core.files.gguf.names import ARCHITECTURES, STOPS, gguf_name
from core.files.gguf.parse import Gguf, Place
from core.files.special_ids import ADDS_START

FAMILIES = tuple(dict.fromkeys(ARCHITECTURES.values()))
# Llama 3.1 to 3.3: rope_freqs holds factors alone, of which these rules are known.
KNOWN_FACTORS = (8.0, 32.0)
TOLERANCE = 1e-4


def config_of(file: Gguf) -> dict[str, Any]:
    """config.json's fields of a file; BadInput names the key that is missing or not supported."""
    arch = _get(file, "general.architecture", str)
    if arch not in FAMILIES:
        raise BadInput(
            f"{file.path.name}: general.architecture {arch[:60]!r} is not supported; supported are"
            f" {', '.join(FAMILIES)}."
        )

    def number(key: str, kind: type, default: Any = None) -> Any:
        return _get(file, f"{arch}.{key}", kind, default)

    for key in ("expert_count", "attention.sliding_window", "expert_used_count"):
        if file.metadata.get(f"{arch}.{key}"):
            raise BadInput(f"{file.path.name}: {arch}.{key} is not supported.")
    width = file.metadata.get(f"{arch}.feed_forward_length")
    heads = number("attention.head_count", int)
    hidden = number("embedding_length", int)
    head_dim = number("attention.key_length", int, hidden // heads if heads else 0)
    for key in ("attention.value_length", "rope.dimension_count"):
        if number(key, int, head_dim) != head_dim:
            raise BadInput(f"{file.path.name}: {arch}.{key} must be {head_dim}.")
    embedding = file.tensors.get("token_embd.weight")
    config: dict[str, Any] = {
        "model_type": arch,
        "vocab_size": embedding.shape[0] if embedding and len(embedding.shape) == 2 else 0,
        "hidden_size": hidden,
        "intermediate_size": max(width) if isinstance(width, list) and width else width,
        "num_hidden_layers": number("block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": number("attention.head_count_kv", int, heads),
        "head_dim": head_dim,
        "max_position_embeddings": number("context_length", int),
        "rms_norm_eps": number("attention.layer_norm_rms_epsilon", float),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(file, arch, head_dim),
    }
    if isinstance(width, list):
        config["intermediate_sizes"] = width
    start = _ids(file, config["vocab_size"], "tokenizer.ggml.bos_token_id")
    config["bos_token_id"] = start[0] if start else None
    config["eos_token_id"] = _ids(file, config["vocab_size"], *STOPS)
    if start and file.metadata.get("tokenizer.ggml.add_bos_token") is True:
        config[ADDS_START] = True
    if "blk.0.attn_q.bias" in file.tensors and arch != "qwen2":
        config["attention_bias"] = True
    if "blk.0.ffn_up.bias" in file.tensors:
        config["mlp_bias"] = True
    from_hf(config)
    return config


def check(file: Gguf, config: DecoderConfig) -> None:
    """BadInput naming the first tensor that is missing, unexpected or of a wrong shape."""
    wanted = {gguf_name(name): shape for name, shape in names.expected(config).items()}
    shapes = {
        name: place.shape for name, place in file.tensors.items() if name != "rope_freqs.weight"
    }
    names.compare(wanted, shapes, file.path.name)
    for name, place in file.tensors.items():
        if len(place.shape) == 1 and place.type.values > 1:
            raise BadInput(f"{file.path.name}: the vector {name} is of {place.type.name}.")


def read_bytes(file: Gguf, place: Place) -> bytes:
    """The data of one tensor."""
    try:
        with file.path.open("rb") as handle:
            handle.seek(place.begin)
            data = handle.read(place.nbytes)
    except OSError as error:
        raise BadInput(f"{file.path.name} cannot be read: {error.strerror or error}.") from None
    if len(data) != place.nbytes:
        raise BadInput(f"{file.path.name} is cut off: the tensor {place.name} does not end.")
    return data


def _rope(file: Gguf, arch: str, head_dim: int) -> dict[str, Any]:
    base = _get(file, f"{arch}.rope.freq_base", float, 10000.0)
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": base}
    kind = file.metadata.get(f"{arch}.rope.scaling.type", "none")
    if kind == "linear":
        factor = _get(file, f"{arch}.rope.scaling.factor", float)
        return rope | {"rope_type": "linear", "factor": factor}
    if kind != "none":
        raise BadInput(f"{file.path.name}: {arch}.rope.scaling.type {kind!r:.40} is not supported.")
    place = file.tensors.get("rope_freqs.weight")
    if place is None:
        return rope
    if place.type.name != "F32" or place.shape != (head_dim // 2,):
        raise BadInput(f"{file.path.name}: rope_freqs.weight must be F32 [{head_dim // 2}].")
    numbers = struct.unpack(f"<{head_dim // 2}f", read_bytes(file, place))
    for factor in KNOWN_FACTORS:
        rule = rope | {
            "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        }  # fmt: skip
        if all(
            abs(stored - computed) <= TOLERANCE * computed
            for stored, computed in zip(numbers, _factors(rule, head_dim), strict=True)
        ):
            return rule
    raise BadInput(f"{file.path.name}: rope_freqs.weight follows none of Llama 3's rules.")


def _factors(rule: dict[str, Any], head_dim: int) -> list[float]:
    config = from_hf(
        {
            "model_type": "llama", "vocab_size": 1, "hidden_size": head_dim,
            "intermediate_size": 1, "num_hidden_layers": 1, "num_attention_heads": 1,
            "head_dim": head_dim, "max_position_embeddings": 131072, "rope_parameters": rule,
        }
    )  # fmt: skip
    plain = [rule["rope_theta"] ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    return [a / b for a, b in zip(plain, config.inverse_frequencies(), strict=True)]


def _ids(file: Gguf, size: int, *keys: str) -> list[int]:
    """The tokens of the vocabulary that these keys name."""
    tokens = [file.metadata.get(key) for key in keys]
    return [token for token in tokens if type(token) is int and 0 <= token < size]


def _get(file: Gguf, key: str, kind: type, default: Any = None) -> Any:
    value = file.metadata.get(key, default)
    if type(value) is not kind:
        what = "missing" if value is None else f"{value!r:.60}, which is no {kind.__name__}"
        raise BadInput(f"{file.path.name}: {key} is {what}.")
    return _short(value) if isinstance(value, float) else value


def _short(value: float) -> float:
    """The number of fewest digits that is the same in 32 bits: 1e-05, not 9.99999974738e-06."""
    if not math.isfinite(value):
        return value
    exact = struct.pack("<f", value)
    tried = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next((number for number in tried if struct.pack("<f", number) == exact), value)
