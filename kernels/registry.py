"""The one list of kernels, and the choice between them.

Owns: KERNELS (a literal tuple, best first within an operation), `select`, and the sentence that is
given when nothing fits. Does not call kernels and does not import torch, triton or any kernel's
module before someone asks about it.

A kernel's module may define `available() -> str | None`: None when it can run on this machine,
else one sentence why not. It is called once, on the first question, and remembered. What else it
defines is said by its operation, which calls the module of the chosen kernel (`chosen`).
"""

import functools
import importlib
import os
from dataclasses import dataclass
from types import ModuleType

from kernels.dtypes import FLOATS

ENVIRONMENT = "TRIMTAB_KERNEL"
DEVICES = ("cpu", "cuda")
_CODES = ("int1", "int2", "int3", "int4", "int5", "int6", "int7", "int8")
_LOWBIT = (*_CODES, "nf4", "fp4", "ternary", "binary", "e4m3", "e5m2")
FORMATS = (*FLOATS, *_LOWBIT)


class KernelUnavailable(RuntimeError):
    """No kernel fits; the message is one sentence naming the choices and why each does not."""


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of one operation.

    `devices` are those it is chosen on by itself; on `on_request` devices it runs only when it is
    named (a Triton kernel on the CPU, in Triton's interpreter). `formats` are those of the weights,
    or of the activations for operations without weights. `needs` says in words what must be
    installed.
    """

    op: str
    name: str
    devices: tuple[str, ...]
    formats: tuple[str, ...]
    module: str
    needs: str = ""
    on_request: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in ("op", "name", "module"):
            if not getattr(self, field):
                raise ValueError(f"KernelInfo.{field} is empty; give the kernel a {field}.")
        if not self.devices or not self.formats:
            raise ValueError(f"Kernel {self.op}={self.name} names no device or no format.")
        for device in (*self.devices, *self.on_request):
            if device not in DEVICES:
                known = ", ".join(DEVICES)
                raise ValueError(f"Kernel {self.op}={self.name}: device {device!r} is not {known}.")
        for format in self.formats:
            if format not in FORMATS:
                known = ", ".join(FORMATS)
                raise ValueError(f"Kernel {self.op}={self.name}: format {format!r} is not {known}.")
        if not self.module.startswith("kernels."):
            raise ValueError(f"Kernel {self.op}={self.name}: module {self.module!r} is not ours.")


_ANY = ("cpu", "cuda")
_COMPILER = "a C++ compiler"

KERNELS: tuple[KernelInfo, ...] = (
    KernelInfo(
        "linear_dense", "gemv-bf16", ("cpu",), ("bf16",), "kernels.linear_dense.cpu", _COMPILER
    ),
    KernelInfo(
        "linear_dense",
        "gemv-float",
        ("cpu",),
        ("fp32", "fp16"),
        "kernels.linear_dense.floats",
        _COMPILER,
    ),
    KernelInfo("linear_dense", "torch", _ANY, FLOATS, "kernels.linear_dense"),
    KernelInfo("linear_lowbit", "cpp", ("cpu",), _LOWBIT, "kernels.linear_lowbit.cpp", _COMPILER),
    KernelInfo(
        "linear_lowbit",
        "torch-int4pack",
        ("cpu",),
        ("int4",),
        "kernels.linear_lowbit.torch_int4pack",
    ),
    KernelInfo(
        "linear_lowbit",
        "torch-int8pack",
        ("cpu",),
        ("int8",),
        "kernels.linear_lowbit.torch_int8pack",
    ),
    KernelInfo(
        "linear_lowbit",
        "triton",
        ("cuda",),
        _LOWBIT,
        "kernels.linear_lowbit.gpu",
        "triton",
        ("cpu",),
    ),
    KernelInfo(
        "linear_lowbit",
        "triton-tiles",
        ("cuda",),
        _LOWBIT,
        "kernels.linear_lowbit.gpu.tiles",
        "triton",
        ("cpu",),
    ),
    KernelInfo("linear_lowbit", "torch", _ANY, _LOWBIT, "kernels.linear_lowbit.torch_tiles"),
    KernelInfo("linear_w8a8", "cpp", ("cpu",), ("int8",), "kernels.linear_w8a8.cpu", _COMPILER),
    KernelInfo(
        "linear_w8a8",
        "triton",
        ("cuda",),
        ("int8",),
        "kernels.linear_w8a8.gpu",
        "triton",
        ("cpu",),
    ),
    KernelInfo("linear_w8a8", "torch-int-mm", _ANY, ("int8",), "kernels.linear_w8a8.torch_int_mm"),
    KernelInfo("linear_fp8", "cpp", ("cpu",), ("e4m3",), "kernels.linear_fp8.cpu", _COMPILER),
    KernelInfo(
        "linear_fp8", "triton", ("cuda",), ("e4m3",), "kernels.linear_fp8.gpu", "triton", ("cpu",)
    ),
    KernelInfo(
        "linear_fp8",
        "torch-scaled-mm",
        ("cuda",),
        ("e4m3",),
        "kernels.linear_fp8.torch_scaled_mm",
        "triton",
        ("cpu",),
    ),
    KernelInfo("linear_fp8", "torch", _ANY, ("e4m3",), "kernels.linear_fp8.torch_tiles"),
    KernelInfo("attention", "cpp", ("cpu",), FLOATS, "kernels.attention.cpu", _COMPILER),
    KernelInfo(
        "attention", "triton", ("cuda",), FLOATS, "kernels.attention.gpu", "triton", ("cpu",)
    ),
    KernelInfo("attention", "torch-sdpa", _ANY, FLOATS, "kernels.attention.sdpa"),
    KernelInfo("attention", "cpp-kv8", ("cpu",), ("int8",), "kernels.attention.kv_cpu", _COMPILER),
    KernelInfo("attention", "cpp-kv4", ("cpu",), ("int4",), "kernels.attention.kv_cpu", _COMPILER),
    KernelInfo("attention", "cpp-kv2", ("cpu",), ("int2",), "kernels.attention.kv_cpu", _COMPILER),
    KernelInfo(
        "attention",
        "triton-kv8",
        ("cuda",),
        ("int8",),
        "kernels.attention.kv_gpu",
        "triton",
        ("cpu",),
    ),
    KernelInfo("attention", "torch-kv8", _ANY, ("int8",), "kernels.attention.kv_torch"),
    KernelInfo(
        "attention",
        "triton-kv4",
        ("cuda",),
        ("int4",),
        "kernels.attention.kv_gpu",
        "triton",
        ("cpu",),
    ),
    KernelInfo("attention", "torch-kv4", _ANY, ("int4",), "kernels.attention.kv_torch"),
    KernelInfo(
        "attention",
        "triton-kv2",
        ("cuda",),
        ("int2",),
        "kernels.attention.kv_gpu",
        "triton",
        ("cpu",),
    ),
    KernelInfo("attention", "torch-kv2", _ANY, ("int2",), "kernels.attention.kv_torch"),
    KernelInfo("rms_norm", "cpp", ("cpu",), FLOATS, "kernels.rms_norm.cpu", _COMPILER),
    KernelInfo("rms_norm", "triton", ("cuda",), FLOATS, "kernels.rms_norm.gpu", "triton", ("cpu",)),
    KernelInfo("rms_norm", "torch", _ANY, FLOATS, "kernels.rms_norm.plain"),
    KernelInfo("swiglu", "cpp", ("cpu",), FLOATS, "kernels.swiglu.cpu", _COMPILER),
    KernelInfo("swiglu", "triton", ("cuda",), FLOATS, "kernels.swiglu.gpu", "triton", ("cpu",)),
    KernelInfo("swiglu", "torch", _ANY, FLOATS, "kernels.swiglu.plain"),
)


def select(op: str, device: object, format: str, explicit: str | None = None) -> KernelInfo:
    """Choose a kernel of `op` for a device ("cpu", "cuda:0", torch.device) and a format.

    `explicit` (or TRIMTAB_KERNEL="op=name,op=name") names the one kernel to use; if it does not
    fit, that is an error. Without a name the first kernel in KERNELS that fits is taken.

    Raises KernelUnavailable with one sentence naming the choices and why each does not fit.
    """
    return _select(op, _device_type(device), format, named(op, explicit))


def chosen(op: str, device: object, format: str, offers: str) -> tuple[KernelInfo, ModuleType]:
    """The kernel that `select` chooses, with its module; the next best that fits where that module
    lacks the function `offers`: not every kernel of a step takes a whole prompt, say.
    """
    return _chosen(op, _device_type(device), format, named(op), offers)


def named(op: str, explicit: str | None = None) -> str | None:
    """The kernel of `op` that was asked for by name: `explicit`, or in TRIMTAB_KERNEL."""
    if explicit is not None:
        return explicit
    return requested(os.environ.get(ENVIRONMENT, "")).get(op)


def kernels_available(device: object = "cpu") -> list[tuple[KernelInfo, str | None]]:
    """Every kernel with None when it runs on `device` here, else the reason why it does not."""
    kind = _device_type(device)
    return [(info, _device_reason(info, kind) or _machine_reason(info, kind)) for info in KERNELS]


def reset() -> None:
    """Forget what was found out about this machine (a compiler was installed, a test ended)."""
    _module_reason.cache_clear()
    _no_launcher.cache_clear()
    _select.cache_clear()
    _chosen.cache_clear()


@functools.lru_cache(maxsize=64)
def requested(text: str) -> dict[str, str]:
    """Parse TRIMTAB_KERNEL, "linear_dense=torch,linear_lowbit=triton", into {op: name}."""
    wanted: dict[str, str] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        op, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or not op or not name:
            raise KernelUnavailable(
                f"{ENVIRONMENT}: {part!r} is not op=name; write for example linear_dense=torch."
            )
        choices = [info.name for info in KERNELS if info.op == op]
        if not choices:
            ops = ", ".join(dict.fromkeys(info.op for info in KERNELS))
            raise KernelUnavailable(f"{ENVIRONMENT}: no operation {op!r}; there are {ops}.")
        if name not in choices:
            raise KernelUnavailable(
                f"{ENVIRONMENT}: {op} has no kernel {name!r}; there are {', '.join(choices)}."
            )
        wanted[op] = name
    return wanted


@functools.lru_cache(maxsize=256)
def _select(op: str, device: str, format: str, wanted: str | None) -> KernelInfo:
    choices = [info for info in KERNELS if info.op == op]
    if not choices:
        ops = ", ".join(dict.fromkeys(info.op for info in KERNELS))
        raise KernelUnavailable(f"There is no operation {op!r}; there are {ops}.")
    if wanted is not None and wanted not in (info.name for info in choices):
        names = ", ".join(info.name for info in choices)
        raise KernelUnavailable(f"{op} has no kernel {wanted!r}; there are {names}.")
    reasons = []
    for info in choices:
        if wanted is not None and info.name != wanted:
            continue
        reason = _fits(info, device, format, named=wanted is not None)
        if reason is None:
            return info
        reasons.append(f"{info.name} {reason}")
    others = [info.name for info in choices if wanted is not None and info.name != wanted]
    hint = f" (other kernels of {op}: {', '.join(others)})" if others else ""
    raise KernelUnavailable(
        f"No kernel of {op} fits device {device} and format {format}: {'; '.join(reasons)}{hint}."
    )


@functools.lru_cache(maxsize=256)
def _chosen(
    op: str, device: str, format: str, wanted: str | None, offers: str
) -> tuple[KernelInfo, ModuleType]:
    first = _select(op, device, format, wanted)
    others = [
        info for info in KERNELS if info.op == op and _fits(info, device, format, False) is None
    ]
    for info in (first, *others):
        module = importlib.import_module(info.module)
        if hasattr(module, offers):
            return info, module
    raise KernelUnavailable(f"No kernel of {op} for {device} and {format} offers `{offers}`.")


def _fits(info: KernelInfo, device: str, format: str, named: bool) -> str | None:
    """Return None, or the rest of a sentence that begins with the kernel's name."""
    if device not in info.devices and not (named and device in info.on_request):
        return f"runs on {' and '.join(info.devices)}"
    if format not in info.formats:
        return f"takes {', '.join(info.formats)}"
    return _machine_reason(info, device)


def _device_reason(info: KernelInfo, device: str) -> str | None:
    if device in (*info.devices, *info.on_request):
        return None
    return f"runs on {' and '.join(info.devices)}"


def _machine_reason(info: KernelInfo, device: str) -> str | None:
    if device == "cuda" and not _has_cuda():
        return "needs a CUDA device, and there is none here"
    if device not in info.devices and os.environ.get("TRITON_INTERPRET") != "1":
        return f"runs on {device} only in Triton's interpreter (start with TRITON_INTERPRET=1)"
    without = _no_launcher() if device == "cuda" and info.needs == "triton" else None
    return without or _module_reason(info.module)


@functools.lru_cache(maxsize=1)
def _no_launcher() -> str | None:
    try:
        from kernels.cuda import no_launcher
    except ImportError as error:
        return f"cannot be imported ({error})"
    return no_launcher()


@functools.lru_cache(maxsize=128)
def _module_reason(module: str) -> str | None:
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        return f"cannot be imported ({error})"
    available = getattr(loaded, "available", None)
    if available is None:
        return None
    try:
        reason: str | None = available()
    except KernelUnavailable as error:
        reason = str(error)
    return reason.rstrip(".") if reason else None


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


def _device_type(device: object) -> str:
    kind = getattr(device, "type", None) or str(device).partition(":")[0]
    if kind not in DEVICES:
        raise KernelUnavailable(f"Device {device!s} is not supported; use {' or '.join(DEVICES)}.")
    return str(kind)
