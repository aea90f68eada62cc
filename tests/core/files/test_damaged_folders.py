"""Damaged folders: each is refused by one sentence that names the file, and the field or tensor."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.engine.load.load import load_folder
from core.errors import BadInput
from core.files.folder import check_folder

EMBEDDING = "model.embed_tokens.weight"
GATE = "model.layers.1.mlp.gate_proj.weight"
Damage = Callable[[Any], object]


def _drop(folder: Any, name: str) -> None:
    del folder.tensors[name]
    folder.save()


def _set(folder: Any, name: str, tensor: torch.Tensor) -> None:
    folder.tensors[name] = tensor
    folder.save()


def _rename(folder: Any) -> None:
    folder.tensors["model.layers.1.mlp.gate.weight"] = folder.tensors.pop(GATE)
    folder.save()


def _poison(folder: Any, value: float) -> None:
    folder.tensors[GATE][3, 5] = value
    folder.save()


def _extra_layer(folder: Any) -> None:
    folder.tensors |= {
        name.replace("layers.1.", "layers.2."): tensor.clone()
        for name, tensor in folder.tensors.items()
        if "layers.1." in name
    }
    folder.save()


def _only_pickle(folder: Any, name: str) -> None:
    folder.weights.unlink()
    (folder.path / name).write_bytes(pickle.dumps({"a": 1}))


def _link(folder: Any, name: str) -> None:
    outside = folder.path.parent / "outside"
    (folder.path / name).rename(outside)
    (folder.path / name).symlink_to(outside)


def _replace_by_fifo(folder: Any) -> None:
    folder.weights.unlink()
    os.mkfifo(folder.weights)


def _entry(folder: Any, **fields: Any) -> None:
    header, data = folder.header()
    header[GATE] |= fields
    folder.put(header, data)


def _overlap(folder: Any) -> None:
    header, data = folder.header()
    other = "model.layers.0.mlp.gate_proj.weight"
    header[GATE]["data_offsets"] = header[other]["data_offsets"]
    folder.put(header, data)


def _gap(folder: Any) -> None:
    header, data = folder.header()
    folder.put(header, data + b"\0" * 64)


def _shift(folder: Any) -> None:
    header, data = folder.header()
    header[GATE]["data_offsets"] = [offset + 10**9 for offset in header[GATE]["data_offsets"]]
    folder.put(header, data)


def _twice(folder: Any) -> None:
    header, data = folder.header()
    text = json.dumps(header)[:-1] + f', "{GATE}": {json.dumps(header[GATE])}}}'
    folder.put(text.encode(), data)


def _cut(folder: Any, keep: int) -> None:
    folder.weights.write_bytes(folder.weights.read_bytes()[:keep])


def _shards(folder: Any, weight_map: dict[str, str] | None = None, **files: Any) -> None:
    folder.weights.unlink()
    names = sorted(folder.tensors)
    first = {name: folder.tensors[name] for name in names[:9]}
    folder.save("one.safetensors", **first)
    folder.save("two.safetensors", **{name: folder.tensors[name] for name in names[9:]})
    places = {name: "one.safetensors" if name in first else "two.safetensors" for name in names}
    folder.write("model.safetensors.index.json", {"weight_map": places | (weight_map or {})})


def _tokenizer(folder: Any, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder.path / "tokenizer.json").read_text())
    change(content)
    folder.write("tokenizer.json", content)


def _huge_header(folder: Any) -> None:
    with folder.weights.open("r+b") as file:
        file.write((200_000_000).to_bytes(8, "little"))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no config": (lambda f: (f.path / "config.json").unlink(), "config.json is missing"),
    "empty config": (lambda f: f.write("config.json", ""), "config.json is not valid JSON"),
    "config not JSON": (lambda f: f.write("config.json", "{a: 1}"), "config.json is not valid"),
    "config a list": (lambda f: f.write("config.json", "[1]"), "config.json must hold a JSON obj"),
    "config not text": (
        lambda f: (f.path / "config.json").write_bytes(b"\xff\xfe\x00{"), "config.json is not UTF",
    ),
    "config deep": (
        lambda f: f.write("config.json", '{"a":' * 60 + "1" + "}" * 60), "config.json is nested",
    ),
    "config very deep": (
        lambda f: f.write("config.json", "[" * 90_000), "config.json is nested",
    ),
    "config huge": (
        lambda f: f.write("config.json", " " * 1_000_001), "config.json has 1,000,001 bytes",
    ),
    "config with a key twice": (
        lambda f: f.write("config.json", '{"model_type": "llama", "model_type": "gpt2"}'),
        "config.json gives the key 'model_type' twice",
    ),
    "number of 5000 digits": (
        lambda f: f.write("config.json", '{"vocab_size": ' + "9" * 5000 + "}"),
        "config.json is not valid JSON",
    ),
    "config a link outside": (lambda f: _link(f, "config.json"), "config.json is a link .* out"),
    "config a folder": (
        lambda f: ((f.path / "config.json").unlink(), (f.path / "config.json").mkdir()),
        "config.json is not a regular file",
    ),
    "no model type": (lambda f: f.change(model_type=None), "config.json: model_type is missing"),
    "unknown model type": (lambda f: f.change(model_type="mamba9"), "model_type 'mamba9'"),
    "model type a list": (lambda f: f.change(model_type=["llama"]), "config.json: model_type"),
    "auto_map": (
        lambda f: f.change(auto_map={"AutoModel": "code.Model"}), "config.json: auto_map .* code",
    ),
    "ten million layers": (
        lambda f: f.change(num_hidden_layers=10**7), "config.json: num_hidden_layers",
    ),
    "negative layers": (lambda f: f.change(num_hidden_layers=-1), "num_hidden_layers"),
    "heads zero": (lambda f: f.change(num_attention_heads=0), "num_attention_heads"),
    "vocabulary 2^40": (lambda f: f.change(vocab_size=2**40), "config.json: vocab_size"),
    "a size as text": (lambda f: f.change(hidden_size="16"), "config.json: hidden_size"),
    "a size a fraction": (lambda f: f.change(hidden_size=16.5), "config.json: hidden_size"),
    "eps infinite": (lambda f: f.change(rms_norm_eps=float("inf")), "config.json: rms_norm_eps"),
    "activation unknown": (lambda f: f.change(hidden_act="relu"), "config.json: hidden_act 'relu'"),
    "rope unknown": (
        lambda f: f.change(rope_scaling={"rope_type": "longrope"}), "rope type 'longrope'",
    ),
    "attention both ways": (
        lambda f: f.change(is_causal=False), "config.json: is_causal False is not supported",
    ),
    "layers unlike": (
        lambda f: f.change(per_layer_config={"0": {}}), "config.json: per_layer_config",
    ),
    "two kinds of rope": (
        lambda f: f.change(rope_parameters={"rope_theta": 5e5},
                           rope_scaling={"type": "linear", "factor": 2.0}),
        "rope_scaling and rope_parameters differ",
    ),
    "rope by kind of layer": (
        lambda f: f.change(rope_parameters={"full_attention": {"rope_theta": 1e4}}),
        "rope_parameters gives 'full_attention' positions of its own",
    ),
    "start token outside": (lambda f: f.change(bos_token_id=40), "config.json: bos_token_id"),
    "other weights named": (
        lambda f: f.change(transformers_weights="x.safetensors"), "transformers_weights names",
    ),
    "kernels from elsewhere": (
        lambda f: f.change(_attn_implementation="a/b"), "_attn_implementation 'a/b' is no plain",
    ),
    "an adapter beside the weights": (
        lambda f: f.write("adapter_config.json", {}), "adapter_config.json says that an adapter",
    ),
    "nothing but zeros": (
        lambda f: _set(f, GATE, torch.zeros(24, 16)), f"the tensor {GATE} holds nothing but zeros",
    ),
    "already quantized": (
        lambda f: f.change(quantization_config={"quant_method": "?"}), "quantization_config",
    ),
    "other layers in config": (
        lambda f: f.change(num_hidden_layers=3), "model.safetensors: .*layers.2.* is missing",
    ),
    "other width in config": (
        lambda f: f.change(intermediate_size=32), r"gate_proj.weight has the shape \[24, 16\]",
    ),
    "tensor missing": (lambda f: _drop(f, GATE), f"safetensors: the tensor {GATE} .* missing"),
    "embedding missing": (lambda f: _drop(f, EMBEDDING), f"{EMBEDDING} .* missing"),
    "tensor renamed": (_rename, f"the tensor {GATE} .* is missing"),
    "extra layer": (_extra_layer, "layers.2.* is not part of the model"),
    "tensor too many": (
        lambda f: _set(f, "model.secret", torch.zeros(3)), "model.secret is not part of the model",
    ),
    "tensor transposed": (
        lambda f: _set(f, GATE, torch.zeros(16, 24)), rf"{GATE} has the shape \[16, 24\]",
    ),
    "tensor of integers": (
        lambda f: _set(f, GATE, torch.zeros(24, 16, dtype=torch.int32)), f"{GATE}.* dtype 'I32'",
    ),
    "NaN": (lambda f: _poison(f, float("nan")), f"model.safetensors: the tensor {GATE} .* finite"),
    "infinity": (lambda f: _poison(f, float("inf")), f"the tensor {GATE} .* not finite"),
    "untied head beside a tie": (
        lambda f: _set(f, "lm_head.weight", torch.ones(40, 16)), "tie_word_embeddings is true",
    ),
    "head of another shape beside a tie": (
        lambda f: _set(f, "lm_head.weight", torch.zeros(4, 16)), r"lm_head.weight has the shape",
    ),
    "no weights": (lambda f: f.weights.unlink(), "model.safetensors is missing"),
    "weights under another name": (
        lambda f: f.weights.rename(f.path / "weights.safetensors"), "there is weights.safetensors",
    ),
    "only pytorch_model.bin": (lambda f: _only_pickle(f, "pytorch_model.bin"), "pytorch_model.bin"),
    "only model.pt": (lambda f: _only_pickle(f, "model.pt"), "model.pt is not a safe format"),
    "only model.pkl": (lambda f: _only_pickle(f, "model.pkl"), "model.pkl is not a safe format"),
    "a pickle called safetensors": (
        lambda f: f.weights.write_bytes(pickle.dumps({"a": [1] * 99})), "model.safetensors",
    ),
    "weights a link outside": (
        lambda f: _link(f, "model.safetensors"), "model.safetensors is a link that leads out",
    ),
    "weights a link to nothing": (
        lambda f: (f.weights.unlink(), f.weights.symlink_to("gone")), "a link that leads nowhere",
    ),
    "weights a link to itself": (
        lambda f: (f.weights.unlink(), f.weights.symlink_to(f.weights)), "leads nowhere",
    ),
    "weights a pipe": (_replace_by_fifo, "model.safetensors is not a regular file"),
    "weights empty": (lambda f: _cut(f, 0), "model.safetensors is empty or cut off"),
    "weights of four bytes": (lambda f: _cut(f, 4), "model.safetensors is empty or cut off"),
    "header cut": (lambda f: _cut(f, 100), "model.safetensors is cut off"),
    "data cut": (
        lambda f: _cut(f, f.weights.stat().st_size - 40), "model.safetensors.* cut off or damaged",
    ),
    "header of 200 MB": (_huge_header, "model.safetensors: the header claims 200,000,000"),
    "header not JSON": (lambda f: f.put(b"{nothing", b""), r"model.safetensors \(header\) is not"),
    "header deep": (
        lambda f: f.put(b'{"a":' * 90_000, b""), r"model.safetensors \(header\) is nested",
    ),
    "header without tensors": (lambda f: f.put({}, b""), "model.safetensors holds no tensors"),
    "header entry a number": (lambda f: f.put({"a": 3}, b""), "'a' has no dtype"),
    "a tensor twice": (_twice, f"gives the key '{GATE}' twice"),
    "offsets overlap": (_overlap, "model.safetensors: data_offsets .* overlap"),
    "offsets beyond the file": (_shift, f"{GATE}' ends at byte .* cut off or damaged"),
    "offsets backwards": (lambda f: _entry(f, data_offsets=[1536, 0]), "two rising numbers"),
    "offsets negative": (lambda f: _entry(f, data_offsets=[-1536, 0]), "two rising numbers"),
    "offsets not numbers": (lambda f: _entry(f, data_offsets=["0", "1536"]), "rising numbers"),
    "shape larger than data": (lambda f: _entry(f, shape=[24, 17]), f"{GATE}.*1,632 bytes"),
    "shape overflowing": (lambda f: _entry(f, shape=[2**40, 2**40]), f"{GATE}.* bytes"),
    "shape negative": (lambda f: _entry(f, shape=[-24, -16]), "shape must list"),
    "shape of booleans": (lambda f: _entry(f, shape=[True, 384]), "shape must list"),
    "dtype unknown": (lambda f: _entry(f, dtype="Q3"), f"{GATE}' has the dtype 'Q3'"),
    "bytes of no tensor": (_gap, "model.safetensors: bytes .* belong to no tensor"),
    "index leads outside": (
        lambda f: _shards(f, {GATE: "../two.safetensors"}), f"json: weight_map sends '{GATE}'",
    ),
    "index absolute": (
        lambda f: _shards(f, {GATE: "/etc/passwd.safetensors"}), "index.json: weight_map sends",
    ),
    "index to a pickle": (lambda f: _shards(f, {GATE: "two.bin"}), "index.json: weight_map sends"),
    "index to no file": (
        lambda f: _shards(f, {GATE: "three.safetensors"}), "three.safetensors is missing",
    ),
    "index to the wrong shard": (
        lambda f: _shards(f, {GATE: "one.safetensors"}), f"weight_map says {GATE} is in one",
    ),
    "index of nothing": (
        lambda f: (f.weights.unlink(), f.write("model.safetensors.index.json", {"weight_map": {}})),
        "index.json: weight_map is missing or empty",
    ),
    "tokenizer beyond the vocabulary": (
        lambda f: _tokenizer(f, lambda t: t["model"]["vocab"].update(zz=40)),
        "tokenizer.json gives the token 'zz' the id 40, but config.json's vocab_size is 40",
    ),
    "added token beyond the vocabulary": (
        lambda f: _tokenizer(f, lambda t: t["added_tokens"][0].update(id=99)),
        "tokenizer.json gives the token '<end>' the id 99",
    ),
    "token id a text": (
        lambda f: _tokenizer(f, lambda t: t["model"]["vocab"].update(zz="3")),
        "tokenizer.json: the token 'zz' has the id '3'",
    ),
    "tokenizer without words": (
        lambda f: _tokenizer(f, lambda t: (t.pop("model"), t.pop("added_tokens"))),
        "tokenizer.json: model.vocab is missing",
    ),
    "tokenizer not JSON": (lambda f: f.write("tokenizer.json", "{"), "tokenizer.json is not valid"),
    "a token id twice": (
        lambda f: _tokenizer(f, lambda t: t["model"]["vocab"].update(zz=3)),
        "tokenizer.json gives the id 3 to 'd' and to 'zz'",
    ),
    "a merge into nothing": (
        lambda f: _tokenizer(f, lambda t: t["model"].update(type="BPE", merges=["a b"])),
        "tokenizer.json: the merge 'a b' makes no token",
    ),
    "letters that are dropped": (
        lambda f: _tokenizer(f, lambda t: t.update(
            model={"type": "BPE", "vocab": {"a": 0}, "merges": []})),
        "tokenizer.json drops signs between '!' and '~'",
    ),
    "a token put around every text": (
        lambda f: _tokenizer(f, lambda t: t.update(
            post_processor={"type": "X", "special_tokens": {"x": {"ids": [40]}}})),
        "tokenizer.json gives the token 'post_processor' the id 40",
    ),
    "tokenizer of an unknown kind": (
        lambda f: _tokenizer(f, lambda t: t["model"].update(type="Magic")),
        "tokenizer.json cannot be used",
    ),
}  # fmt: skip


def test_there_are_enough_kinds_of_damage() -> None:
    assert len(DAMAGES) >= 40


def test_the_sound_folder_loads(folder: Any) -> None:
    engine, tokenizer = load_folder(folder.path, "fp32")
    assert engine.forward(torch.tensor([[1, 2]])).isfinite().all()
    assert tokenizer.encode("a").ids == [0]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(folder: Any, damage: str) -> None:
    break_it, sentence = DAMAGES[damage]
    break_it(folder)
    with pytest.raises(BadInput, match=sentence) as caught:
        load_folder(folder.path)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1200
    assert text.endswith(".")


def test_a_missing_folder_and_a_file_are_refused(folder: Any) -> None:
    for path in (folder.path / "nothing", folder.weights):
        with pytest.raises(BadInput, match="is not a folder"):
            check_folder(path)


def test_a_folder_without_tokenizer_serves_where_no_text_is_needed(folder: Any) -> None:
    (folder.path / "tokenizer.json").unlink()
    assert load_folder(folder.path)[1] is None
    with pytest.raises(BadInput, match=r"tokenizer\.json is missing, which text needs"):
        check_folder(folder.path, need_tokenizer=True)


def test_a_tokenizer_that_would_cut_or_fill_up_text_does_neither(folder: Any) -> None:
    flags = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None}
    padding = flags | {"pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
    cut = {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    _tokenizer(folder, lambda content: content.update(padding=padding, truncation=cut))
    _tokenizer(folder, lambda content: content.update(pre_tokenizer={"type": "Whitespace"}))
    tokenizer = load_folder(folder.path)[1]
    assert tokenizer.encode("a b c").ids == [0, 1, 2]


def test_a_name_with_a_line_end_stays_one_line(folder: Any) -> None:
    folder.path = folder.path.rename(folder.path.with_name("a\nb\x1b[31m"))
    folder.weights.unlink()
    with pytest.raises(BadInput, match=r"a\\nb\\x1b\[31m: model.safetensors is missing"):
        check_folder(folder.path)
