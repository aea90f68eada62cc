"""An adapter beside a matrix: the sum in fp64, nothing while B is zero, and the bound step."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.engine.adapted import Adapted
from core.engine.linear import Linear
from core.engine.load.load import random_engine
from core.files.config.decoder_config import DecoderConfig
from kernels import calls, linear_dense
from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.program import BoundCalls, join

SHAPES = [(1, 1, 1), (1, 33, 1), (5, 32, 2), (48, 95, 8), (131, 64, 16), (64, 129, 3)]
FORMATS = ["int4-g32", "int3-g32", "nf4-g64", "int8", "bf16"]


def made(
    n: int, k: int, rank: int, format_: str = "int4-g32", bias: bool = False, scale: float = 1.0
) -> Adapted:
    base = Linear.from_dense(
        torch.randn(n, k), torch.randn(n) if bias else None, format_, torch.bfloat16
    ).kernel_weight
    a, b = torch.randn(rank, k) / k**0.5, scale * torch.randn(n, rank)
    return Adapted(base, a.to(base.dtype), b.to(base.dtype))


def by_hand(weight: Adapted, x: Tensor) -> Tensor:
    y = x.double() @ weight.base.dequantize().double().T
    y = y + x.double() @ weight.a.weight.double().T @ weight.b.weight.double().T
    return y if weight.bias is None else y + weight.bias.double()


def near(found: Tensor, expected: Tensor) -> None:
    # Three roundings to bf16 of sums that may cancel.
    size = expected.abs().max().clamp(min=1)
    assert (found.double() - expected).abs().max() <= 0.02 * size


@pytest.mark.parametrize(("n", "k", "rank"), SHAPES)
@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("bias", [False, True])
def test_it_is_the_sum_of_both_products(
    n: int, k: int, rank: int, format_: str, bias: bool
) -> None:
    weight = made(n, k, rank, format_, bias)
    for shape in ((1, k), (3, k), (2, 9, k), (40, k)):
        x = torch.randn(shape, dtype=torch.bfloat16)
        found = weight(x)
        assert found.shape == (*shape[:-1], n)
        assert found.dtype is torch.bfloat16
        near(found, by_hand(weight, x))


@pytest.mark.parametrize("rows", [1, 2, 16, 17])
@pytest.mark.parametrize("bias", [False, True])
def test_the_bound_call_adds_the_residual_that_it_overwrites(rows: int, bias: bool) -> None:
    weight = made(48, 64, 8, bias=bias)
    x, out = torch.randn(rows, 64).bfloat16(), torch.randn(rows, 48).bfloat16()
    expected = out.double() + by_hand(weight, x)
    bound = weight.bind(x, out, residual=out)
    bound()
    near(out, expected)


def test_the_bound_call_reads_x_again_at_every_run() -> None:
    weight = made(33, 40, 4)
    x, out = torch.zeros(2, 40).bfloat16(), torch.empty(2, 33).bfloat16()
    bound = weight.bind(x, out)
    for _ in range(2):
        x.copy_(torch.randn(2, 40))
        bound()
        near(out, by_hand(weight, x))


def test_the_bound_kernels_join_one_program() -> None:
    weight = made(64, 64, 8)
    bound = weight.bind(torch.zeros(1, 64).bfloat16(), torch.zeros(1, 64).bfloat16())
    if not isinstance(bound, BoundCalls):
        pytest.skip("no C++ kernel here")
    assert [call.op for call in bound] == ["linear_lowbit", "linear_dense", "linear_dense"]
    assert len(join([bound, bound])) == 1


def test_with_b_at_zero_nothing_changes() -> None:
    for format_ in FORMATS:
        weight = made(64, 96, 8, format_, bias=True, scale=0.0)
        x = torch.randn(5, 96).bfloat16()
        assert torch.equal(weight(x), weight.base(x))
        assert torch.equal(weight.dequantize(), weight.base.dequantize())


def test_it_tells_what_it_keeps() -> None:
    weight = made(64, 96, 8, "nf4-g64")
    assert weight.format == "nf4-g64+r8"
    assert (weight.n, weight.k, weight.rank) == (64, 96, 8)
    linear = Linear.from_kernel(weight)
    base = sum(one.nbytes for one in weight.base.tensors())
    assert linear.nbytes == base + 2 * 8 * (64 + 96)
    expected = weight.base.dequantize() + weight.b.weight.float() @ weight.a.weight.float()
    assert torch.equal(linear.dense(), expected)


def test_fp32_runs_through_torch() -> None:
    base = LowBitWeight(quantize(torch.randn(9, 33), 3, 32), dtype=torch.float32)
    weight = Adapted(base, torch.randn(2, 33), torch.randn(9, 2))
    x = torch.randn(4, 33)
    assert torch.allclose(weight(x).double(), by_hand(weight, x), atol=1e-4)
    out = torch.empty(4, 9)
    weight.bind(x, out)()
    assert torch.allclose(out.double(), by_hand(weight, x), atol=1e-4)


def test_no_rows_give_no_rows() -> None:
    assert made(5, 32, 2)(torch.zeros(0, 32).bfloat16()).shape == (0, 5)


@pytest.mark.parametrize(
    ("a", "b"), [((2, 31), (5, 2)), ((2, 32), (5, 3)), ((0, 32), (5, 0)), ((2, 32), (4, 2))]
)
def test_adapters_that_do_not_fit_are_refused(a: tuple[int, int], b: tuple[int, int]) -> None:
    base = linear_dense.prepare(torch.zeros(5, 32))
    with pytest.raises(ValueError, match=r"a and b must be \[r, 32\] and \[5, r\]"):
        Adapted(base, torch.zeros(a), torch.zeros(b))


def test_adapters_of_another_dtype_are_refused() -> None:
    base = linear_dense.prepare(torch.zeros(5, 32))
    with pytest.raises(ValueError, match=r"a and b must be torch\.float32"):
        Adapted(base, torch.zeros(2, 32).bfloat16(), torch.zeros(5, 2).bfloat16())


def test_a_decoder_with_adapters_steps_as_it_reads_a_prompt_and_counts_both_kernels() -> None:
    config = DecoderConfig(
        family="llama", vocab_size=131, hidden_size=64, num_layers=2, num_heads=4,
        num_kv_heads=2, head_dim=16, intermediate_sizes=(96, 96), max_positions=64,
    )  # fmt: skip
    decoder = random_engine(config, "bf16", 3)
    for layer in decoder.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            base = getattr(layer, name).to_format("int3-g32").kernel_weight
            a = torch.randn(8, base.k).bfloat16() / base.k**0.5
            b = 0.05 * torch.randn(base.n, 8).bfloat16()
            setattr(layer, name, Linear.from_kernel(Adapted(base, a, b)))
    ids = torch.randint(0, 131, (1, 12))
    whole = decoder.forward(ids)
    cache = decoder.new_cache(1, 12)
    decoder.forward(ids[:, :8], cache)
    calls.reset()
    steps = [decoder.forward(ids[:, i : i + 1], cache) for i in range(8, 12)]
    counted = {one["op"]: one["calls"] for one in calls.snapshot()}
    near(torch.cat(steps, 1), whole[:, 8:].double())
    assert counted["linear_lowbit"] == 4 * 8
    # Both sides of eight adapters, and the dense head.
    assert counted["linear_dense"] == 4 * (2 * 8 + 1)
