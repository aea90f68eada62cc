"""Loading GGUF files: what we wrote, what the gguf package wrote, and what is damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_llama import CONFIG, IDS, replace_all, rounded, write_source

from core.artefacts import gguf
from core.artefacts.contents import contents
from core.artefacts.save import native_layout, write_folder
from core.catalogue import models
from core.engine.load.load import load_folder
from core.errors import BadInput
from core.files.config.hf_config import from_hf
from core.files.folder import check_folder
from core.files.formats.foreign import join
from core.files.gguf import blocks as gguf_blocks
from core.files.gguf import file as gguf_file
from core.files.gguf.file import TYPES, GgufEntry
from core.files.gguf.k_pack import pack as pack_super
from core.files.gguf.k_unpack import unpack as unpack_super
from core.measure.memory.disk import folder_bytes
from core.techniques.solve.k_search import k_blocks
from kernels.linear_lowbit import LowBit, quantize

LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 32.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip


def save(engine: Any, folder: Path, **config: Any) -> Path:
    laid_out = gguf.layout(contents(engine, CONFIG | config), None, "tiny")
    write_folder(folder, laid_out.files(), 0)
    return folder


@pytest.mark.parametrize(
    ("bits", "group"), [(4, 32), (4, 64), (5, 32), (8, 32), (8, 1 << 30), (4, 1 << 30)]
)
def test_a_folder_of_ours_computes_the_same_to_the_last_bit(
    bits: int, group: int, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(bits, group)
    folder = save(engine, tmp_path / "out")
    again, text = load_folder(folder)
    assert text is None
    assert torch.equal(again.forward(IDS), engine.forward(IDS))
    for (_, one), (_, other) in zip(engine.linears(), again.linears(), strict=True):
        assert torch.equal(one.kernel_weight.form().codes, other.kernel_weight.form().codes)
        assert one.format == other.format
    other, _ = load_folder(folder / "model.gguf")
    assert torch.equal(again.forward(IDS), other.forward(IDS))
    model = models.resolve(str(folder / "model.gguf"))
    assert model.decoder().layers == 2
    assert folder_bytes(folder).value == (folder / "model.gguf").stat().st_size


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
def test_every_family_comes_back_in_floats(family: str, tmp_path: Path) -> None:
    extra: dict[str, Any] = {"sliding_window": None} if family == "mistral" else {}
    if family == "llama":
        extra = {"rope_parameters": LLAMA3, "attention_bias": True, "mlp_bias": True}
    source = write_source(
        tmp_path / "source", model_type=family, tie_word_embeddings=False, **extra
    )
    engine, _ = load_folder(source)
    config = {"model_type": family, "tie_word_embeddings": False} | extra
    again, _ = load_folder(save(engine, tmp_path / "out", **config))
    assert torch.equal(again.forward(IDS), engine.forward(IDS))
    assert again.config.rope_scaling == engine.config.rope_scaling
    assert again.config.rms_norm_eps == engine.config.rms_norm_eps
    assert again.head.weight is not again.embedding


def test_affine_groups_come_back_within_the_minimums_fp16(
    tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(4, 32, symmetric=False)
    again, _ = load_folder(save(engine, tmp_path / "out"))
    for (_, one), (_, other) in zip(engine.linears(), again.linears(), strict=True):
        bound = one.dense().abs().amax() * 2**-9
        assert (one.dense() - other.dense()).abs().max() <= bound


def test_files_of_mixed_types_join_without_changing_a_value(tmp_path: Path) -> None:
    """As llama.cpp's Q4_K_M: v of 6 bit beside q and k of 4, a tied table of 8."""
    generator = torch.Generator().manual_seed(5)
    config = CONFIG | {"hidden_size": 256, "head_dim": 16, "num_hidden_layers": 1}
    source = write_source(tmp_path / "source", **{k: config[k] for k in config if k not in CONFIG
                                                  or config[k] != CONFIG[k]})  # fmt: skip
    engine, _ = load_folder(source, "fp32")
    laid_out = gguf.layout(contents(engine, config), None, "tiny")
    entries, wanted = [], {}
    kinds = {
        "attn_q": "q4_k", "attn_k": "q5_k", "attn_v": "q6_k", "attn_output": "Q4_1",
        "ffn_gate": "q3_k", "ffn_up": "q2_k", "token_embd": "Q8_0", "ffn_down": "Q5_0",
    }  # fmt: skip
    for entry in laid_out.entries:
        part = entry.name.split(".")[-2]
        if entry.rows is None or part not in kinds:
            entries.append(entry)
            continue
        weight = torch.randn(entry.rows, entry.columns, generator=generator) * 0.1
        kind = kinds[part]
        fits = kind[0] == "Q" or entry.columns % 256 == 0
        if not fits:
            kind = "Q8_0"
        if kind[0] == "q":
            blocks = k_blocks(weight, kind)
            data, wanted[part] = pack_super(blocks), blocks.dequantize()
        else:
            form = quantize(weight, int(kind[1]), 32, symmetric=kind != "Q4_1")
            data, wanted[part] = gguf_blocks.pack(form, TYPES[kind]), form.dequantize()
        type_ = TYPES[kind.upper()]
        made = GgufEntry(entry.name, type_, entry.rows, entry.columns, lambda data=data: data)
        entries.append(made)
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "tiny.gguf"
    path.write_bytes(b"".join(gguf_file.pieces(laid_out.metadata, entries)))
    again, _ = load_folder(path, "fp32")
    layer = again.layers[0]
    rows = layer.qkv.dense().split([64, 32, 32])
    heads = {"attn_q": 4, "attn_k": 2}
    for name, held in zip(("attn_q", "attn_k", "attn_v"), rows, strict=True):
        theirs = wanted[name]
        if name in heads:
            theirs = theirs.view(heads[name], 8, 2, -1).transpose(1, 2).reshape(len(theirs), -1)
        torch.testing.assert_close(held, theirs, rtol=2e-3, atol=2e-3 * float(theirs.abs().max()))
    torch.testing.assert_close(layer.o.dense(), wanted["attn_output"], rtol=0, atol=1e-3)
    assert torch.equal(layer.down.dense(), wanted["ffn_down"])
    assert layer.qkv.format == "int6-g16"
    # The table is looked up in floats, and multiplied as the codes that it is.
    assert torch.equal(again.embedding, wanted["token_embd"])
    assert again.head.format == "int8-g32"
    assert torch.equal(again.head.dense(), wanted["token_embd"])
    assert bool(again.forward(IDS).isfinite().all())


def test_joining_integers_of_other_widths_and_groups_keeps_their_values() -> None:
    one = quantize(torch.randn(3, 96), 3, 32, symmetric=False)
    two = quantize(torch.randn(5, 96), 8, 1 << 30)
    three = quantize(torch.randn(2, 96), 4, 48)
    whole = join("x", [one, two, three])
    assert (whole.bits, whole.group_size) == (8, 16)
    parts = [form.dequantize() for form in (one, two, three)]
    assert torch.equal(whole.dequantize(), torch.cat(parts))


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_super_blocks_of_any_bytes_are_read_as_the_package_reads_them(name: str) -> None:
    package = pytest.importorskip("gguf")
    random = np.random.default_rng(4)
    kind = TYPES[name.upper()]
    data = random.integers(0, 256, (6, 2 * kind.size), dtype=np.uint8)
    halves = {"q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,)}
    for block in range(2):
        for at in halves[name]:
            value = random.random((6, 1)).astype("<f2").view(np.uint8)
            data[:, block * kind.size + at : block * kind.size + at + 2] = value
    wanted = package.quants.dequantize(data, package.GGMLQuantizationType[kind.name])
    found = unpack_super(data, name).dequantize().numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_blocks_that_the_package_made_are_read_alike(name: str) -> None:
    package = pytest.importorskip("gguf")
    weight = np.random.default_rng(2).standard_normal((7, 96)).astype(np.float32)
    weight[3] = 0.5
    weight[4] = 0
    kind = package.GGMLQuantizationType[name]
    data = package.quants.quantize(weight, kind)
    found = gguf_blocks.unpack(data.tobytes(), TYPES[name], 7, 96)
    assert isinstance(found, LowBit)
    wanted = torch.tensor(package.quants.dequantize(data, kind))
    torch.testing.assert_close(found.dequantize(), wanted, rtol=1e-5, atol=1e-6)


def test_infinite_scales_are_refused() -> None:
    data = b"\x00\x7c" + bytes(16)
    with pytest.raises(ValueError, match="a scale is not finite"):
        gguf_blocks.unpack(data, TYPES["Q4_0"], 1, 32)
    with pytest.raises(ValueError, match="a scale is not finite"):
        unpack_super(np.frombuffer(b"\xff" * 210, dtype=np.uint8)[None], "q6_k")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    source = write_source(tmp_path / "source")
    engine, _ = load_folder(source)
    replace_all(engine, rounded(4, 32))
    return save(engine, tmp_path / "out") / "model.gguf"


def _patch(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new, 1)

    return change


def _key(name: str, value: int) -> Callable[[bytes], bytes]:
    """Another uint32 behind a key."""

    def change(content: bytes) -> bytes:
        at = content.index(name.encode()) + len(name) + 4
        return content[:at] + struct.pack("<I", value) + content[at + 4 :]

    return change


def _tensor(name: str, at: int, form: str, value: int) -> Callable[[bytes], bytes]:
    """Another number in a matrix's entry: 0 dimensions, 4 and 12 sizes, 20 type, 24 offset."""

    def change(content: bytes) -> bytes:
        begin = content.index(name.encode()) + len(name) + at
        packed = struct.pack(f"<{form}", value)
        return content[:begin] + packed + content[begin + len(packed) :]

    return change


Q = "blk.1.attn_q.weight"
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "is cut off or damaged: its header does not end"),
    "no GGUF": (lambda c: b"GGML" + c[4:], "is no GGUF file"),
    "version 1": (lambda c: c[:4] + struct.pack("<I", 1) + c[8:], "has version 1 of GGUF"),
    "big endian": (lambda c: c[:4] + struct.pack(">I", 3) + c[8:], "has version 50331648"),
    "header cut": (lambda c: c[:400], "its header does not end"),
    "data cut": (lambda c: c[:-100], "is cut off: the tensor .* ends at byte"),
    "a billion tensors": (
        lambda c: c[:8] + struct.pack("<Q", 10**9) + c[16:], "claims 1,000,000,000 tensors",
    ),
    "one tensor more": (
        lambda c: c[:8] + struct.pack("<Q", 99) + c[16:], r"model\.gguf has ",
    ),
    "a text without end": (
        _patch(struct.pack("<Q", 20) + b"general.arch", struct.pack("<Q", 1 << 60) + b"general.a"),
        "has a text of 1,152,921,504,606,846,976 bytes",
    ),
    "a key that is no text": (_patch(b"general.name", b"general.n\xff\xfe\xfd"), "not UTF-8"),
    "a key twice": (_patch(b"llama.context_length", b"llama.rope.freq_base"), "freq_base' twice"),
    "architecture": (
        _patch(struct.pack("<Q", 5) + b"llama", struct.pack("<Q", 5) + b"mamba"),
        "general.architecture 'mamba' is not supported",
    ),
    "a key gone": (_patch(b"llama.block_count", b"llama.block_xount"), "block_count is missing"),
    "a layer more": (_key("llama.block_count", 3), "blk.2.* is missing"),
    "a layer less": (_key("llama.block_count", 1), "is not part of the model"),
    "no layers": (_key("llama.block_count", 0), "model.gguf: num_hidden_layers must be"),
    "heads": (_key("llama.attention.head_count", 0), "num_attention_heads"),
    "another width": (_key("llama.feed_forward_length", 96), r"has the shape \[.*asks for"),
    "rope of another size": (_key("llama.rope.dimension_count", 8), "dimension_count must be 16"),
    "a type unknown": (_tensor(Q, 20, "I", 99), "ggml's type 99"),
    "a type of others": (_tensor(Q, 20, "I", 16), "ggml's type 16"),
    "another type": (_tensor(Q, 20, "I", 8), "where another one is|is cut off"),
    "three dimensions": (_tensor(Q, 0, "I", 3), "of 3 dimensions"),
    "odd columns": (_tensor(Q, 4, "Q", 63), "which are no rows of Q4_0"),
    "no rows": (_tensor(Q, 12, "Q", 0), "which are no rows"),
    "fewer rows": (_tensor(Q, 12, "Q", 32), r"blk.1.attn_q.weight has the shape \[32, 64\]"),
    "rows without end": (_tensor(Q, 12, "Q", 1 << 50), "which are no rows"),
    "an offset between": (_tensor(Q, 24, "Q", 33), "where another one is"),
    "an offset beyond": (_tensor(Q, 24, "Q", 1 << 40), "is cut off"),
    "renamed": (_patch(b"blk.1.ffn_up.weight", b"blk.1.ffn_ab.weight"), "ffn_up.weight .*missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_one_sentence(kind: str, sound: Path) -> None:
    change, reason = DAMAGES[kind]
    sound.write_bytes(change(sound.read_bytes()))
    for path in (sound, sound.parent):
        with pytest.raises(BadInput, match=reason) as caught:
            check_folder(path)
        assert "model.gguf" in str(caught.value)


def test_scales_that_are_not_finite_or_nothing_are_refused_by_name(sound: Path) -> None:
    place = check_folder(sound)
    assert place.quantized
    from core.files.gguf.parse import parse

    content = sound.read_bytes()
    q = parse(sound).tensors[Q]
    for word, reason in ((b"\x00\x7e", f"{Q}: a scale is not finite"),
                         (b"\x00\x00", "q_proj.scale holds nothing but zeros")):  # fmt: skip
        blocks = bytearray(content[q.begin : q.begin + q.nbytes])
        for at in range(0, len(blocks), 18):
            blocks[at : at + 2] = word
        sound.write_bytes(content[: q.begin] + bytes(blocks) + content[q.begin + q.nbytes :])
        with pytest.raises(BadInput, match=reason):
            load_folder(sound)


def test_a_config_beside_it_comes_first_and_cannot_pretend(sound: Path) -> None:
    (sound.parent / "config.json").write_text(json.dumps(CONFIG | {".gguf": True}))
    with pytest.raises(BadInput, match=r"config\.json: \.gguf"):
        check_folder(sound.parent)


@pytest.mark.parametrize("stops", [[], [3], [9, 3], [9, 3, 5]])
@pytest.mark.parametrize("format", ["gguf", "trimtab"])
def test_where_text_ends_survives_without_generation_config(
    stops: list[int], format: str, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", bos_token_id=4)
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": stops}))
    engine, _ = load_folder(source)
    held = contents(engine, CONFIG)
    laid = gguf.layout(held, None, "x") if format == "gguf" else native_layout(held)
    write_folder(tmp_path / "made", laid.files(), 0)
    again = load_folder(tmp_path / "made")[0].special_ids
    assert (again.start, again.stops) == (4, tuple(stops))


def test_a_gguf_of_more_ends_than_it_can_name_says_so() -> None:
    config = from_hf(CONFIG | {"eos_token_id": [3, 4, 5, 6]})
    words = {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}
    assert "3 of the 4 tokens" in gguf.vocabulary(config, words)[1][-1]


@pytest.mark.parametrize("adds", [True, False])
def test_a_start_that_llama_cpp_adds_is_known_without_a_tokenizer(
    adds: bool, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", bos_token_id=4)
    laid = gguf.layout(contents(load_folder(source)[0], CONFIG), None, "x")
    said = laid.metadata | {"tokenizer.ggml.add_bos_token": adds}
    path = tmp_path / "theirs.gguf"
    path.write_bytes(b"".join(map(bytes, gguf_file.pieces(said, laid.entries))))
    engine, _ = load_folder(path)
    assert engine.special_ids.adds_start == adds
    assert engine.special_ids.prefix == ((4,) if adds else ())
    assert ".adds_start" not in contents(engine, check_folder(path).config).config


def test_a_path_without_file_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no such folder"):
        models.resolve(str(tmp_path / "x.gguf"))


def test_a_file_of_a_model_cache_keeps_its_name(
    tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    made = save(quantized(8, 32), tmp_path / "out") / "model.gguf"
    blobs = tmp_path / "models--owner--name" / "blobs"
    snapshot = blobs.parent / "snapshots" / "0123abcd"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    link = snapshot / "Tiny-Q8_0.gguf"
    link.symlink_to(Path("../../blobs/5eed"))
    made.rename(blobs / "5eed")
    model = models.resolve(str(link))
    assert model.id == str(link.parent.resolve() / link.name)
    # The measuring process knows the model by this id alone.
    assert models.resolve(model.id) == model
