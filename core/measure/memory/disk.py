"""The size of a model's artefact on disk, from the files that are there."""

from __future__ import annotations

from pathlib import Path

from core.measurement import Measurement, unavailable
from core.plan import Plan

# What an artefact consists of; cards, licences and other weights are not loaded.
SUFFIXES = (".safetensors", ".json")
# Kinds of techniques after which the weights are others than the files'.
CHANGING = ("distill", "prune", "quantize")


def measure_disk(plan: Plan) -> Measurement:
    """disk_bytes of the model as it is stored; unavailable for random weights and for a plan whose
    result is in memory alone.
    """
    if plan.case.model.source == "shape":
        return unavailable("disk_bytes", "B", "a shape model has random weights and no files")
    changing = [one.name for one in plan.techniques if one.kind in CHANGING]
    if changing:
        return unavailable(
            "disk_bytes",
            "B",
            f"{', '.join(changing)} changed the weights in memory and nothing wrote them: what"
            " files of them would take is not known",
        )
    from core.loading.load import find_folder

    return folder_bytes(find_folder(plan.case.model.id))


def folder_bytes(folder: Path) -> Measurement:
    """disk_bytes of a folder: its weights, configuration and tokenizer, links followed."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES]
    sizes = {path.name: path.stat().st_size for path in files if path.is_file()}
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    method = f"{len(sizes)} files, {weights:,} B of them weights"
    return Measurement("disk_bytes", (float(sum(sizes.values())),), "B", "measured", method)
