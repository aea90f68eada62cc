"""The size of a model's artefact on disk: of the files that are there, or of those that `trimtab
apply` writes, which are known to the byte before they are written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.artefacts.contents import contents
from core.artefacts.save import native_layout
from core.catalogue.models import find_folder
from core.errors import TrimtabError
from core.files.folder import check_folder
from core.files.formats.companions import companions
from core.measurement import Measurement, unavailable
from core.plan import Plan

WEIGHTS = (".safetensors", ".gguf")
CONFIGS = ("config.json", "model.safetensors.index.json")
# Kinds of techniques after which the weights are the files' still.
KEEPING = ("cache", "decode", "batch")


def measure_disk(plan: Plan, engine: Any = None, files: Path | None = None) -> Measurement:
    """disk_bytes of the model as it is deployed; `engine` has the weights as techniques left them,
    `files` is the folder that they were loaded from where it is not the model's id.

    Unavailable for random weights, and for what no artefact of ours holds.
    """
    if plan.case.model.source == "shape":
        return unavailable("disk_bytes", "B", "a shape model has random weights and no files")
    folder = files or find_folder(plan.case.model.id)
    changing = [technique.name for technique in plan.techniques if technique.kind not in KEEPING]
    if not changing:
        return folder_bytes(folder)
    if engine is None:
        return unavailable(
            "disk_bytes",
            "B",
            f"{', '.join(changing)} changed the weights in memory and nothing wrote them",
        )
    return artefact_bytes(folder, engine)


def folder_bytes(folder: Path) -> Measurement:
    """disk_bytes of a folder: its weights, configuration and what belongs to them, links followed.

    Cards, licences and other weights are not loaded, nor is our own manifest.
    """
    there = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    files = [path for path in there if path.suffix in WEIGHTS or path.name in CONFIGS]
    sizes = {path.name: path.stat().st_size for path in files if path.is_file()}
    weights = sum(size for name, size in sizes.items() if name.endswith(WEIGHTS))
    sizes |= {name: len(content) for name, content in companions(folder).texts.items()}
    method = f"{len(sizes)} files, {weights:,} B of them weights"
    return Measurement("disk_bytes", (float(sum(sizes.values())),), "B", "measured", method)


def artefact_bytes(folder: Path, engine: Any) -> Measurement:
    """disk_bytes of the files that `apply` writes of this engine, counted and not written; `folder`
    is the source's.
    """
    try:
        layout = native_layout(contents(engine, check_folder(folder).config))
    except TrimtabError as error:
        return unavailable("disk_bytes", "B", f"no artefact of it can be written: {error}")
    weights = layout.weights_bytes()
    total = weights + len(layout.config_bytes()) + sum(map(len, companions(folder).texts.values()))
    method = (
        "the files that `trimtab apply` writes in the format trimtab, counted to the byte,"
        f" {weights:,} B of them weights"
    )
    return Measurement("disk_bytes", (float(total),), "B", "measured", method)
