"""The step that a GPU captures, with the Triton kernels it has there, in Triton's interpreter."""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch

from core.engine.cache.contiguous import Rows
from core.engine.cache.quantized import QuantizedCache
from core.engine.decoder import Decoder
from core.engine.passes.captured_step import CapturedStep
from core.engine.passes.graph import Graphs, Run
from kernels import calls
from kernels.kv_codes import KVFormat
from tests.kernels import interpreter

STEPS = 4
ENVIRONMENT = "TRIMTAB_KERNEL"


class Eager(Graphs):
    """Captures nothing, and expects no refusal."""

    def __call__(self, run: Run) -> Run:
        return run

    def refused(self, reason: str) -> None:
        raise AssertionError(reason)


def cache_of(decoder: Decoder, format: KVFormat | None, capacity: int) -> Rows:
    if format is None:
        return decoder.new_cache(2, capacity)
    return QuantizedCache(decoder.config, format, 2, capacity, decoder.dtype, decoder.device)


def steps(device: str, variant: str, format: KVFormat | None) -> None:
    """Rows of two lengths: logits equal those of the kernels that a processor has."""
    from tests.core.engine.transformers_models import lean, transformers_model

    torch.manual_seed(1234)
    decoder = lean(transformers_model(variant), "fp32")
    total = 40 if format else 12
    ids = torch.randint(0, decoder.vocab_size, (2, total))
    caches = [cache_of(decoder, format, total) for _ in range(2)]
    for cache in caches:
        decoder.forward(ids[:, : total - STEPS], cache)
        cache.truncate([total - STEPS, total - STEPS - 3])
    wanted = [decoder.forward(ids[:, i : i + 1], caches[0], True) for i in range(STEPS)]
    attention = f"triton-kv{format.bits}" if format else "triton"
    os.environ[ENVIRONMENT] = f"attention={attention},rms_norm=triton,swiglu=triton"
    try:
        step = CapturedStep(decoder, caches[1], 1, Eager(device))
        calls.reset()
        for i, want in enumerate(wanted):
            got = step.logits(caches[1], ids[:, i : i + 1], True)
            assert (got - want).abs().max() <= 2e-5 * want.abs().max(), i
    finally:
        del os.environ[ENVIRONMENT]
    layers = len(decoder.layers)
    counted = {(call["op"], call["name"]): call["calls"] for call in calls.snapshot()}
    assert counted["attention", attention] == STEPS * layers
    assert counted["rms_norm", "triton"] == STEPS * (2 * layers + 1)
    assert counted["swiglu", "triton"] == STEPS * layers


CASES: interpreter.Cases = {
    "norms on heads": partial(steps, variant="qwen3", format=None),
    "a window": partial(steps, variant="mistral-window-5", format=None),
    "through a block of codes": partial(steps, variant="llama", format=KVFormat(4, 32, 0)),
}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, str]:
    pytest.importorskip("triton")
    return interpreter.failures("tests.core.engine.passes.test_triton_step")


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_triton_kernels_equals_the_processors(
    case: str, interpreted: dict[str, str]
) -> None:
    assert interpreted[case] == ""
