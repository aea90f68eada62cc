"""Which kernel a number of rows goes to, with products that sleep for as long as they say."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kernels import calls, choice, packed
from kernels.choice.ways import Ways
from kernels.linear_w8a8 import W8A8Weight, quantize, torch_int_mm

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("fresh")


class Product:
    """Writes residual + its number, after `seconds(rows)`."""

    def __init__(self, number: float, seconds: Callable[[int], float]) -> None:
        self.number, self.seconds, self.ran = number, seconds, 0
        self.kept = torch.zeros(3)

    def into(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> None:
        self.ran += 1
        time.sleep(self.seconds(len(x)))
        out.copy_(torch.full_like(out, self.number) + (0 if residual is None else residual))

    def tensors(self) -> list[torch.Tensor]:
        return [self.kept]


class TwoKinds(Product):
    """A product of two variants, of use up to eight rows."""

    def ways(self, rows: int) -> dict[str, Callable[..., object]]:
        return {"few": self.into, "many": self.into} if rows <= 8 else {}


@pytest.fixture(autouse=True)
def measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(choice, "measures", lambda device: True)
    choice.forget()
    yield
    choice.forget()


def ways(**products: Product) -> Ways:
    return Ways("linear_fp8", "fp8-fp8", (4, 8), torch.float32, CPU, dict(products))


def test_each_number_of_rows_goes_to_the_fastest_and_is_counted_by_its_name() -> None:
    slow_at_many = Product(1, lambda rows: 0.0005 if rows < 8 else 0.004)
    other = Product(2, lambda rows: 0.002)
    both = ways(triton=slow_at_many, torch=other)
    assert bool((both(torch.zeros(2, 8)) == 1).all())
    assert bool((both(torch.zeros(20, 8)) == 2).all())
    assert calls.snapshot() == [
        {"op": "linear_fp8", "name": "torch", "calls": 1},
        {"op": "linear_fp8", "name": "triton", "calls": 1},
    ]
    assert [answer.question.rows for answer in choice.asked()] == [2, 32]


def test_the_answer_of_a_shape_serves_every_weight_and_bound_call() -> None:
    first, second = Product(1, lambda rows: 0.0), Product(2, lambda rows: 0.002)
    ways(triton=first, torch=second)(torch.zeros(3, 8))
    before = second.ran
    out = torch.ones(4, 4)
    ways(triton=first, torch=second).bind(torch.zeros(4, 8), out, out)()
    assert second.ran == before
    assert bool((out == 2).all())


def test_measuring_leaves_x_the_output_and_random_numbers_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(1)
    torch.manual_seed(3)
    out = torch.full((4, 4), 7.0)
    both = ways(triton=Product(1, lambda rows: 0), torch=Product(2, lambda rows: 0.001))
    both.bind(torch.zeros(4, 8), out, out)
    assert bool((out == 7).all())
    assert torch.equal(torch.rand(1), wanted)


def test_variants_are_compared_where_they_are_of_use() -> None:
    both = ways(triton=TwoKinds(1, lambda rows: 0.0), torch=Product(2, lambda rows: 0.0))
    assert set(both.offered(8)) == {"triton/few", "triton/many", "torch"}
    assert set(both.offered(9)) == {"torch"}
    alone = ways(triton=TwoKinds(1, lambda rows: 0.0))
    assert set(alone.offered(9)) == {"triton"}
    assert alone.at(9)[0] == "triton"
    assert alone.at(3)[0] == "triton"


def test_long_prompts_share_an_answer() -> None:
    both = ways(triton=Product(1, lambda rows: 0.0), torch=Product(2, lambda rows: 0.001))
    both.at(3000)
    both.at(70_000)
    assert [answer.question.rows for answer in choice.asked()] == [2048]


def test_what_may_not_be_measured_now_is_measured_later(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ways(triton=Product(1, lambda rows: 0.002), torch=Product(2, lambda rows: 0.0))
    monkeypatch.setattr(choice, "measures", lambda device: False)
    assert both.at(4)[0] == "triton"
    monkeypatch.setattr(choice, "measures", lambda device: True)
    assert both.at(4)[0] == "torch"


def test_only_what_is_not_shared_is_kept_twice() -> None:
    first, second = Product(1, lambda rows: 0.0), Product(2, lambda rows: 0.0)
    second.kept = first.kept
    assert ways(triton=first, torch=second).tensors() == []
    second.kept = torch.zeros(2)
    assert len(ways(triton=first, torch=second).tensors()) == 1


def test_a_kernel_asked_for_by_name_has_no_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> dict[str, object]:
        raise AssertionError("its rivals were looked for")

    monkeypatch.setattr(torch_int_mm, "_gpu_rows", lambda codes: ModuleType("as on a GPU"))
    monkeypatch.setattr(packed, "sharing", never)
    weight = W8A8Weight(quantize(torch.randn(8, 16)), None, torch.bfloat16, "torch-int-mm")
    assert weight._ways is not None
    assert set(weight._ways.offered(64)) == {"torch-int-mm"}
    monkeypatch.setenv("TRIMTAB_KERNEL", "linear_w8a8=torch-int-mm")
    assert W8A8Weight(quantize(torch.randn(8, 16))).kernel == "torch-int-mm"
