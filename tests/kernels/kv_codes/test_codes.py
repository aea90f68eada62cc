"""A KV cache in codes: the rule of which tokens are codes, the packing, the error, the bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.kv_codes import BITS, GROUPS, PASS_TOKENS, KVFormat
from kernels.kv_codes.codes import (
    allocate,
    decode_keys,
    decode_values,
    encode_keys,
    encode_values,
    pack,
    quantize,
    unpack,
)

FORMATS = [KVFormat(bits, group) for bits in BITS for group in GROUPS]
WIDTHS = (1, 7, 16, 20, 32, 33, 64, 80, 128)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(5)


@given(st.sampled_from(GROUPS), st.integers(0, 200), st.integers(1, 2000))
def test_at_least_the_residual_and_less_than_a_block_more_stay_in_16_bit(
    group: int, residual: int, length: int
) -> None:
    form = KVFormat(4, group, residual)
    coded = form.coded(length)
    assert coded % group == 0
    assert 0 <= coded <= length
    assert length - coded < residual + group
    assert length - coded >= min(length, residual)
    # A pass appends its tokens before it attends: the ring holds what its first token reads.
    assert form.slots(10**6) >= length - coded + PASS_TOKENS - 1


@given(
    st.sampled_from(BITS), st.integers(1, 70), st.lists(st.integers(0, 255), min_size=1, max_size=3)
)
@settings(max_examples=60, deadline=None)
def test_codes_come_back_out_of_their_bytes(bits: int, size: int, seeds: list[int]) -> None:
    codes = torch.tensor([[(s * 7 + i * 13) % 2**bits for i in range(size)] for s in seeds])
    packed = pack(codes.to(torch.uint8), bits)
    assert packed.shape[-1] == -(-size * bits // 8)
    assert torch.equal(unpack(packed, bits, size).long(), codes)


@pytest.mark.parametrize("bits", BITS)
def test_the_bit_positions_lie_as_the_docstring_says(bits: int) -> None:
    size = 40
    codes = torch.randint(0, 2**bits, (size,), dtype=torch.uint8)
    packed = pack(codes, bits).numpy()
    for i in range(size):
        byte = packed[i % len(packed)]
        assert (int(byte) >> (bits * (i // len(packed)))) & (2**bits - 1) == codes[i]


@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_half_a_step_and_the_rounding_of_the_minimum(bits: int) -> None:
    x = torch.randn(50, 32) * torch.logspace(-3, 3, 50)[:, None] + torch.randn(50, 1)
    codes, scale, low = quantize(x, bits)
    back = codes.double() * scale.double()[:, None] + low.double()[:, None]
    step = (x.double().amax(1) - x.double().amin(1)) / (2**bits - 1)
    # Rounding to fp16: the minimum by 2^-11 of itself, the last code by that of the whole range.
    allowed = step / 2 * (1 + 2**-10) + x.double().abs().amax(1) * 2**-10 + 1e-7
    assert ((back - x).abs().amax(1) <= allowed).all()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
@pytest.mark.parametrize("dim", WIDTHS)
def test_keys_go_by_channel_and_values_by_token(form: KVFormat, dim: int) -> None:
    size, levels = form.group_size, 2**form.bits - 1
    x = torch.randn(3, size, dim)

    def by_hand(group: np.ndarray) -> np.ndarray:
        low, high = group.min(), group.max()
        step = np.float32(np.float16((high - low) / np.float32(levels)))
        low = np.float32(np.float16(low))
        codes = np.zeros_like(group) if step == 0 else np.rint((group - low) / step)
        return np.clip(codes, 0, levels) * step + low

    keys = decode_keys(*encode_keys(x, form), form).numpy()
    values = decode_values(*encode_values(x, form), form, dim).numpy()
    for head in range(3):
        for channel in range(dim):
            want = by_hand(x[head, :, channel].numpy())
            np.testing.assert_allclose(keys[head, :, channel], want, rtol=1e-6, atol=1e-7)
        for token in range(size):
            for first in range(0, dim, size):
                want = by_hand(x[head, token, first : first + size].numpy())
                got = values[head, token, first : first + size]
                np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, -3.25, 1e-9, 70000.0])
def test_a_constant_group_comes_back_as_itself_or_the_end_of_fp16(bits: int, value: float) -> None:
    codes, scale, low = quantize(torch.full((32,), value), bits)
    assert not codes.any()
    assert scale == 0
    assert low.double() == pytest.approx(min(value, 65504.0), abs=3e-8)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_group_with_a_number_that_is_none_becomes_nan_and_no_other(bad: float) -> None:
    form = KVFormat(4)
    x = torch.randn(32, 40)
    x[3, 5] = bad
    keys = decode_keys(*encode_keys(x, form), form)
    assert keys[:, 5].isnan().all()
    assert keys.isnan().sum() == 32
    values = decode_values(*encode_values(x, form), form, 40)
    assert values[3, :32].isnan().all()
    assert values.isnan().sum() == 32


def test_fewer_bits_cost_more_error() -> None:
    x = torch.randn(4, 32, 64)
    errors = []
    for bits in BITS:
        form = KVFormat(bits)
        errors.append(float((decode_keys(*encode_keys(x, form), form) - x).pow(2).mean()))
    assert errors[0] * 100 < errors[1]
    assert errors[1] * 10 < errors[2]


@pytest.mark.parametrize("capacity", [1, 63, 64, 80, 81, 500])
@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_the_arithmetic_counts_every_byte_that_is_allocated(form: KVFormat, capacity: int) -> None:
    for dim in (10, 64, 80):
        made = allocate(form, (3, 2, 5), dim, capacity, torch.bfloat16)
        assert made.nbytes == 3 * 2 * 5 * form.head_bytes(dim, capacity)
    made = allocate(form, (2, 1), 20, capacity, torch.float32)
    assert made.nbytes == 2 * form.head_bytes(20, capacity, item=4)


def test_long_caches_approach_their_bits() -> None:
    plain = 2 * 64 * 2 * 100_000
    shares = {bits: KVFormat(bits, 64).head_bytes(64, 100_000) / plain for bits in BITS}
    # 32 bits of scale and minimum for 64 codes: half a bit more for each.
    assert shares == {bits: pytest.approx((bits + 0.5) / 16, rel=0.01) for bits in BITS}


def test_what_a_token_reads_are_codes_and_the_rest() -> None:
    form = KVFormat(4, 32, 32)
    assert form.read_bytes(64, 40) == 2 * 40 * 64 * 2
    assert form.read_bytes(64, 100) == 2 * form.block_bytes(64) + 2 * 36 * 64 * 2
    assert form.block_bytes(64) == 64 * 16 + 64 * 4 + 32 * 32 + 32 * 2 * 4


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ((3,), "bits must be 8, 4 or 2, not 3"),
        ((4, 16), "group_size must be 32 or 64, not 16"),
        ((4, 32, -1), "residual must lie between 0 and 4096"),
    ],
)
def test_what_no_kernel_reads_is_refused(fields: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        KVFormat(*fields)
