from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from kernels import calls
from kernels.linear_dense import GEMV_ROWS, cpu, linear, prepare, reference
from kernels.registry import ENVIRONMENT, KernelUnavailable

pytestmark = pytest.mark.usefixtures("poisoned", "fresh")

NO_GEMV = cpu.available()
needs_gemv = pytest.mark.skipif(NO_GEMV is not None, reason=NO_GEMV or "")
Make = Callable[[int], torch.Tensor]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 5e-3, torch.float16: 7e-4}
SHAPES = [(1, 1), (5, 7), (8, 32), (9, 33), (64, 576), (577, 100), (33, 1536)]
HERE = cpu.INSTRUCTION_SETS.index(cpu.best_instruction_set()) if NO_GEMV is None else 0


def error(got: torch.Tensor, exact: torch.Tensor, k: int) -> float:
    """The largest error relative to the size that a sum of k products has."""
    assert got.shape == exact.shape
    return float(((got.double() - exact).abs() / (exact.abs() + k**0.5)).max())


def ran() -> list[str]:
    return [str(one["name"]) for one in calls.snapshot()]


@needs_gemv
@pytest.mark.parametrize("instruction_set", cpu.INSTRUCTION_SETS[: HERE + 1])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6, 7, 8, 9, 16, 17, 33])
def test_every_instruction_set_agrees_with_fp64(instruction_set: str, rows: int) -> None:
    torch.manual_seed(rows)
    for n, k in SHAPES:
        x = torch.randn(rows, k).bfloat16()
        weight, bias = torch.randn(n, k).bfloat16(), torch.randn(n).bfloat16()
        residual = torch.randn(rows, n).bfloat16()
        out = torch.empty(rows, n, dtype=torch.bfloat16)
        cpu.Gemv(weight, bias, instruction_set).run(x, out, rows, residual)
        exact = reference.linear(x, weight, bias) + residual.double()
        assert error(out, exact, k) < TOLERANCE[torch.bfloat16], (n, k)


@needs_gemv
def test_threads_change_nothing() -> None:
    before = torch.get_num_threads()
    weight, x = torch.randn(203, 512).bfloat16(), torch.randn(3, 512).bfloat16()
    outs = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        outs.append(linear(x, weight, kernel="gemv-bf16"))
    torch.set_num_threads(before)
    assert all(torch.equal(outs[0], out) for out in outs)


@needs_gemv
@pytest.mark.parametrize("instruction_set", cpu.INSTRUCTION_SETS[: HERE + 1])
def test_nan_and_infinity_pass_through_and_neighbours_stay_clean(instruction_set: str) -> None:
    weight = torch.ones(11, 37).bfloat16()
    weight[3, 36] = float("nan")
    weight[5, 2] = float("inf")
    weight[7] = 0
    out = torch.empty(1, 11, dtype=torch.bfloat16)
    cpu.Gemv(weight, None, instruction_set).run(torch.ones(1, 37).bfloat16(), out, 1)
    wanted = [37.0] * 11
    wanted[3], wanted[5], wanted[7] = float("nan"), float("inf"), 0.0
    assert torch.equal(out.isnan()[0], torch.tensor(wanted).isnan())
    assert out[0].nan_to_num(0, 9).tolist() == torch.tensor(wanted).nan_to_num(0, 9).tolist()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [0, 1, 3, 17])
def test_both_ways_of_calling_agree_with_fp64(dtype: torch.dtype, rows: int) -> None:
    torch.manual_seed(0)
    for n, k in SHAPES:
        weight, bias = torch.randn(n, k).to(dtype), torch.randn(n).to(dtype)
        x = torch.randn(k, rows).to(dtype).t()
        exact = reference.linear(x, weight, bias)
        for y in (linear(x, weight, bias), prepare(weight, bias)(x)):
            assert y.dtype is dtype
            if rows:
                assert error(y, exact, k) < TOLERANCE[dtype]
            else:
                assert y.shape == (0, n)


def test_leading_dimensions_are_kept() -> None:
    weight = torch.randn(6, 40).bfloat16()
    x = torch.randn(2, 3, 40).bfloat16()
    exact = reference.linear(x, weight)
    assert error(linear(x, weight), exact, 40) < 5e-3
    assert error(prepare(weight)(x), exact, 40) < 5e-3
    assert prepare(weight)(x[0, 0]).shape == (6,)


def test_a_weight_that_is_a_transposed_view_is_read_right() -> None:
    weight = torch.randn(40, 6).bfloat16().t()
    x = torch.randn(1, 40).bfloat16()
    assert error(linear(x, weight), reference.linear(x, weight), 40) < 5e-3
    assert error(prepare(weight)(x), reference.linear(x, weight), 40) < 5e-3


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 17])
def test_a_prepared_weight_fills_out_and_adds_the_residual(dtype: torch.dtype, rows: int) -> None:
    weight, bias = torch.randn(19, 65).to(dtype), torch.randn(19).to(dtype)
    x, stream = torch.randn(rows, 65).to(dtype), torch.randn(rows, 19).to(dtype)
    exact = reference.linear(x, weight, bias) + stream.double()
    assert prepare(weight, bias)(x, stream, stream) is stream
    assert error(stream, exact, 65) < 2 * TOLERANCE[dtype]


@needs_gemv
def test_the_kernel_that_ran_is_counted() -> None:
    weight, x = torch.randn(8, 64).bfloat16(), torch.randn(GEMV_ROWS + 1, 64).bfloat16()
    linear(x[:1], weight)
    prepare(weight)(x[:GEMV_ROWS])
    assert calls.snapshot() == [{"op": "linear_dense", "name": "gemv-bf16", "calls": 2}]
    linear(x, weight)
    prepare(weight)(x)
    assert calls.snapshot()[1] == {"op": "linear_dense", "name": "torch", "calls": 2}


@needs_gemv
def test_gradients_are_never_lost() -> None:
    weight = torch.randn(8, 64).bfloat16().requires_grad_()
    x = torch.randn(1, 64).bfloat16()
    linear(x, weight).sum().backward()
    assert weight.grad is not None
    ready = prepare(weight.detach())
    x.requires_grad_()
    ready(x).sum().backward()
    assert x.grad is not None
    assert ran() == ["torch"]
    with pytest.raises(KernelUnavailable, match="cannot compute gradients"):
        linear(x, weight, kernel="gemv-bf16")
    with torch.no_grad():
        linear(x, weight)
    assert "gemv-bf16" in ran()


@needs_gemv
def test_a_named_kernel_runs_whatever_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, x = torch.randn(8, 64).bfloat16(), torch.randn(GEMV_ROWS + 20, 64).bfloat16()
    linear(x, weight, kernel="gemv-bf16")
    assert ran() == ["gemv-bf16"]
    monkeypatch.setenv(ENVIRONMENT, "linear_dense=torch")
    linear(x[:1], weight)
    assert prepare(weight).kernel == "torch"


@needs_gemv
def test_a_prepared_weight_outlives_the_tensor_it_came_from() -> None:
    parameter = torch.nn.Parameter(torch.full((8, 64), 2.0).bfloat16())
    ready = prepare(parameter)
    parameter.data = torch.zeros(8, 64).bfloat16()
    del parameter
    assert ready(torch.ones(1, 64).bfloat16()).tolist() == [[128.0] * 8]


@pytest.mark.parametrize(
    ("x", "weight", "bias", "words"),
    [
        (torch.ones(1, 5), torch.ones(3, 4), None, r"x must be \[\.\.\., 4\]"),
        (torch.ones(()), torch.ones(3, 4), None, r"x must be"),
        (torch.ones(1, 4).bfloat16(), torch.ones(3, 4), None, "bfloat16"),
        (torch.ones(1, 4), torch.ones(4), None, r"weight must be \[N, K\]"),
        (torch.ones(1, 0), torch.ones(3, 0), None, r"N, K >= 1"),
        (torch.ones(1, 4), torch.ones(3, 4), torch.ones(4), r"bias must be \[3\]"),
        (torch.ones(1, 4), torch.ones(3, 4), torch.ones(3).half(), "bias must be"),
        (torch.ones(1, 4).int(), torch.ones(3, 4).int(), None, "takes fp32, bf16 and fp16"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        linear(x, weight, bias)
    with pytest.raises(ValueError, match=words):
        prepare(weight, bias)(x)


@pytest.mark.parametrize("rows", [1, GEMV_ROWS + 1])
@pytest.mark.parametrize("side", ["out", "residual"])
@pytest.mark.parametrize(
    "make",
    [
        lambda rows: torch.zeros(rows + 1, 4).bfloat16(),
        lambda rows: torch.zeros(rows, 4),
        lambda rows: torch.zeros(rows, 8).bfloat16()[:, ::2].t().contiguous().t()[:, :3],
        lambda rows: torch.zeros(rows, 4, device="meta").bfloat16(),
    ],
)
def test_a_wrong_out_or_residual_is_refused(rows: int, side: str, make: Make) -> None:
    ready = prepare(torch.ones(4, 8).bfloat16())
    x = torch.ones(rows, 8).bfloat16()
    with pytest.raises(ValueError, match=f"{side} must be contiguous"):
        ready(x, **{side: make(rows)})
    if side == "out":
        with pytest.raises(ValueError, match="out must be contiguous"):
            ready.bind(x, make(rows))


@pytest.mark.parametrize("rows", [1, 3, GEMV_ROWS + 1])
def test_a_bound_step_reads_its_buffers_anew_each_time(rows: int) -> None:
    weight = torch.randn(19, 65).bfloat16()
    x, stream = torch.randn(rows, 65).bfloat16(), torch.randn(rows, 19).bfloat16()
    step = prepare(weight).bind(x, stream, stream)
    for _ in range(2):
        x.copy_(torch.randn(rows, 65))
        exact = reference.linear(x, weight) + stream.double()
        step()
        assert error(stream, exact, 65) < 1e-2
    assert sum(int(one["calls"]) for one in calls.snapshot()) == 2


@needs_gemv
def test_a_missing_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old:
        gemv_best_isa = staticmethod(lambda: 0)

    monkeypatch.setattr(cpu, "_library", Old)
    with pytest.raises(KernelUnavailable, match="no avx2 instructions"):
        cpu.Gemv(torch.ones(4, 8).bfloat16(), None, "avx2")
