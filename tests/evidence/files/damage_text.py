"""Kinds of damage to tokenizer.json, and odd but sound surroundings of a folder."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from tests.evidence.files.damage_files import Bomb, Kind
from tests.evidence.files.sound_folders import Case

NAME = "tokenizer.json"


def _tokenizer(change: Callable[[Case, dict[str, Any]], object]) -> Kind:
    return lambda case: case.json(NAME, lambda content: change(case, content))


def _vocab(**words: Any) -> Kind:
    return _tokenizer(lambda case, content: content["model"]["vocab"].update(words))


def _added(number: Any, **fields: Any) -> Kind:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    entry = {"id": number, "content": "<extra>"} | flags | fields
    return _tokenizer(lambda case, content: content["added_tokens"].append(entry))


def _template(number: int) -> Kind:
    """A post-processor that puts a token around every text."""
    special = {"<x>": {"id": "<x>", "ids": [number], "tokens": ["<x>"]}}
    single = [
        {"SpecialToken": {"id": "<x>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    processor = {"type": "TemplateProcessing", "single": single, "pair": single,
                 "special_tokens": special}  # fmt: skip
    return _tokenizer(lambda case, content: content.update(post_processor=processor))


def _padding(length: int) -> dict[str, Any]:
    return {"strategy": {"Fixed": length}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"}  # fmt: skip


def _any_value(case: Case, content: dict[str, Any]) -> None:
    part = case.rng.choice((content, content["model"]))
    part[case.rng.choice(sorted(part))] = case.rng.choice((None, 7, -1, "x", [], {}, [[1]], True))


def _left_out(case: Case, content: dict[str, Any]) -> None:
    part = case.rng.choice((content, content["model"]))
    del part[case.rng.choice(sorted(part))]


def _cut(case: Case) -> None:
    text = (case.path / NAME).read_text(encoding="utf-8")
    case.write(NAME, text[: case.rng.randrange(len(text) - 2)])


def _hole(case: Case, content: dict[str, Any]) -> None:
    vocab = content["model"]["vocab"]
    del vocab[case.rng.choice([word for word in vocab if len(word) == 1])]


def _set(**fields: Any) -> Kind:
    return _tokenizer(lambda case, content: content.update(fields))


def _model(**fields: Any) -> Kind:
    return _tokenizer(lambda case, content: content["model"].update(fields))


TEXT: dict[str, Kind] = {
    "tokenizer missing": lambda case: (case.path / NAME).unlink(),
    "tokenizer empty": lambda case: case.write(NAME, ""),
    "tokenizer an empty object": lambda case: case.write(NAME, "{}"),
    "tokenizer not JSON": lambda case: case.write(NAME, "{"),
    "tokenizer not UTF-8": lambda case: case.write(NAME, b"\xff{}"),
    "tokenizer cut off": _cut,
    "tokenizer deep": lambda case: case.write(NAME, '{"a":' * 90 + "1" + "}" * 90),
    "tokenizer huge": lambda case: case.write(NAME, " " * 64_000_001),
    "tokenizer of many values": lambda case: case.write(NAME, "[" + "[]," * 2_100_000 + "[]]"),
    "id one beyond": _vocab(zz=300),
    "id far beyond": _vocab(zz=10**9),
    "id negative": _vocab(zz=-1),
    "id a text": _vocab(zz="3"),
    "id a fraction": _vocab(zz=3.0),
    "id a bool": _vocab(zz=True),
    "id twice": _vocab(zz=7),
    "vocabulary empty": _model(vocab={}),
    "vocabulary a list": _model(vocab=[["a", -1.0]]),
    "vocabulary a text": _model(vocab="abc"),
    "kind of model unknown": _model(type="Magic"),
    "merges nonsense": _model(merges=[["q", "not there"]]),
    "merges a text": _model(merges="a b"),
    "added token beyond": _added(300),
    "added token far beyond": _added(1 << 40),
    "added token negative": _added(-1),
    "added token a text": _added("5"),
    "added token over another": _added(5),
    "added tokens an object": _set(added_tokens={"a": 1}),
    "added tokens numbers": _set(added_tokens=[1, 2]),
    "a token put around, beyond": _template(300),
    "filled up to a trillion": _set(padding=_padding(10**12)),
    "filled up to a thousand": _set(padding=_padding(1000)),
    "cut to three": _set(
        truncation={"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    ),
    "cut to nothing": _set(
        truncation={"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5}
    ),
    "normalizer nonsense": _set(normalizer={"type": "Sequence", "normalizers": 3}),
    "pattern broken": _set(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated",
                       "invert": False}
    ),
    "a letter without a token": _tokenizer(_hole),
    "any value": _tokenizer(_any_value),
    "a field left out": _tokenizer(_left_out),
    "odd class": lambda case: case.write("tokenizer_config.json", {"tokenizer_class": "Nothing"}),
    "tokenizer config not JSON": lambda case: case.write("tokenizer_config.json", "{"),
}  # fmt: skip


def _adapter(case: Case) -> None:
    case.write("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "/x"})


def _empty(case: Case) -> None:
    for path in case.path.iterdir():
        path.unlink()


def _file(case: Case) -> None:
    moved = case.path.rename(case.path.with_name(case.path.name + "-moved"))
    case.path.write_bytes((moved / "config.json").read_bytes())


def _named(name: str, broken: bool) -> Kind:
    def change(case: Case) -> None:
        if broken:
            case.weights.unlink()
        case.path = case.path.rename(case.path.with_name(name))

    return change


def _strangers(case: Case) -> None:
    """What lies beside weights everywhere, and a pickle nobody may open."""
    case.write("README.md", "# a model\n")
    case.write("pytorch_model.bin", pickle.dumps(Bomb(case.payload)))
    case.write("training_args.bin", pickle.dumps(Bomb(case.payload)))
    case.write("sitecustomize.py", case.payload)
    case.write("handler.py", case.payload)
    (case.path / "onnx").mkdir()
    case.write("onnx/config.json", "{")


FOLDERS: dict[str, Kind] = {
    "folder empty": _empty,
    "a file for a folder": _file,
    "folder gone": lambda case: case.path.rename(case.path.with_name(case.path.name + "-moved")),
    "an adapter beside the weights": _adapter,
    "strangers beside the weights": _strangers,
    "name with a line end": _named("a\nb", False),
    "name with a line end, weights missing": _named("a\nb", True),
    "name with escapes, weights missing": _named("\x1b[31mred\x07", True),
    "name that is no text, weights missing": _named("\udcff\udcfe", True),
    "name turned round, weights missing": _named("a\u202egpj.exe", True),
    "name of dots and spaces": _named("... ...", False),
}
