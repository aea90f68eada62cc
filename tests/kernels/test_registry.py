from __future__ import annotations

import importlib
import subprocess
import sys
import types

import pytest
import torch

from kernels import registry
from kernels.registry import KERNELS, KernelInfo, KernelUnavailable, kernels_available, select

pytestmark = pytest.mark.usefixtures("fresh")


def info(name: str, **changes: object) -> KernelInfo:
    fields: dict[str, object] = {
        "op": "made",
        "name": name,
        "devices": ("cpu",),
        "formats": ("bf16",),
        "module": f"kernels.made_{name}",
    }
    return KernelInfo(**(fields | changes))  # type: ignore[arg-type]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, types.ModuleType]:
    """Operation `made`: `first` may be unavailable, `second` always runs, `gpu` needs CUDA."""
    modules = {name: types.ModuleType(f"kernels.made_{name}") for name in ("first", "second")}
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, f"kernels.made_{name}", module)
    kernels = (
        info("first"),
        info("second", formats=("bf16", "fp32")),
        info("gpu", devices=("cuda",), on_request=("cpu",), module="kernels.made_second"),
        info("lost", formats=("fp16",), module="kernels.made_nowhere"),
    )
    monkeypatch.setattr(registry, "KERNELS", kernels)
    return modules


def test_importing_the_face_loads_neither_torch_nor_triton() -> None:
    code = "import sys, kernels; sys.exit('torch' in sys.modules or 'triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_kernel_in_the_list_has_its_own_name_and_an_existing_module() -> None:
    names = [(one.op, one.name) for one in KERNELS]
    assert len(set(names)) == len(names)
    for one in KERNELS:
        assert importlib.util.find_spec(one.module) is not None, one.module


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"op": ""}, "op"),
        ({"devices": ()}, "no device"),
        ({"formats": ()}, "no format"),
        ({"devices": ("tpu",)}, "tpu"),
        ({"formats": ("fp8x",)}, "fp8x"),
        ({"module": "os"}, "not ours"),
    ],
)
def test_a_wrong_entry_is_refused(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        info("x", **changes)


def test_the_first_that_fits_is_taken(made: dict[str, types.ModuleType]) -> None:
    assert select("made", "cpu", "bf16").name == "first"
    assert select("made", torch.device("cpu"), "fp32").name == "second"


def test_an_automatic_choice_falls_back_and_an_explicit_one_does_not(
    made: dict[str, types.ModuleType],
) -> None:
    made["first"].available = lambda: "needs a thing"  # type: ignore[attr-defined]
    assert select("made", "cpu", "bf16").name == "second"
    with pytest.raises(KernelUnavailable, match=r"first needs a thing \(other.*second"):
        select("made", "cpu", "bf16", explicit="first")


def test_availability_is_asked_once(made: dict[str, types.ModuleType]) -> None:
    asked = []
    made["first"].available = lambda: asked.append(1)  # type: ignore[attr-defined]
    for format in ("bf16", "fp32", "bf16"):
        select("made", "cpu", format)
    assert len(asked) == 1


def test_the_refusal_names_every_choice_and_why_it_does_not_fit(
    made: dict[str, types.ModuleType],
) -> None:
    with pytest.raises(KernelUnavailable) as error:
        select("made", "cpu", "fp16")
    text = str(error.value)
    assert "first takes bf16" in text
    assert "second takes bf16, fp32" in text
    assert "gpu runs on cuda" in text
    assert "lost cannot be imported" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("op", "device", "explicit", "words"),
    [
        ("nothing", "cpu", None, "no operation 'nothing'; there are"),
        ("linear_lowbit", "cpu", "nope", "torch-int8pack, triton, triton-tiles, torch"),
        ("linear_lowbit", "tpu:0", None, "tpu:0 is not supported"),
        ("linear_lowbit", "cuda", "torch-int8pack", "runs on cpu"),
    ],
)
def test_unknown_names_get_a_sentence(
    op: str, device: str, explicit: str | None, words: str
) -> None:
    with pytest.raises(KernelUnavailable, match=words):
        select(op, device, "int4", explicit)


def test_the_environment_names_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.ENVIRONMENT, "linear_lowbit=torch-int8pack, linear_dense=torch")
    assert select("linear_dense", "cpu", "bf16").name == "torch"
    monkeypatch.setenv(registry.ENVIRONMENT, "linear_dense=gemv-bf16")
    with pytest.raises(KernelUnavailable, match="gemv-bf16 takes bf16"):
        select("linear_dense", "cpu", "fp32")
    assert select("linear_dense", "cpu", "fp32", explicit="torch").name == "torch"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("linear_dense", "not op=name"),
        ("=torch", "not op=name"),
        ("nope=torch", "no operation 'nope'"),
        ("linear_dense=nope", "no kernel 'nope'; there are gemv-bf16, gemv-float, torch"),
    ],
)
def test_a_wrong_environment_is_an_error_and_not_ignored(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(registry.ENVIRONMENT, text)
    with pytest.raises(KernelUnavailable, match=words):
        select("linear_dense", "cpu", "bf16")


def test_every_kernel_is_listed_with_a_reason_or_none() -> None:
    found = {(one.op, one.name): reason for one, reason in kernels_available("cpu")}
    assert len(found) == len(KERNELS)
    assert found["linear_dense", "torch"] is None
    assert "TRITON_INTERPRET=1" in (found["linear_lowbit", "triton"] or "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_reason_is_that() -> None:
    assert all(
        "CUDA" in (reason or "") or "cpu" in (reason or "")
        for _, reason in kernels_available("cuda")
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton starts kernels where a GPU is")
def test_where_triton_cannot_start_kernels_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a box with a GPU and without a C compiler: the reason stands beside each of them."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    registry.reset()
    reasons = dict(kernels_available("cuda"))
    triton = [reason for kernel, reason in reasons.items() if kernel.needs == "triton"]
    assert triton
    assert all("Triton cannot start kernels (" in (reason or "") for reason in triton)
    assert select("rms_norm", "cuda", "bf16").name == "torch"
    registry.reset()
