"""The step that a GPU captures, run on the CPU through a stand-in for the graph."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from speculating import speculate
from tape import TORCH, NoWaiting, Tape, taped
from torch.overrides import TorchFunctionMode
from transformers_models import lean, transformers_model

from core.engine import decoder as decoder_module
from core.engine.decoder import Decoder
from core.engine.linear import Linear
from core.engine.passes.captured_step import CapturedStep
from core.engine.passes.graph import WARM_UPS
from core.engine.serve.batch import LockStep
from core.engine.serve.generate import generate
from core.engine.serve.proposer import Draft
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer
from core.errors import BadInput
from kernels import attention, calls
from kernels.kv_codes import KVFormat


@pytest.fixture(autouse=True)
def _torch_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_KERNEL", TORCH)


def pair(variant: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, Decoder, Tape]:
    """A decoder that takes its steps eagerly, the same one captured, and the captures."""
    eager, captured = (lean(transformers_model(variant), "fp32") for _ in range(2))
    return eager, captured, taped(captured, monkeypatch)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()


@pytest.mark.parametrize("variant", ["llama", "llama-tied", "qwen3", "mistral-window-5"])
@pytest.mark.parametrize(("batch", "tokens"), [(1, 1), (3, 1), (2, 3)])
def test_replayed_logits_equal_the_eager_ones(
    variant: str, batch: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, captured, tape = pair(variant, monkeypatch)
    ids = torch.randint(0, eager.vocab_size, (batch, 5 + 7 * tokens))
    caches = [engine.new_cache(*ids.shape) for engine in (eager, captured)]
    parts = ids[:, :5], *ids[:, 5:].split(tokens, dim=1)
    for number, part in enumerate(parts):
        last = bool(number % 2)
        want, got = (
            engine.forward(part, cache, last)
            for engine, cache in zip((eager, captured), caches, strict=True)
        )
        close(got, want)
        assert caches[0].lengths == caches[1].lengths
    # All logits and the last ones are runs of their own, each eager at first.
    assert tape.replays == 7 - 2 * WARM_UPS


def test_a_result_of_forward_is_the_callers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, captured, _ = pair("llama", monkeypatch)
    ids = torch.randint(0, 97, (1, 9))
    cache, other = captured.new_cache(1, 9), eager.new_cache(1, 9)
    got = torch.cat([captured.forward(part, cache) for part in ids.split(1, dim=1)], dim=1)
    close(got, torch.cat([eager.forward(part, other) for part in ids.split(1, dim=1)], dim=1))


def test_rows_of_different_lengths_replay_at_their_own_positions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, captured, tape = pair("qwen3", monkeypatch)
    ids = torch.randint(0, 97, (3, 12))
    caches = [engine.new_cache(3, 32) for engine in (eager, captured)]
    stream = torch.Generator().manual_seed(5)
    for engine, cache in zip((eager, captured), caches, strict=True):
        engine.forward(ids, cache)
    for round_ in range(8):
        cuts = [
            max(3, length - cut) for length, cut in zip(caches[0].lengths, (2, 0, 1), strict=True)
        ]
        part = torch.randint(0, 97, (3, 2), generator=stream)
        if round_ % 2:
            for cache in caches:
                cache.truncate(cuts)
        want, got = (e.forward(part, c) for e, c in zip((eager, captured), caches, strict=True))
        close(got, want)
        assert caches[0].lengths == caches[1].lengths
    assert tape.replays == 8 - WARM_UPS


@pytest.mark.parametrize("batch", [1, 4])
def test_a_served_batch_says_the_same_and_is_a_pass_ahead(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, captured, tape = pair("llama", monkeypatch)
    monkeypatch.setattr(LockStep, "ahead_on", ("cpu",))
    prompts = torch.randint(0, 97, (batch, 6))
    want = generate(eager, prompts, 11)
    passes: list[int] = []
    choose = captured.choose
    monkeypatch.setattr(captured, "choose", lambda *a, **k: passes.append(1) or choose(*a, **k))
    server = EngineServer(captured, Static(batch))
    sequences = [server.submit(Request(prompt, 11)) for prompt in prompts]
    queued = []
    while server.phase:
        server.step()
        queued.append(len(passes))
    assert [sequence.new for sequence in sequences] == want.tolist()
    # The first step reads the prompt and queues a pass; the last one queues none.
    assert queued == [*range(1, 11), 10]
    assert all(len(sequence.stamps) == 11 for sequence in sequences)
    assert server.stats().passes == 11
    assert tape.replays == 10 - WARM_UPS


def test_rows_that_may_end_early_are_not_run_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    eager, captured, _ = pair("llama", monkeypatch)
    monkeypatch.setattr(LockStep, "ahead_on", ("cpu",))
    prompts = torch.randint(0, 97, (3, 6))
    stop = int(generate(eager, prompts, 9)[0, 4])
    server = EngineServer(captured, Static(3))
    sequences = [
        server.submit(Request(prompt, new, stop_ids=(stop,)))
        for prompt, new in zip(prompts, (9, 5, 7), strict=True)
    ]
    while server.phase:
        server.step()
    for sequence, prompt in zip(sequences, prompts, strict=True):
        new = sequence.request.max_new_tokens
        alone = generate(eager, prompt[None], new, stop_ids=(stop,))[0].tolist()
        assert sequence.new == alone


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("batch", [1, 3])
def test_speculation_through_captured_steps_says_what_the_target_says(
    batch: int, noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = transformers_model("llama")
    eager, target = lean(model, "fp32"), lean(model, "fp32")
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    draft = lean(model, "fp32")
    tapes = [taped(engine, monkeypatch) for engine in (target, draft)]
    prompts = torch.randint(0, 97, (batch, 7))
    result = speculate(target, draft, prompts, 29, 3)
    assert torch.equal(result.ids, generate(eager, prompts, 29))
    assert all(tape.replays > 0 for tape in tapes)
    if noise == 0:
        assert result.stats.accepted == result.stats.proposed


class Reads(TorchFunctionMode):
    """Notes the shape of what is fetched for the host."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("tolist", "item", "__int__", "__float__", "__bool__", "numpy"):
            self.shapes.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def test_a_round_of_speculation_reads_once_what_lies_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch, count = 3, 4
    target, draft = (lean(transformers_model("llama"), "fp32") for _ in range(2))
    for engine in (target, draft):
        taped(engine, monkeypatch)
    # What comes from the CPU is checked there; rows' lengths are known there.
    monkeypatch.setattr(decoder_module, "check_ids", lambda ids, vocabulary: None)
    server = EngineServer(target, Static(batch), Draft(draft, count))
    for prompt in torch.randint(0, 97, (batch, 6)):
        server.submit(Request(prompt, 40))
    server.step()
    for _ in range(6):
        with Reads() as reads:
            server.step()
        assert [shape for shape in reads.shapes if shape != (batch,)] == [(batch, 2 * count + 1)]


def test_a_replay_counts_the_kernels_of_its_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    _, captured, tape = pair("llama", monkeypatch)
    cache = captured.new_cache(1, 12)
    captured.forward(torch.tensor([[5]]), cache)
    counts = []
    for token in range(6):
        calls.reset()
        captured.forward(torch.tensor([[token]]), cache)
        counts.append(calls.snapshot())
    assert tape.replays == 6 - WARM_UPS
    assert counts == [counts[0]] * 6
    assert {(row["op"], row["calls"]) for row in counts[0]} == {
        ("attention", 3), ("linear_dense", 13), ("rms_norm", 7), ("swiglu", 3),
    }  # fmt: skip


def test_steps_and_what_they_hold_die_with_their_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    _, captured, _ = pair("llama", monkeypatch)
    cache = captured.new_cache(2, 12)
    gc.disable()
    try:
        for _ in range(5):
            captured.forward(torch.tensor([[5], [6]]), cache)
        step = cache.programs[1]
        assert isinstance(step, CapturedStep)
        references = [weakref.ref(step), weakref.ref(cache), weakref.ref(cache.keys)]
        del step, cache
        assert [reference() for reference in references] == [None] * 3
    finally:
        gc.enable()


def test_a_step_is_made_again_when_a_matrix_or_the_head_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, captured, _ = pair("llama", monkeypatch)
    ids = torch.randint(0, 97, (1, 6))
    cache = captured.new_cache(1, 40)
    captured.forward(ids, cache)
    for name in ("down", "head"):
        for _ in range(4):
            cache.truncate(6)
            captured.forward(ids[:, :1], cache)
        for engine in (eager, captured):
            owner = engine if name == "head" else engine.layers[1]
            setattr(owner, name, Linear(1.5 * getattr(owner, name).dense()))
        fresh = eager.new_cache(1, 40)
        eager.forward(ids, fresh)
        cache.truncate(0)
        captured.forward(ids, cache)
        close(captured.forward(ids[:, :1], cache), eager.forward(ids[:, :1], fresh))


def test_longer_rotary_tables_leave_a_captured_step_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, captured, tape = pair("llama", monkeypatch)
    ids = torch.randint(0, 97, (1, 12))
    caches = [engine.new_cache(1, 16) for engine in (eager, captured)]
    for engine, cache in zip((eager, captured), caches, strict=True):
        engine.forward(ids[:, :4], cache)
    for at in range(4, 12):
        if at == 8:
            captured.forward(torch.randint(0, 97, (1, 200)))
        part = ids[:, at : at + 1]
        close(captured.forward(part, caches[1]), eager.forward(part, caches[0]))
    assert tape.replays == 8 - WARM_UPS


def test_what_asks_the_host_for_positions_runs_uncaptured_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    eager, captured, tape = pair("llama", monkeypatch)
    monkeypatch.setattr(attention, "reads_start_on_device", lambda device, format: False)
    monkeypatch.setenv("TRIMTAB_KERNEL", TORCH.replace("torch-sdpa", "torch-kv4"))
    for engine in (eager, captured):
        engine.cache_format = KVFormat(4, 32, 4)
    ids = torch.randint(0, 97, (2, 60))
    caches = [engine.new_cache(2, 60) for engine in (eager, captured)]
    for part in (ids[:, :40], *ids[:, 40:].split(4, dim=1)):
        close(captured.forward(part, caches[1]), eager.forward(part, caches[0]))
    assert tape.replays == 0
    (reason,) = tape.reasons
    assert reason == "attention over int4 asks the host where rows begin"


def test_ids_on_the_cpu_are_checked_and_a_full_cache_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, captured, _ = pair("llama", monkeypatch)
    cache = captured.new_cache(1, 4)
    for _ in range(3):
        captured.forward(torch.tensor([[1]]), cache)
    for call in (captured.forward, captured.choose):
        with pytest.raises(BadInput, match="outside the vocabulary of 97"):
            call(torch.tensor([[97]]), cache)
        with pytest.raises(BadInput, match="3 of 4 tokens"):
            call(torch.tensor([[1, 2]]), cache)
    assert cache.length == 3


def test_what_waits_for_a_device_breaks_the_stand_in_too() -> None:
    number = torch.ones(3)
    for waits in (lambda: float(number[0]), lambda: number.nonzero(), lambda: number[number > 0]):
        with NoWaiting(), pytest.raises(RuntimeError, match="not permitted"):
            waits()
