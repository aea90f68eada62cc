"""Devices agree on a GPU, and nothing waits for it: shown with fake tensors, without a GPU.

torch's fake tensors have a device and a shape and no numbers: an operation over two devices fails,
and so does whatever reads a number on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from fake_cuda import fake_tensors
from tape import TORCH
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    unset_fake_temporarily,
)
from transformers_models import lean, transformers_model

from core.engine import decoder as decoder_module
from core.engine.classifier import DigitsCNN, DigitsMLP
from core.engine.decoder import Decoder
from core.engine.linear import Linear
from core.engine.passes import captured_step
from core.engine.passes.graph import Graphs, Run
from core.engine.serve import batch as batch_module
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer
from core.errors import BadInput
from kernels import registry
from kernels.kv_codes import KVFormat


class Eager(Graphs):
    """No graph: the run itself, whose operations are looked at one by one."""

    def __call__(self, run: Run) -> Run:
        return run


class Unread:
    """Ids that never come: 0 for each row."""

    def __init__(self, ids: torch.Tensor) -> None:
        assert ids.device.type == "cuda"
        self.rows = len(ids)

    def wait(self) -> list[list[int]]:
        return [[0]] * self.rows


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRIMTAB_KERNEL", TORCH)
    monkeypatch.setattr(registry, "_has_cuda", lambda: True)
    monkeypatch.setattr(batch_module, "Readback", Unread)
    registry.reset()
    with fake_tensors():
        yield
    registry.reset()


def on_gpu(variant: str, monkeypatch: pytest.MonkeyPatch) -> Decoder:
    """A decoder whose every tensor is a fake one on a GPU; ids on the CPU count as checked."""

    def checked(ids: torch.Tensor, vocabulary: int) -> None:
        assert ids.is_cpu, "a check waits for the GPU"

    monkeypatch.setattr(decoder_module, "check_ids", checked)
    with unset_fake_temporarily():
        plain = lean(transformers_model(variant), "bf16")
        exported = plain.export_tensors()
    tensors = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda:0")
        for name, tensor in exported.items()
    }
    decoder = Decoder.from_tensors(plain.config, tensors, "bf16", "cuda:0")
    assert decoder.graphs is not None
    decoder.graphs = Eager("cuda:0")
    return decoder


def ids_of(batch: int, tokens: int, device: str = "cpu") -> torch.Tensor:
    return torch.zeros(batch, tokens, dtype=torch.int64, device=device)


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("variant", ["llama", "qwen3", "mistral-window-5", "llama-biases"])
@pytest.mark.parametrize("batch", [1, 3])
def test_prefill_and_steps_agree_in_devices(
    variant: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = on_gpu(variant, monkeypatch)
    whole = decoder.forward(ids_of(batch, 9))
    assert (whole.device.type, whole.dtype) == ("cuda", torch.float32)
    assert whole.shape == (batch, 9, 97)
    cache = decoder.new_cache(batch, 64)
    assert decoder.forward(ids_of(batch, 9), cache, last_only=True).shape == (batch, 1, 97)
    for tokens in (1, 4, 1, 4):
        logits = decoder.forward(ids_of(batch, tokens), cache)
        assert (logits.device.type, logits.shape) == ("cuda", (batch, tokens, 97))
        chosen = decoder.choose(ids_of(batch, tokens), cache)
        assert (chosen.device.type, chosen.shape) == ("cuda", (batch, tokens))
    # A long prompt behind a filled cache, eagerly.
    assert decoder.forward(ids_of(batch, 20), cache).shape == (batch, 20, 97)
    assert cache.length == 49


@pytest.mark.usefixtures("_fake")
def test_rows_apart_are_placed_without_reading_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = on_gpu("llama", monkeypatch)
    cache = decoder.new_cache(3, 40)
    decoder.forward(ids_of(3, 9), cache)
    cache.behind = torch.zeros(3, dtype=torch.int64)
    assert decoder.forward(ids_of(3, 2), cache).device.type == "cuda"
    assert decoder.choose(ids_of(3, 1, "cuda:0"), cache).device.type == "cuda"


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("most", [1, 512])
@pytest.mark.parametrize("prompt_on", ["cpu", "cuda:0"])
def test_a_served_batch_never_waits_but_for_its_prompts_check(
    prompt_on: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = on_gpu("llama", monkeypatch)
    # Rows beyond what is captured run through the kernels of prompts.
    monkeypatch.setattr(captured_step, "MAX_ROWS", most)
    checks: list[str] = []
    monkeypatch.setattr(
        decoder_module, "check_ids", lambda ids, vocabulary: checks.append(ids.device.type)
    )
    server = EngineServer(decoder, Static(2))
    sequences = [server.submit(Request(ids_of(1, 6, prompt_on)[0], 8)) for _ in range(2)]
    with torch.inference_mode():
        while server.phase:
            server.step()
    assert [len(sequence.new) for sequence in sequences] == [8, 8]
    assert checks == [prompt_on.partition(":")[0]]
    assert decoder.graphs is not None
    reason = f"a step of more than {most} rows is not captured"
    assert decoder.graphs.reasons == ([reason] if most == 1 else [])


@pytest.mark.usefixtures("_fake")
def test_ids_of_others_on_the_gpu_are_checked_before_they_are_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = on_gpu("llama", monkeypatch)
    cache = decoder.new_cache(1, 9)
    decoder.forward(ids_of(1, 2), cache)

    def refuse(ids: torch.Tensor, vocabulary: int) -> None:
        assert ids.device.type == "cuda"
        raise BadInput("no")

    monkeypatch.setattr(decoder_module, "check_ids", refuse)
    for given in (None, decoder.new_cache(1, 9), cache):
        with pytest.raises(BadInput, match="no"):
            decoder.forward(ids_of(1, 2, "cuda:0"), given)
    assert cache.length == 2


@pytest.mark.usefixtures("_fake")
def test_a_cache_in_codes_runs_uncaptured_where_its_kernel_asks_the_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIMTAB_KERNEL", TORCH.replace("torch-sdpa", "torch-kv4"))
    decoder = on_gpu("llama", monkeypatch)
    decoder.cache_format = KVFormat(4, 32, 4)
    cache = decoder.new_cache(2, 80)
    decoder.forward(ids_of(2, 40), cache)
    step: Any = None
    with pytest.raises(DataDependentOutputException):
        # torch's kernel asks where the rows begin, on the CPU: fake numbers tell nothing there.
        decoder.forward(ids_of(2, 1), cache)
    step = cache.programs[1]
    assert step._start.device.type == "cpu"
    assert decoder.graphs is not None
    assert decoder.graphs.reasons


@pytest.mark.usefixtures("_fake")
@pytest.mark.parametrize("kind", [DigitsCNN, DigitsMLP])
def test_a_classifier_takes_images_from_anywhere(kind: Any) -> None:
    model = kind([4, 8])
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            there = torch.empty(parameter.shape, dtype=torch.bfloat16, device="cuda:0")
            setattr(part, name, torch.nn.Parameter(there))
    with torch.inference_mode():
        for where in ("cpu", "cuda:0"):
            logits = model(torch.zeros(3, 1, 8, 8, device=where))
            assert (logits.device.type, logits.dtype) == ("cuda", torch.float32)


@pytest.mark.usefixtures("_fake")
def test_low_rank_adapters_are_bound_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.engine.adapted import Adapted

    decoder = on_gpu("llama", monkeypatch)
    for layer in decoder.layers:
        base = layer.down.kernel_weight
        a = torch.zeros(4, base.k, dtype=base.dtype, device="cuda:0")
        b = torch.zeros(base.n, 4, dtype=base.dtype, device="cuda:0")
        layer.down = Linear.from_kernel(Adapted(base, a, b))
    cache = decoder.new_cache(2, 12)
    decoder.forward(ids_of(2, 4), cache)
    assert decoder.forward(ids_of(2, 1), cache).device.type == "cuda"
