"""Owns making an engine of a folder whose matrices are quantized. The folder was checked by
core.files.folder; here the values are judged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from core.engine.classifier import new_classifier
from core.engine.decoder import Decoder
from core.engine.linear import DENSE, Linear
from core.engine.load.native import restore
from core.engine.modules import KernelLinear
from core.errors import BadInput
from core.files import listing as files
from core.files import quantized
from core.files.config.fields import tied
from core.files.config.hf_config import from_hf
from core.files.folder import CheckedFolder
from core.files.formats import foreign, native
from core.files.formats.layout import EMBEDDING, Stack
from core.files.values import check_values
from kernels.weight import KernelWeight


class StoredWeights:
    """The tensors of a checked folder by name, each in memory of its own, so that no file stays
    mapped.
    """

    def __init__(self, folder: CheckedFolder, stack: contextlib.ExitStack) -> None:
        self._homes: dict[str, tuple[str, Any]] = {}
        for path in folder.weight_files:
            try:
                file = stack.enter_context(safe_open(str(path), framework="pt"))
            except SafetensorError as error:
                raise BadInput(f"{path.name} cannot be read: {error}.") from None
            for name in file.keys():  # noqa: SIM118 - the handle is no mapping
                self._homes[name] = (path.name, file)

    def __call__(self, name: str) -> Tensor:
        """The tensor, as it is stored."""
        tensor: Tensor = self._homes[name][1].get_tensor(name).clone()
        return tensor

    def dense(self, name: str, dtype: str) -> Tensor:
        """Floats that were judged by core.files.values, in `dtype`."""
        tensor = self(name)
        check_values(self._homes[name][0], name, tensor, dtype)
        return tensor.to(DENSE[dtype])


@contextlib.contextmanager
def opened(folder: CheckedFolder) -> Iterator[StoredWeights]:
    """The folder's tensors; BadInput instead of the library's errors."""
    with contextlib.ExitStack() as stack:
        try:
            yield StoredWeights(folder, stack)
        except SafetensorError as error:
            raise BadInput(f"{folder.weight_files[0].name} cannot be read: {error}.") from None


def restore_decoder(folder: CheckedFolder, dtype: str, device: str) -> Decoder:
    """The lean decoder of a checked folder; its matrices are what the folder holds, bit for bit."""
    config = from_hf(folder.config)
    weigh = _reader(folder, DENSE[dtype], device)
    with opened(folder) as stored:
        embedding = stored.dense(EMBEDDING, dtype).to(device)

        def vector(name: str) -> Tensor:
            return stored.dense(name, dtype).to(device)

        def matrix(stack: Stack) -> Linear:
            weight = weigh(stack, stored)
            if weight is not None:
                return Linear.from_kernel(weight)
            if stack.name == "head" and tied(folder.config):
                return Linear(embedding)
            return _dense(stored, stack, dtype, device)

        return Decoder.assemble(config, embedding, vector, matrix)


def restore_classifier(folder: CheckedFolder, dtype: str, device: str) -> Any:
    """The classifier of a checked folder, its nn.Linear replaced where the folder holds codes."""
    model = new_classifier(folder.config).to(DENSE[dtype])
    weigh = _reader(folder, DENSE[dtype], device)
    with opened(folder) as stored:
        for name, stack in quantized.matrices(folder.config).items():
            weight = weigh(stack, stored)
            if weight is not None:
                owner, _, leaf = name.rpartition(".")
                setattr(model.get_submodule(owner), leaf, KernelLinear(weight))
        rest = {name: stored.dense(name, dtype) for name in model.state_dict()}
    model.load_state_dict(rest)
    return model.to(device).eval()


def _reader(
    folder: CheckedFolder, dtype: Any, device: str
) -> Callable[[Stack, StoredWeights], KernelWeight | None]:
    """Gives the quantized matrix of a stack, None where the folder has a dense one."""
    known, method = quantized.matrices(folder.config), str(quantized.method(folder.config))
    file = folder.weight_files[0].name if len(folder.weight_files) == 1 else files.INDEX
    if method == native.METHOD:
        records = native.records(folder.config, known)

        def ours(stack: Stack, stored: StoredWeights) -> KernelWeight | None:
            if stack.name not in records:
                return None
            with _named(file):
                return restore(stack, records[stack.name], stored, dtype, device)

        return ours
    schemes = foreign.schemes(folder.config, known)

    def others(stack: Stack, stored: StoredWeights) -> KernelWeight | None:
        scheme = schemes.get(stack.parts[0][0])
        if scheme is None:
            return None
        with _named(file):
            return foreign.restore(method, stack, scheme, stored, dtype, device)

    return others


@contextlib.contextmanager
def _named(file: str) -> Iterator[None]:
    """The sentence begins with the file."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{file}: {error}") from None


def _dense(stored: StoredWeights, stack: Stack, dtype: str, device: str) -> Linear:
    weight = torch.cat([stored.dense(f"{name}.weight", dtype) for name, _ in stack.parts])
    bias = None
    if stack.bias:
        bias = torch.cat([stored.dense(f"{name}.bias", dtype) for name, _ in stack.parts]).to(
            device
        )
    return Linear.from_dense(weight.to(device), bias, dtype)
