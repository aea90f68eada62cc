"""The lean decoder against transformers' own classes, family by family."""

from __future__ import annotations

import pytest
import torch
from transformers_models import VARIANTS, cast, lean, transformers_model

from core.engine.decoder import Decoder
from core.errors import BadInput
from core.files.config.hf_config import from_hf
from kernels import calls


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Float32 sums in another order, and no more."""
    assert (got - want).abs().max() <= 2e-5 * want.abs().max()


def as_good(got: torch.Tensor, theirs: torch.Tensor, exact: torch.Tensor) -> None:
    """No further from the exact logits of the same bf16 weights than transformers' own bf16."""
    ours, others = (got - exact).pow(2).mean().sqrt(), (theirs - exact).pow(2).mean().sqrt()
    assert ours <= 1.25 * others
    assert (got - exact).abs().max() <= 3 * (theirs - exact).abs().max()


def stepwise(decoder: Decoder, ids: torch.Tensor) -> torch.Tensor:
    """A prompt, single tokens, then several at once, all behind one cache."""
    cache = decoder.new_cache(*ids.shape)
    half = ids.shape[1] // 2
    pieces = [decoder.forward(ids[:, :half], cache)]
    pieces += [decoder.forward(ids[:, i : i + 1], cache) for i in range(half, half + 6)]
    pieces += [decoder.forward(ids[:, half + 6 :], cache)]
    assert cache.length == ids.shape[1]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_transformers(variant: str) -> None:
    model = transformers_model(variant)
    decoder = lean(model, "fp32")
    ids = torch.randint(0, decoder.vocab_size, (2, 19))
    with torch.no_grad():
        want = model(ids).logits
    close(decoder.forward(ids), want)
    close(decoder.forward(ids, last_only=True), want[:, -1:])
    close(stepwise(decoder, ids), want)


@pytest.mark.parametrize("variant", VARIANTS)
def test_bf16_logits_are_as_exact_as_those_of_transformers(variant: str) -> None:
    model = cast(transformers_model(variant), torch.bfloat16)
    decoder = lean(model, "bf16")
    ids = torch.randint(0, decoder.vocab_size, (2, 40))
    with torch.no_grad():
        theirs = model(ids).logits.float()
        exact = cast(model, torch.float32)(ids).logits
    as_good(decoder.forward(ids), theirs, exact)
    as_good(stepwise(decoder, ids), theirs, exact)


@pytest.mark.parametrize("variant", ["llama", "mistral-window-5", "qwen3"])
def test_a_long_prompt_behind_a_filled_cache_sees_what_transformers_sees(variant: str) -> None:
    model = transformers_model(variant)
    decoder = lean(model, "fp32")
    ids = torch.randint(0, decoder.vocab_size, (1, 60))
    with torch.no_grad():
        want = model(ids).logits
    cache = decoder.new_cache(1, 60)
    first = decoder.forward(ids[:, :21], cache)
    second = decoder.forward(ids[:, 21:], cache)
    close(torch.cat((first, second), dim=1), want)


# Up to four rows share one order of summation in the bf16 matrix-vector product.
@pytest.mark.parametrize("batch", [2, 3, 4])
def test_a_row_of_a_batch_gets_exactly_the_logits_that_it_gets_alone(batch: int) -> None:
    decoder = lean(transformers_model("llama-odd-widths"), "bf16")
    ids = torch.randint(0, decoder.vocab_size, (batch, 6))

    def decode(rows: torch.Tensor) -> torch.Tensor:
        cache = decoder.new_cache(len(rows), 6)
        return torch.cat([decoder.forward(rows[:, i : i + 1], cache) for i in range(6)], 1)

    assert torch.equal(decode(ids), torch.cat([decode(row[None]) for row in ids]))


def test_tokens_read_together_get_exactly_the_logits_that_they_get_one_by_one() -> None:
    decoder = lean(transformers_model("qwen3"), "bf16")
    ids = torch.randint(0, decoder.vocab_size, (1, 16))
    singly, together = decoder.new_cache(1, 16), decoder.new_cache(1, 16)
    one_by_one = torch.cat([decoder.forward(ids[:, i : i + 1], singly) for i in range(16)], 1)
    in_fours = torch.cat([decoder.forward(ids[:, i : i + 4], together) for i in range(0, 16, 4)], 1)
    assert torch.equal(in_fours, one_by_one)


def test_the_fast_step_runs_our_kernels_and_counts_each_layer() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    cache = decoder.new_cache(1, 8)
    decoder.forward(torch.tensor([[5]]), cache)
    calls.reset()
    decoder.forward(torch.tensor([[7]]), cache)
    ran = {(c["op"], c["name"]): c["calls"] for c in calls.snapshot()}
    assert ran == {
        ("attention", "cpp"): 3,
        ("linear_dense", "gemv-bf16"): 13,
        ("rms_norm", "cpp"): 7,
        ("swiglu", "cpp"): 3,
    }


def test_truncate_forgets_and_the_tokens_can_be_said_again() -> None:
    decoder = lean(transformers_model("qwen3"), "fp32")
    ids = torch.randint(0, decoder.vocab_size, (1, 14))
    cache = decoder.new_cache(1, 20)
    want = decoder.forward(ids, cache)
    cache.truncate(9)
    decoder.forward(torch.tensor([[1, 2, 3]]), cache)
    cache.truncate(9)
    close(decoder.forward(ids[:, 9:], cache), want[:, 9:])
    with pytest.raises(BadInput, match="cannot truncate a cache of 14 tokens to 15"):
        cache.truncate(15)


def test_a_full_cache_a_wrong_batch_and_a_foreign_id_are_refused() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    cache = decoder.new_cache(2, 4)
    decoder.forward(torch.zeros(2, 3, dtype=torch.int64), cache)
    with pytest.raises(BadInput, match="3 of 4 tokens"):
        decoder.forward(torch.zeros(2, 2, dtype=torch.int64), cache)
    with pytest.raises(BadInput, match="batch of 2, not 1"):
        decoder.forward(torch.zeros(1, 1, dtype=torch.int64), cache)
    for bad in (97, -1):
        with pytest.raises(BadInput, match="outside the vocabulary of 97"):
            decoder.forward(torch.tensor([[bad]]))
    assert cache.length == 3


def test_exported_tensors_build_the_same_decoder_and_load_into_transformers() -> None:
    for variant in ("llama-tied", "qwen2", "qwen3-bias"):
        model = transformers_model(variant)
        decoder = lean(model, "fp32")
        tensors = decoder.export_tensors()
        ids = torch.randint(0, decoder.vocab_size, (1, 7))
        again = Decoder.from_tensors(decoder.config, tensors, "fp32")
        assert torch.equal(again.forward(ids), decoder.forward(ids))
        missing, unexpected = model.load_state_dict(tensors, strict=False)
        assert not unexpected
        assert set(missing) <= {"lm_head.weight"}


def test_weight_bytes_count_a_tied_head_once_and_follow_the_formats() -> None:
    tied, untied = (lean(transformers_model(v), "bf16") for v in ("llama-tied", "llama"))
    params = sum(p.numel() for p in transformers_model("llama-tied").parameters())
    assert tied.weight_bytes() == 2 * params
    assert untied.weight_bytes() == 2 * params + 2 * 97 * 48
    before = untied.weight_bytes()
    layer = untied.layers[0]
    dense, packed = layer.gate_up, layer.gate_up.to_format("int8")
    layer.gate_up = packed
    assert untied.weight_bytes() == before - dense.nbytes + packed.nbytes


def test_a_matrix_replaced_in_the_middle_of_a_text_is_used_at_once() -> None:
    decoder = lean(transformers_model("llama"), "bf16")
    cache = decoder.new_cache(1, 8)
    ids = torch.tensor([[3]])
    decoder.forward(ids, cache)
    decoder.forward(ids, cache)
    cache.truncate(1)
    decoder.layers[1].down = decoder.layers[1].down.to_format("int8")
    changed = decoder.forward(ids, cache)
    fresh = decoder.new_cache(1, 8)
    decoder.forward(ids, fresh)
    cache.truncate(1)
    cache.keys.copy_(fresh.keys)
    cache.values.copy_(fresh.values)
    assert torch.equal(decoder.forward(ids, cache), decoder.forward(ids, fresh))
    assert changed.shape == (1, 1, 97)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop("model.norm.weight"), "model.norm.weight .* missing"),
        (lambda t: t.update({"extra": torch.zeros(1)}), "extra is not part of the model"),
        (
            lambda t: t.update({"lm_head.weight": torch.zeros(3, 48)}),
            r"lm_head.weight has the shape \[3, 48\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_config_are_named(change: object, sentence: str) -> None:
    model = transformers_model("llama")
    tensors = dict(model.state_dict())
    change(tensors)  # type: ignore[operator]
    with pytest.raises(BadInput, match=sentence):
        Decoder.from_tensors(from_hf(model.config.to_dict()), tensors, "fp32")


def test_layers_may_have_different_mlp_widths() -> None:
    decoder = lean(transformers_model("llama"), "fp32")
    tensors = decoder.export_tensors()
    for i, width in enumerate((80, 33, 64)):
        for name in ("gate_proj", "up_proj"):
            key = f"model.layers.{i}.mlp.{name}.weight"
            tensors[key] = tensors[key][:width].contiguous()
        key = f"model.layers.{i}.mlp.down_proj.weight"
        tensors[key] = tensors[key][:, :width].contiguous()
    config = decoder.config.with_intermediate_sizes((80, 33, 64))
    small = Decoder.from_tensors(from_hf(config.to_hf()), tensors, "fp32")
    ids = torch.randint(0, 97, (1, 9))
    cache = small.new_cache(1, 9)
    steps = [small.forward(ids[:, i : i + 1], cache) for i in range(9)]
    close(torch.cat(steps, 1), small.forward(ids))
    assert small.weight_bytes() < decoder.weight_bytes()


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_without_compiled_kernels_the_step_runs_through_torch(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cast(transformers_model("qwen3"), torch.bfloat16)
    ids = torch.randint(0, 97, (2, 20))
    want = stepwise(lean(model, dtype), ids)
    plain = "attention=torch-sdpa,rms_norm=torch,swiglu=torch,linear_dense=torch"
    monkeypatch.setenv("TRIMTAB_KERNEL", plain)
    calls.reset()
    got = stepwise(lean(model, dtype), ids)
    assert {call["name"] for call in calls.snapshot()} == {"torch", "torch-sdpa"}
    if dtype == "fp32":
        close(got, want)
    else:
        exact = cast(model, torch.float32)(ids).logits.detach()
        as_good(want, got, exact)
