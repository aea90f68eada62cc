"""Capturing a run and replaying it, with stand-ins for what torch.cuda offers."""

from __future__ import annotations

import contextlib
import gc
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from core.engine.passes import graph as graph_module
from core.engine.passes.graph import WARM_UPS, Graphs, Run
from kernels import calls


class Stream:
    """Knows who waited for whom."""

    def __init__(self, device: object = None) -> None:
        self.waited: list[Stream] = []

    def wait_stream(self, other: Stream) -> None:
        self.waited.append(other)


class Device:
    """torch.cuda as far as graph.py uses it; `log` says on which stream what ran."""

    def __init__(self) -> None:
        self.main = self.stream = Stream()
        self.pools = itertools.count(1)
        self.captures: list[dict[str, Any]] = []
        self.capturing: list[str] | None = None
        self.ended: list[object] = []
        self.log: list[str] = []

    def work(self, name: str) -> None:
        if self.capturing is not None:
            self.capturing.append(name)
        else:
            self.log.append(f"{name} {'main' if self.stream is self.main else 'side'}")

    def wait(self) -> None:
        if self.capturing is not None:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCUDA")

    @contextlib.contextmanager
    def on(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream
        try:
            yield
        finally:
            self.stream = before


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    there = Device()

    class Graph:
        def __init__(self) -> None:
            self.names: list[str] = []

        def replay(self) -> None:
            there.log += [f"{name} replayed" for name in self.names]

    class Capture:
        def __init__(self, graph: Graph, **named: Any) -> None:
            self.graph, self.named = graph, named

        def __enter__(self) -> None:
            there.captures.append(self.named)
            there.stream, there.capturing = self.named["stream"], self.graph.names

        def __exit__(self, kind: object, *rest: object) -> None:
            there.capturing = None
            if kind is not None:
                # As torch: the error comes before the stream is put back.
                raise RuntimeError("CUDA error: operation failed due to a previous error")
            there.stream = there.main

    cuda = torch.cuda
    monkeypatch.setattr(cuda, "Stream", Stream)
    monkeypatch.setattr(cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(cuda, "graph", Capture)
    monkeypatch.setattr(cuda, "graph_pool_handle", lambda: (0, next(there.pools)))
    monkeypatch.setattr(cuda, "current_stream", lambda device=None: there.stream)
    monkeypatch.setattr(cuda, "stream", there.on)
    monkeypatch.setattr(cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(cuda, "set_stream", lambda stream: setattr(there, "stream", stream))
    monkeypatch.setattr(
        torch._C, "_cuda_endAllocateToPool", lambda *told: there.ended.append(told), raising=False
    )
    graph_module._side.cache_clear()
    yield there
    graph_module._side.cache_clear()


def working(device: Device, name: str) -> Run:
    def run() -> None:
        calls.count("product", name)
        device.work(name)

    return run


def test_a_run_warms_up_beside_is_captured_and_then_replayed(device: Device) -> None:
    run = Graphs("cuda:0")(working(device, "a"))
    for _ in range(WARM_UPS):
        run()
    assert device.log == ["a side"] * WARM_UPS
    (side,) = device.main.waited[:1]
    assert side.waited == [device.main] * WARM_UPS
    assert device.main.waited == [side] * WARM_UPS
    run()
    run()
    assert device.log[WARM_UPS:] == ["a replayed"] * 2
    assert device.captures == [
        {"pool": (0, 1), "stream": side, "capture_error_mode": "thread_local"}
    ]
    assert device.stream is device.main


def test_every_call_counts_its_kernels_once(device: Device) -> None:
    run = Graphs("cuda:0")(working(device, "a"))
    calls.reset()
    for turn in range(1, 7):
        run()
        assert calls.snapshot() == [{"op": "product", "name": "a", "calls": turn}]


def test_runs_of_one_engine_share_a_pool_as_long_as_one_of_them_lives(device: Device) -> None:
    graphs, other = Graphs("cuda:0"), Graphs("cuda:0")
    runs = [graphs(working(device, name)) for name in "ab"]
    foreign = other(working(device, "c"))
    for run in (*runs, foreign):
        for _ in range(WARM_UPS + 1):
            run()
    assert [capture["pool"] for capture in device.captures] == [(0, 1), (0, 1), (0, 2)]
    del run
    runs.clear()
    gc.collect()
    again = graphs(working(device, "d"))
    for _ in range(WARM_UPS + 1):
        again()
    # A pool whose last graph is gone is not taken up again.
    assert device.captures[-1]["pool"] == (0, 3)


def test_what_cannot_be_captured_goes_on_eagerly_on_its_own_stream(device: Device) -> None:
    graphs = Graphs("cuda:0")

    def waiting() -> None:
        device.work("a")
        device.wait()

    runs = [graphs(waiting), graphs(waiting)]
    calls.reset()
    for run in runs:
        for _ in range(WARM_UPS + 3):
            run()
    assert device.log == (["a side"] * WARM_UPS + ["a main"] * 3) * 2
    assert device.stream is device.main
    assert graphs.reasons == [
        "the step could not be captured as a CUDA graph (RuntimeError: CUDA error: operation not"
        " permitted when stream is capturing CUDA)"
    ]
    # Tried once each, and the allocator was told of it.
    assert [told[1] for told in device.ended] == [(0, 1), (0, 2)]


def test_an_error_of_the_run_itself_is_no_matter_of_capturing(device: Device) -> None:
    def broken() -> None:
        raise RuntimeError("out of memory")

    graphs = Graphs("cuda:0")
    with pytest.raises(RuntimeError, match="out of memory"):
        graphs(broken)()
    assert graphs.reasons == []
    assert device.stream is device.main
