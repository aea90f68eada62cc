"""Rounding that gradients pass through: its values are the packed ones, its gradients LSQ's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.techniques.solve.fake import (
    EDGE,
    FakeLinear,
    FakeQuantized,
    fake_quantize,
    nearest_form,
    stack,
)
from kernels.linear_lowbit import quantize

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = [(1, 1, 32), (3, 32, 32), (5, 33, 32), (4, 95, 64), (7, 128, 128), (2, 31, 128)]


def fake(weight: Tensor, bits: int, group: int, symmetric: bool) -> FakeQuantized:
    return FakeQuantized(weight, nearest_form(weight, bits, group, symmetric))


def lsq(weight: Tensor, scale: Tensor, low: int, high: int, gradient: Tensor) -> tuple[Tensor, ...]:
    """Esser et al. 2020, equations 1 to 3 and 5, for one scale: value, d weight, d scale."""
    steps = weight / scale
    rounded = steps.clamp(low, high).round()
    inside = (steps > low) & (steps < high)
    slope = torch.where(inside, rounded - steps, torch.where(steps <= low, low, high))
    return rounded * scale, gradient * inside, (gradient * slope).sum()


def test_the_gradients_of_an_example_computed_by_hand() -> None:
    weight = torch.tensor([[[-3.0, -0.6, 0.2, 0.9, 5.0]]], requires_grad=True)
    scale = torch.ones(1, 1, requires_grad=True)
    rounded = fake_quantize(weight, scale, torch.full((1, 1), 2.0), bits=2)
    assert rounded.flatten().tolist() == [-2, -1, 0, 1, 1]
    rounded.sum().backward()
    assert weight.grad is not None
    assert scale.grad is not None
    assert weight.grad.flatten().tolist() == [0, 1, 1, 1, 0]
    assert scale.grad.item() == pytest.approx(-2 + (-1 + 0.6) + (0 - 0.2) + (1 - 0.9) + 1)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("zero", ["middle", "own"])
def test_value_and_gradients_are_the_papers_in_fp64(bits: int, zero: str) -> None:
    random = torch.Generator().manual_seed(bits)
    weight = torch.randn(3, 2, 17, generator=random)
    scale = torch.tensor([[0.5, -0.25], [0.125, 1.0], [2.0, -0.75]])
    zeros = torch.full((3, 2), 2.0 ** (bits - 1))
    if zero == "own":
        zeros = torch.randint(0, 2**bits, (3, 2), generator=random).float()
    gradient = torch.randn(3, 2, 17, generator=random)
    weight.requires_grad_(True)
    scale.requires_grad_(True)
    found = fake_quantize(weight, scale, zeros, bits)
    found.backward(gradient)
    assert weight.grad is not None
    assert scale.grad is not None
    for row in range(3):
        for group in range(2):
            at = row, group
            low = -int(zeros[at])
            value, of_weight, of_scale = lsq(
                weight.detach()[at].double(),
                scale.detach()[at].double(),
                low,
                low + 2**bits - 1,
                gradient[at].double(),
            )
            assert torch.allclose(found[at].double(), value, atol=1e-6)
            assert torch.allclose(weight.grad[at].double(), of_weight, atol=1e-6)
            assert scale.grad[at].item() == pytest.approx(of_scale.item(), abs=1e-4)


@pytest.mark.parametrize(("n", "k", "group"), SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_what_training_sees_is_what_is_packed_bit_by_bit(
    n: int, k: int, group: int, bits: int, symmetric: bool
) -> None:
    random = torch.Generator().manual_seed(n * k)
    one = fake(torch.randn(n, k, generator=random), bits, group, symmetric)
    with torch.no_grad():
        # As after training: scales that fp16 does not hold, weights outside the range.
        one.scale *= 1.0001
        one.weight += torch.randn(n, k, generator=random)
    form = one.form()
    assert torch.equal(one(), form.dequantize())
    assert form.format.startswith(f"int{bits}")
    assert (form.zero is None) == symmetric
    assert torch.equal(form.scale, form.scale.half().float())


def test_it_starts_no_farther_from_the_weights_than_rounding_to_nearest() -> None:
    weight = torch.randn(16, 96, generator=torch.Generator().manual_seed(3))
    for symmetric in (True, False):
        start = fake(weight, 3, 32, symmetric)().detach()
        nearest = quantize(weight, 3, 32, symmetric=symmetric).dequantize()
        assert (start - weight).square().sum() < (nearest - weight).square().sum()


def test_rows_of_zeros_stay_zero_and_get_finite_gradients() -> None:
    weight = torch.zeros(3, 40)
    weight[1] = 2.5
    one = fake(weight, 3, 32, symmetric=True)
    rounded = one()
    rounded.square().sum().backward()
    assert rounded[0].abs().max() == 0
    assert torch.allclose(rounded[1], weight[1], atol=1e-2)
    for gradient in (one.weight.grad, one.scale.grad):
        assert gradient is not None
        assert bool(gradient.isfinite().all())
        assert gradient[0].abs().max() == 0


@pytest.mark.parametrize(("n", "k", "group"), SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_it_starts_at_the_codes_it_was_given_and_near_the_weights(
    n: int, k: int, group: int, bits: int, symmetric: bool
) -> None:
    random = torch.Generator().manual_seed(n + k)
    weight = torch.randn(n, k, generator=random)
    nearest = nearest_form(weight, bits, group, symmetric)
    moved = torch.randint(-1, 2, (n, k), generator=random)
    codes = (nearest.codes.int() + moved).clamp(0, 2**bits - 1).to(torch.uint8)
    form = replace(nearest, codes=codes)
    one = FakeQuantized(weight, form)
    assert torch.equal(one.form().codes, codes)
    assert torch.equal(one.form().scale, form.scale)
    assert torch.equal(one().detach(), form.dequantize())
    # A weight that lies beside its code is not moved.
    scales = form.scale.repeat_interleave(min(group, k), 1)[:, :k].abs()
    near = (weight - form.dequantize()).abs() < (EDGE - 0.01) * scales
    assert torch.allclose(one.weight.detach()[near], weight[near], atol=1e-5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(bad: float) -> None:
    weight = torch.ones(2, 32)
    weight[1, 3] = bad
    with pytest.raises(ValueError, match="NaN or infinite"):
        fake(weight, 4, 32, symmetric=True)


def test_the_columns_behind_the_last_group_get_no_gradient() -> None:
    one = fake(torch.randn(2, 33), 4, 32, symmetric=True)
    one().sum().backward()
    assert one.weight.grad is not None
    assert one.weight.grad.shape == (2, 33)


@pytest.mark.parametrize("symmetric", [True, False])
def test_forms_on_top_of_each_other_are_the_rows_of_all(symmetric: bool) -> None:
    parts = [fake(torch.randn(n, 40), 3, 32, symmetric).form() for n in (1, 4, 2)]
    whole = stack(parts)
    assert torch.equal(whole.dequantize(), torch.cat([part.dequantize() for part in parts]))


def test_a_fake_linear_multiplies_with_the_rounded_matrix() -> None:
    one = fake(torch.randn(3, 32), 2, 32, symmetric=True)
    x, bias = torch.randn(2, 5, 32), torch.randn(3)
    expected = x.double() @ one().double().T + bias
    assert torch.allclose(FakeLinear(one, bias)(x).double(), expected, atol=1e-5)
