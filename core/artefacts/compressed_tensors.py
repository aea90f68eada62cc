"""The layouts of compressed-tensors (vLLM, llm-compressor, transformers), packed along the input.

Of a matrix [n, k] under NAME, "pack-quantized": weight_packed int32 [n, ceil(k * bits / 32)], a
dense stream of bits; weight_scale [n, groups]; weight_zero_point int32 [ceil(n * bits / 32),
groups], along n, where it is affine; weight_shape int64 [2]. "int-quantized": weight int8 [n, k]
and weight_scale [n, 1]; with int8 inputs by one scale, input_scale [1]. "float-quantized": weight
float8_e4m3 [n, k] and weight_scale [n, 1]. weight[i, j] = scale * (code - zero), codes and zeros
signed. Source: the package compressed-tensors, compressors/.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.artefacts.native import Shapes
from core.artefacts.parts import Part, part
from core.artefacts.scheme import (
    WHERE,
    Module,
    Scheme,
    check_divides,
    empty,
    flag,
    group,
    whole,
    words,
)
from core.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8

METHOD = "compressed-tensors"
PACKED, INT8, FLOAT8 = "pack-quantized", "int-quantized", "float-quantized"
# Widths whose layout all versions of the package share.
BITS = (2, 4, 8)
HOLDS = (
    "integers of 2, 4 or 8 bit with whole zeros in whole groups, int8 and e4m3 by row, and int8"
    " with int8 inputs"
)
# A pattern of a stranger's that a matcher can be sent away with for no longer than a moment.
_PATTERN = re.compile(r"[\w.\\^$|-]*(?:\*[\w.\\^$|-]*){0,2}")
_SCALES = ("F32", "F16", "BF16")


def refuse(form: LowBit | W8A8) -> str | None:
    """Why the layout cannot hold a matrix, or None."""
    from kernels.linear_w8a8 import W8A8

    if isinstance(form, W8A8):
        return None if form.apart is None else "compressed-tensors keeps no columns apart"
    by_row = form.group_size >= form.k
    if form.kind == "e4m3" and by_row and form.zero is None and form.scale_format != "u8":
        return None
    if form.kind != "int" or form.bits not in BITS or form.scale_format == "u8":
        return f"compressed-tensors holds {HOLDS}"
    if not by_row and form.k % form.group_size:
        return f"compressed-tensors holds whole groups, {form.group_size} do not divide {form.k}"
    zeros, most = form.zero, 2**form.bits - 1
    if zeros is not None and bool(((zeros != zeros.round()) | (zeros < 0) | (zeros > most)).any()):
        return f"compressed-tensors holds whole zeros from 0 to {most}"
    return None


def scheme_of(form: LowBit | W8A8) -> Scheme:
    """How a form that `refuse` accepts is stored."""
    from kernels.linear_w8a8 import W8A8

    if isinstance(form, W8A8):
        return Scheme(8, 0, True, INT8, "dynamic" if form.x_scale is None else "static")
    size = 0 if form.group_size >= form.k else form.group_size
    if form.kind == "e4m3":
        return Scheme(8, 0, True, FLOAT8)
    if form.bits == 8 and size == 0 and form.zero is None:
        return Scheme(8, 0, True, INT8)
    return Scheme(form.bits, size, form.zero is None, PACKED)


def config(schemes: Mapping[str, Scheme], dense: Sequence[str]) -> dict[str, Any]:
    """quantization_config; matrices of one scheme make a group of it."""
    kinds = list(dict.fromkeys(schemes.values()))
    groups: dict[str, Any] = {}
    for i, kind in enumerate(kinds):
        names = [name for name, one in schemes.items() if one == kind]
        groups[f"group_{i}"] = {
            "targets": ["Linear"] if len(kinds) == 1 else names,
            "weights": _arguments(
                8 if kind.layout == FLOAT8 else kind.bits,
                "float" if kind.layout == FLOAT8 else "int",
                kind.symmetric,
                "group" if kind.group_size else "channel",
                group_size=kind.group_size or None,
            ),
            "input_activations": _inputs(kind),
            "output_activations": None,
            "format": kind.layout,
        }
    layouts = {kind.layout for kind in kinds}
    return {
        "quant_method": METHOD,
        "format": next(iter(layouts)) if len(layouts) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "kv_cache_scheme": None,
        "ignore": list(dense),
        "config_groups": groups,
    }


def schemes(given: Mapping[str, Any], modules: Sequence[Module]) -> dict[str, Scheme]:
    """The scheme of every quantized module of a checked quantization_config."""
    empty(given, "kv_cache_scheme", "sparsity_config", "moe_sparsity_config", "transform_config")
    status = given.get("quantization_status", "compressed")
    if status != "compressed":
        raise BadInput(f"{WHERE}.quantization_status must be compressed, not {status!r:.40}.")
    groups = given.get("config_groups")
    if not isinstance(groups, Mapping) or not 1 <= len(groups) <= 1024:
        raise BadInput(f"{WHERE}.config_groups is missing or empty.")
    ignored = words(given, "ignore")
    left = [one for one in modules if not any(_matches(word, one.name) for word in ignored)]
    found: dict[str, Scheme] = {}
    for name, entry in groups.items():
        where = f"{WHERE}.config_groups.{name[:40]}"
        if not isinstance(entry, Mapping):
            raise BadInput(f"{where} must be an object.")
        scheme = _scheme(entry, given.get("format"), where)
        targets = words(entry, "targets", where)
        for module in left:
            if module.name not in found and any(
                target == "Linear" or _matches(target, module.name) for target in targets
            ):
                check_divides(module, scheme)
                found[module.name] = scheme
    if not found:
        raise BadInput(f"{WHERE}.config_groups names no matrix of this model.")
    return {module.name: found[module.name] for module in modules if module.name in found}


def expected(module: Module, scheme: Scheme) -> Shapes:
    """Dtypes and shape of a module's tensors."""
    name, n, k = module.name, module.rows, module.columns
    wanted: Shapes = {f"{name}.weight_scale": (_SCALES, (n, scheme.groups(k)))}
    if scheme.layout == PACKED:
        wanted[f"{name}.weight_packed"] = (("I32",), (n, -(-k * scheme.bits // 32)))
        wanted[f"{name}.weight_shape"] = (("I64", "I32"), (2,))
        if not scheme.symmetric:
            shape = (-(-n * scheme.bits // 32), scheme.groups(k))
            wanted[f"{name}.weight_zero_point"] = (("I32",), shape)
    else:
        wanted[f"{name}.weight"] = (("I8",) if scheme.layout == INT8 else ("F8_E4M3",), (n, k))
    if scheme.inputs == "static":
        wanted[f"{name}.input_scale"] = (_SCALES, (1,))
    return wanted


def parts(
    name: str, form: LowBit | W8A8, codes: Callable[[], Tensor], scheme: Scheme
) -> list[Part]:
    """The tensors of a form that `refuse` accepts; `codes` gives its codes [n, k] again."""
    import torch

    from core.artefacts import words
    from kernels.linear_w8a8 import W8A8

    n, k, bits = form.n, form.k, scheme.bits
    if isinstance(form, W8A8):
        found = [
            Part(f"{name}.weight", "I8", (n, k), codes),
            part(f"{name}.weight_scale", form.scale[:, None].contiguous()),
        ]
        if form.x_scale is not None:
            found.append(part(f"{name}.input_scale", torch.tensor([form.x_scale])))
        return found
    kept = torch.float16 if form.scale_format == "fp16" else torch.float32
    found = [part(f"{name}.weight_scale", form.scale.to(kept))]
    if scheme.layout == FLOAT8:
        float8 = torch.float8_e4m3fn
        found.append(Part(f"{name}.weight", "F8_E4M3", (n, k), lambda: codes().view(float8)))
    elif scheme.layout == INT8:
        found.append(Part(f"{name}.weight", "I8", (n, k), lambda: _signed(codes())))
    else:
        shape = (n, words.count(k, bits))
        found.append(Part(f"{name}.weight_packed", "I32", shape, lambda: words.pack(codes(), bits)))
        found.append(part(f"{name}.weight_shape", torch.tensor([n, k])))
        if form.zero is not None:
            zeros = words.pack(form.zero.T.contiguous().to(torch.uint8), bits).T.contiguous()
            found.append(part(f"{name}.weight_zero_point", zeros))
    return found


def read(module: Module, scheme: Scheme, get: Callable[[str], Tensor]) -> LowBit | W8A8:
    """The canonical form of a module; BadInput for values that no sound file has."""
    import torch

    from core.artefacts import words
    from core.artefacts.sound import check_scales, finite
    from kernels.linear_lowbit import LowBit
    from kernels.linear_w8a8 import W8A8

    name, k, bits = module.name, module.columns, scheme.bits
    scale = finite(f"{name}.weight_scale", get(f"{name}.weight_scale"))
    check_scales(f"{name}.weight_scale", scale)
    format = "fp16" if scale.dtype is torch.float16 else "fp32"
    scale = scale.float()
    if scheme.inputs is not None:
        x_scale = None
        if scheme.inputs == "static":
            x_scale = float(finite(f"{name}.input_scale", get(f"{name}.input_scale")))
        return W8A8(get(f"{name}.weight"), scale[:, 0].contiguous(), x_scale)
    zero = None
    if scheme.layout == FLOAT8:
        codes = get(f"{name}.weight").view(torch.uint8)
        if bool(((codes & 127) == 127).any()):
            raise BadInput(f"the tensor {name}.weight holds values that are not finite.")
        return LowBit(codes, scale, None, 8, k, "e4m3", format)
    if scheme.layout == INT8:
        codes = (get(f"{name}.weight").to(torch.int16) + 128).to(torch.uint8)
    else:
        shape = get(f"{name}.weight_shape").tolist()
        if shape != [module.rows, k]:
            raise BadInput(f"the tensor {name}.weight_shape says {shape}, not {[module.rows, k]}.")
        codes = words.unpack(get(f"{name}.weight_packed"), bits, k)
        if not scheme.symmetric:
            packed = get(f"{name}.weight_zero_point").T.contiguous()
            zero = words.unpack(packed, bits, module.rows).T.contiguous().float()
    return LowBit(codes, scale, zero, bits, scheme.group_size or k, "int", format)


def _signed(codes: Tensor) -> Tensor:
    import torch

    return (codes.to(torch.int16) - 128).to(torch.int8)


def _arguments(
    bits: int,
    kind: str,
    symmetric: bool,
    strategy: str,
    dynamic: bool = False,
    group_size: int | None = None,
) -> dict[str, Any]:
    return {
        "num_bits": bits,
        "type": kind,
        "symmetric": symmetric,
        "strategy": strategy,
        "group_size": group_size,
        "dynamic": dynamic,
        "actorder": None,
        "block_structure": None,
    }


def _inputs(scheme: Scheme) -> dict[str, Any] | None:
    if scheme.inputs is None:
        return None
    dynamic = scheme.inputs == "dynamic"
    return _arguments(8, "int", True, "token" if dynamic else "tensor", dynamic)


def _scheme(entry: Mapping[str, Any], overall: Any, where: str) -> Scheme:
    layout = entry.get("format") or overall
    if layout not in (PACKED, INT8, FLOAT8):
        raise BadInput(f"{where}.format must be {PACKED}, {INT8} or {FLOAT8}, not {layout!r:.40}.")
    empty(entry, "output_activations", where=where)
    weights = entry.get("weights")
    if not isinstance(weights, Mapping):
        raise BadInput(f"{where}.weights is missing.")
    inside = f"{where}.weights"
    kind = weights.get("type", "int")
    if kind != ("float" if layout == FLOAT8 else "int"):
        raise BadInput(f"{inside}.type {kind!r:.40} does not belong to {layout}.")
    bits = whole(weights, "num_bits", BITS if layout == PACKED else (8,), inside)
    symmetric = flag(weights, "symmetric", default=True, where=inside)
    empty(weights, "dynamic", "block_structure", where=inside)
    if weights.get("actorder") not in (None, False, "weight", "static"):
        raise BadInput(f"{inside}.actorder {weights['actorder']!r:.40} is not supported.")
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "channel")
    if strategy not in ("group", "channel"):
        raise BadInput(f"{inside}.strategy must be group or channel, not {strategy!r:.40}.")
    size = group(weights, inside) if strategy == "group" else 0
    if layout != PACKED and (size or not symmetric):
        raise BadInput(f"{inside}: {layout} is read symmetric and by channel only.")
    inputs = entry.get("input_activations")
    if not inputs:
        return Scheme(bits, size, symmetric, layout)
    asked = f"{where}.input_activations"
    if not isinstance(inputs, Mapping) or layout != INT8:
        raise BadInput(f"{asked} is supported for {INT8} alone.")
    whole(inputs, "num_bits", (8,), asked)
    dynamic = flag(inputs, "dynamic", default=False, where=asked)
    plain = inputs.get("type", "int") == "int" and flag(inputs, "symmetric", True, asked)
    if not plain or inputs.get("strategy", "token") != ("token" if dynamic else "tensor"):
        raise BadInput(f"{asked} must be symmetric int8, dynamic by token or static by tensor.")
    return Scheme(8, 0, True, INT8, "dynamic" if dynamic else "static")


def _matches(word: str, name: str) -> bool:
    """A module's name, or a pattern of it behind `re:`."""
    if not word.startswith("re:"):
        return word == name
    pattern = word.removeprefix("re:")
    if not _PATTERN.fullmatch(pattern):
        raise BadInput(f"{WHERE}: the pattern {word[:80]!r} is not a plain one.")
    try:
        return re.match(pattern, name) is not None
    except re.error as error:
        raise BadInput(f"{WHERE}: the pattern {word[:80]!r} is no pattern: {error}.") from None
