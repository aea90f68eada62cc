"""The captured step on a GPU against the eager pass and against fp32 on the CPU. Not yet run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from speculating import speculate
from transformers_models import cast, lean, transformers_model

from core.engine.decoder import Decoder
from core.engine.linear import Linear
from core.engine.passes.graph import WARM_UPS, Captured, Graphs
from core.engine.serve.generate import generate
from core.engine.serve.scheduler import Static
from core.engine.serve.sequence import Request
from core.engine.serve.server import EngineServer
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from kernels import calls, linear_fp8, linear_w8a8
from kernels.kv_codes import KVFormat
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_w8a8 import W8A8Weight

pytestmark = pytest.mark.gpu

WEIGHTS: dict[str, Callable[[Linear], Linear]] = {
    name: (lambda linear, name=name: linear.to_format(name))  # type: ignore[misc]
    for name in ("int8", "int4-g32", "nf4-g32", "int3-g32", "e4m3")
} | {
    "w8a8": lambda linear: Linear.from_kernel(
        W8A8Weight(linear_w8a8.quantize(linear.dense()), linear.bias, linear.dtype)
    ),
    "fp8": lambda linear: Linear.from_kernel(
        Fp8Weight(linear_fp8.quantize(linear.dense()), linear.bias, linear.dtype)
    ),
}
# Those round the other side of a product as well, which the reference does not.
ROUNDED = {"w8a8": 0.06, "fp8": 0.12}


def on_gpu(variant: str, dtype: str, weights: str = "") -> Decoder:
    """The small random model of a family on the GPU, its matrices in a format."""
    plain = lean(transformers_model(variant), dtype)
    decoder = Decoder.from_tensors(plain.config, plain.export_tensors(), dtype, "cuda")
    if weights:
        for matrix in decoder.matrices():
            if matrix.name != "head":
                matrix.replace(
                    WEIGHTS[weights](Linear(matrix.dense().to(decoder.dtype))).kernel_weight
                )
    return decoder


def exact(decoder: Decoder) -> Decoder:
    """The very same weights in fp32 on the CPU."""
    tensors = {name: tensor.cpu().float() for name, tensor in decoder.export_tensors().items()}
    reference = Decoder.from_tensors(decoder.config, tensors, "fp32")
    reference.cache_format = decoder.cache_format
    return reference


def stepwise(
    engine: Any, ids: torch.Tensor, cuts: tuple[int, ...] = (7, 1, 1, 1, 1, 3, 3, 3, 3, 1)
) -> torch.Tensor:
    """Logits on the CPU, read in parts behind one cache: eager, warming up, captured, replayed."""
    cache = engine.new_cache(*ids.shape)
    parts = ids.split(list(cuts), dim=1)
    logits = [engine.forward(part, cache).cpu() for part in parts]
    return torch.cat(logits, dim=1)


def error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).norm() / want.norm())


def compared(decoder: Decoder, batch: int, most: float) -> None:
    """Captured against eager, both against the reference; every repeated step was captured."""
    ids = torch.randint(0, decoder.vocab_size, (batch, 24))
    captured = stepwise(decoder, ids)
    graphs, decoder.graphs = decoder.graphs, None
    eager = stepwise(decoder, ids)
    decoder.graphs = graphs
    assert graphs is not None
    assert graphs.reasons == []
    want = stepwise(exact(decoder), ids)
    assert torch.isfinite(captured).all()
    assert error(captured, want) <= max(most, 1.5 * error(eager, want))


# Few of each: every kind of kernel is compiled, and chosen by measuring, on the way.
FAMILIES = [
    ("llama", "bf16", 1),
    ("llama", "bf16", 8),
    ("llama", "fp16", 3),
    ("llama", "fp32", 3),
    ("llama-tied", "bf16", 3),
    ("llama-biases", "bf16", 3),
    ("llama-head-dim-64", "bf16", 3),
    ("llama-head-dim-128", "bf16", 3),
    ("llama-head-dim-128", "fp32", 1),
    ("llama-head-dim-10", "bf16", 3),
    ("qwen2", "bf16", 1),
    ("qwen3", "bf16", 3),
    ("qwen3", "fp32", 1),
    ("mistral-window-5", "bf16", 3),
    ("mistral-window-5", "fp32", 1),
]


@pytest.mark.parametrize(("variant", "dtype", "batch"), FAMILIES)
def test_every_family_and_dtype(variant: str, dtype: str, batch: int) -> None:
    compared(on_gpu(variant, dtype), batch, {"bf16": 0.03, "fp16": 0.006, "fp32": 1e-4}[dtype])


@pytest.mark.parametrize("batch", [1, 8])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_format_of_weights(weights: str, batch: int) -> None:
    compared(on_gpu("llama-head-dim-64", "bf16", weights), batch, ROUNDED.get(weights, 0.03))


@pytest.mark.parametrize("weights", ["", "int4-g32", "w8a8"])
def test_a_batch_of_64(weights: str) -> None:
    compared(on_gpu("llama-head-dim-64", "bf16", weights), 64, ROUNDED.get(weights, 0.03))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("bits", [8, 4, 2])
def test_a_cache_in_codes(bits: int, dtype: str) -> None:
    decoder = on_gpu("llama-head-dim-64", dtype)
    decoder.cache_format = KVFormat(bits, 32, 4)
    ids = torch.randint(0, decoder.vocab_size, (2, 90))
    cuts = (41, *[1] * 37, *[3] * 4)
    got, want = stepwise(decoder, ids, cuts), stepwise(exact(decoder), ids, cuts)
    # Codes at the edge between two steps may fall to either side.
    assert error(got, want) <= {8: 0.05, 4: 0.1, 2: 0.3}[bits]
    assert decoder.graphs is not None
    print(decoder.graphs.reasons)


def test_rows_at_positions_of_their_own() -> None:
    decoder = on_gpu("qwen3", "fp32")
    reference = exact(decoder)
    ids = torch.randint(0, 97, (3, 12))
    caches = [engine.new_cache(3, 40) for engine in (decoder, reference)]
    for engine, cache in zip((decoder, reference), caches, strict=True):
        engine.forward(ids, cache)
    for turn in range(9):
        part = torch.randint(0, 97, (3, 2))
        if turn % 2:
            lengths = [
                length - cut for length, cut in zip(caches[0].lengths, (2, 0, 1), strict=True)
            ]
            for cache in caches:
                cache.truncate(lengths)
        got, want = decoder.forward(part, caches[0]).cpu(), reference.forward(part, caches[1])
        assert error(got, want) <= 1e-4
        assert caches[0].lengths == caches[1].lengths


@pytest.mark.parametrize("batch", [1, 5])
def test_a_served_batch_says_what_the_processor_says(batch: int) -> None:
    decoder = on_gpu("llama", "fp32")
    prompts = torch.randint(0, 97, (batch, 9))
    want = generate(exact(decoder), prompts, 40)
    server = EngineServer(decoder, Static(batch))
    for _ in range(3):
        sequences = [server.submit(Request(prompt.cuda(), 40)) for prompt in prompts]
        while server.phase:
            server.step()
        assert [sequence.new for sequence in sequences] == want.tolist()
        for sequence in sequences:
            assert sequence.stamps == sorted(sequence.stamps)
            assert sequence.started_at < sequence.stamps[0]
    assert decoder.graphs is not None
    assert decoder.graphs.reasons == []


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_speculation_says_what_the_target_says(noise: float, batch: int) -> None:
    model = transformers_model("llama")
    plain = lean(model, "fp32")
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn_like(weight)
    noisy = lean(model, "fp32")
    target, draft = (
        Decoder.from_tensors(engine.config, engine.export_tensors(), "fp32", "cuda")
        for engine in (plain, noisy)
    )
    prompts = torch.randint(0, 97, (batch, 7))
    result = speculate(target, draft, prompts, 50, 3)
    assert torch.equal(result.ids, generate(plain, prompts, 50))


def test_replays_count_as_their_capture_and_leave_nothing_behind() -> None:
    decoder = on_gpu("llama", "bf16")
    decoder.forward(torch.randint(0, 97, (2, 5)))
    gc.collect()
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    cache = decoder.new_cache(2, 64)
    decoder.forward(torch.randint(0, 97, (2, 5)), cache)
    counts = []
    for _ in range(WARM_UPS + 4):
        calls.reset()
        decoder.choose(torch.randint(0, 97, (2, 1)), cache, last_only=True)
        counts.append(calls.snapshot())
    assert counts == [counts[-1]] * len(counts)
    assert counts[-1]
    run, _ = cache.programs[1]._runs[True, True]
    assert isinstance(run, Captured)
    assert run._graph is not None
    del run, cache
    gc.collect()
    torch.cuda.synchronize()
    # What cuBLAS keeps for the stream that captures stays.
    assert torch.cuda.memory_allocated() - before <= 80 << 20


def test_a_run_that_waits_for_the_gpu_goes_on_eagerly_and_says_why() -> None:
    number, graphs = torch.zeros(1, device="cuda"), Graphs("cuda")

    def run() -> None:
        number.add_(1)
        float(number)

    again = graphs(run)
    for turn in range(1, 7):
        again()
        assert float(number) == turn
    (reason,) = graphs.reasons
    assert "could not be captured as a CUDA graph" in reason
    # What follows is captured as if nothing had been.
    other = graphs(lambda: number.mul_(2))
    for _ in range(4):
        other()
    assert float(number) == 6 * 2**4
    assert graphs.reasons == [reason]
    assert torch.cuda.current_stream() == torch.cuda.default_stream()


def test_an_id_without_a_row_is_a_sentence_wherever_it_lies() -> None:
    decoder = on_gpu("llama", "bf16")
    cache = decoder.new_cache(1, 9)
    decoder.forward(torch.zeros(1, 3, dtype=torch.int64), cache)
    for device in ("cpu", "cuda"):
        for given in (None, cache):
            with pytest.raises(BadInput, match="outside the vocabulary of 97"):
                decoder.forward(torch.tensor([[97]], device=device), given)
    assert decoder.forward(torch.tensor([[3]], device="cuda"), cache).shape == (1, 1, 97)


def test_a_transformers_model_serves_the_same_text() -> None:
    model = transformers_model("llama")
    prompts = torch.randint(0, 97, (2, 9))
    want = generate(TransformersEngine(model), prompts, 20)
    engine = TransformersEngine(cast(model, torch.float32).to("cuda"))
    assert torch.equal(generate(engine, prompts, 20), want)
    assert engine.forward(prompts.cuda()).device.type == "cuda"
