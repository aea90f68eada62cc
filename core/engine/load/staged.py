"""Owns handing a checked folder to transformers: only the files that were checked, nothing else.

A generation config, an adapter, code for custom generation or a second set of weights beside them
is never seen by the library.
"""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from core.files import listing as files
from core.files.folder import CONFIG, CheckedFolder
from core.files.tables import check_memory
from core.files.values import check_values

FEW = 1_000_000


def load_staged(folder: CheckedFolder, dtype: str, device: str) -> TransformersEngine:
    """The engine over a checked folder of another family; BadInput names the file and the tensor.

    The weights are read once: their values are judged as they lie in the model.
    """
    weights = folder.weight_files[0].name if len(folder.weight_files) == 1 else files.INDEX
    with tempfile.TemporaryDirectory(prefix="trimtab-model-") as stage:
        _fill(Path(stage), folder)
        _check_size(Path(stage), folder, weights)
        engine = TransformersEngine.from_folder(stage, dtype, "cpu", weights)
    for name, tensor in engine.model.named_parameters():
        check_values(weights, name, tensor, dtype, folder.family)
    engine.model.to(device)
    engine.device = device
    return engine


def _fill(stage: Path, folder: CheckedFolder) -> None:
    (stage / CONFIG).write_text(json.dumps(folder.config), encoding="utf-8")
    for path in folder.weight_files:
        (stage / path.name).symlink_to(path.resolve())
    if folder.weight_files[0].name != files.SINGLE:
        (stage / files.INDEX).symlink_to((folder.path / files.INDEX).resolve())


def _check_size(stage: Path, folder: CheckedFolder, weights: str) -> None:
    """Refuse a config that asks for more numbers than the files hold, before memory is taken."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(
            str(stage), trust_remote_code=False, local_files_only=True
        )
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # Each architecture fails in its own way on a bad config.
        why = " ".join(str(error).split())[:200]
        raise BadInput(
            f"{CONFIG}: transformers makes no {folder.family} of it ({type(error).__name__}: {why})"
            "."
        ) from None
    wanted = sum(tensor.numel() for tensor in model.parameters())
    held = sum(math.prod(entry.shape) for entry in folder.tensors)
    # A few that are missing are named by transformers' own report.
    if wanted > 2 * held + FEW:
        name, largest = max(model.named_parameters(), key=lambda entry: entry[1].numel())
        raise BadInput(
            f"{weights}: {CONFIG} asks for {wanted:,} weights (the tensor {name} alone is "
            f"{list(largest.shape)}), the files hold {held:,}."
        )
    check_memory(CONFIG, sum(tensor.nbytes for tensor in model.buffers()))
