"""Which models can be chosen: the bundled zoo, a local folder, a hub id, a published shape.

Resolving reads configs and file headers, never weights.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files.config.classifier import CLASSIFIERS, classifier_shape
from core.files.config.shape import decoder_shape
from core.files.folder import check_folder
from core.files.hub import hub_folder
from core.model import USUAL_DTYPE, ClassifierShape, DecoderShape, Model

ZOO = Path(__file__).parent / "zoo"
BUNDLED = ("pycode", "pycode-small", "digits-cnn", "digits-mlp")
SHAPES = Path(__file__).parent / "shapes.toml"


def list_models() -> tuple[Model, ...]:
    """Every model that needs no path: the zoo, then the shapes."""
    return tuple(resolve(name) for name in (*BUNDLED, *(f"shape:{name}" for name in shapes())))


@cache
def shapes() -> dict[str, dict[str, Any]]:
    """The published shapes by name, each a Hugging Face config and its source."""
    with SHAPES.open("rb") as file:
        return tomllib.load(file)


def card(name: str) -> dict[str, Any]:
    """The model card of a bundled model: data, seed, steps, reached quality."""
    return dict(json.loads((ZOO / name / "card.json").read_text(encoding="utf-8")))


def folder_of(model_id: str) -> Path | None:
    """The local folder behind a bundled id or a path, or a GGUF file; None for hub ids and
    shapes.
    """
    if model_id in BUNDLED:
        return ZOO / model_id
    if not model_id:
        return None
    try:
        path = Path(model_id).expanduser()
        present = path.is_dir() or (path.suffix == ".gguf" and path.is_file())
        return path if present else None
    except (OSError, RuntimeError, ValueError):
        # A name too long for the system, or the home of a user that does not exist.
        return None


def find_folder(name: str) -> Path:
    """The folder of a bundled id, a local path or a hub id (downloaded when it is not yet here)."""
    folder = folder_of(name)
    if folder is not None:
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise BadInput(f"there is no folder and no bundled model {name!r}.")
    return hub_folder(name)


def resolve(model_id: str) -> Model:
    """The model called `model_id`; BadInput says what is known, or what is wrong with a folder.

    A hub id is fetched (config and weights) by the loader's own rules, so that its shape is known
    here.
    """
    model_id = model_id.strip()
    if model_id.startswith("shape:"):
        return _shape(model_id)
    folder = folder_of(model_id)
    if folder is not None:
        source = "bundled" if model_id in BUNDLED else "folder"
        # A GGUF file in a model cache is a link to a blob that has another name.
        real = folder.resolve() if folder.is_dir() else folder.parent.resolve() / folder.name
        return _folder(model_id if source == "bundled" else str(real), folder, source)
    if model_id.startswith((".", "/", "~")):
        raise BadInput(f"--model {model_id!r}: there is no such folder")
    if model_id.count("/") != 1:
        known = (*BUNDLED, *(f"shape:{name}" for name in shapes()))
        near = difflib.get_close_matches(model_id, known, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput(
            f"unknown model {model_id!r}{hint}; known: {', '.join(known)}, a folder in"
            " Hugging Face format, or a hub id owner/name"
        )
    return _folder(model_id, hub_folder(model_id), "hub")


def _shape(model_id: str) -> Model:
    name = model_id.removeprefix("shape:")
    if name not in shapes():
        near = difflib.get_close_matches(name, shapes(), 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise BadInput(f"unknown shape {name!r}{hint}; known shapes: {', '.join(shapes())}")
    entry = shapes()[name]
    config = entry["config"]
    return Model(
        model_id,
        str(config["model_type"]),
        "shape",
        "random-weights-seed-0",
        decoder_shape(config),
        16,
        entry.get("title", name),
        entry.get("source", ""),
    )


def _folder(model_id: str, folder: Path, source: str) -> Model:
    content = check_folder(folder)
    config = content.config
    kind = str(config.get("model_type"))
    title = card(model_id)["model"] if source == "bundled" else folder.name
    if kind in CLASSIFIERS:
        shape: DecoderShape | ClassifierShape = classifier_shape(config)
        kind = "image-classifier"
    else:
        shape = decoder_shape(config)
    usual = USUAL_DTYPE["text" if isinstance(shape, DecoderShape) else "image"]
    return Model(
        model_id,
        kind,
        source,
        content.digest,
        shape,
        content.bits,
        title,
        source,
        content.stored_bytes(),
        "" if content.dtype == usual else content.dtype,
    )
