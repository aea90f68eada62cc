"""Kinds of damage to weights, index, tokenizer and the folder itself."""

from __future__ import annotations

import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable
from typing import Any

from tests.evidence.files.sound_folders import (
    INDEX,
    SINGLE,
    Case,
    Tensors,
    header_of,
    put,
    read,
    write,
)

Kind = Callable[[Case], object]


class Bomb:
    """A pickle that runs the payload when it is opened."""

    def __init__(self, payload: str) -> None:
        self.payload = payload

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, (self.payload,)


def _tensors(change: Callable[[Case, Tensors], object]) -> Kind:
    def damage(case: Case) -> None:
        path = case.weights
        tensors, metadata = read(path)
        change(case, tensors)
        write(path, tensors, metadata)

    return damage


def _pick(case: Case, tensors: Tensors, odd: bool = False) -> str:
    names = [name for name, (_, shape, _) in tensors.items()
             if not odd or (len(shape) == 2 and shape[0] != shape[1])]  # fmt: skip
    name = case.rng.choice(names or list(tensors))
    case.note.append(name)
    return name


def _drop(case: Case, tensors: Tensors) -> None:
    del tensors[_pick(case, tensors)]


def _rename(case: Case, tensors: Tensors) -> None:
    name = _pick(case, tensors)
    other = case.rng.choice((name + "x", name.replace(".weight", ""), name.upper(), "\n", "model"))
    tensors[other if other != name else "odd"] = tensors.pop(name)


def _extra_layer(case: Case, tensors: Tensors) -> None:
    for name in list(tensors):
        if ".2." in name:
            tensors[name.replace(".2.", ".3.")] = tensors[name]
    tensors["model.layers.3.mlp.up_proj.weight"] = ("F32", [2, 2], bytes(16))


def _missing_layer(case: Case, tensors: Tensors) -> None:
    for name in [name for name in tensors if ".1." in name] or list(tensors)[:1]:
        del tensors[name]


def _too_many(case: Case, tensors: Tensors) -> None:
    tensors["model.secret"] = ("F32", [3], bytes(12))


def _shape(change: Callable[[list[int]], list[int]]) -> Kind:
    def damage(case: Case, tensors: Tensors) -> None:
        name = _pick(case, tensors, odd=True)
        dtype, shape, content = tensors[name]
        tensors[name] = (dtype, change(shape), content)

    return _tensors(damage)


def _rows(case: Case, tensors: Tensors) -> None:
    name = _pick(case, tensors)
    dtype, shape, content = tensors[name]
    each = len(content) // shape[0]
    tensors[name] = (dtype, [shape[0] - 1, *shape[1:]], content[:-each])


def _dtype(other: Any) -> Kind:
    def damage(case: Case, tensors: Tensors) -> None:
        name = _pick(case, tensors)
        tensors[name] = (other, *tensors[name][1:])

    return _tensors(damage)


def _value(word: bytes) -> Kind:
    """One float32 of a tensor."""

    def damage(case: Case, tensors: Tensors) -> None:
        name = _pick(case, tensors)
        dtype, shape, content = tensors[name]
        at = 4 * case.rng.randrange(len(content) // 4)
        tensors[name] = (dtype, shape, content[:at] + word + content[at + 4 :])

    return _tensors(damage)


def _zeros(case: Case, tensors: Tensors) -> None:
    for name in list(tensors):
        dtype, shape, content = tensors[name]
        tensors[name] = (dtype, shape, bytes(len(content)))
        case.note.append(name)


def _header(change: Callable[[Case, dict[str, Any], str], object]) -> Kind:
    """Change the JSON of a header; the third word is a tensor's name."""

    def damage(case: Case) -> None:
        path = case.weights
        header, data = header_of(path)
        name = case.rng.choice([one for one in header if one != "__metadata__"])
        case.note.append(name)
        change(case, header, name)
        put(path, header, data)

    return damage


def _metadata(content: object) -> Kind:
    def change(case: Case, header: dict[str, Any], name: str) -> None:
        header["__metadata__"] = content
        case.note[:] = ["__metadata__"]

    return _header(change)


def _entry(**fields: Any) -> Kind:
    return _header(lambda case, header, name: header[name].update(fields))


def _overlap(case: Case, header: dict[str, Any], name: str) -> None:
    same = [one for one in header if one not in ("__metadata__", name)
            and header[one]["shape"] == header[name]["shape"]]  # fmt: skip
    if same:
        header[name]["data_offsets"] = header[case.rng.choice(same)]["data_offsets"]
    else:
        header[name]["data_offsets"] = [offset + 4 for offset in header[name]["data_offsets"]]


def _beyond(case: Case, header: dict[str, Any], name: str) -> None:
    header[name]["data_offsets"] = [offset + 10**9 for offset in header[name]["data_offsets"]]


def _bytes(change: Callable[[Case, bytes], bytes]) -> Kind:
    def damage(case: Case) -> None:
        path = case.weights
        path.write_bytes(change(case, path.read_bytes()))

    return damage


def _length(change: Callable[[int], int]) -> Kind:
    def change_it(case: Case, content: bytes) -> bytes:
        length = change(int.from_bytes(content[:8], "little")) % (1 << 64)
        return length.to_bytes(8, "little") + content[8:]

    return _bytes(change_it)


def _flip_header(case: Case, content: bytes) -> bytes:
    length = int.from_bytes(content[:8], "little")
    changed = bytearray(content)
    changed[case.rng.randrange(8 + length)] ^= 1 << case.rng.randrange(8)
    return bytes(changed)


def _twice(case: Case) -> None:
    path = case.weights
    header, data = header_of(path)
    name = next(one for one in header if one != "__metadata__")
    text = json.dumps(header)[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    put(path, text.encode(), data)


def _bloat(case: Case) -> None:
    path = case.weights
    header, data = header_of(path)
    put(path, json.dumps(header).encode() + b" " * 33_000_000, data)


def _many(case: Case) -> None:
    put(case.weights, b'{"a":[' + b"[]," * 1_500_000 + b"[]]}", b"")


def _sparse(case: Case) -> None:
    os.truncate(case.weights, 1 << 40)


def _special(make: Callable[[Case, str], object], *names: str) -> Kind:
    def damage(case: Case) -> None:
        there = [name for name in names if (case.path / name).exists()] or [case.weights.name]
        name = case.rng.choice(there)
        case.note.append(name)
        make(case, name)

    return damage


def _link_outside(case: Case, name: str) -> None:
    outside = case.path.parent / f"{case.path.name}-outside"
    (case.path / name).rename(outside)
    (case.path / name).symlink_to(outside)


def _socket(case: Case, name: str) -> None:
    here = os.open(case.path, os.O_RDONLY)
    case.replace(name)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{here}/{name}")
    os.close(here)


def _only(name: str) -> Kind:
    def damage(case: Case) -> None:
        for path in [*case.path.glob("*.safetensors"), *case.path.glob("*.index.json")]:
            path.unlink()
        (case.path / name).write_bytes(pickle.dumps(Bomb(case.payload)))

    return damage


def _zip(case: Case) -> None:
    path = case.weights
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("data.pkl", pickle.dumps(Bomb(case.payload)))
        file.writestr("data", content)


ALL = ("config.json", "tokenizer.json", SINGLE, INDEX)
FOUR = ("nan", b"\x00\x00\xc0\x7f"), ("inf", b"\x00\x00\x80\x7f"), ("-inf", b"\x00\x00\x80\xff")
WEIGHTS: dict[str, Kind] = {
    "weights missing": lambda case: case.weights.unlink(),
    "weights renamed": lambda case: case.weights.rename(case.path / "pytorch.safetensors"),
    "only a pickle .bin": _only("pytorch_model.bin"),
    "only a pickle .pt": _only("model.pt"),
    "only a pickle .pkl": _only("model.pkl"),
    "a pickle called safetensors": _bytes(lambda case, _: pickle.dumps(Bomb(case.payload))),
    "a zip called safetensors": _zip,
    "weights empty": _bytes(lambda case, content: b""),
    "weights of seven bytes": _bytes(lambda case, content: content[:7]),
    "header cut": _bytes(lambda case, content: content[: case.rng.randrange(9, 300)]),
    "data cut": _bytes(lambda case, content: content[: -case.rng.randrange(1, 999)]),
    "trailing bytes": _bytes(lambda case, content: content + bytes(case.rng.randrange(1, 99))),
    "a terabyte of nothing behind": _sparse,
    "header length 2**63": _length(lambda length: 1 << 63),
    "header length -1": _length(lambda length: -1),
    "header length zero": _length(lambda length: 0),
    "header length one more": _length(lambda length: length + 1),
    "header length one less": _length(lambda length: length - 1),
    "header bloated": _bloat,
    "header of many values": _many,
    "header bit flipped": _bytes(_flip_header),
    "header not JSON": lambda case: put(case.weights, b"{nothing", b""),
    "header not UTF-8": lambda case: put(case.weights, b'{"\xff": 1}', b""),
    "header deep": lambda case: put(case.weights, b'{"a":' * 90_000, b""),
    "header a list": lambda case: put(case.weights, b"[]", b""),
    "header without tensors": lambda case: put(case.weights, {}, b""),
    "header entry a number": lambda case: put(case.weights, {"a": 3}, b""),
    "tensor twice": _twice,
    "metadata nonsense": _metadata({"format": 3}),
    "metadata a list": _metadata([1]),
    "unknown field": _entry(strides=[1, 2]),
    "offsets overlap": _header(_overlap),
    "offsets beyond the file": _header(_beyond),
    "offsets negative": _entry(data_offsets=[-64, 0]),
    "offsets backwards": _entry(data_offsets=[64, 0]),
    "offsets fractions": _entry(data_offsets=[0.0, 64.0]),
    "offsets missing": _header(lambda c, h, n: h[n].pop("data_offsets")),
    "shape negative": _entry(shape=[-24, -16]),
    "shape huge": _entry(shape=[1 << 40, 1 << 40]),
    "shape of nine sizes": _entry(shape=[1] * 9),
    "shape of texts": _entry(shape=["48", "80"]),
    "shape of bools": _entry(shape=[True, True]),
    "shape with a zero": _entry(shape=[0, 48], data_offsets=[0, 0]),
    "dtype unknown": _entry(dtype="Q3"),
    "dtype in small letters": _entry(dtype="f32"),
    "dtype a list": _entry(dtype=["F32"]),
    "dtype integers": _dtype("I32"),
    "dtype half as wide": _entry(dtype="F16"),
    "dtype twice as wide": _entry(dtype="F64"),
    "tensor missing": _tensors(_drop),
    "tensor renamed": _tensors(_rename),
    "tensor too many": _tensors(_too_many),
    "extra layer": _tensors(_extra_layer),
    "missing layer": _tensors(_missing_layer),
    "tensor transposed": _shape(lambda shape: shape[::-1]),
    "tensor flattened": _shape(lambda shape: [shape[0] * (shape[1] if shape[1:] else 1)]),
    "tensor one dimension more": _shape(lambda shape: [1, *shape]),
    "a row missing": _tensors(_rows),
    "all zeros": _tensors(_zeros),
    **{f"value {name}": _value(word) for name, word in FOUR},
    "a link outside": _special(_link_outside, *ALL),
    "a link to nothing": _special(lambda c, n: c.replace(n).symlink_to("gone"), *ALL),
    "a link to itself": _special(lambda c, n: c.replace(n).symlink_to(n), *ALL),
    "a link to a device": _special(lambda c, n: c.replace(n).symlink_to("/dev/zero"), *ALL),
    "a link to a folder": _special(lambda c, n: c.replace(n).symlink_to("."), *ALL),
    "a pipe": _special(lambda c, n: os.mkfifo(c.replace(n)), *ALL),
    "a socket": _special(_socket, *ALL),
    "a folder for a file": _special(lambda c, n: c.replace(n).mkdir(), *ALL),
    "unreadable": _special(lambda c, n: (c.path / n).chmod(0), *ALL),
    "folder unreadable": lambda case: case.path.chmod(0),
}


def _map(change: Callable[[Case, dict[str, Any]], object]) -> Kind:
    return lambda case: case.json(INDEX, lambda content: change(case, content["weight_map"]))


def _send(target: Any) -> Kind:
    def change(case: Case, weight_map: dict[str, Any]) -> None:
        name = case.rng.choice(sorted(weight_map))
        case.note.append(name)
        weight_map[name] = target

    return _map(change)


def _wrong_shard(case: Case, weight_map: dict[str, Any]) -> None:
    name = case.rng.choice(sorted(weight_map))
    weight_map[name] = case.rng.choice([s for s in weight_map.values() if s != weight_map[name]])


def _unlisted(case: Case, weight_map: dict[str, Any]) -> None:
    del weight_map[case.rng.choice(sorted(weight_map))]


def _in_two(case: Case) -> None:
    first, second = sorted(case.path.glob("*.safetensors"))[:2]
    tensors, metadata = read(second)
    name, tensor = next(iter(read(first)[0].items()))
    write(second, tensors | {name: tensor}, metadata)


INDEXES: dict[str, Kind] = {
    "index leads outside": _send("../outside.safetensors"),
    "index leads far outside": _send("../../../../etc/passwd"),
    "index absolute": _send("/etc/passwd.safetensors"),
    "index to a pickle": _send("model.bin"),
    "index to no file": _send("model-00009-of-00009.safetensors"),
    "index to a control character": _send("a\nb.safetensors"),
    "index to a lone surrogate": _send("\ud800.safetensors"),
    "index to a zero byte": _send("a\0.safetensors"),
    "index to a very long name": _send("x" * 5000 + ".safetensors"),
    "index to a number": _send(3),
    "index to the wrong shard": _map(_wrong_shard),
    "index one more": _map(lambda case, found: found.update(extra=sorted(found.values())[0])),
    "index one less": _map(_unlisted),
    "index empty": _map(lambda case, found: found.clear()),
    "index without a map": lambda case: case.write(INDEX, {"metadata": {}}),
    "index a list": lambda case: case.write(INDEX, "[]"),
    "index not JSON": lambda case: case.write(INDEX, "{"),
    "index key twice": lambda case: case.write(
        INDEX, '{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}'
    ),
    "index missing": lambda case: (case.path / INDEX).unlink(),
    "index total wrong": lambda case: case.json(
        INDEX, lambda content: content.update(metadata={"total_size": -1})
    ),
    "shard missing": lambda case: case.weights.unlink(),
    "tensor in two shards": _in_two,
}
