"""Kinds of damage to a folder whose matrices are quantized."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from tests.evidence.files.sound_folders import Case, Tensors, read, write

Kind = Callable[[Case], object]
FIELD = "quantization_config"
SCALES = (".scale", ".scales", ".weight_scale")
CODES = (".codes", ".codes.0", ".qweight", ".weight_packed")
# Bytes of NaN, infinity and -infinity by dtype.
WORDS = {
    "F16": (b"\x00\x7e", b"\x00\x7c", b"\x00\xfc"),
    "F32": (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff"),
}


def _config(change: Callable[[Case, dict[str, Any]], object]) -> Kind:
    def damage(case: Case) -> None:
        content = case.config()
        case.note.append(FIELD)
        change(case, content[FIELD])
        case.write("config.json", content)

    return damage


def _deep(case: Case, given: dict[str, Any]) -> dict[str, Any]:
    """The object that says how a matrix is stored."""
    if "matrices" in given:
        record: dict[str, Any] = given["matrices"][case.rng.choice(sorted(given["matrices"]))]
        return record
    if "config_groups" in given:
        group: dict[str, Any] = next(iter(given["config_groups"].values()))["weights"]
        return group
    return given


def _set(*names: str, to: Any) -> Kind:
    """One of these fields, those that are there, gets another value."""

    def change(case: Case, given: dict[str, Any]) -> None:
        inside = _deep(case, given)
        there = [name for name in names if name in inside] or ["quant_method"]
        place = inside if there[0] in inside else given
        place[case.rng.choice(there)] = to

    return _config(change)


def _left_out(case: Case, given: dict[str, Any]) -> None:
    inside = _deep(case, given)
    needed = ("bits", "kind", "codes", "inputs", "num_bits", "group_size", "quant_method")
    there = [name for name in needed if name in inside]
    del inside[case.rng.choice(there)]


def _unknown_matrix(case: Case, given: dict[str, Any]) -> None:
    if "matrices" in given:
        given["matrices"]["layers.9.qkv"] = given["matrices"]["layers.0.qkv"]
    elif "config_groups" in given:
        next(iter(given["config_groups"].values()))["targets"] = ["model.layers.9.mlp.up_proj"]
    else:
        given["bits"] = 5


def _dense_here(case: Case, given: dict[str, Any]) -> None:
    """A matrix is said to be dense that is not."""
    if "matrices" in given:
        del given["matrices"][case.rng.choice(sorted(given["matrices"]))]
    elif "config_groups" in given:
        given["ignore"] = ["re:.*down_proj", "lm_head"]
    elif given["quant_method"] == "awq":
        given["modules_to_not_convert"] = ["down_proj", "lm_head"]
    else:
        given["lm_head"] = True


def _tensors(change: Callable[[Case, Tensors, str], object], ends: tuple[str, ...]) -> Kind:
    """Change one of the tensors whose names end so."""

    def damage(case: Case) -> None:
        path = case.weights
        tensors, metadata = read(path)
        name = case.rng.choice([one for one in tensors if one.endswith(ends)])
        case.note.append(name)
        change(case, tensors, name)
        write(path, tensors, metadata)

    return damage


def _gone(case: Case, tensors: Tensors, name: str) -> None:
    del tensors[name]


def _poison(which: int) -> Callable[[Case, Tensors, str], object]:
    def change(case: Case, tensors: Tensors, name: str) -> None:
        dtype, shape, content = tensors[name]
        word = WORDS[dtype][which]
        at = len(word) * case.rng.randrange(len(content) // len(word))
        tensors[name] = (dtype, shape, content[:at] + word + content[at + len(word) :])

    return change


def _fewer(case: Case, tensors: Tensors, name: str) -> None:
    """The last row is gone, from shape and data alike."""
    dtype, shape, content = tensors[name]
    each = len(content) // shape[0]
    tensors[name] = (dtype, [shape[0] - 1, *shape[1:]], content[:-each])


def _turned(case: Case, tensors: Tensors, name: str) -> None:
    dtype, shape, content = tensors[name]
    tensors[name] = (dtype, [*shape[::-1], *[1] * (shape[0] == shape[-1])], content)


def _wide(case: Case, tensors: Tensors, name: str) -> None:
    """Twice as many numbers of the same dtype."""
    dtype, shape, content = tensors[name]
    tensors[name] = (dtype, [2 * shape[0], *shape[1:]], content * 2)


def _as_floats(case: Case, tensors: Tensors, name: str) -> None:
    """Codes in a file of floats, as a converter that knows no integers leaves them."""
    dtype, shape, content = tensors[name]
    size = {"U8": 1, "I8": 1, "I32": 4}[dtype]
    tensors[name] = ("F32", shape, bytes(4 * (len(content) // size)))


def _zero_scales(case: Case) -> None:
    path = case.weights
    tensors, metadata = read(path)
    for name, (dtype, shape, content) in tensors.items():
        if name.endswith(SCALES):
            tensors[name] = (dtype, shape, bytes(len(content)))
            case.note.append(name)
    write(path, tensors, metadata)


def _extra(case: Case) -> None:
    path = case.weights
    tensors, metadata = read(path)
    tensors["layers.0.qkv.codes.9"] = ("U8", [3], b"abc")
    write(path, tensors, metadata)


def _order(case: Case) -> None:
    """GPTQ's columns in another order; elsewhere the shape that a tensor says is another."""
    path = case.weights
    tensors, metadata = read(path)
    for name, (dtype, shape, content) in tensors.items():
        if name.endswith(".g_idx"):
            words = struct.unpack(f"<{shape[0]}i", content)
            tensors[name] = (dtype, shape, struct.pack(f"<{shape[0]}i", *words[::-1]))
        elif name.endswith(".weight_shape"):
            tensors[name] = (dtype, shape, struct.pack("<2q", 3, 5))
        elif name.endswith((".scale", ".qzeros")):
            tensors[name] = (dtype, [*shape, 1], content)
    write(path, tensors, metadata)


def _plain(case: Case) -> None:
    """The config has lost its word on quantization."""
    content = case.config()
    del content[FIELD]
    case.note.append(FIELD)
    case.write("config.json", content)


QUANTIZED: dict[str, Kind] = {
    "scales missing": _tensors(_gone, SCALES),
    "codes missing": _tensors(_gone, CODES),
    "zeros missing": _tensors(_gone, (".zero", ".qzeros", ".weight_zero_point", ".scale")),
    "scales one row short": _tensors(_fewer, SCALES),
    "codes one row short": _tensors(_fewer, CODES),
    "scales turned round": _tensors(_turned, SCALES),
    "codes turned round": _tensors(_turned, CODES),
    "codes twice as many": _tensors(_wide, CODES),
    "codes as floats": _tensors(_as_floats, CODES),
    "a scale NaN": _tensors(_poison(0), SCALES),
    "a scale infinite": _tensors(_poison(1), SCALES),
    "a scale minus infinite": _tensors(_poison(2), SCALES),
    "all scales zero": _zero_scales,
    "codes too many": _extra,
    "order or shape of another": _order,
    "quantization forgotten": _plain,
    "quantization null": lambda case: case.edit(quantization_config=None),
    "quantization method unknown": _config(lambda case, q: q.update(quant_method="hqq")),
    "quantization method a list": _config(lambda case, q: q.update(quant_method=["gptq"])),
    "quantization method left out": _config(lambda case, q: q.pop("quant_method")),
    "quantization method of another": _config(
        lambda case, q: q.update(quant_method="gptq" if q["quant_method"] == "awq" else "awq")
    ),
    "quantization version unknown": _config(
        lambda case, q: q.update(version=9, checkpoint_format="marlin", format="marlin-24")
        or [one.update(format="marlin-24") for one in q.get("config_groups", {}).values()]
    ),
    "quantization field left out": _config(_left_out),
    "quantization of a matrix unknown": _config(_unknown_matrix),
    "quantization of a matrix forgotten": _config(_dense_here),
    "a config of many groups": _config(
        lambda case, q: q.update(config_groups={str(i): {} for i in range(2000)})
        if "config_groups" in q else q.update(matrices=[], bits="4")
    ),
    "bits another": _set("bits", "num_bits", "kind", to=2),
    "bits a text": _set("bits", "num_bits", "kind", to="4"),
    "bits nine": _set("bits", "num_bits", "kind", to=9),
    "groups that do not divide": _set("group_size", "kind", to=7),
    "groups of another size": _set("group_size", "inputs", to=48),
    "groups negative": _set("group_size", "inputs", to=-16),
    "groups a fraction": _set("group_size", "inputs", to=16.0),
    "groups null": _set("group_size", "inputs", to=None),
    "zeros of another kind": _set("zero", "inputs", "zero_point", "symmetric", "sym", to="yes"),
    "saved dtype unknown": lambda case: case.edit(trimtab={"dtype": "fp7"}),
    "saved dtype a list": lambda case: case.edit(trimtab=[1]),
}  # fmt: skip
