"""Which cache a batch gets on a GPU: that of an earlier batch where it fits, and few of them."""

from __future__ import annotations

import itertools
import weakref

import pytest
import torch
from tape import TORCH, Tape, taped
from transformers_models import lean, transformers_model

from core.engine.decoder import Decoder
from core.engine.linear import Linear
from core.engine.passes.graph import WARM_UPS
from core.engine.serve.caches import Caches
from core.engine.serve.generate import generate
from core.engine.serve.proposer import Draft
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> tuple[Decoder, Decoder, Tape]:
    """An eager decoder, one that counts as on a GPU, and its captures."""
    monkeypatch.setenv("TRIMTAB_KERNEL", TORCH)
    eager, captured = (lean(transformers_model("llama"), "fp32") for _ in range(2))
    monkeypatch.setattr(captured, "device", "cpu:0")
    return eager, captured, taped(captured, monkeypatch)


def test_a_batch_goes_on_in_the_memory_of_one_with_as_many_rows(
    pair: tuple[Decoder, Decoder, Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, captured, tape = pair
    server, made = EngineServer(captured, Static(2)), itertools.count()
    new_cache = captured.new_cache
    monkeypatch.setattr(captured, "new_cache", lambda *a: (next(made), new_cache(*a))[1])
    # Shorter texts fit; longer ones, and other rows, have memory and captures of their own.
    for batch, length, new, first in (
        (2, 6, 9, True), (2, 6, 9, False), (2, 4, 7, False), (1, 6, 9, True),
        (2, 6, 9, False), (1, 6, 9, False), (2, 12, 9, True),
    ):  # fmt: skip
        prompts = torch.randint(0, 97, (batch, length))
        sequences = [server.submit(Request(prompt, new)) for prompt in prompts]
        before = tape.replays
        while server.phase:
            server.step()
        assert [one.new for one in sequences] == generate(eager, prompts, new).tolist()
        assert tape.replays - before == new - 1 - (WARM_UPS if first else 0)
    assert next(made) == 3


def test_speculating_batches_go_on_in_the_memory_of_target_and_draft(
    pair: tuple[Decoder, Decoder, Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    eager, target, _ = pair
    draft = lean(transformers_model("llama", seed=0), "fp32")
    draft.layers[1].down = Linear(0.9 * draft.layers[1].down.dense())
    monkeypatch.setattr(draft, "device", "cpu:0")
    taped(draft, monkeypatch)
    made = itertools.count()
    for engine in (target, draft):
        monkeypatch.setattr(
            engine, "new_cache", lambda *a, new=engine.new_cache: (next(made), new(*a))[1]
        )
    server = EngineServer(target, Static(3), Draft(draft, 3))
    for _ in range(3):
        prompts = torch.randint(0, 97, (3, 6))
        sequences = [server.submit(Request(prompt, 20)) for prompt in prompts]
        while server.phase:
            server.step()
        assert [one.new for one in sequences] == generate(eager, prompts, 20).tolist()
    assert next(made) == 2


def test_a_kept_cache_is_gone_before_a_longer_one_is_made(
    pair: tuple[Decoder, Decoder, Tape], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, captured, _ = pair
    caches = Caches()
    gone = weakref.ref(caches.lend(captured, 2, 9))
    new_cache = captured.new_cache

    def watched(batch: int, capacity: int) -> object:
        assert gone() is None
        return new_cache(batch, capacity)

    monkeypatch.setattr(captured, "new_cache", watched)
    caches.lend(captured, 2, 10)


def test_batches_of_many_sizes_take_no_more_than_two_of_the_largest(
    pair: tuple[Decoder, Decoder, Tape],
) -> None:
    _, captured, _ = pair
    caches = Caches()
    lent = {}
    for rows in (8, 1, 2, 4, 1, 3, 5, 8):
        lent[rows] = weakref.ref(caches.lend(captured, rows, 10))
        held = [number for number, cache in lent.items() if cache() is not None]
        assert sum(held) <= 2 * 8
        assert rows in held
    assert held == [8, 3, 5]


def test_on_the_processor_each_batch_has_a_cache_of_its_own() -> None:
    decoder, caches = lean(transformers_model("llama"), "fp32"), Caches()
    first = caches.lend(decoder, 2, 9)
    assert caches.lend(decoder, 2, 9) is not first
