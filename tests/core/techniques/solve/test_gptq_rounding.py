"""GPTQ on one matrix, against the plain formulas in fp64 and on hostile matrices."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from core.techniques.solve.gptq_rounding import (
    Effort,
    Grid,
    gptq,
    loss,
    quantize_by_inputs,
    refit_scales,
    round_in_order,
)
from core.techniques.solve.hessian import best_float, factor
from core.techniques.solve.inputs import Inputs
from kernels.linear_lowbit.codes import LowBit

pytestmark = pytest.mark.usefixtures("one_thread")


def case(n: int, k: int, seed: int = 0, rows: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """(weight [n, k], inputs [rows, k] whose columns go together, their Hessian)."""
    random = torch.Generator().manual_seed(seed)
    mixed = torch.randn(rows, k, generator=random) @ torch.randn(k, k, generator=random)
    inputs = mixed * torch.rand(k, generator=random).add(0.1)
    return torch.randn(n, k, generator=random), inputs, 2 / rows * inputs.T @ inputs


def optimal_brain(weight: Tensor, start: LowBit, hessian: Tensor, order: list[int]) -> Tensor:
    """Codes of rounding column by column, the columns left set anew each time to what is best for
    the errors made so far: D_F = -D_Q H_QF H_FF^-1, by a solve in fp64 and no formula of GPTQ's.
    """
    wide, exact = hessian.double(), weight.double()
    now, codes = exact.clone(), torch.zeros_like(start.codes)
    for step, column in enumerate(order):
        g = column // start.group_size
        scale, zero = start.scale[:, g].double(), start.zeros()[:, g].double()
        code = (now[:, column] / scale + zero).round().clamp(0, 2**start.bits - 1)
        codes[:, column] = code.to(torch.uint8)
        now[:, column] = (code - zero) * scale
        done, left = order[: step + 1], order[step + 1 :]
        if left:
            made = (now - exact)[:, done] @ wide[done][:, left]
            now[:, left] = exact[:, left] - torch.linalg.solve(wide[left][:, left], made.T).T
    return codes


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(("n", "k", "group"), [(5, 48, 32), (1, 37, 32), (3, 150, 64), (4, 20, 0)])
def test_codes_are_those_of_optimal_brain_quantization_by_brute_force(
    n: int, k: int, group: int, act_order: bool, symmetric: bool
) -> None:
    weight, _, hessian = case(n, k)
    grid = Grid(3, group, symmetric)
    start = grid.nearest(weight)
    damping = 0.02
    factored = factor(hessian, damping, act_order)
    found = round_in_order(weight, start.scale, start.zero, 3, grid.size(k), factored)
    order = list(range(k))
    if act_order:
        order.sort(key=lambda column: -float(hessian[column, column]))
    damped = hessian + damping * hessian.diagonal().mean() * torch.eye(k)
    expected = optimal_brain(weight, start, damped, order)
    # In fp32 a value in the middle of two codes may go either way, and carries others along.
    assert float((found == expected).float().mean()) > 0.97
    assert not torch.equal(found, start.codes)


def test_with_a_diagonal_hessian_it_rounds_to_nearest() -> None:
    weight, _, _ = case(6, 70)
    hessian = torch.diag(torch.rand(70, generator=torch.Generator().manual_seed(1)) + 0.1)
    for symmetric in (False, True):
        grid = Grid(4, 32, symmetric)
        found, nearest = gptq(weight, hessian, grid), grid.nearest(weight)
        assert torch.equal(found.codes, nearest.codes)
        assert torch.equal(found.scale, nearest.scale)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("group", [0, 32, 128])
def test_no_row_loses_more_than_by_rounding_to_nearest(
    bits: int, symmetric: bool, group: int
) -> None:
    weight, inputs, hessian = case(12, 96, seed=bits)
    grid = Grid(bits, group, symmetric)

    def error(form: LowBit) -> Tensor:
        lost = inputs.double() @ (form.dequantize() - weight).double().T
        return lost.square().mean(dim=0)

    nearest = error(grid.nearest(weight))
    for refits, clip in itertools.product((0, 2), (False, True)):
        found = error(gptq(weight, hessian, grid, refits=refits, clip=clip))
        assert bool((found <= nearest * 1.0001).all())
        assert found.sum() < 0.8 * nearest.sum()


def test_it_finds_nearly_the_best_of_all_codes() -> None:
    weight, _, hessian = case(3, 5)
    start = Grid(2, 0, False).nearest(weight)
    every = torch.tensor(list(itertools.product(range(4), repeat=5)), dtype=torch.uint8)
    found = gptq(weight, hessian, Grid(2, 0, False), factor(hessian, 0.001))
    for row in range(3):
        alike = [part.repeat(len(every), 1) for part in (start.scale[row], start.zeros()[row])]
        forms = LowBit(every, *alike, 2, 5)
        lost = loss(weight[row].repeat(len(every), 1), forms, hessian)
        mine = float(loss(weight, found, hessian)[row])
        assert mine >= float(lost.min()) * 0.999
        assert mine <= float(lost.median()) / 3


def test_scales_refitted_are_the_least_squares_of_the_codes() -> None:
    weight, inputs, hessian = case(4, 70)
    form = Grid(3, 32, False).nearest(weight)
    found = refit_scales(weight, form, hessian, damping=0.0)
    for row in range(4):
        steps = torch.zeros(70, 3, dtype=torch.float64)
        for column in range(70):
            g = column // 32
            steps[column, g] = float(form.codes[row, column]) - float(form.zeros()[row, g])
        expected = torch.linalg.lstsq(
            inputs.double() @ steps, inputs.double() @ weight[row].double()
        ).solution
        assert torch.allclose(found[row].double(), expected, rtol=2e-3, atol=1e-4)


def test_aiming_at_other_outputs_is_ridge_regression() -> None:
    weight, inputs, hessian = case(4, 24)
    random = torch.Generator().manual_seed(9)
    clean = inputs + 0.1 * torch.randn(inputs.shape, generator=random)
    wanted = clean @ weight.T
    damping = 0.05
    shift = 2 / len(inputs) * (clean - inputs).T @ inputs
    found = best_float(weight, shift, factor(hessian, damping))
    # The same as least squares with rows that pull the solution to the weight.
    pull = float((damping * hessian.diagonal().mean() * len(inputs) / 2) ** 0.5)
    left = torch.cat([inputs, pull * torch.eye(24)]).double()
    right = torch.cat([wanted, pull * weight.T]).double()
    expected = torch.linalg.lstsq(left, right).solution.T
    assert torch.allclose(found.double(), expected, atol=1e-4)


def test_columns_without_inputs_are_rounded_to_nearest_and_disturb_nothing() -> None:
    weight, inputs, _ = case(4, 64)
    inputs[:, 10:20] = 0
    hessian = 2 / len(inputs) * inputs.T @ inputs
    grid = Grid(4, 32, False)
    found, nearest = gptq(weight, hessian, grid), grid.nearest(weight)
    assert torch.equal(found.codes[:, 10:20], nearest.codes[:, 10:20])
    assert loss(weight, found, hessian).sum() < loss(weight, nearest, hessian).sum()


def test_no_input_at_all_is_rounding_to_nearest() -> None:
    weight, _, _ = case(3, 40)
    grid = Grid(4, 32, True)
    found = gptq(weight, torch.zeros(40, 40), grid, refits=1, clip=True)
    assert torch.allclose(found.dequantize(), grid.nearest(weight).dequantize())


@pytest.mark.parametrize("symmetric", [False, True])
def test_rows_of_zeros_and_of_one_value_stay_what_they_are(symmetric: bool) -> None:
    weight, _, hessian = case(4, 70)
    weight[0], weight[1], weight[2] = 0.0, 0.25, -3.0
    found = gptq(weight, hessian, Grid(4, 32, symmetric), refits=2, clip=True).dequantize()
    assert bool((found[0] == 0).all())
    assert torch.allclose(found[1:3], weight[1:3], rtol=0.01)
    assert bool(found.isfinite().all())


def test_a_hessian_of_one_direction_gets_the_damping_that_it_needs() -> None:
    one = torch.randn(1, 32, generator=torch.Generator().manual_seed(2))
    inputs = Inputs(32, keep=1)
    inputs.add(one.repeat(50, 1))
    weight = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    notes: list[str] = []
    grid = Grid(4, 32, False)
    form = quantize_by_inputs(weight, inputs, grid, Effort(0.0, refits=0), note=notes.append)
    assert "damped by" in notes[0]
    assert "instead of 0" in notes[0]
    assert bool(form.dequantize().isfinite().all())
    assert factor(inputs.hessian(), 0.01).damping == 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_in_a_sentence(bad: float) -> None:
    weight, _, hessian = case(3, 8)
    broken = hessian.clone()
    broken[2, 3] = bad
    with pytest.raises(ValueError, match="calibration inputs have NaN or infinite"):
        factor(broken)
    weight[1, 1] = bad
    with pytest.raises(ValueError, match="weight has NaN or infinite"):
        gptq(weight, hessian, Grid(4, 0, True))


def test_a_hessian_that_no_damping_helps_is_refused() -> None:
    hessian = torch.eye(4)
    hessian[0, 1] = hessian[1, 0] = 1e6
    with pytest.raises(ValueError, match="cannot be factored"):
        factor(-hessian.fill_diagonal_(1e-3), 0.0)


def test_rows_in_parts_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.techniques.solve import gptq_rounding

    weight, _, hessian = case(9, 40)
    grid = Grid(3, 32, False)
    whole = gptq(weight, hessian, grid, refits=1, clip=True)
    monkeypatch.setitem(gptq_rounding.AT_ONCE, "cpu", 80)
    parts = gptq(weight, hessian, grid, refits=1, clip=True)
    assert torch.allclose(parts.dequantize(), whole.dequantize(), atol=1e-3)


def seen(rows: Tensor) -> Inputs:
    """Inputs that were given these rows."""
    found = Inputs(rows.shape[1], keep=len(rows))
    found.add(rows)
    return found


def hostile(kind: str) -> tuple[Tensor, Tensor]:
    """(weight [6, 64], inputs [300, 64]) with columns that are zero, equal, or sums of others."""
    weight, inputs, _ = case(6, 64, seed=9)
    if kind == "dead":
        inputs[:, [3, 17, 40]] = 0.0
    if kind == "twins":
        inputs[:, 20], inputs[:, 41] = inputs[:, 2], inputs[:, 2]
    if kind == "dependent":
        inputs[:, 33] = inputs[:, 1] - 2 * inputs[:, 50]
        inputs[:, 34:60] = inputs[:, :4] @ torch.randn(4, 26)
    if kind == "few rows":
        inputs = inputs[:5]
    return weight, inputs


@pytest.mark.parametrize("kind", ["dead", "twins", "dependent", "few rows"])
@pytest.mark.parametrize("damping", [0.01, 1e-4])
def test_dead_twin_and_dependent_columns_give_the_codes_of_an_exact_solve(
    kind: str, damping: float
) -> None:
    weight, inputs = hostile(kind)
    exact = inputs.double()
    hessian = 2 / len(inputs) * exact.T @ exact
    diagonal = hessian.diagonal()
    mean = diagonal[diagonal > 0].mean()
    diagonal[diagonal <= 0] = mean
    diagonal.add_(damping * mean)
    given = seen(inputs)
    grid = Grid(4, 32, True)
    start = grid.nearest(weight)
    factored = factor(given.hessian(), damping)
    assert factored.damping == damping
    found = round_in_order(weight, start.scale, start.zero, 4, 32, factored)
    want = optimal_brain(weight, start, hessian, factored.order.tolist())
    assert int((found.int() - want.int()).abs().max()) <= 1
    # Sums in fp32 may tip a code that lies in the middle; then the loss is the same.
    assert float((found != want).float().mean()) < 0.02
    lost = []
    for codes in (found, want):
        missed = LowBit(codes, start.scale, None, 4, 32).dequantize().double() - weight.double()
        lost.append(float(((missed @ hessian) * missed).sum()))
    assert lost[0] == pytest.approx(lost[1], rel=0.02)


@pytest.mark.parametrize("kind", ["twins", "dependent", "few rows"])
def test_without_damping_noise_is_not_inverted(kind: str) -> None:
    weight, inputs = hostile(kind)
    given, said = seen(inputs), list[str]()
    made = quantize_by_inputs(weight, given, Grid(4, 32, True), Effort(0.0), note=said.append)
    assert "damped by" in said[0]
    assert bool(torch.isfinite(made.dequantize()).all())
    upper = factor(given.hessian(), 0.0).upper
    assert float(upper.abs().max()) < 1e4
    hessian = given.hessian()
    plain = loss(weight, Grid(4, 32, True).nearest(weight), hessian)
    assert bool((loss(weight, made, hessian) <= plain * (1 + 1e-5)).all())


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("effort", [Effort(), Effort(refits=3), Effort(clip=False, refits=0)])
def test_the_weights_of_dead_columns_are_rounded_as_well_as_any(
    symmetric: bool, effort: Effort
) -> None:
    weight, inputs, _ = case(40, 64, seed=2)
    dead = [3, 17, 40, 41]
    inputs[:, dead] = 0.0
    # The largest of their groups: a range that only suits the live ones would cut them off.
    weight[:, dead] *= 3
    given = seen(inputs)
    grid = Grid(3, 32, symmetric)
    made = quantize_by_inputs(weight, given, grid, effort)
    missed = (made.dequantize() - weight)[:, dead].square().mean()
    nearest = (grid.nearest(weight).dequantize() - weight)[:, dead].square().mean()
    # As ordinary columns would be: the search trades a range's ends for its middle. It was 40 fold.
    assert float(missed) < 4 * float(nearest)
    assert torch.equal(given.hessian().diagonal() == 0, given.absmax == 0)
    again = quantize_by_inputs(weight, given, grid, effort)
    assert torch.equal(again.codes, made.codes)
