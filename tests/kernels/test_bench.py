from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from kernels.bench import blocks as bench_blocks
from kernels.bench import checks as bench_checks
from kernels.bench import limits as bench_limits
from kernels.bench import linear as bench_linear
from kernels.bench import onnx as bench_onnx
from kernels.bench import report as bench_report
from kernels.bench import run as bench
from kernels.bench import timing
from kernels.linear_lowbit import quantize, torch_packed

pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tiny shape, few repeats: what is tested is the bookkeeping, not the speed."""
    sizes = dict.fromkeys(bench_blocks.SIZES, ((1, 24), (3, 8)))
    monkeypatch.setattr(bench_blocks, "SIZES", sizes)
    monkeypatch.setattr(bench_linear, "QUICK_SHAPES", ((32, 64),))
    monkeypatch.setattr(bench_linear, "QUICK_ROWS", (1, 17))
    monkeypatch.setattr(bench_linear, "WORKING_SET", {"cpu": 8192})
    monkeypatch.setattr(bench_onnx, "absent", lambda: "onnxruntime is not installed")
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(timing, "CASE_SECONDS", 0.0)
    monkeypatch.setattr(bench_limits, "STREAM_BYTES", 1 << 16)
    monkeypatch.setattr(bench_limits, "PEAK_SIZE", 64)
    monkeypatch.setattr(bench_limits, "PEAK_SECONDS", 0.0)


def timed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if "absent" not in row]


def test_every_kernel_is_set_against_the_others_in_the_same_run() -> None:
    rows = bench.run_bench("linear_lowbit", formats=("int4-g32",))
    kernels = [(row["rows"], row["kernel"], row["own"]) for row in timed(rows)]
    wanted = ("linear_dense=torch", "linear_lowbit=cpp", "linear_lowbit=torch-int4pack")
    assert kernels == [(m, name, name.endswith("cpp")) for m in (1, 17) for name in wanted]
    for row in timed(rows):
        assert row["us_low"] <= row["us"] <= row["us_high"]
        assert row["speedup_low"] <= row["speedup"] <= row["speedup_high"]
        assert row["gb_per_s"] > 0
        assert row["copy_share"] > 0
        assert row["peak_share"] > 0
        assert row["refused"] is None
    assert {row["kernel"]: row["absent"] for row in rows if "absent" in row} == {
        "onnxruntime level 0": "onnxruntime is not installed",
        "onnxruntime level 4": "onnxruntime is not installed",
    }


def test_the_ratios_follow_from_the_samples() -> None:
    rows = timed(bench.run_bench("linear_w8a8"))
    for rows_of_x in (1, 17):
        case = {row["kernel"]: row for row in rows if row["rows"] == rows_of_x}
        own, best = case["linear_w8a8=cpp"], case[case["linear_w8a8=cpp"]["best_other"]]
        assert best["us"] == min(row["us"] for row in case.values() if not row["own"])
        pairs = zip(best["samples_us"], own["samples_us"], strict=True)
        again = bench_limits.interval([their / our for their, our in pairs])
        found = (own["versus_best"], own["versus_best_low"], own["versus_best_high"])
        # Samples are written with nanoseconds; a call here takes microseconds.
        assert found == pytest.approx(again, rel=0.01)


def test_bytes_are_those_of_the_packed_weight() -> None:
    rows = timed(bench.run_bench("linear_lowbit", formats=("int4-g32",), rows=(1,)))
    (row,) = [row for row in rows if row["kernel"] == "linear_lowbit=torch-int4pack"]
    weight = torch_packed.Int4Product(
        bench_linear.form_of("int4-g32", 32, 64), torch.bfloat16, None
    )
    size = sum(one.nbytes for one in weight.tensors()) + 2 * (32 + 64)
    assert row["gb_per_s"] * row["us"] * 1e3 == pytest.approx(size)


def test_a_wrong_kernel_of_others_is_no_opponent_and_gets_no_speed_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = torch_packed.Int8Product.__call__
    monkeypatch.setattr(torch_packed.Int8Product, "__call__", lambda self, x: right(self, x) * 1.05)
    assert bench.main("linear_lowbit", formats=("int8",)) == 0
    out = capsys.readouterr().out
    wrong = [line for line in out.splitlines() if "int8pack  " in line]
    assert len(wrong) == 2
    for line in wrong:
        assert "no speed-up: linear_lowbit=torch-int8pack in int8 is off by" in line
    assert "Wrong: linear_lowbit=torch-int8pack" in out


def test_a_wrong_kernel_of_ours_ends_with_1_and_no_ratio(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        bench_checks, "_check", lambda op, kernel, *_: "is wrong" if kernel == "cpp" else None
    )
    assert bench.main("linear_w8a8", as_json=True) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    ours = [row for row in rows if row["own"]]
    assert [row["refused"] for row in ours] == ["is wrong", "is wrong"]
    assert all(row["speedup"] is None and "versus_best" not in row for row in ours)


@pytest.mark.parametrize("op", ["attention", "rms_norm", "swiglu"])
def test_the_small_operations_are_timed_too(op: str) -> None:
    rows = bench.run_bench(op)
    assert {row["op"] for row in rows} == {op}
    assert all(row["refused"] is None for row in rows)


def test_json_is_one_document_with_the_machine_and_the_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert bench.main("linear_dense", as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    # Seventeen rows have no kernel of ours in bf16.
    assert {(row["op"], row["rows"]) for row in found["rows"]} == {("linear_dense", 1)}
    assert found["machine"]["threads"] == torch.get_num_threads()
    assert [(one["format"], one["rows"]) for one in found["summary"]] == [("bf16", 1)]


def test_an_unknown_operation_or_format_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main("nope") == 2
    assert "--op takes one of linear_dense" in capsys.readouterr().err
    assert bench.main(formats=("int4-g33",)) == 2
    assert "--format takes bf16, int8, int4-g32" in capsys.readouterr().err


def fake(kernel: str, shape: str, ratio: float | None, us: float = 1.0) -> dict[str, Any]:
    row = {"op": "linear_lowbit", "format": "int4-g32", "rows": 1, "shape": shape, "us": us}
    row |= {"kernel": kernel, "own": ratio is not None, "gb_per_s": 8000.0, "copy_share": 0.9}
    row |= {"speedup": 3.0, "refused": None}
    if ratio is not None:
        row |= {"versus_best": ratio, "versus_best_low": ratio, "best_other": "peer"}
    return row


def test_the_summary_is_the_geometric_mean_and_the_least_of_our_best() -> None:
    rows = [
        fake("ours", "a", 2.0), fake("ours", "b", 0.5), fake("ours", "c", 8.0),
        fake("ours too", "c", 4.0, us=2.0), fake("peer", "a", None),
    ]  # fmt: skip
    (entry,) = bench_report.summary(rows)
    assert entry["mean"] == pytest.approx(2.0)
    assert (entry["least"], entry["least_shape"], entry["shapes"]) == (0.5, "b", 3)
    assert entry["copy_share"] == 0.9  # 8 TB/s for a microsecond are 8 MB
    assert any(
        "2.00x in the geometric mean" in one for one in bench_report.sentences([entry], rows)
    )
    assert "| int4-g32 | 2.00 (0.50) |" in bench_report.markdown([entry])


def test_an_interval_holds_the_median_with_95_percent() -> None:
    assert bench_limits.interval([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    # For nine samples the second and the eighth bound it: binomial tails of 2 %.
    assert bench_limits.interval([float(i) for i in range(9)]) == (4.0, 1.0, 7.0)
    assert bench_limits.interval([float(i) for i in range(40)])[1:] == (13.0, 26.0)
    assert 1 - 2 / 2**timing.LEAST_REPEATS > 0.95


@pytest.mark.parametrize("format_", bench_linear.OPS["linear_lowbit"])
def test_random_codes_have_the_format_that_they_are_named(format_: str) -> None:
    form = bench_linear.form_of(format_, 5, 256)
    assert form.format == format_
    assert bench_checks.quantized(format_, torch.randn(3, 256)).format == format_


@pytest.mark.parametrize("text", ["4096", "0x5", "axb", "1x2x3"])
def test_a_shape_that_is_none_is_bad_input(text: str) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    bench.arguments(parser)
    with pytest.raises(ValueError, match="--shape"):
        bench.chosen(parser.parse_args(["--shape", text]))
    assert bench.chosen(parser.parse_args(["--shape", "3x7", "--rows", "2"]))["shapes"] == ((3, 7),)


@pytest.mark.parametrize(("bits", "group"), [(4, 32), (4, 128), (8, 1 << 20), (2, 32)])
def test_onnx_runtime_multiplies_the_same_matrix(bits: int, group: int) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    form = quantize(torch.randn(9, 256), bits, group)
    x = torch.randn(3, 256)
    session = bench_onnx.Session(form, 2, 0)
    exact = x.double() @ form.dequantize().double().T
    assert (session.product(x) - exact).abs().max() < 1e-3 * math.sqrt(256)


def test_what_matmulnbits_does_not_take_is_said() -> None:
    affine = quantize(torch.randn(3, 64), 4, 32, symmetric=False)
    assert "symmetric" in (bench_onnx.refuse(affine) or "")
    assert "nf4" in (bench_onnx.refuse(quantize(torch.randn(3, 64), 4, 64, "nf4")) or "")
    assert "whole blocks" in (bench_onnx.refuse(quantize(torch.randn(3, 100), 4, 32)) or "")
