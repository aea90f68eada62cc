"""The format "trimtab": every kernel's weight comes back bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llama import IDS, replace_all, rounded, write, write_source
from torch import Tensor

from core.engine.adapted import Adapted
from core.engine.classifier import DigitsCNN, DigitsMLP
from core.engine.linear import Linear
from core.engine.load.load import load_folder
from core.engine.modules import KernelLinear
from core.errors import Refused
from core.files.folder import check_folder
from core.files.formats import native
from core.files.formats.layout import stacks
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_fp8 import quantize as quantize_fp8
from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.linear_w8a8 import W8A8Weight
from kernels.linear_w8a8 import quantize as quantize_int8
from kernels.linear_w8a8.outliers import OutlierWeight
from kernels.lowbit_bytes import PLANES

FORMS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "affine 4 bit": ((4, 32), {"symmetric": False}),
    "symmetric 4 bit": ((4, 32), {}),
    "4 bit by row": ((4, 1 << 30), {}),
    "3 bit, groups that do not divide": ((3, 24), {"symmetric": False}),
    "1 bit": ((1, 32), {"symmetric": False}),
    "7 bit": ((7, 64), {}),
    "8 bit by row": ((8, 1 << 30), {}),
    "nf4, double scales": ((4, 64), {"kind": "nf4", "scale_format": "u8"}),
    "fp4, fp32 scales": ((4, 32), {"kind": "fp4", "scale_format": "fp32"}),
    "ternary": ((2, 32), {"kind": "ternary"}),
    "binary": ((1, 64), {"kind": "binary"}),
    "e4m3": ((8, 1 << 30), {"kind": "e4m3"}),
    "e5m2 in groups": ((8, 32), {"kind": "e5m2"}),
}


def same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.dtype is other.dtype and torch.equal(one, other)


@pytest.mark.parametrize("name", FORMS)
def test_codes_scales_zeros_and_logits_come_back(
    name: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    given, named = FORMS[name]
    engine = quantized(*given, **named)
    write(engine, tmp_path / "out")
    again, _ = load_folder(tmp_path / "out")
    for (where, first), (_, second) in zip(engine.linears(), again.linears(), strict=True):
        one, other = first.kernel_weight.form(), second.kernel_weight.form()
        assert torch.equal(one.codes, other.codes), where
        assert same(one.scale, other.scale), where
        assert same(one.zero, other.zero), where
        assert (one.bits, one.kind, one.format) == (other.bits, other.kind, other.format)
        if one.double is not None:
            for side in ("codes", "step", "low"):
                assert same(getattr(one.double, side), getattr(other.double, side))
    assert torch.equal(engine.forward(IDS), again.forward(IDS))
    assert again.weight_bytes() == engine.weight_bytes()


def test_codes_lie_as_densely_as_they_can(saved: Callable[..., Path]) -> None:
    found = check_folder(saved("trimtab", 3, 32))
    held = {entry.name: entry.nbytes for entry in found.tensors}
    assert held["layers.0.qkv.codes.0"] + held["layers.0.qkv.codes.1"] == 128 * 64 * 3 // 8
    assert held["head.scale"] == 96 * 2 * 2
    assert found.bits == round(8 * sum(held.values()) / (82_240 + 96 * 64 * 2))


def test_uneven_layers_biases_and_a_mix_of_formats_come_back(tmp_path: Path) -> None:
    source = write_source(
        tmp_path / "source", model_type="qwen2", tie_word_embeddings=False, intermediate_size=96
    )
    engine, _ = load_folder(source)
    layer = engine.layers[1]
    rows = torch.cat([torch.arange(64), torch.arange(64) + 96])
    layer.gate_up = Linear.from_dense(layer.gate_up.dense()[rows], None, "bf16")
    layer.down = Linear.from_dense(layer.down.dense()[:, :64], None, "bf16")
    engine.config = engine.config.with_intermediate_sizes((96, 64))
    layer.qkv = layer.qkv.to_format("int3-g32")
    engine.layers[0].o = engine.layers[0].o.to_format("nf4-g64")
    write(engine, tmp_path / "out", model_type="qwen2", tie_word_embeddings=False)
    again, text = load_folder(tmp_path / "out")
    assert text is None
    assert again.config == engine.config
    assert again.layers[1].qkv.format == "int3-g32"
    assert same(again.layers[1].qkv.bias, layer.qkv.bias)
    assert torch.equal(engine.forward(IDS), again.forward(IDS))


def test_int8_inputs_outlier_columns_and_adapters_come_back(source: Path, tmp_path: Path) -> None:
    engine, _ = load_folder(source)
    torch.manual_seed(1)
    first, second = engine.layers
    first.qkv = Linear.from_kernel(W8A8Weight(quantize_int8(first.qkv.dense())))
    first.o = Linear.from_kernel(W8A8Weight(quantize_int8(first.o.dense(), 0.0371)))
    columns = torch.tensor([0, 5, 63])
    first.gate_up = Linear.from_kernel(OutlierWeight.of(first.gate_up.dense(), columns))
    base = LowBitWeight(quantize(second.qkv.dense(), 4, 64, "nf4"))
    a, b = torch.randn(3, 64).bfloat16(), torch.randn(128, 3).bfloat16()
    second.qkv = Linear.from_kernel(Adapted(base, a, b))
    second.o = Linear.from_kernel(Adapted(second.o.kernel_weight, a.clone(), b[:64].clone()))
    second.down = Linear.from_kernel(Fp8Weight(quantize_fp8(second.down.dense())))
    write(engine, tmp_path / "out")
    again, _ = load_folder(tmp_path / "out")
    assert [linear.format for _, linear in again.linears()] == [
        linear.format for _, linear in engine.linears()
    ]
    assert again.layers[0].o.kernel_weight.form().x_scale == 0.0371
    assert again.layers[1].down.format == "fp8-fp8"
    assert torch.equal(engine.forward(IDS), again.forward(IDS))
    assert again.weight_bytes() == engine.weight_bytes()


def test_the_dtype_that_was_cast_to_comes_back(source: Path, tmp_path: Path) -> None:
    engine, _ = load_folder(source, "fp32")
    replace_all(engine, rounded(4, 32))
    write(engine, tmp_path / "out")
    again, _ = load_folder(tmp_path / "out")
    assert again.dtype is torch.float32
    assert torch.equal(engine.forward(IDS), again.forward(IDS))
    other, _ = load_folder(tmp_path / "out", "bf16")
    assert other.dtype is torch.bfloat16
    torch.testing.assert_close(other.forward(IDS), again.forward(IDS), rtol=0.1, atol=0.3)


def test_a_folder_of_plain_weights_needs_no_quantization_config(
    source: Path, tmp_path: Path
) -> None:
    engine, _ = load_folder(source)
    write(engine, tmp_path / "out")
    found = check_folder(tmp_path / "out")
    assert not found.quantized
    assert found.config["tie_word_embeddings"]
    assert torch.equal(engine.forward(IDS), load_folder(tmp_path / "out")[0].forward(IDS))


@pytest.mark.parametrize("made", [DigitsMLP([32, 16]), DigitsCNN([4, 8])])
def test_classifiers_come_back(made: Any, tmp_path: Path) -> None:
    names = [name for name, part in made.named_modules() if isinstance(part, torch.nn.Linear)]
    for name in names:
        part = made.get_submodule(name)
        owner, _, leaf = name.rpartition(".")
        weight = LowBitWeight(quantize(part.weight, 4, 32), part.bias.detach(), torch.float32)
        setattr(made.get_submodule(owner), leaf, KernelLinear(weight))
    write(made.eval(), tmp_path / "out")
    again, _ = load_folder(tmp_path / "out")
    images = torch.rand(3, 1, 8, 8)
    assert torch.equal(made(images), again(images))
    assert again.weight_bytes() == made.weight_bytes()


def test_a_weight_that_no_file_holds_is_refused_by_name(source: Path, tmp_path: Path) -> None:
    class Strange:
        n, k, format, kernel, bias, dtype = 64, 64, "odd3", "mine", None, torch.bfloat16

        def tensors(self) -> list[Tensor]:
            return [torch.zeros(1)]

    engine, _ = load_folder(source)
    engine.layers[1].o.kernel_weight = Strange()
    with pytest.raises(Refused, match=r"layers\.1\.o is a odd3 matrix of the kernel mine"):
        write(engine, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_engine_and_the_files_stack_the_same_rows(source: Path) -> None:
    engine, _ = load_folder(source)
    dense = engine.export_tensors() | {"lm_head.weight": engine.embedding}
    held = dict(engine.linears())
    for stack in stacks(engine.config):
        rows = torch.cat([dense[f"{name}.weight"] for name, _ in stack.parts])
        assert torch.equal(held[stack.name].dense(), rows.float())
        assert (stack.rows, stack.columns) == tuple(rows.shape)


def test_the_planes_of_the_file_are_those_of_the_kernels() -> None:
    from kernels.linear_lowbit.planes import WIDTHS

    assert PLANES == WIDTHS
    assert native.DOUBLE_ROWS == 16
