"""What a calibration measures: sizes that suit the machine, formats that torch has, no more time
than asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.machine.calibration import bandwidth, compute, overhead
from core.machine.calibration.record import from_data

MIB = 1 << 20
GIB = 1 << 30


def test_the_largest_array_is_beyond_the_last_cache_and_fits_into_memory() -> None:
    found = bandwidth.jobs("cpu", 8, 96 * MIB, 64 * GIB)
    assert max(job.size for job in found) == 384 * MIB
    assert [job.size for job in found if (job.kind, job.threads) == ("read", 8)][-1] == 384 * MIB
    small = bandwidth.jobs("cpu", 8, 32 * MIB, GIB)
    assert max(job.size for job in small) * 6 <= GIB / 4
    assert all(job.size % 8 == 0 for job in bandwidth.jobs("cpu", 3, 0, GIB + 7))


def test_nothing_is_measured_twice() -> None:
    for threads in (1, 2):
        found = bandwidth.jobs("cpu", threads, 32 * MIB, 64 * GIB)
        assert len(set(found)) == len(found)
    assert {job.threads for job in bandwidth.jobs("cpu", 4, 0, 64 * GIB)} == {1, 4}


def test_a_gpu_is_read_by_torch_up_to_what_it_holds() -> None:
    found = bandwidth.jobs("cuda", 0, 0, 8 * GIB)
    assert all(job.by_torch for job in found)
    assert max(job.size for job in found) == 256 * MIB
    assert {job.kind for job in found} == {"read", "dot", "copy", "triad"}
    # Large arrays are read in two ways, of which the faster is the limit.
    assert {job.size for job in found if job.kind == "dot"} == {64 * MIB, 256 * MIB}


def test_both_ways_of_reading_are_rates_of_reading() -> None:
    import torch

    both = [bandwidth.Job(kind, MIB, 0, True) for kind in ("read", "dot")]
    rates = list(bandwidth.bandwidths(torch, "cpu", both, 0.05))
    assert [(rate.name, rate.size) for rate in rates] == [("read", MIB), ("read", MIB)]
    assert "dot product" in rates[1].how


@pytest.mark.parametrize("compiled", [True, False])
def test_every_job_gives_a_rate_with_and_without_a_compiler(
    compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from kernels import stream

    if not compiled:
        monkeypatch.setattr(stream, "available", lambda: "no compiler in this test")
    wanted = [
        bandwidth.Job(kind, MIB, threads)
        for kind in ("read", "copy", "triad")
        for threads in (1, 2)
    ]
    before = torch.get_num_threads()
    found = list(bandwidth.bandwidths(torch, "cpu", wanted, 0.05))
    assert [(one.name, one.size, one.threads) for one in found] == [
        (job.kind, job.size, job.threads) for job in wanted
    ]
    assert all(one.best >= one.median >= one.low > 0 for one in found)
    assert {one.how.startswith("C++") for one in found} == {compiled}
    assert torch.get_num_threads() == before


def test_a_format_that_torch_cannot_multiply_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(compute, "CPU_SHAPES", ((64, 64, 64),))

    def refuse(*_: Any) -> None:
        raise RuntimeError("not implemented for Char")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    found = list(compute.peaks(torch, "cpu", 0.05))
    assert {one.format for one in found} == {"fp32", "bf16", "fp16"}
    assert all(one.unit == "op/s" and one.best > 0 for one in found)


def test_a_product_that_would_take_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    huge = (1 << 20, 1 << 20, 1 << 20)
    monkeypatch.setattr(compute, "CPU_SHAPES", ((64, 64, 64), huge))
    monkeypatch.setattr(compute, "FORMATS", ("fp32",))
    assert len(list(compute.peaks(torch, "cpu", 0.02))) == 1


def test_overheads_are_seconds_of_one_call() -> None:
    import torch

    found = {one.format: one for one in overhead.overheads(torch, "cpu", 0.1)}
    assert {"torch operation", "C function", "parallel region", "kernel in a program"} <= set(found)
    assert all(one.unit == "s" and 0 < one.best < 1 for one in found.values())


def test_the_child_tells_progress_and_stores_what_it_says(own_cache: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "core.machine.calibration", "0.1"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"stage": "bandwidth", "share": 0.0}
    found = from_data(lines[-1]["calibration"])
    kept = own_cache / "trimtab" / f"calibration-{found.environment}.json"
    assert from_data(json.loads(kept.read_text())) == found


def test_a_child_that_cannot_store_says_so_in_a_line(tmp_path: Path) -> None:
    import os

    (tmp_path / "trimtab").write_text("a file where the folder should be")
    done = subprocess.run(
        [sys.executable, "-m", "core.machine.calibration", "not a number"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[4],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 1
    assert "the calibration failed: " in json.loads(done.stdout.splitlines()[-1])["error"]
