"""Owns which files belong to a model beside its weights and its config.json: the tokenizer's, the
chat templates, the settings of generation, an image processor's. It needs no torch.

They are known by what they are not (code, weights, words on another quantization), since a
tokenizer's files may have any name. Links are followed as core.files.listing allows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import listing as files
from core.files.jsonfile import read_object

TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
FIRST = (TOKENIZER, TOKENIZER_CONFIG, "chat_template.jinja", "generation_config.json")
# transformers' folder of further chat templates.
TEMPLATES = "additional_chat_templates"
# Of texts and vocabularies; others are copied when tokenizer_config.json names them.
SUFFIXES = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".vocab", ".bpe", ".spm")
# Never copied, whoever names them: what runs, and what holds weights.
CODE = (".py", ".pyc", ".pyo", ".so", ".sh", ".js", ".exe", ".dll", ".dylib")
WEIGHTS = (*files.UNSAFE, ".safetensors", ".npy", ".onnx", ".onnx_data", ".tflite", ".ot", ".tar",
           ".gz", ".zip")  # fmt: skip
# What describes the source's weights, which the artefact does not have, and what is written anew.
DESCRIBES = (
    "config.json", "trimtab.json", files.ADAPTER, "quantize_config.json", "quant_config.json",
    "quantization_config.json", "hf_quant_config.json", "params.json", "training_args.json",
    "trainer_state.json", "requirements.txt", "card.json",
)  # fmt: skip
INDEX = ".index.json"
MAX_FILE, MAX_TOTAL, MAX_FILES = 64_000_000, 256_000_000, 100
MAX_NAME = 200
GGUF = "model.gguf"
KNOWN = (
    TOKENIZER, TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
    "generation_config.json",
)  # fmt: skip


@dataclass
class Companions:
    """Content by name, a template's with its folder, and a sentence for each file that was left."""

    texts: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def companions(source: Path) -> Companions:
    """The files that go along with a model: a folder, or a file `model.gguf`, beside which only the
    usual names are looked for. Beside a GGUF file of another name lies whatever its folder is for.
    """
    others, total = Companions(), 0
    if source.is_dir():
        names = [*_names(source), *_templates(source)]
    elif source.name == GGUF:
        source = source.parent
        names = [name for name in KNOWN if files.present(source, name)]
    else:
        return others
    if len(names) > MAX_FILES:
        left = len(names) - MAX_FILES
        others.notes.append(f"{left} of the model's other files were not copied: {MAX_FILES} are")
    for name in names[:MAX_FILES]:
        try:
            path = files.regular(source, name)
            size = path.stat().st_size
            if size > MAX_FILE or total + size > MAX_TOTAL:
                others.notes.append(
                    f"{name} ({size:,} bytes) was not copied: files beside the weights are up to"
                    f" {MAX_FILE:,} bytes each and {MAX_TOTAL:,} together"
                )
                continue
            others.texts[name] = path.read_bytes()
            total += size
        except BadInput as error:
            others.notes.append(f"{str(error).rstrip('.')}: it was not copied")
        except OSError as error:
            others.notes.append(f"{name} was not copied: {error.strerror or error}")
    return others


def _names(folder: Path) -> list[str]:
    """The tokenizer's first, so that a limit leaves out what matters less."""
    names = sorted(path.name for path in folder.iterdir() if not path.is_dir())
    asked = set(_named(folder)) if TOKENIZER_CONFIG in names else set()
    return sorted(
        (name for name in names if _goes_along(name, name in asked)),
        key=lambda name: (name not in FIRST, name not in asked),
    )


def _goes_along(name: str, asked: bool) -> bool:
    low = name.lower()
    if name.startswith(".") or len(name) > MAX_NAME or low.endswith((*CODE, *WEIGHTS, INDEX)):
        return False
    return low not in DESCRIBES and (asked or low.endswith(SUFFIXES))


def _named(folder: Path) -> Iterator[str]:
    """Every text in tokenizer_config.json that could be the name of a file."""
    try:
        content = read_object(files.regular(folder, TOKENIZER_CONFIG), MAX_FILE)
    except BadInput:
        return
    left: list[Any] = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += value.values()
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and 0 < len(value) <= MAX_NAME and "/" not in value:
            yield value


def _templates(folder: Path) -> Iterator[str]:
    inside = folder / TEMPLATES
    if not inside.is_dir():
        return
    for path in sorted(inside.iterdir()):
        if path.suffix == ".jinja" and not path.name.startswith("."):
            yield f"{TEMPLATES}/{path.name}"
