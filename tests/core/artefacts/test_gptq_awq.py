"""The layouts of GPTQ and AWQ, against unpackers written from their descriptions, bit by bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import IDS, write
from torch import Tensor

from core.engine.linear import Linear
from core.engine.load.load import load_folder
from core.errors import BadInput, Refused
from core.files.folder import check_folder
from kernels.linear_lowbit import LowBit, LowBitWeight

Q = "model.layers.1.self_attn.q_proj"
ROWS = {"q_proj": 0, "k_proj": 64, "v_proj": 96}


def unsigned(words: Tensor) -> list[list[int]]:
    return [[word & 0xFFFFFFFF for word in row] for row in words.tolist()]


def bits_down(words: list[int], bits: int, count: int) -> list[int]:
    """AutoGPTQ's columns: 32 / bits codes a word, and for 3 bit 32 codes in 3 words, of which the
    11th and the 22nd lie across two.
    """
    if bits != 3:
        each = 32 // bits
        return [(words[i // each] >> (bits * (i % each))) & (2**bits - 1) for i in range(count)]
    found = []
    for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=True):
        found += [(a >> (3 * i)) & 7 for i in range(10)]
        found.append(((a >> 30) & 3) | ((b & 1) << 2))
        found += [(b >> (3 * i + 1)) & 7 for i in range(10)]
        found.append(((b >> 31) & 1) | ((c & 3) << 1))
        found += [(c >> (3 * i + 2)) & 7 for i in range(10)]
    return found[:count]


def gptq(tensors: dict[str, Tensor], name: str, bits: int, first: int = 1) -> Tensor:
    """weight fp64 [n, k] by AutoGPTQ's rule: scales[g] * (code - (zero + first)), g of g_idx, with
    1 in version 1 and 0 in version 2.
    """
    qweight, qzeros = tensors[f"{name}.qweight"], tensors[f"{name}.qzeros"]
    scales, g_idx = tensors[f"{name}.scales"], tensors[f"{name}.g_idx"]
    assert scales.dtype is torch.float16
    n, k = qweight.shape[1], qweight.shape[0] * 32 // bits
    codes = torch.tensor([bits_down(column, bits, k) for column in unsigned(qweight.T)])
    zeros = torch.tensor([bits_down(row, bits, n) for row in unsigned(qzeros)])
    group = g_idx.long()
    return scales.double()[group].T * (codes.double() - (zeros[group].T + first).double())


def awq(tensors: dict[str, Tensor], name: str) -> Tensor:
    """weight fp64 [n, k] by AutoAWQ's rule: nibbles in the order 0 2 4 6 1 3 5 7."""
    scales = tensors[f"{name}.scales"].double()

    def spread(words: Tensor) -> Tensor:
        rows = []
        for row in unsigned(words):
            out = [0] * (8 * len(row))
            for w, word in enumerate(row):
                for i, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                    out[8 * w + column] = (word >> (4 * i)) & 15
            rows.append(out)
        return torch.tensor(rows).double()

    codes, zeros = spread(tensors[f"{name}.qweight"]), spread(tensors[f"{name}.qzeros"])
    size = codes.shape[0] // zeros.shape[0]
    every = torch.arange(codes.shape[0]) // size
    return ((codes - zeros[every]) * scales[every]).T


def parts_of(engine: Any, layer: int) -> dict[str, Tensor]:
    """fp64 [n, k] by module of one layer."""
    one = engine.layers[layer]
    at, found = f"model.layers.{layer}.", {}
    q, kv = engine.config.query_size, engine.config.kv_size
    for name, rows in zip("qkv", one.qkv.dense().double().split([q, kv, kv]), strict=True):
        found[f"{at}self_attn.{name}_proj"] = rows
    gate, up = one.gate_up.dense().double().chunk(2)
    found |= {f"{at}mlp.gate_proj": gate, f"{at}mlp.up_proj": up}
    found[f"{at}self_attn.o_proj"] = one.o.dense().double()
    found[f"{at}mlp.down_proj"] = one.down.dense().double()
    return found


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 1 << 30])
def test_gptq_is_read_alike_by_the_rule_and_by_us(
    bits: int, symmetric: bool, group: int, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(bits, group, symmetric=symmetric)
    write(engine, tmp_path / "out", "gptq")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in {**parts_of(engine, 1), "lm_head": engine.head.dense().double()}.items():
        assert torch.equal(gptq(tensors, name, bits).float(), weight.float()), name
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["group_size"] == (32 if group == 32 else -1)
    assert (config["bits"], config["sym"], config["lm_head"]) == (bits, symmetric, True)
    again, _ = load_folder(tmp_path / "out")
    for (_, one), (_, other) in zip(engine.linears(), again.linears(), strict=True):
        assert torch.equal(one.kernel_weight.form().codes, other.kernel_weight.form().codes)
        assert (one.kernel_weight.form().zero is None) == (other.kernel_weight.form().zero is None)
    assert torch.equal(engine.forward(IDS), again.forward(IDS))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [32, 64, 1 << 30])
def test_awq_is_read_alike_by_the_rule_and_by_us(
    symmetric: bool, group: int, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(4, group, symmetric=symmetric)
    write(engine, tmp_path / "out", "awq")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in parts_of(engine, 0).items():
        assert torch.equal(awq(tensors, name).float(), weight.float()), name
    # Heads are dense in AWQ: what the codes stand for, rounded to fp16.
    assert torch.equal(tensors["lm_head.weight"], engine.head.dense().half())
    again, _ = load_folder(tmp_path / "out")
    for (name, one), (_, other) in zip(engine.linears(), again.linears(), strict=True):
        if name != "head":
            assert torch.equal(one.dense(), other.dense())
    torch.testing.assert_close(again.forward(IDS), engine.forward(IDS), rtol=0.02, atol=0.05)


def test_a_group_of_nothing_but_zeros_is_written_though_its_zero_has_no_place(
    source: Path, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(4, 32, symmetric=False)
    down = engine.layers[0].down.kernel_weight.form()
    scale, zero = down.scale.clone(), down.zero.clone()
    scale[3, 1], zero[3, 1] = 0, 0
    changed = LowBit(down.codes, scale, zero, 4, 32)
    engine.layers[0].down = Linear.from_kernel(LowBitWeight(changed))
    write(engine, tmp_path / "out", "gptq")
    again, _ = load_folder(tmp_path / "out")
    assert torch.equal(again.layers[0].down.dense(), changed.dequantize())
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["checkpoint_format"] == "gptq"


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_zero_of_0_is_written_in_version_2(
    bits: int, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(bits, 32, symmetric=False)
    down = engine.layers[1].down.kernel_weight.form()
    zero = down.zero.clone()
    zero[3, 1] = 0
    changed = LowBit(down.codes, down.scale, zero, bits, 32)
    engine.layers[1].down = Linear.from_kernel(LowBitWeight(changed))
    write(engine, tmp_path / "out", "gptq")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["checkpoint_format"] == "gptq_v2"
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in parts_of(engine, 1).items():
        assert torch.equal(gptq(tensors, name, bits, first=0).float(), weight.float()), name
    again, _ = load_folder(tmp_path / "out")
    assert torch.equal(again.layers[1].down.dense(), changed.dequantize())


def test_zeros_of_version_2_are_read_as_they_are(saved: Callable[..., Path]) -> None:
    folder = saved("gptq", 4, 32, symmetric=False)
    before, _ = load_folder(folder)
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in tensors.items():
        if name.endswith(".qzeros"):
            # No nibble holds 15, so that adding 1 to each carries nowhere.
            tensors[name] = (tensor.long() + 0x11111111).to(torch.int32)
    save_file(tensors, path)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["checkpoint_format"] = "gptq_v2"
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(before.forward(IDS), load_folder(folder)[0].forward(IDS))


@pytest.mark.parametrize("format", ["gptq", "awq"])
@pytest.mark.parametrize(
    ("given", "able"),
    [
        (((4, 64, "nf4"), {}), "trimtab"),
        (((4, 32), {"scale_format": "fp32"}), "trimtab, compressed-tensors"),
        (((5, 32), {}), "trimtab"),
        (((4, 48), {}), "trimtab"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_naming_who_can(
    format: str, given: Any, able: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(*given[0], **given[1])
    with pytest.raises(Refused, match=rf"layers\.0\.qkv is .*formats that hold it: {able}$"):
        write(engine, tmp_path / "out", format)


def test_affine_3_bit_has_its_formats_named(tmp_path: Path, quantized: Callable[..., Any]) -> None:
    engine = quantized(3, 32, symmetric=False)
    with pytest.raises(Refused, match=r"awq holds 4-bit .* formats that hold it: trimtab, gptq$"):
        write(engine, tmp_path / "out", "awq")


@pytest.mark.parametrize("format", ["gptq", "awq"])
def test_a_mix_of_groups_is_refused(
    format: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(4, 32)
    engine.layers[1].down = engine.layers[1].down.to_format("int4-g64")
    with pytest.raises(Refused, match=r"one group size .* trimtab, compressed-tensors$"):
        write(engine, tmp_path / "out", format)


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "bits": (lambda q: q.update(bits=5), "quantization_config.bits must be one of 2, 3, 4, 8"),
    "group": (lambda q: q.update(group_size=24), "groups of 24 do not divide the 64 columns"),
    "group a text": (lambda q: q.update(group_size="32"), "group_size must be -1 or an integer"),
    "another width": (lambda q: q.update(bits=8), r"q_proj.qweight has the shape \[8, 64\]"),
    "another group": (lambda q: q.update(group_size=64), r"the shape \[2, .*asks for \[1, "),
    "sym a number": (lambda q: q.update(sym=1), "quantization_config.sym must be true or false"),
    "dynamic": (lambda q: q.update(dynamic={"-:.*": {}}), "quantization_config.dynamic is not sup"),
    "marlin": (
        lambda q: q.update(checkpoint_format="marlin"), "checkpoint_format must be gptq or gptq_v2",
    ),
    "no head": (lambda q: q.update(lm_head=False), "lm_head.weight .* is missing"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_wrong_quantization_config_is_one_sentence(kind: str, saved: Callable[..., Path]) -> None:
    folder = saved("gptq", 4, 32)
    config = json.loads((folder / "config.json").read_text())
    change, reason = DAMAGES[kind]
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=reason):
        check_folder(folder)


def test_columns_in_another_order_are_refused(saved: Callable[..., Path]) -> None:
    folder = saved("gptq", 4, 32)
    path = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    tensors[f"{Q}.g_idx"] = tensors[f"{Q}.g_idx"].flip(0).contiguous()
    save_file(tensors, path)
    with pytest.raises(BadInput, match=rf"{Q}.g_idx .* another order \(desc_act\)"):
        load_folder(folder)
