"""Bound calls joined into one program do what they do one by one, and are counted."""

from __future__ import annotations

import pytest
import torch

from kernels import calls, linear_dense, rms_norm, swiglu
from kernels.program import BoundCall, Program, join


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_chain_of_dependent_calls_gives_what_the_calls_give_alone(threads: int) -> None:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        weights = [torch.randn(384, 192).bfloat16() * 0.1 for _ in range(12)]
        backs = [torch.randn(192, 192).bfloat16() * 0.1 for _ in range(12)]
        start = torch.randn(3, 192).bfloat16()

        def chain(x: torch.Tensor) -> list[object]:
            h, wide, gated = (
                torch.empty_like(x),
                torch.empty(3, 384).bfloat16(),
                torch.empty_like(x),
            )
            steps: list[object] = []
            for up, back in zip(weights, backs, strict=True):
                steps += [
                    rms_norm.prepare(x, torch.ones(192).bfloat16(), 1e-5, h),
                    linear_dense.prepare(up).bind(h, wide),
                    swiglu.prepare(wide, gated),
                    linear_dense.prepare(back).bind(gated, x, x),
                ]
            return steps

        apart, together = start.clone(), start.clone()
        for step in chain(apart):
            step()  # type: ignore[operator]
        joined = join(chain(together))  # type: ignore[arg-type]
        assert len(joined) == 1
        assert isinstance(joined[0], Program)
        for _ in range(20):
            together.copy_(start)
            joined[0]()
            assert torch.equal(together, apart)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("fresh")
def test_other_steps_keep_their_place_and_every_call_is_counted() -> None:
    x, out, ones = torch.randn(1, 8), torch.empty(1, 8), torch.ones(8)
    order: list[str] = []
    norm = rms_norm.prepare(x, ones, 1e-5, out)
    assert isinstance(norm, BoundCall)
    steps = join([norm, norm, lambda: order.append(str(out[0, 0])), norm])
    assert [isinstance(step, Program) for step in steps] == [True, False, True]
    for step in steps:
        step()
    assert order == [str(out[0, 0])]
    assert calls.snapshot() == [{"op": "rms_norm", "name": "cpp", "calls": 3}]
