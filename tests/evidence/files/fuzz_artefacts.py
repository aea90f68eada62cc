"""Readers of the figure fuzz for artefacts: quantization configs, GGUF headers, manifests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.evidence.files.fuzz_inputs import json_bytes, mutate_bytes

MODEL: dict[str, Any] = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
}  # fmt: skip
LOWBIT = {"kind": "lowbit", "codes": "int", "bits": 4, "group_size": 32, "scale": "fp16",
          "zero": "u8"}  # fmt: skip
GROUP = {"targets": ["Linear"], "format": "pack-quantized",
         "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group",
                     "group_size": 32, "dynamic": False}}  # fmt: skip
QUANTIZED: tuple[dict[str, Any], ...] = (
    {"quant_method": "trimtab", "version": 1, "matrices": {
        "layers.0.qkv": LOWBIT, "layers.0.o": {"kind": "w8a8", "inputs": "static", "x_scale": 0.1},
        "layers.0.down": {"kind": "llm-int8", "columns": 3},
        "head": {"kind": "adapted", "rank": 2, "base": {"kind": "dense"}}}},
    {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["re:.*lm_head"],
     "quantization_status": "compressed", "config_groups": {"group_0": GROUP}},
    {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False,
     "lm_head": False, "checkpoint_format": "gptq"},
    {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm",
     "modules_to_not_convert": ["lm_head"]},
)  # fmt: skip
MANIFEST = {"version": 1, "format": "trimtab", "source": {}, "techniques": [], "runtime": [],
            "seed": 0, "sizes": {}, "matrices": {}, "versions": {}, "made_at": "",
            "notes": []}  # fmt: skip


def gguf_bytes() -> bytes:
    """A sound file without layers' worth of data: what is small enough to be changed anywhere."""
    from core.files.config import names
    from core.files.config.hf_config import from_hf
    from core.files.gguf import file as gguf_file

    config = from_hf(MODEL)
    metadata = {
        "general.architecture": "llama", "llama.block_count": 1, "llama.context_length": 8,
        "llama.embedding_length": 32, "llama.feed_forward_length": 64,
        "llama.attention.head_count": 2, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.bos_token_id": 1,
    }  # fmt: skip
    from core.files.gguf.names import gguf_name

    entries = []
    for name, shape in names.expected(config).items():
        kind = gguf_file.TYPES["F32" if len(shape) == 1 else "Q4_0"]
        rows = shape[0] if len(shape) == 2 else None
        size = kind.nbytes(rows or 1, shape[-1])
        made = gguf_file.GgufEntry(
            gguf_name(name), kind, rows, shape[-1], lambda size=size: bytes(size)
        )
        entries.append(made)
    return b"".join(bytes(piece) for piece in gguf_file.pieces(metadata, entries))


class ArtefactReaders:
    """Mixed into Readers."""

    folder: Path
    _gguf = b""

    def do_quantized(self, rng: random.Random) -> None:
        from core.files import jsonfile, quantized, tables

        given = {
            "quantization_config": rng.choice(QUANTIZED),
            "trimtab": {"dtype": "bf16"},
        }
        read = jsonfile.parse_object("config.json", json_bytes(rng, MODEL | given))
        tables.check_config(read)
        if quantized.method(read) is not None:
            quantized.expected(read)

    def do_gguf(self, rng: random.Random) -> None:
        from core.files.gguf import folder as gguf_files

        self._gguf = self._gguf or gguf_bytes()
        # Most of the file is data, which nothing here reads: change the header.
        head, rest = self._gguf[:1400], self._gguf[1400:]
        path = self.folder / "m.gguf"
        path.write_bytes(mutate_bytes(rng, head) + rest)
        gguf_files.check(path)

    def do_manifest(self, rng: random.Random) -> None:
        from core.files.formats import manifest

        (self.folder / manifest.NAME).write_bytes(json_bytes(rng, MANIFEST))
        manifest.read_manifest(self.folder)
