"""compressed-tensors folders against transformers and the package's own decompressor."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_apply import plan
from tiny_llama import IDS, replace_all, rounded, write, write_source

from core.artefacts.apply import apply
from core.artefacts.kept import of_form
from core.engine.linear import Linear
from core.engine.load.load import load_folder
from core.errors import BadInput, Refused
from core.files.folder import check_folder
from core.files.formats import compressed_tensors
from core.files.formats.parts import data_of
from core.files.formats.scheme import Module
from kernels.linear_fp8 import Fp8Weight
from kernels.linear_fp8 import quantize as quantize_fp8
from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.linear_w8a8 import W8A8Weight
from kernels.linear_w8a8 import quantize as quantize_int8

package = pytest.mark.skipif(
    importlib.util.find_spec("compressed_tensors") is None,
    reason="the package compressed-tensors (extra [test]) is not installed",
)
FORMS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "int4 in groups": ((4, 32), {}),
    "int4 affine": ((4, 64), {"symmetric": False}),
    "int4 by row": ((4, 1 << 30), {}),
    "int2 affine": ((2, 32), {"symmetric": False}),
    "int8 in groups": ((8, 64), {}),
    "int8 affine by row": ((8, 1 << 30), {"symmetric": False}),
    "int8 by row": ((8, 1 << 30), {}),
    "int8 by row, fp32 scales": ((8, 1 << 30), {"scale_format": "fp32"}),
    "e4m3 by row": ((8, 1 << 30), {"kind": "e4m3"}),
}


def transformers_model(folder: Path, dequantize: bool) -> Any:
    """The folder in fp32 by transformers, which finds nothing missing and nothing left over."""
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    given = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if dequantize else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, report = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True, **given
        )
        assert not any(report.values()), report
        with torch.no_grad():
            model(IDS)
    return model


def by_transformers(model: Any, layer: int) -> dict[str, torch.Tensor]:
    one = model.model.layers[layer]
    attention, mlp = one.self_attn, one.mlp
    weights = {
        "qkv": [attention.q_proj, attention.k_proj, attention.v_proj],
        "o": [attention.o_proj],
        "gate_up": [mlp.gate_proj, mlp.up_proj],
        "down": [mlp.down_proj],
    }
    return {
        f"layers.{layer}.{name}": torch.cat([part.weight for part in parts]).detach().float()
        for name, parts in weights.items()
    } | {"head": model.lm_head.weight.detach().float()}


@package
@pytest.mark.parametrize("name", ["int4 in groups", "int4 by row", "int8 by row", "e4m3 by row"])
def test_transformers_runs_the_folder_with_our_weights_exactly(
    name: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    given, named = FORMS[name]
    engine = quantized(*given, **named)
    write(engine, tmp_path / "out", "compressed-tensors")
    model = transformers_model(tmp_path / "out", dequantize=False)
    held = {name: linear.dense() for name, linear in engine.linears()}
    for where, weight in by_transformers(model, 1).items():
        assert torch.equal(weight, held[where]), where
    plain, _ = load_folder(tmp_path / "out", "fp32")
    with torch.no_grad():
        logits = model(IDS).logits
    torch.testing.assert_close(plain.forward(IDS), logits, rtol=2e-4, atol=2e-4)


@package
@pytest.mark.parametrize("name", ["int4 affine", "int2 affine", "int8 affine by row"])
def test_transformers_decompresses_zeros_within_fp16(
    name: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    """At loading, in the fp16 of the scales: config.json asks for it, since the package (0.20)
    makes no room for packed zeros when it keeps a model compressed.
    """
    given, named = FORMS[name]
    engine = quantized(*given, **named)
    write(engine, tmp_path / "out", "compressed-tensors")
    held = {name: linear.dense() for name, linear in engine.linears()}
    for dequantize in (False, True):
        model = transformers_model(tmp_path / "out", dequantize)
        for where, weight in by_transformers(model, 1).items():
            wanted = held[where].half().float()
            torch.testing.assert_close(weight, wanted, rtol=2**-10, atol=1e-6)


@package
@pytest.mark.parametrize(
    "technique",
    ["weight-int4", "rtn:bits=4,symmetric=1", "rtn:bits=8,group_size=0", "weight-int8", "w8a8",
     "fp8", "fp8:activations=8", "rtn:bits=2,group_size=64", "rtn:granularity=channel"],
)  # fmt: skip
def test_the_plain_call_loads_what_apply_writes(technique: str, tmp_path: Path) -> None:
    """Exactly as a user types it, with the dtype that the folder says."""
    from transformers import AutoModelForCausalLM

    source = write_source(tmp_path / "source")
    apply(plan(str(source), technique), tmp_path / "out", "compressed-tensors")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.dtype == torch.bfloat16
    ours = load_folder(tmp_path / "out")[0].forward(IDS).float()
    with torch.no_grad():
        theirs = model(IDS).logits.float()
    # Both compute in bf16, and scales are rounded to it there; inputs of 8 bit are rounded again,
    # which tests above and below compare in fp32.
    allowed = {"w8a8": 0.1, "fp8:activations=8": 0.25}.get(technique, 0.02)
    assert (theirs - ours).norm() < allowed * ours.norm()


@package
def test_zeros_of_several_kinds_are_told_and_do_not_ask_to_be_dequantized(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source", intermediate_size=256)
    notes: list[str] = []
    for size, said in ((32, 0), (128, 1)):
        out = tmp_path / str(size)
        notes.clear()
        technique = f"weight-int4:group_size={size}"
        apply(plan(str(source), technique), out, "compressed-tensors", note=notes.append)
        assert len([one for one in notes if "transformers" in one]) == said
        config = json.loads((out / "config.json").read_text())["quantization_config"]
        assert config.get("dequantize", False) == (not said)


@package
@pytest.mark.parametrize("name", FORMS)
def test_the_package_decompresses_each_tensor_to_our_weight(
    name: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    given, named = FORMS[name]
    engine = quantized(*given, **named)
    write(engine, tmp_path / "out", "compressed-tensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    groups = QuantizationConfig.model_validate(config).config_groups
    module = "model.layers.0.mlp.down_proj"
    scheme = next(one for one in groups.values() if {"Linear", module} & set(one.targets))
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    own = {key.removeprefix(f"{module}."): value for key, value in tensors.items()
           if key.startswith(module)}  # fmt: skip
    own["weight_scale"] = own["weight_scale"].float()
    found = BaseCompressor.load_from_registry(scheme.format).decompress(own, scheme)["weight"]
    assert torch.equal(found.float(), engine.layers[0].down.dense())


@pytest.mark.parametrize("name", FORMS)
def test_codes_scales_and_logits_come_back(
    name: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    given, named = FORMS[name]
    engine = quantized(*given, **named)
    write(engine, tmp_path / "out", "compressed-tensors")
    again, _ = load_folder(tmp_path / "out")
    for (where, first), (_, second) in zip(engine.linears(), again.linears(), strict=True):
        one, other = first.kernel_weight.form(), second.kernel_weight.form()
        assert torch.equal(one.codes, other.codes), where
        assert torch.equal(one.scale, other.scale), where
        assert torch.equal(one.zeros(), other.zeros()), where
        assert (one.kind, one.format) == (other.kind, other.format)
    assert torch.equal(engine.forward(IDS), again.forward(IDS))


@package
@pytest.mark.parametrize("x_scale", [None, 0.0625])
def test_int8_inputs_come_back_and_are_what_the_package_calls_them(
    x_scale: float | None, source: Path, tmp_path: Path
) -> None:
    from compressed_tensors.quantization import QuantizationConfig

    engine, _ = load_folder(source)
    for layer in engine.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            form = quantize_int8(getattr(layer, name).dense(), x_scale)
            setattr(layer, name, Linear.from_kernel(W8A8Weight(form)))
    write(engine, tmp_path / "out", "compressed-tensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    read = QuantizationConfig.model_validate(config["quantization_config"])
    inputs = read.config_groups["group_0"].input_activations
    assert (inputs.num_bits, inputs.dynamic) == (8, x_scale is None)
    assert read.ignore == ["lm_head"]
    again, _ = load_folder(tmp_path / "out")
    assert again.layers[0].o.kernel_weight.form().x_scale == x_scale
    assert torch.equal(engine.forward(IDS), again.forward(IDS))


@package
def test_transformers_rounds_inputs_to_e4m3_as_we_do(source: Path, tmp_path: Path) -> None:
    engine, _ = load_folder(source)
    for layer in engine.layers:
        for name in ("qkv", "o", "gate_up", "down"):
            form = quantize_fp8(getattr(layer, name).dense())
            setattr(layer, name, Linear.from_kernel(Fp8Weight(form)))
    write(engine, tmp_path / "out", "compressed-tensors")
    again, _ = load_folder(tmp_path / "out")
    assert again.layers[0].o.format == "fp8-fp8"
    assert torch.equal(engine.forward(IDS), again.forward(IDS))
    model = transformers_model(tmp_path / "out", dequantize=False)
    plain, _ = load_folder(tmp_path / "out", "fp32")
    with torch.no_grad():
        logits = model(IDS).logits
    ours = plain.forward(IDS)
    # It scales with the largest value over 448 and rounds, as we do; values between two codes
    # differ where the scale's last bit does.
    torch.testing.assert_close(ours, logits, rtol=5e-2, atol=5e-2)
    assert (ours - logits).abs().mean() < 2e-3
    weight_only, _ = load_folder(source, "fp32")
    assert (ours - logits).abs().mean() < 0.2 * (weight_only.forward(IDS) - logits).abs().mean()


@pytest.mark.parametrize("rows", [1, 3, 8, 9])
def test_zeros_of_few_rows_in_one_group_are_written(rows: int) -> None:
    """One packed word of zeros: a tensor of one number, whose stride may be anything."""
    module = Module("m", rows, 32, bias=False)
    form = quantize(torch.randn(rows, 32) + 1, 4, 32, symmetric=False)
    scheme = compressed_tensors.scheme_of(of_form(form))
    held = {
        one.name: torch.frombuffer(bytearray(data_of(one)), dtype=torch.uint8)
        .view(one.make().dtype)
        .view(one.shape)
        for one in compressed_tensors.parts("m", form, lambda: form.codes, scheme)
    }
    again = compressed_tensors.read(module, scheme, held.__getitem__)
    assert torch.equal(again.codes, form.codes)
    assert torch.equal(again.zeros(), form.zeros())


def test_matrices_of_several_kinds_make_several_groups(source: Path, tmp_path: Path) -> None:
    engine, _ = load_folder(source)
    replace_all(engine, rounded(4, 32))
    wide = LowBitWeight(quantize(engine.layers[1].down.dense(), 8, 1 << 30))
    engine.layers[1].down = Linear.from_kernel(wide)
    engine.layers[0].o = Linear.from_dense(engine.layers[0].o.dense())
    write(engine, tmp_path / "out", "compressed-tensors")
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision"
    assert config["ignore"] == ["model.layers.0.self_attn.o_proj"]
    assert config["config_groups"]["group_1"]["targets"] == ["model.layers.1.mlp.down_proj"]
    again, _ = load_folder(tmp_path / "out")
    assert [one.format for _, one in again.linears()] == [one.format for _, one in engine.linears()]
    assert torch.equal(engine.forward(IDS), again.forward(IDS))


@pytest.mark.parametrize(
    ("given", "named", "able"),
    [
        ((3, 32), {"symmetric": False}, "trimtab, gptq"),
        ((4, 64, "nf4"), {"scale_format": "u8"}, "trimtab"),
        ((4, 48), {}, "trimtab"),
        ((8, 32, "e4m3"), {}, "trimtab"),
    ],
)
def test_what_it_cannot_hold_is_refused_naming_who_can(
    given: Any, named: Any, able: str, tmp_path: Path, quantized: Callable[..., Any]
) -> None:
    engine = quantized(*given, **named)
    with pytest.raises(Refused, match=rf"layers\.0\.qkv is .*formats that hold it: {able}$"):
        write(engine, tmp_path / "out", "compressed-tensors")
    assert not (tmp_path / "out").exists()


def _weights(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["config_groups"]["group_0"]["weights"]
    return found


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no groups": (lambda q: q.update(config_groups={}), "config_groups is missing or empty"),
    "a group a text": (lambda q: q.update(config_groups={"a": "W4A16"}), "config_groups.a must be"),
    "no weights": (
        lambda q: q["config_groups"]["group_0"].pop("weights"), "group_0.weights is missing",
    ),
    "width": (lambda q: _weights(q).update(num_bits=3), "weights.num_bits must be one of 2, 4, 8"),
    "groups of 24": (lambda q: _weights(q).update(group_size=24), "groups of 24 do not divide"),
    "groups of 0": (lambda q: _weights(q).update(group_size=0), "group_size must be -1 or"),
    "blocks": (
        lambda q: _weights(q).update(strategy="block"), "strategy must be group or channel",
    ),
    "floats": (lambda q: _weights(q).update(type="float"), "type 'float' does not belong to pack"),
    "actorder": (lambda q: _weights(q).update(actorder="group"), "actorder 'group' is not supp"),
    "affine": (
        lambda q: _weights(q).update(symmetric=False), "weight_zero_point .* is missing",
    ),
    "frozen": (lambda q: q.update(quantization_status="frozen"), "quantization_status must be"),
    "format": (
        lambda q: q["config_groups"]["group_0"].update(format="marlin-24"), "group_0.format must",
    ),
    "cache": (lambda q: q.update(kv_cache_scheme={"num_bits": 8}), "kv_cache_scheme is not"),
    "ignored": (lambda q: q.update(ignore=["lm_head"]), "lm_head.weight .* is missing"),
    "all ignored": (lambda q: q.update(ignore=["re:.*proj", "lm_head"]), "names no matrix"),
    "half a stack": (
        lambda q: q.update(ignore=["model.layers.0.self_attn.q_proj"]), "in different formats",
    ),
    "a pattern without end": (lambda q: q.update(ignore=["re:(a*)*b"]), "is not a plain one"),
    "a pattern of stars": (lambda q: q.update(ignore=["re:.*.*.*.*x"]), "is not a plain one"),
    "ignore a number": (lambda q: q.update(ignore=[3]), "ignore must be a list of names"),
    "inputs": (
        lambda q: q["config_groups"]["group_0"].update(input_activations={"num_bits": 8}),
        "input_activations is supported for int-quantized and float-quantized alone",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_wrong_quantization_config_is_one_sentence(kind: str, saved: Callable[..., Path]) -> None:
    folder = saved("compressed-tensors", 4, 32)
    config = json.loads((folder / "config.json").read_text())
    change, reason = DAMAGES[kind]
    change(config["quantization_config"])
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=reason):
        check_folder(folder)
