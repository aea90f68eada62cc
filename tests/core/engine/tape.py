"""A CUDA graph's stand-in on the CPU: it records the operations of a run and repeats just those.

What Python decides is decided once, at the recording, and whatever would read a tensor's numbers on
the host ends the test, as a capture would end.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.engine.decoder import Decoder
from core.engine.passes.graph import WARM_UPS, Graphs, Run
from kernels import calls
from kernels.attention import OP, sdpa

WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "unique",
    "item",
    "is_nonzero",
)
TORCH = "attention=torch-sdpa,rms_norm=torch,swiglu=torch,linear_dense=torch,linear_lowbit=torch"


def tensors(values: Any) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class NoWaiting(TorchDispatchMode):
    """Lets no operation pass that waits for a device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in WAITING or name.startswith("unique"):
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        masks = [t for t in tensors(args[1:2]) if t.dtype in (torch.bool, torch.uint8)]
        if masks and name.startswith(("index", "_index_put")):
            raise RuntimeError(
                f"operation not permitted when stream is capturing: {name} by a mask"
            )
        kwargs = kwargs or {}
        from_device = [t for t in tensors((args, kwargs)) if t.device.type == "cuda"]
        out = func(*args, **kwargs)
        if from_device and name in ("_to_copy", "copy_", "_copy_from", "clone"):
            assert not [t for t in tensors(out) if t.device.type == "cpu"], "read on the host"
        return out


class Recording(NoWaiting):
    """Keeps each operation with its arguments and what it returned."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given = {memory(tensor) for tensor in tensors((args, kwargs))}
        fresh = [tensor for tensor in tensors(out) if memory(tensor) not in given]
        self.steps.append((func, args, kwargs, fresh))
        return out

    def replay(self) -> None:
        for func, args, kwargs, fresh in self.steps:
            out = func(*args, **kwargs)
            for old, new in zip(fresh, tensors(out) if fresh else [], strict=True):
                old.copy_(new)


class Taped:
    """See core.engine.passes.graph.Captured."""

    def __init__(self, run: Run, tape: Tape) -> None:
        self.run, self.tape, self.waiting = run, tape, WARM_UPS
        self.recording: Recording | None = None

    def __call__(self) -> None:
        if self.waiting:
            self.waiting -= 1
            self.run()
            return
        if self.recording is None:
            # A capture runs nothing, and is replayed at once: here the recording is that replay.
            self.recording = Recording()
            with calls.recorded() as self.counted, self.recording:
                self.run()
        else:
            self.recording.replay()
        self.tape.replays += 1
        self.counted.count()


class Tape(Graphs):
    """The stand-in for Graphs; `replays` counts what did not go through Python."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.replays = 0

    def __call__(self, run: Run) -> Run:
        return Taped(run, self)


def taped(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> Tape:
    """Let a decoder on the CPU take its steps as one on a GPU does, with torch's kernels."""
    monkeypatch.setattr(sdpa, "prepare", _on_device)
    decoder.graphs = tape = Tape()
    return tape


def _on_device(
    qkv: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    start: torch.Tensor,
    heads: Any,
    out: torch.Tensor,
) -> Any:
    """torch-sdpa's call for a start on the device, wherever that lies."""

    def step() -> None:
        calls.count(OP, "torch-sdpa")
        out.copy_(sdpa._from_each(qkv, keys, values, start, keys.shape[2], heads))

    return step
