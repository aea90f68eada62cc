"""What every engine must answer, whatever runs it: one suite over tiny engines made on the fly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers_models import lean, transformers_model

from core.engine.classifier import DigitsCNN, DigitsMLP
from core.engine.protocol import Cache, ImageEngine, TextEngine
from core.engine.transformers_engine import TransformersEngine
from core.errors import BadInput
from kernels.kv_codes import KVFormat
from kernels.linear_lowbit import LowBitWeight, quantize


def coded() -> Any:
    engine = lean(transformers_model("llama"), "fp32")
    engine.cache_format = KVFormat(4, 32, 4)
    return engine


def transformers(dtype: torch.dtype = torch.float32) -> Any:
    return TransformersEngine(transformers_model("qwen2").to(dtype))


TEXT: dict[str, Callable[[], Any]] = {
    "lean": lambda: lean(transformers_model("llama"), "fp32"),
    "lean, tied, bf16": lambda: lean(transformers_model("llama-tied"), "bf16"),
    "lean, codes": coded,
    "transformers": transformers,
    "transformers, bf16": lambda: transformers(torch.bfloat16),
}
IMAGE: dict[str, Callable[[], Any]] = {
    "cnn": lambda: DigitsCNN([4, 8]).eval(),
    "mlp": lambda: DigitsMLP([16]).eval(),
}
EVERY = TEXT | IMAGE


def outputs(engine: Any) -> torch.Tensor:
    """Logits of a fixed input."""
    stream = torch.Generator().manual_seed(7)
    with torch.inference_mode():
        if isinstance(engine, ImageEngine):
            return engine(torch.rand(3, 1, 8, 8, generator=stream))
        ids = torch.randint(0, engine.vocab_size, (2, 9), generator=stream)
        found: torch.Tensor = engine.forward(ids)
        return found


def close(name: str, got: torch.Tensor, want: torch.Tensor) -> None:
    """Equal but for the order of sums in the engine's format."""
    assert got.shape == want.shape
    assert (got - want).norm() <= (0.03 if "bf16" in name else 1e-5) * want.norm()


@pytest.mark.parametrize("name", EVERY)
def test_it_is_one_of_the_protocols_and_of_one_kind_of_weights(name: str) -> None:
    engine = EVERY[name]()
    assert isinstance(engine, TextEngine) == (name in TEXT)
    assert isinstance(engine, ImageEngine) == (name in IMAGE)
    assert (engine.lean is None) != (engine.module is None)
    assert engine.device == "cpu"
    assert engine.compute_format == ("bf16" if "bf16" in name else "fp32")


@pytest.mark.parametrize("name", EVERY)
def test_its_tensors_are_named_once_and_sum_to_its_bytes(name: str) -> None:
    engine = EVERY[name]()
    tensors = list(engine.tensors())
    assert len({name for name, _, _ in tensors}) == len(tensors)
    sizes = {tensor.data_ptr(): tensor.nbytes for _, _, tensor in tensors}
    assert engine.weight_bytes() == sum(sizes.values()) > 0
    assert {form for _, form, _ in tensors} == {engine.compute_format}
    assert engine.table_bytes() == 0


@pytest.mark.parametrize("name", EVERY)
def test_a_matrix_is_read_replaced_and_put_back(name: str) -> None:
    engine = EVERY[name]()
    before, size = outputs(engine), engine.weight_bytes()
    matrices = engine.matrices()
    assert len({one.name for one in matrices}) == len(matrices) > 0
    assert engine.packed() == {}
    matrix = matrices[0]
    first, dense = matrix.held, matrix.dense()
    assert dense.shape == (matrix.n, matrix.k)
    assert dense.dtype is torch.float32
    form = quantize(dense, 2, matrix.k, symmetric=False)
    matrix.replace(LowBitWeight(form, matrix.bias, matrix.dtype))
    assert engine.packed() == {matrix.name: form.format}
    assert form.format in {form for _, form, _ in engine.tensors()} or engine.module is not None
    assert engine.weight_bytes() < size
    assert engine.kernel_formats() == {engine.compute_format}
    changed = outputs(engine)
    assert not torch.equal(changed, before)
    matrix.put(first)
    assert torch.equal(outputs(engine), before)
    assert engine.packed() == {}
    assert engine.weight_bytes() == size


@pytest.mark.parametrize("name", IMAGE)
def test_a_classifier_whose_every_matrix_is_packed_still_says_what_multiplies(name: str) -> None:
    engine = IMAGE[name]()
    for matrix in engine.matrices():
        form = quantize(matrix.dense(), 8, matrix.k)
        matrix.replace(LowBitWeight(form, matrix.bias, matrix.dtype))
    assert engine.compute_format == "fp32"
    assert engine.device == "cpu"
    assert engine.classes == 10
    assert outputs(engine).shape == (3, 10)


@pytest.mark.parametrize("name", TEXT)
def test_text_is_read_at_once_or_behind_a_cache(name: str) -> None:
    engine = TEXT[name]()
    ids = torch.randint(0, engine.vocab_size, (2, 11))
    whole = engine.forward(ids)
    assert whole.shape == (2, 11, engine.vocab_size)
    assert whole.dtype is torch.float32
    cache = engine.new_cache(2, 11)
    assert isinstance(cache, Cache)
    assert list(cache.lengths) == [0, 0]
    parts = [engine.forward(part, cache) for part in ids.split(4, dim=1)]
    assert list(cache.lengths) == [11, 11]
    close(name, torch.cat(parts, dim=1), whole)
    last = engine.forward(ids, last_only=True)
    close(name, last, whole[:, -1:])
    assert cache.nbytes > 0
    assert 0 <= engine.looked_up_bytes() < engine.weight_bytes()
    assert engine.max_positions >= 11


@pytest.mark.parametrize("name", TEXT)
def test_rows_of_a_cache_are_cut_to_lengths_of_their_own(name: str) -> None:
    engine = TEXT[name]()
    ids = torch.randint(0, engine.vocab_size, (3, 10))
    more = torch.randint(0, engine.vocab_size, (3, 2))
    cache = engine.new_cache(3, 14)
    engine.forward(ids, cache)
    cache.truncate([10, 4, 7])
    assert list(cache.lengths) == [10, 4, 7]
    got = engine.forward(more, cache)
    assert list(cache.lengths) == [12, 6, 9]
    cache.truncate([11, 6, 8])
    again = engine.forward(more[:, 1:], cache)
    for row, length in enumerate((10, 4, 7)):
        text = torch.cat((ids[row, :length], more[row]))[None]
        want = engine.forward(text)[0, -2:]
        close(name, got[row], want)
        if length != 4:
            close(name, again[row, 0], want[1])
    with pytest.raises(BadInput, match="cannot truncate a cache of"):
        cache.truncate([11, 6, 99])
    with pytest.raises(BadInput, match="rows cannot be cut to 2 lengths"):
        cache.truncate([1, 1])


@pytest.mark.parametrize("name", TEXT)
def test_what_no_engine_reads_is_refused(name: str) -> None:
    engine = TEXT[name]()
    for ids in (
        torch.full((1, 2), engine.vocab_size),
        torch.full((1, 2), -1),
        torch.zeros(2, dtype=torch.int64),
        torch.zeros(1, 2),
    ):
        with pytest.raises(BadInput):
            engine.forward(ids)
    cache = engine.new_cache(1, 3)
    with pytest.raises(BadInput, match="fit"):
        engine.forward(torch.zeros(1, 4, dtype=torch.int64), cache)
