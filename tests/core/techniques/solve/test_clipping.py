"""Searched ranges of groups: never worse than the whole range, exact where that is known."""

from __future__ import annotations

import pytest
import torch

from core.techniques.solve import clipping
from core.techniques.solve.clipping import group_blocks, rounding_loss, search_scales
from kernels.linear_lowbit.codes import grouped, quantize

pytestmark = pytest.mark.usefixtures("one_thread")


def weights(n: int, k: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, k, generator=torch.Generator().manual_seed(seed))


def test_blocks_are_the_diagonal_of_the_hessian() -> None:
    hessian = weights(70, 70)
    blocks = group_blocks(hessian, 32)
    assert blocks.shape == (3, 32, 32)
    assert torch.equal(blocks[1], hessian[32:64, 32:64])
    assert torch.equal(blocks[2, :6, :6], hessian[64:, 64:])
    assert not bool(blocks[2, 6:].any())
    assert not bool(blocks[2, :, 6:].any())
    assert torch.equal(group_blocks(hessian, 1000)[0], hessian)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_loss_is_the_error_of_the_groups_output(symmetric: bool) -> None:
    weight, inputs = weights(3, 70), weights(200, 70, 1)
    form = quantize(weight, 3, 32, symmetric=symmetric)
    blocks = group_blocks(inputs.T @ inputs, 32)
    found = rounding_loss(grouped(weight, 32), form.scale, form.zero, 3, blocks)
    lost = (form.dequantize() - weight).double()
    for g, begin in enumerate((0, 32, 64)):
        part = slice(begin, begin + 32)
        expected = (inputs[:, part].double() @ lost[:, part].T).square().sum(dim=0)
        assert torch.allclose(found[:, g].double(), expected, rtol=1e-4)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("how", ["blocks", "diagonals", "none"])
def test_no_group_loses_more_than_with_its_whole_range(
    bits: int, symmetric: bool, how: str
) -> None:
    weight, inputs = weights(6, 70), weights(200, 70, 1)
    blocks = {
        "blocks": group_blocks(inputs.T @ inputs, 32),
        "diagonals": torch.rand(3, 32, generator=torch.Generator().manual_seed(2)),
        "none": None,
    }[how]
    whole = quantize(weight, bits, 32, symmetric=symmetric)
    scale, zero = search_scales(weight, bits, 32, symmetric, blocks)
    groups = grouped(weight, 32)
    found = rounding_loss(groups, scale, zero, bits, blocks)
    before = rounding_loss(groups, whole.scale, whole.zero, bits, blocks)
    assert bool((found <= before).all())
    if bits < 8:
        assert found.sum() < 0.95 * before.sum()
    assert torch.equal(scale, scale.half().float())
    assert (zero is None) == symmetric


def test_a_group_that_is_exact_keeps_its_range() -> None:
    weight = torch.arange(16.0).repeat(2, 2) * 0.5
    scale, zero = search_scales(weight, 4, 16, False)
    assert torch.equal(scale, torch.full((2, 2), 0.5))
    assert zero is not None
    assert torch.equal(zero, torch.zeros(2, 2))


def test_one_outlier_is_cut_for_the_many() -> None:
    weight = torch.linspace(-1, 1, 128)[None]
    weight[0, 5] = 3.0
    scale, _ = search_scales(weight, 3, 128, True)
    whole = quantize(weight, 3, 128, symmetric=True)
    assert float(scale.abs()) < 0.8 * float(whole.scale.abs())


@pytest.mark.parametrize("symmetric", [False, True])
def test_zeros_and_one_value_are_exact(symmetric: bool) -> None:
    weight = torch.zeros(3, 40)
    weight[1], weight[2] = 2.0, -0.5
    scale, zero = search_scales(weight, 4, 32, symmetric)
    lost = rounding_loss(grouped(weight, 32), scale, zero, 4)
    assert bool((lost < 1e-4).all())
    assert bool(scale.isfinite().all())


def test_rows_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = weights(7, 40)
    whole = search_scales(weight, 3, 32, False)
    monkeypatch.setitem(clipping.AT_ONCE, "cpu", 128)
    parts = search_scales(weight, 3, 32, False)
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))


def test_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        search_scales(torch.tensor([[1.0, float("inf")]]), 4, 2, True)
