"""The decoder with a cache in codes: one pass is what steps are, cuts at every length, bytes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from speculating import speculate
from torch import Tensor
from transformers_models import lean, transformers_model

from core.engine.cache.quantized import QuantizedCache
from core.engine.decoder import MATRICES, Decoder
from core.engine.linear import Linear
from core.engine.serve.generate import generate
from core.errors import BadInput
from core.measure.quality.scores import log_probabilities
from kernels import calls
from kernels.kv_codes import PASS_TOKENS, KVFormat

VARIANTS = ["llama", "llama-head-dim-10", "llama-head-dim-64", "qwen3", "qwen2-window-6"]


def coded(variant: str, form: KVFormat, dtype: str = "fp32") -> Decoder:
    decoder = lean(transformers_model(variant), dtype)
    decoder.cache_format = form
    return decoder


class Exact(Linear):
    """A matrix whose product is summed in float64 and then rounded: the same however many rows.

    A float32 product in another order moves a key by its last bit, and now and then a code by one.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return (x.double() @ self.dense().double().T).to(x.dtype)

    def prepare(
        self, x: Tensor, out: Tensor, residual: Tensor | None = None
    ) -> Callable[[], object]:
        if residual is None:
            return lambda: out.copy_(self(x))
        return lambda: torch.add(residual, self(x), out=out)


def exact(decoder: Decoder) -> Decoder:
    for layer in decoder.layers:
        for name in MATRICES:
            setattr(layer, name, Exact(getattr(layer, name).dense()))
    decoder.head = Exact(decoder.head.dense())
    return decoder


@pytest.fixture
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms and activations that do not depend on how many rows there are either."""
    monkeypatch.setenv("TRIMTAB_KERNEL", "rms_norm=torch,swiglu=torch")


def close(got: Tensor, want: Tensor) -> None:
    """Float32 rounding, and no more."""
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()


def distance(got: Tensor, want: Tensor) -> float:
    return float((got - want).pow(2).mean().sqrt())


def one_by_one(decoder: Decoder, ids: Tensor) -> Tensor:
    cache = decoder.new_cache(*ids.shape)
    return torch.cat([decoder.forward(ids[:, i : i + 1], cache) for i in range(ids.shape[1])], 1)


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize("bits", [8, 4, 2])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_pass_without_a_cache_gives_the_logits_of_decoding_with_it(
    variant: str, bits: int
) -> None:
    """What quality is measured with is what generation runs with."""
    decoder = exact(coded(variant, KVFormat(bits, 32, 8)))
    ids = torch.randint(0, decoder.vocab_size, (2, 90))
    whole = decoder.forward(ids)
    close(one_by_one(decoder, ids), whole)
    cache = decoder.new_cache(2, 90)
    parts = [
        decoder.forward(ids[:, a:b], cache) for a, b in ((0, 37), (37, 39), (39, 71), (71, 90))
    ]
    close(torch.cat(parts, 1), whole)
    plain = exact(lean(transformers_model(variant), "fp32")).forward(ids)
    close(whole[:, :39], plain[:, :39])
    # A window that ends within the newest tokens never sees a code.
    if variant == "qwen2-window-6":
        close(whole, plain)
    else:
        assert (whole[:, 45:] - plain[:, 45:]).abs().max() > 1e-4 * plain.abs().max()


@pytest.mark.usefixtures("row_by_row")
def test_held_out_text_is_scored_with_the_cache_however_it_is_read() -> None:
    decoder = exact(coded("llama-head-dim-64", KVFormat(2, 32, 8)))
    ids = torch.randint(0, decoder.vocab_size, (100,))
    stepwise = torch.log_softmax(one_by_one(decoder, ids[None, :-1])[0, -70:], dim=-1)
    calls.reset()
    at_once = torch.cat(list(log_probabilities(decoder, ids, 70)))
    assert ("attention", "cpp-kv2") in {(one["op"], one["name"]) for one in calls.snapshot()}
    in_parts = torch.cat(list(log_probabilities(decoder, ids, 70, most=20 * decoder.vocab_size)))
    assert (at_once - stepwise).abs().max() <= 1e-4
    assert (in_parts - stepwise).abs().max() <= 1e-4
    plain = lean(transformers_model("llama-head-dim-64"), "fp32")
    assert (torch.cat(list(log_probabilities(plain, ids, 70))) - stepwise).abs().max() > 1e-3


def test_fewer_bits_are_further_from_the_16_bit_cache() -> None:
    ids = torch.randint(0, 97, (1, 150))
    plain = torch.log_softmax(lean(transformers_model("llama"), "fp32").forward(ids), -1)
    divergences = []
    for bits in (8, 4, 2):
        mine = torch.log_softmax(coded("llama", KVFormat(bits, 32, 0)).forward(ids), -1)
        divergences.append(float((plain.exp() * (plain - mine)).sum(-1).mean()))
    assert divergences[0] < divergences[1] / 10 < divergences[2] / 100


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_cut_by_a_few_tokens_at_any_length_is_as_if_they_had_never_been_said(dtype: str) -> None:
    decoder = coded("llama", KVFormat(4, 32, 3), dtype)
    ids = torch.randint(0, 97, (2, 120))
    others = torch.randint(0, 97, (2, PASS_TOKENS))
    straight, cut = decoder.new_cache(2, 140), decoder.new_cache(2, 140)
    at, turn = 0, 0
    while at < 120:
        step = (1, 2, 5)[turn % 3]
        step = min(step, 120 - at)
        many = 1 + turn % (PASS_TOKENS if turn % 3 else 8)
        decoder.forward(others[:, :many], cut)
        cut.truncate(at)
        want = decoder.forward(ids[:, at : at + step], straight)
        got = decoder.forward(ids[:, at : at + step], cut)
        assert torch.equal(got, want)
        at, turn = at + step, turn + 1


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize("length", [0, 1, 31, 32, 40, 63, 64, 90, 127, 128, 129])
@pytest.mark.parametrize("form", [KVFormat(8, 32, 8), KVFormat(8, 64, 0)], ids=lambda f: f.name)
def test_a_deep_cut_goes_on_with_what_the_codes_say(form: KVFormat, length: int) -> None:
    decoder = exact(coded("llama-head-dim-64", form))
    plain = exact(lean(transformers_model("llama-head-dim-64"), "fp32"))
    ids = torch.randint(0, 97, (1, 200))
    cache, fresh = decoder.new_cache(1, 200), decoder.new_cache(1, 200)
    decoder.forward(ids[:, :170], cache)
    cache.truncate(150)
    cache.truncate(length)
    assert cache.length == length
    tail = ids[:, length:]
    got = decoder.forward(tail, cache)
    if length:
        decoder.forward(ids[:, :length], fresh)
    want = decoder.forward(tail, fresh)
    # Codes of what had been a code before: once more the error that codes make, no other tokens.
    assert distance(got, want) <= 1.5 * distance(want, plain.forward(ids)[:, length:])
    cache.truncate(0)
    close(decoder.forward(ids, cache), decoder.forward(ids))


def test_a_deep_cut_reads_the_decoded_tokens_and_nothing_else() -> None:
    form = KVFormat(4, 32, 8)
    decoder = coded("llama", form)
    ids = torch.randint(0, 97, (2, 140))
    cache = decoder.new_cache(2, 140)
    assert isinstance(cache, QuantizedCache)
    decoder.forward(ids, cache)
    kept = cache.codes.layer(1)
    scale, low = kept.key_scale[..., 1, 0, :].float(), kept.key_scale[..., 1, 1, :].float()
    nibbles = kept.key_codes[..., 1, :, :]
    codes = torch.cat((nibbles & 15, nibbles >> 4), dim=-1).float()
    want = (codes * scale[..., None] + low[..., None]).transpose(-1, -2)
    cache.truncate(70)
    slots = torch.arange(32, 64) % kept.keys.shape[-2]
    torch.testing.assert_close(kept.keys[..., slots, :], want, rtol=1e-6, atol=1e-7)


def test_speculation_gives_the_tokens_of_plain_decoding() -> None:
    target, draft = coded("llama", KVFormat(4, 32, 4)), coded("qwen3", KVFormat(2, 32, 4))
    prompt = torch.randint(0, 97, (1, 50))
    plain = generate(target, prompt, 70)
    for tokens in (3, 15):
        found = speculate(target, draft, prompt, 70, tokens)
        assert torch.equal(found.ids, plain)


def test_a_row_of_a_batch_gets_the_logits_that_it_gets_alone() -> None:
    decoder = coded("llama", KVFormat(4, 32, 0))
    ids = torch.randint(0, 97, (3, 80))
    close(decoder.forward(ids), torch.cat([decoder.forward(row[None]) for row in ids]))


def test_the_cache_is_really_small() -> None:
    decoder = coded("llama-head-dim-64", KVFormat(4, 64, 32), "bf16")
    cache = decoder.new_cache(2, 4096)
    assert isinstance(cache, QuantizedCache)
    decoder.cache_format = None
    plain = decoder.new_cache(2, 4096)
    assert cache.nbytes == 3 * 2 * 2 * KVFormat(4, 64, 32).head_bytes(64, 4096)
    assert cache.nbytes < 0.31 * plain.nbytes
    assert sum(one.untyped_storage().nbytes() for one in cache.codes.tensors()) == cache.nbytes


def test_a_step_counts_the_kernel_of_its_width() -> None:
    decoder = coded("llama", KVFormat(8, 32, 0), "bf16")
    cache = decoder.new_cache(1, 40)
    decoder.forward(torch.randint(0, 97, (1, 36)), cache)
    calls.reset()
    decoder.forward(torch.tensor([[5]]), cache)
    ran = {(c["op"], c["name"]): c["calls"] for c in calls.snapshot()}
    assert ran["attention", "cpp-kv8"] == 3
    assert ("attention", "cpp") not in ran


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_without_a_compiler_the_codes_are_read_through_torch(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = KVFormat(4, 32, 8)
    ids = torch.randint(0, 97, (2, 70))
    want = coded("llama", form).forward(ids)
    error = distance(want, lean(transformers_model("llama"), "fp32").forward(ids))
    monkeypatch.setenv("TRIMTAB_KERNEL", "attention=torch-kv4")
    decoder = coded("llama", form, dtype)
    calls.reset()
    got = decoder.forward(ids)
    assert {one["name"] for one in calls.snapshot() if one["op"] == "attention"} == {"torch-kv4"}
    # Rounding moves a code by one now and then; the error of the codes is far larger.
    assert distance(got, want) <= 0.3 * error
    assert distance(one_by_one(decoder, ids), want) <= 0.3 * error


def test_a_cache_that_is_full_or_cut_too_far_is_refused() -> None:
    decoder = coded("llama", KVFormat(4))
    cache = decoder.new_cache(1, 40)
    decoder.forward(torch.zeros(1, 38, dtype=torch.int64), cache)
    with pytest.raises(BadInput, match="38 of 40 tokens"):
        decoder.forward(torch.zeros(1, 3, dtype=torch.int64), cache)
    with pytest.raises(BadInput, match="cannot truncate a cache of 38 tokens to 39"):
        cache.truncate(39)
    with pytest.raises(BadInput, match="batch >= 1"):
        decoder.new_cache(0, 4)
