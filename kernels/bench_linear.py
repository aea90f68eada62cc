"""The linear layers' benchmark cases and their checks against the fp64 references.

A call takes the next of several copies of the weight, so that weights come from memory as in a
decoder's step, not from a cache that holds one matrix.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import torch

from kernels import linear_dense, linear_w4, linear_w8
from kernels.bench_case import Case, Contender, name_of, runnable
from kernels.linear_dense import reference as dense_reference
from kernels.linear_w4 import reference as w4_reference
from kernels.linear_w8 import reference as w8_reference
from kernels.registry import KernelInfo

BASELINE = "linear_dense=torch"
DENSE_SHAPES = ((576, 576), (1536, 576), (576, 1536), (49152, 576), (4096, 4096))
PACKED_SHAPES = ((1536, 576), (49152, 576), (4096, 4096))
DENSE_ROWS = (1, 4, 16)
PACKED_ROWS = (1, 8, 128)
ODD_SHAPES = ((1, 1, 32), (3, 17, 96), (17, 33, 100), (5, 130, 577))
# Larger than the last cache of the processors we know, with room.
WORKING_SET = 64 << 20
TOLERANCE = 0.01
DTYPE = torch.bfloat16


def cases(op: str, device: str) -> Iterator[Case]:
    """The cases of linear_dense, linear_w8 or linear_w4 on a device, one at a time."""
    dense = op == "linear_dense"
    for n, k in DENSE_SHAPES if dense else PACKED_SHAPES:
        weight = torch.randn(n, k, device=device, dtype=DTYPE) / k**0.5
        infos = runnable("linear_dense", device) + ([] if dense else runnable(op, device))
        ready = [(info, *_copies(info, weight)) for info in infos]
        for rows in DENSE_ROWS if dense else PACKED_ROWS:
            x = torch.randn(rows, k, device=device, dtype=DTYPE)
            contenders = [
                Contender(name_of(info), size + 2 * rows * (n + k), _turn(layers, x))
                for info, size, layers in ready
                if info.name != "gemv-bf16" or rows <= linear_dense.GEMV_ROWS
            ]
            yield Case(op, f"{n} x {k}", rows, BASELINE, tuple(contenders))


def check(info: KernelInfo, device: str) -> str | None:
    """None when the kernel agrees with its fp64 reference on odd shapes, else one sentence."""
    for rows, n, k in ODD_SHAPES:
        weight = torch.randn(n, k, device=device, dtype=DTYPE)
        x = torch.randn(rows, k, device=device, dtype=DTYPE)
        bias = torch.randn(n, device=device, dtype=DTYPE)
        if info.op == "linear_dense":
            exact = dense_reference.linear(x.cpu(), weight.cpu(), bias.cpu())
            got = linear_dense.linear(x, weight, bias, kernel=info.name)
        elif info.op == "linear_w8":
            w8 = linear_w8.pack(weight, kernel=info.name)
            codes = w8.codes[:, :k].cpu()
            exact = w8_reference.linear(x.cpu(), codes, w8.scale.cpu(), bias.cpu())
            got = linear_w8.linear(x, w8, bias)
        else:
            form = linear_w4.quantize(weight)
            values = w4_reference.dequantize(
                form.codes()[:, :k].cpu(), form.scale.cpu(), form.zero.cpu(), form.group_size
            )
            exact = w4_reference.linear(x.cpu(), values, bias.cpu())
            got = linear_w4.linear(x, linear_w4.lay_out(form, info.name), bias)
        # Relative to the size that a sum of k products has.
        error = ((got.cpu().double() - exact).abs() / (exact.abs() + k**0.5)).max().item()
        if not error <= TOLERANCE:
            return (
                f"{name_of(info)} is off by {error:.3g} (allowed {TOLERANCE}) "
                f"from its reference at {rows} x {n} x {k}"
            )
    return None


def _copies(
    info: KernelInfo, weight: torch.Tensor
) -> tuple[int, list[Callable[[torch.Tensor], object]]]:
    """The bytes of one packed weight, and layers that each hold a copy of their own."""
    if info.op == "linear_dense":
        size = weight.nbytes
        layers: list[Callable[[torch.Tensor], object]] = [
            linear_dense.prepare(weight.clone(), kernel=info.name) for _ in range(_times(size))
        ]
    elif info.op == "linear_w8":
        w8 = linear_w8.pack(weight, kernel=info.name)
        size = w8.nbytes
        layers = [
            _w8_layer(dataclasses.replace(w8, codes=w8.codes.clone())) for _ in range(_times(size))
        ]
    else:
        w4 = linear_w4.pack(weight, kernel=info.name)
        size = w4.nbytes
        layers = [
            _w4_layer(dataclasses.replace(w4, packed=w4.packed.clone()))
            for _ in range(_times(size))
        ]
    return size, layers


def _times(size: int) -> int:
    return max(1, -(-WORKING_SET // size))


def _w8_layer(packed: linear_w8.PackedW8) -> Callable[[torch.Tensor], object]:
    return lambda x: linear_w8.linear(x, packed)


def _w4_layer(packed: linear_w4.PackedW4) -> Callable[[torch.Tensor], object]:
    return lambda x: linear_w4.linear(x, packed)


def _turn(layers: list[Callable[[torch.Tensor], object]], x: torch.Tensor) -> Callable[[], object]:
    turn = itertools.cycle(layers)
    return lambda: next(turn)(x)
