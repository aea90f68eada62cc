"""Owns turning a checked folder, a hub id or a shape into an engine. core.files judges the files.

torch, safetensors and the hub's client are imported when something is loaded, not before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.catalogue.models import find_folder, shapes
from core.engine.allocator import free_on_gpu
from core.errors import BadInput
from core.files import special_ids
from core.files import tokenizer as tokenizer_file
from core.files.architectures import LEAN as FAMILIES
from core.files.config import names
from core.files.config.classifier import CLASSIFIERS
from core.files.config.decoder_config import DecoderConfig
from core.files.config.hf_config import from_hf
from core.files.folder import CheckedFolder, check_folder
from core.files.formats.layout import EMBEDDING, HEAD
from core.files.formats.manifest import check_digests
from core.files.gguf import folder as gguf_files
from core.files.tables import check_memory
from core.model import Model
from kernels.dtypes import FLOATS, as_torch, nbytes

if TYPE_CHECKING:
    from torch import Tensor

    from core.engine.decoder import Decoder

SHAPE = "shape:"
SHAPE_SEED = 0


Source = Model | CheckedFolder | str | Path


def load_engine(model: Source, device: str = "cpu", dtype: str | None = None) -> Any:
    """The engine of a model: TextEngine or ImageEngine (core.engine.protocol).

    `model` is a checked folder, a Model, its id (bundled, folder, hub, `shape:`) or a folder.
    `dtype` is fp32, bf16 or fp16; by default that of the file (core.files.config.precision), fp32
    for images and bf16 for random weights. Raises BadInput with one sentence, and Refused for files
    that are no longer those that were planned.
    """
    name = model.id if isinstance(model, Model) else str(model)
    if name.startswith(SHAPE):
        return random_engine(shape_config(name), dtype or "bf16", SHAPE_SEED, device)
    return load_folder(_checked(model), dtype, device)[0]


def load_tokenizer(model: Source) -> Any:
    """The `tokenizers.Tokenizer` of a model; BadInput when it has none."""
    name = model.id if isinstance(model, Model) else str(model)
    if name.startswith(SHAPE):
        raise BadInput(f"{name} has random weights and no tokenizer; choose a real model for text.")
    folder = _checked(model, need_tokenizer=True)
    text = _text(folder)
    folder.verify()
    if text is None:
        raise BadInput(
            f"{folder.path.name} has no vocabulary that is known here, and there is no"
            " tokenizer.json beside it, which text needs."
        )
    return text


def _checked(model: Source, need_tokenizer: bool = False) -> CheckedFolder:
    if isinstance(model, CheckedFolder):
        return model
    name = model.id if isinstance(model, Model) else str(model)
    return check_folder(find_folder(name), need_tokenizer)


def load_folder(
    path: Path | str | CheckedFolder, dtype: str | None = None, device: str = "cpu"
) -> tuple[Any, Any | None]:
    """(engine, tokenizer or None) of a local folder in Hugging Face format, checked first.

    `dtype` is as `load_engine` says; a folder of `trimtab apply` says its own.
    """
    folder = path if isinstance(path, CheckedFolder) else check_folder(path)
    if dtype is not None and dtype not in FLOATS:
        raise BadInput(f"dtype {dtype!r} is not one of {', '.join(FLOATS)}.")
    text = _text(folder)
    check_digests(folder.weight_files)
    engine = _engine(folder, dtype, device)
    # The numbers were read from the files that were hashed.
    folder.verify()
    if folder.family in CLASSIFIERS:
        return engine, None
    engine.special_ids = special_ids.read(folder.path, folder.config, text)
    return engine, text


def _text(folder: CheckedFolder) -> Any | None:
    """The tokenizer of a checked folder, or what a GGUF file says where none lies beside."""
    if folder.tokenizer_file is not None:
        return tokenizer_file.load(folder.tokenizer_file, folder.config.get("vocab_size"))
    return (
        gguf_files.tokenizer(folder.path, folder.config)
        if gguf_files.is_gguf(folder.config)
        else None
    )


def _engine(folder: CheckedFolder, dtype: str | None, device: str) -> Any:
    dtype = dtype or folder.dtype
    if gguf_files.is_gguf(folder.config):
        from core.engine.load.gguf_restore import restore_gguf

        return restore_gguf(folder, dtype, device)
    if folder.quantized:
        from core.engine.load.restore import restore_classifier, restore_decoder

        restore = restore_classifier if folder.family in CLASSIFIERS else restore_decoder
        return restore(folder, dtype, device)
    if folder.family in CLASSIFIERS:
        from core.engine.classifier import classifier_from_tensors

        tensors = _read(folder, dtype)
        model = classifier_from_tensors(folder.config, tensors, as_torch(dtype))
        return model.to(device)
    if folder.family in FAMILIES:
        from core.engine.decoder import Decoder

        config = from_hf(folder.config)
        tensors = _read(folder, dtype, device)
        _check_tied(config, tensors)
        # The matrices are stacked into new memory. What stays as it lies in the file would keep the
        # whole file mapped, and counted as memory of the model.
        for name, tensor in tensors.items():
            if tensor.is_cpu and (tensor.ndim == 1 or name == EMBEDDING):
                tensors[name] = tensor.clone()
        once = _Once(tensors)
        tensors.clear()
        return Decoder.from_tensors(config, once, dtype, device)
    from core.engine.load.staged import load_staged

    return load_staged(folder, dtype, device)


def random_engine(
    config: DecoderConfig, dtype: str = "bf16", seed: int = SHAPE_SEED, device: str = "cpu"
) -> Decoder:
    """A decoder with normal weights, std 0.02: for speed and memory, never for quality.

    On a GPU they are drawn there: other numbers than on the CPU, as reproducible.
    """
    import torch

    from core.engine.decoder import Decoder
    from core.engine.load.random_weights import STD, random_decoder

    wanted = names.expected(config)
    total = sum(math.prod(shape) for shape in wanted.values()) * nbytes(dtype)
    if torch.device(device).type == "cuda":
        check_memory("random weights", total, free_on_gpu(device))
        return random_decoder(config, dtype, seed, device)
    check_memory("random weights", total)
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, shape in wanted.items():
        if len(shape) == 1:
            fill = torch.zeros if name.endswith(".bias") else torch.ones
            tensors[name] = fill(shape, dtype=as_torch(dtype))
        else:
            tensor = torch.empty(shape, dtype=as_torch(dtype))
            tensors[name] = tensor.normal_(0, STD, generator=generator)
    return Decoder.from_tensors(config, tensors, dtype, device)


def shape_config(name: str) -> DecoderConfig:
    """The decoder behind `shape:NAME`; BadInput lists the shapes there are."""
    key = name.removeprefix(SHAPE)
    if key not in shapes():
        raise BadInput(f"unknown shape {key!r}; known shapes: {', '.join(shapes())}.")
    return from_hf(shapes()[key]["config"])


class _Once(dict[str, "Tensor"]):
    """Tensors that go when they are read: no more than one matrix then lies in memory twice."""

    def __getitem__(self, name: str) -> Tensor:
        return self.pop(name)


def _read(folder: CheckedFolder, dtype: str, device: str = "cpu") -> dict[str, Tensor]:
    """Every tensor, each checked by core.files.values, on a GPU there; the files are read once."""
    import torch

    from core.files.values import check_values

    on_gpu = torch.device(device).type == "cuda"
    tensors = {}
    for name, file, tensor in _stored(folder):
        if on_gpu:
            tensor = tensor.to(device)
        check_values(file, name, tensor, dtype)
        tensors[name] = tensor
    return tensors


def _stored(folder: CheckedFolder) -> Iterator[tuple[str, str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    for path in folder.weight_files:
        try:
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - the handle is no mapping
                    yield name, path.name, file.get_tensor(name)
        except SafetensorError as error:
            raise BadInput(f"{path.name} cannot be read: {error}.") from None


def _check_tied(config: DecoderConfig, tensors: dict[str, Tensor]) -> None:
    head = tensors.get(f"{HEAD}.weight")
    if config.tied_embeddings and head is not None:
        import torch

        if not torch.equal(head, tensors[EMBEDDING]):
            raise BadInput(
                f"config.json: tie_word_embeddings is true, but {HEAD}.weight differs from "
                f"{EMBEDDING}; set it to false."
            )
