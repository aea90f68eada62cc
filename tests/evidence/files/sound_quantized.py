"""Small sound folders whose matrices are quantized, in every format that loads again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.evidence.files.sound_folders import SOUND, make

SOUND_QUANTIZED = {
    "quantized-trimtab": "trimtab",
    "quantized-trimtab-int8": "trimtab",
    "quantized-compressed-tensors": "compressed-tensors",
    "quantized-gptq": "gptq",
    "quantized-awq": "awq",
}
SOURCE = "qwen3"


def make_quantized(name: str, path: Path) -> Any:
    """Write the folder `name` at `path`; its engine in fp32."""
    import torch

    from core.artefacts import foreign
    from core.artefacts.contents import contents
    from core.artefacts.save import native_layout, write_folder
    from core.engine.linear import Linear
    from core.engine.load.load import load_folder
    from kernels.linear_lowbit import LowBitWeight, quantize
    from kernels.linear_w8a8 import W8A8Weight
    from kernels.linear_w8a8 import quantize as quantize_int8

    assert SOURCE in SOUND
    source = path.with_name(f"{path.name}-source")
    make(SOURCE, source)
    engine, _ = load_folder(source, "fp32")
    for layer in engine.layers:
        for part in ("qkv", "o", "gate_up", "down"):
            weight = getattr(layer, part).dense()
            if name.endswith("int8"):
                made = W8A8Weight(quantize_int8(weight), None, torch.float32)
            else:
                form = quantize(weight, 4, 16, symmetric=False)
                made = LowBitWeight(form, None, torch.float32)
            setattr(layer, part, Linear.from_kernel(made))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    found, format = contents(engine, config), SOUND_QUANTIZED[name]
    laid_out = native_layout(found) if format == "trimtab" else foreign.layout(found, format)
    write_folder(path, laid_out.files(), 0)
    shutil.copy(source / "tokenizer.json", path / "tokenizer.json")
    for file in path.iterdir():
        file.chmod(0o644)
    shutil.rmtree(source)
    return engine
