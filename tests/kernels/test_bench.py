from __future__ import annotations

import json

import pytest
import torch

from kernels import bench, bench_linear, linear_w8

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny shape, few repeats: what is tested is the bookkeeping, not the speed."""
    monkeypatch.setattr(bench_linear, "DENSE_SHAPES", ((32, 48),))
    monkeypatch.setattr(bench_linear, "PACKED_SHAPES", ((32, 48),))
    monkeypatch.setattr(bench_linear, "PACKED_ROWS", (1, 17))
    monkeypatch.setattr(bench_linear, "WORKING_SET", 8192)
    monkeypatch.setattr(bench, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(bench, "CASE_SECONDS", 0.0)
    monkeypatch.setattr(bench, "COPY_BYTES", 1 << 16)


def test_every_kernel_is_set_against_torch_in_the_same_run() -> None:
    rows = bench.run_bench("linear_w8")
    assert [(row["rows"], row["kernel"]) for row in rows] == [
        (1, "linear_dense=gemv-bf16"),
        (1, "linear_dense=torch"),
        (1, "linear_w8=torch-int8pack"),
        (17, "linear_dense=torch"),
        (17, "linear_w8=torch-int8pack"),
    ]
    for row in rows:
        assert row["us_low"] <= row["us"] <= row["us_high"]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["gb_per_s"] > 0
        assert row["refused"] is None
    own = [row for row in rows if row["kernel"] == row["baseline"]]
    assert all(row["speedup"] == 1 for row in own)


def test_bytes_are_those_of_the_packed_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    (w4, *_) = [
        row for row in bench.run_bench("linear_w4") if row["kernel"] == "linear_w4=torch-int4pack"
    ]
    # 48 columns are padded to two groups of 32; a scale and a zero each; x and y in bf16.
    size = 32 * 64 // 2 + 32 * 2 * 2 * 2 + 2 * (32 + 48)
    assert w4["gb_per_s"] * w4["us"] * 1e3 == pytest.approx(size)


def test_a_wrong_kernel_gets_no_speed_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def off_by_a_little(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return torch._weight_int8pack_mm(x, codes, scale) * 1.05

    monkeypatch.setattr(linear_w8, "matmul", off_by_a_little)
    assert bench.main("linear_w8") == 1
    wrong = [line for line in capsys.readouterr().out.splitlines() if "int8pack  " in line]
    assert len(wrong) == 2
    for line in wrong:
        assert "no speed-up: linear_w8=torch-int8pack is off by" in line


@pytest.mark.parametrize("op", ["attention", "rms_norm", "swiglu"])
def test_the_small_operations_are_timed_too(op: str) -> None:
    rows = bench.run_bench(op)
    assert {row["op"] for row in rows} == {op}
    assert all(row["refused"] is None for row in rows)


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main("linear_dense", as_json=True) == 0
    assert {row["op"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"linear_dense"}


def test_an_unknown_operation_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main("nope") == 2
    assert "--op takes one of linear_dense" in capsys.readouterr().err


def test_an_interval_holds_the_median_with_95_percent() -> None:
    assert bench.interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    # For nine samples the second and the eighth bound it: binomial tails of 2 %.
    assert bench.interval([float(i) for i in range(9)]) == (4.0, 1.0, 7.0)
    assert bench.interval([float(i) for i in range(40)])[1:] == (13.0, 26.0)
