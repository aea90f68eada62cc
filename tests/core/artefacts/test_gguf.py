"""GGUF files against the gguf package's own reader and dequantizer."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_apply import plan
from tiny_llama import CONFIG, replace_all, rounded, write_source

from core import techniques
from core.artefacts import gguf
from core.artefacts.contents import contents
from core.artefacts.save import write_folder
from core.engine.load.load import load_folder
from core.errors import Refused
from core.files.config.hf_config import from_hf
from core.files.gguf import blocks as gguf_blocks
from core.files.gguf import file as gguf_file
from core.files.gguf.file import GgufEntry
from core.files.gguf.k_types import fitting
from core.techniques.deployment import Deployment
from core.techniques.quantize.k_quant import MIXES, type_of
from core.techniques.solve.k_search import k_blocks
from kernels.linear_lowbit import LowBit, quantize

package = pytest.importorskip("gguf", reason="the package gguf (extra [test]) is not installed")
LLAMA3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
          "high_freq_factor": 4.0, "original_max_position_embeddings": 16}  # fmt: skip


def save(engine: Any, folder: Path, **config: Any) -> Any:
    """The folder's GGUF file, opened by the package."""
    text = json.dumps({"model": {"type": "WordLevel"}}).encode()
    laid_out = gguf.layout(contents(engine, CONFIG | config), text, "tiny")
    sizes = write_folder(folder, laid_out.files(), 0)
    assert sizes["model.gguf"] == laid_out.weights_bytes()
    return package.GGUFReader(folder / "model.gguf")


def tensors(reader: Any) -> dict[str, torch.Tensor]:
    """fp32 by name, dequantized by the package."""
    return {
        one.name: torch.tensor(np.array(package.quants.dequantize(one.data, one.tensor_type)))
        for one in reader.tensors
    }


def back(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's order of the rows of q and k -> Hugging Face's (convert_hf_to_gguf's permute)."""
    size = len(rows) // heads
    return rows.view(heads, size // 2, 2, -1).transpose(1, 2).reshape(len(rows), -1)


@pytest.mark.parametrize(
    ("bits", "named", "type", "exact"),
    [
        (4, {}, "Q4_0", True),
        (5, {}, "Q5_0", True),
        (8, {}, "Q8_0", True),
        (4, {"symmetric": False}, "Q4_1", False),
        (5, {"symmetric": False}, "Q5_1", False),
    ],
)
@pytest.mark.parametrize("group", [32, 64, 1 << 30])
def test_the_package_reads_our_weights(
    bits: int, named: Any, type: str, exact: bool, group: int, tmp_path: Path,
    quantized: Callable[..., Any],
) -> None:  # fmt: skip
    engine = quantized(bits, group, **named)
    reader = save(engine, tmp_path / "out")
    found = tensors(reader)
    assert {one.tensor_type.name for one in reader.tensors} == {type, "BF16", "F32"}
    q, kv = 64, 32
    layer = engine.layers[1]
    rows = layer.qkv.dense().split([q, kv, kv])
    gate, up = layer.gate_up.dense().chunk(2)
    wanted = {
        "attn_v": rows[2], "attn_output": layer.o.dense(), "ffn_gate": gate, "ffn_up": up,
        "ffn_down": layer.down.dense(),
    }  # fmt: skip
    pairs = [(found[f"blk.1.{name}.weight"], weight) for name, weight in wanted.items()]
    pairs += [
        (back(found["blk.1.attn_q.weight"], 4), rows[0]),
        (back(found["blk.1.attn_k.weight"], 2), rows[1]),
        (found["output.weight"], engine.head.dense()),
    ]
    for theirs, ours in pairs:
        if exact:
            assert torch.equal(theirs, ours)
        else:
            # The minimum -scale * zero is rounded to fp16: half a unit of its last place.
            bound = ours.abs().amax() * 2**-9
            assert (theirs - ours).abs().max() <= bound
    assert torch.equal(found["token_embd.weight"], engine.embedding.float())
    assert torch.equal(found["blk.0.ffn_norm.weight"], engine.layers[0].mlp_norm.float())


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("hidden", [64, 96, 256])
def test_a_mix_on_rows_of_any_blocks_is_written_as_measured(
    mix: str, hidden: int, tmp_path: Path
) -> None:
    sizes = {"hidden_size": hidden, "intermediate_size": 160}
    source = write_source(tmp_path / "source", **sizes)
    notes: list[str] = []
    case, engine = plan(str(source)).case, load_folder(source)[0]
    deployment = Deployment(case, engine, lambda: engine, note=notes.append)
    techniques.parse(f"k-quant:mix={mix}").apply(deployment)
    assert [one for one in notes if "160 columns, no multiple of 256, and take" in one]
    reader = save(engine, tmp_path / "out", **sizes)
    kinds = {one.name: one.tensor_type.name for one in reader.tensors}
    base = type_of(mix, "layers.0.gate_up", case.model.shape)
    assert kinds["blk.0.ffn_up.weight"] == fitting(base, hidden).upper()
    assert kinds["output.weight"] == ("Q6_K" if hidden == 256 else "Q8_0")
    found = tensors(reader)
    for name, ours in (
        ("output", engine.head.dense()),
        ("blk.1.ffn_down", engine.layers[1].down.dense()),
        ("blk.1.ffn_up", engine.layers[1].gate_up.dense().chunk(2)[1]),
        ("blk.0.attn_v", engine.layers[0].qkv.dense()[-hidden // 2 :]),
    ):
        # The steps of super-blocks are kept here in fp16; blocks of 32 are the same numbers.
        loss = 2**-9 if kinds[f"{name}.weight"].endswith("_K") else 2**-20
        theirs = found[f"{name}.weight"]
        assert torch.allclose(theirs, ours, rtol=loss, atol=loss * float(ours.abs().max())), name
    made = gguf.layout(contents(engine, CONFIG | sizes), None, "tiny")
    assert not [one for one in made.notes if "which is rounded" in one]
    for layer, (_, linear) in enumerate(load_folder(tmp_path / "out")[0].linears()):
        again = list(engine.linears())[layer][1].dense()
        assert torch.allclose(
            linear.dense(), again, rtol=2**-9, atol=2**-9 * float(again.abs().max())
        )


@pytest.mark.parametrize("name", ["q2_k", "q3_k", "q4_k", "q5_k", "q6_k"])
def test_the_codes_of_k_quants_are_found_again(name: str) -> None:
    torch.manual_seed(3)
    weight = torch.randn(24, 512) * torch.rand(24, 1)
    weight[3] = 0
    weight[4, :40] = 0.25
    made = k_blocks(weight, name)
    form = made.low_bit()
    type_ = gguf_blocks.type_of(form)
    assert not isinstance(type_, str)
    assert type_.name == name.upper()
    data = gguf_blocks.pack(form, type_)
    assert data.nbytes == type_.nbytes(24, 512)
    theirs = package.quants.dequantize(data, package.GGMLQuantizationType[type_.name])
    bound = 2e-3 * form.dequantize().abs().amax(dim=1, keepdim=True) + 1e-6
    assert bool(((torch.tensor(theirs) - form.dequantize()).abs() <= bound).all())
    assert torch.equal(torch.tensor(theirs), made.dequantize())


def test_scales_that_are_no_codes_have_no_super_block() -> None:
    weight = torch.randn(4, 512)
    form = quantize(weight, 6, 16)
    assert "scales are not those of q6_k" in str(gguf_blocks.type_of(form))
    assert "multiples of 256 columns, not 384" in str(
        gguf_blocks.type_of(quantize(torch.randn(4, 384), 6, 16))
    )


@pytest.mark.parametrize(
    ("given", "named", "able"),
    [
        ((3, 32), {"symmetric": False}, "trimtab, gptq"),
        ((4, 64, "nf4"), {}, "trimtab"),
        ((4, 48), {}, "trimtab"),
        ((8, 32), {"symmetric": False}, "trimtab, compressed-tensors, gptq"),
        ((4, 32), {"scale_format": "fp32", "symmetric": False}, "trimtab, compressed-tensors"),
    ],
)
def test_what_gguf_cannot_hold_is_refused_naming_who_can(
    given: Any, named: Any, able: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    with pytest.raises(Refused, match=rf"layers\.0\.qkv is .*formats that hold it: {able}$"):
        save(quantized(*given, **named), tmp_path / "out")


def test_qwen2_keeps_its_order_of_rows_and_its_biases(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", model_type="qwen2")
    engine, _ = load_folder(source)
    replace_all(engine, rounded(4, 32))
    reader = save(engine, tmp_path / "out", model_type="qwen2")
    found = tensors(reader)
    assert torch.equal(found["blk.0.attn_q.weight"], engine.layers[0].qkv.dense()[:64])
    assert torch.equal(found["blk.0.attn_k.bias"], engine.layers[0].qkv.bias[64:96].float())
    assert reader.fields["general.architecture"].contents() == "qwen2"


def test_floats_and_a_tied_head_are_kept_as_they_are(source: Path, tmp_path: Path) -> None:
    engine, _ = load_folder(source)
    reader = save(engine, tmp_path / "out")
    stored = load_file(source / "model.safetensors")
    found = tensors(reader)
    assert "output.weight" not in found
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(found["blk.1.ffn_up.weight"], stored[name].float())
    assert reader.fields["general.file_type"].contents() == 32


def test_metadata_says_what_the_config_says(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", rope_parameters=LLAMA3, head_dim=24)
    engine, _ = load_folder(source)
    reader = save(engine, tmp_path / "out", rope_parameters=LLAMA3, head_dim=24)
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["llama.block_count"] == 2
    assert said["llama.attention.head_count_kv"] == 2
    assert said["llama.attention.key_length"] == said["llama.rope.dimension_count"] == 24
    assert said["llama.rope.freq_base"] == 5e5
    assert said["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert said["tokenizer.ggml.model"] == "no_vocab"
    # llama.cpp divides each plain frequency by its factor.
    factors = tensors(reader)["rope_freqs.weight"].double()
    plain = torch.tensor([5e5 ** (-2 * i / 24) for i in range(12)]).double()
    scaled = torch.tensor(engine.config.inverse_frequencies()).double()
    torch.testing.assert_close(plain / factors, scaled, rtol=1e-6, atol=0)
    assert factors.min() > 1
    assert factors.max() == 8


def test_a_byte_level_vocabulary_is_written_token_by_token() -> None:
    config = from_hf(CONFIG | {"vocab_size": 8, "bos_token_id": 5})
    tokenizer = {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3},
                  "merges": [["a", "b"]]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                    "use_regex": True},
        "pre_tokenizer": {"type": "ByteLevel", "use_regex": True, "add_prefix_space": False,
                          "trim_offsets": True},
        "added_tokens": [{"id": 5, "content": "<s>", "special": True},
                         {"id": 6, "content": "<x>", "special": False}],
    }  # fmt: skip
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokenizer["added_tokens"] = [flags | one for one in tokenizer["added_tokens"]]  # type: ignore[operator,union-attr]
    found, notes = gguf.vocabulary(config, tokenizer)
    assert notes == ()
    assert found["tokenizer.ggml.tokens"] == ["a", "b", "ab", "Ġ", "[PAD4]", "<s>", "<x>", "[PAD7]"]
    assert found["tokenizer.ggml.token_type"] == array("i", [1, 1, 1, 1, 5, 3, 4, 5])
    assert found["tokenizer.ggml.merges"] == ["a b"]
    assert (found["tokenizer.ggml.bos_token_id"], found["tokenizer.ggml.eos_token_id"]) == (5, 3)
    assert "no tokenizer.json" in gguf.vocabulary(config, None)[1][0]


def test_values_of_every_type_are_read_by_the_package(tmp_path: Path) -> None:
    metadata = {
        "general.architecture": "x", "a.yes": True, "a.small": 3, "a.below": -3, "a.large": 1 << 40,
        "a.float": 0.5, "a.text": "漢字", "a.list": [1, 2], "a.words": ["x", ""],
        "a.signed": array("i", [-1, 2]),
    }  # fmt: skip
    data = np.arange(5, dtype=np.float32)
    entries = [
        GgufEntry(name, gguf_file.TYPES["F32"], None, 5, lambda: data) for name in ("one", "two")
    ]
    path = tmp_path / "x.gguf"
    path.write_bytes(b"".join(gguf_file.pieces(metadata, entries)))
    assert path.stat().st_size == gguf_file.file_bytes(metadata, entries)
    reader = package.GGUFReader(path)
    for key, value in metadata.items():
        wanted = value.tolist() if isinstance(value, array) else value
        assert reader.fields[key].contents() == wanted
    assert [one.data.tolist() for one in reader.tensors] == [data.tolist()] * 2
    with pytest.raises(ValueError, match=r"no type for a\.none"):
        gguf_file.header({"a.none": None}, [])
    wrong = GgufEntry("one", gguf_file.TYPES["F32"], None, 4, lambda: data)
    with pytest.raises(ValueError, match="one was to have 16 bytes, it has 20"):
        list(gguf_file.pieces({}, [wrong]))


def test_a_model_comes_back_in_its_own_format_or_is_told_in_which(
    source: Path, tmp_path: Path
) -> None:
    for dtype in ("fp32", "bf16", "fp16"):
        engine, _ = load_folder(source, dtype)
        layout = gguf.layout(contents(engine, CONFIG), None, "tiny")
        assert not any("gguf does not say what to compute in" in one for one in layout.notes)
        path = tmp_path / f"{dtype}.gguf"
        path.write_bytes(b"".join(gguf_file.pieces(layout.metadata, layout.entries)))
        assert load_folder(path)[0].dtype is engine.dtype
    engine.embedding = engine.embedding.float()
    notes = gguf.layout(contents(engine, CONFIG), None, "tiny").notes
    assert any("loaded here again it runs in float32, not in float16" in one for one in notes)


def test_other_models_are_refused(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", model_type="mistral", sliding_window=8)
    engine, _ = load_folder(source)
    with pytest.raises(Refused, match="no place for a sliding window"):
        save(engine, tmp_path / "out", model_type="mistral", sliding_window=8)


def test_a_row_of_zeros_and_one_row_alone_are_blocks() -> None:
    form = quantize(torch.zeros(1, 32), 4, 32)
    type_ = gguf_blocks.type_of(form)
    assert not isinstance(type_, str)
    data = gguf_blocks.pack(form, type_)
    theirs = package.quants.dequantize(data, package.GGMLQuantizationType.Q4_0)
    assert not theirs.any()
    odd = LowBit(torch.zeros(2, 33, dtype=torch.uint8), torch.ones(2, 2), None, 4, 32)
    assert "gguf holds 4, 5 and 8-bit" in str(gguf_blocks.type_of(odd))
