"""From a plan to a folder: what is written loads again and computes what the techniques left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import techniques
from core.artefacts import apply as applying
from core.catalogue import models, workloads
from core.engine.load.load import load_folder, load_tokenizer
from core.errors import BadInput, Refused
from core.files.folder import check_folder
from core.files.formats.manifest import read_manifest
from core.machine import targets
from core.measure.memory.disk import folder_bytes, measure_disk
from core.plan import Case, Plan


def plan(model: str, *given: str, seed: int = 0) -> Plan:
    found = models.resolve(model)
    workload = "chat" if found.task == "text" else "sensor-frame"
    case = Case(found, targets.resolve("local"), workloads.resolve(workload))
    return Plan(case, tuple(map(techniques.parse, given)), seed)


class Kept:
    """The engine as the techniques left it."""

    engine: Any = None


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    found, original = Kept(), applying._applied

    def applied(*given: Any) -> Any:
        deployment = original(*given)
        found.engine = deployment.engine
        return deployment

    monkeypatch.setattr(applying, "_applied", applied)
    return found


@pytest.mark.parametrize(
    "given",
    [
        ("weight-int4",),
        ("prune-mlp:sparsity=0.5", "rtn:bits=3,group_size=64"),
        ("nf4",),
        ("cast:dtype=fp32",),
        ("w8a8",),
        ("k-quant:mix=q4_k_m",),
    ],
)
def test_what_was_applied_is_what_loads(given: tuple[str, ...], tmp_path: Path, kept: Kept) -> None:
    one = plan("pycode-small", *given)
    made = applying.apply(one, tmp_path / "out")
    again, text = load_folder(tmp_path / "out")
    ids = torch.arange(40)[None]
    assert torch.equal(again.forward(ids), kept.engine.forward(ids))
    assert again.weight_bytes() == kept.engine.weight_bytes() == made.sizes["resident"]
    assert text.encode("def f(x):").ids == load_tokenizer("pycode-small").encode("def f(x):").ids
    assert [entry["name"] for entry in made.techniques] == [name.split(":")[0] for name in given]
    assert read_manifest(tmp_path / "out") == made
    # Counted in a trial, to the byte, without being written.
    counted = measure_disk(one, kept.engine)
    assert counted.value == folder_bytes(tmp_path / "out").value
    assert counted.origin == "measured"
    resolved = models.resolve(str(tmp_path / "out"))
    assert resolved.task == "text"
    assert resolved.weight_bytes() == pytest.approx(made.sizes["weights"], rel=0.1)


def test_a_classifier_becomes_a_folder(tmp_path: Path, kept: Kept) -> None:
    made = applying.apply(plan("digits-mlp", "rtn:bits=8"), tmp_path / "out")
    again, _ = load_folder(tmp_path / "out")
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(images), kept.engine(images))
    assert models.resolve(str(tmp_path / "out")).task == "image"
    assert sum(made.matrices.values()) == 3


@pytest.mark.parametrize("format", ["compressed-tensors", "gptq", "awq"])
def test_formats_of_others_load_too(format: str, tmp_path: Path, kept: Kept) -> None:
    made = applying.apply(plan("pycode-small", "weight-int4:group_size=32"), tmp_path / "o", format)
    again, _ = load_folder(tmp_path / "o")
    ids = torch.arange(40)[None]
    for (name, one), (_, other) in zip(again.linears(), kept.engine.linears(), strict=True):
        if format != "awq" or name != "head":
            assert torch.equal(one.dense(), other.dense())
    torch.testing.assert_close(again.forward(ids), kept.engine.forward(ids), rtol=0.1, atol=0.3)
    assert (made.format, bool([note for note in made.notes if "awq" in note])) == (
        format, format == "awq",
    )  # fmt: skip


def test_a_folder_that_was_applied_may_be_applied_to_again(tmp_path: Path) -> None:
    applying.apply(plan("pycode-small", "prune-mlp:sparsity=0.5"), tmp_path / "one")
    notes: list[str] = []
    applying.apply(plan(str(tmp_path / "one"), "nf4"), tmp_path / "two", note=notes.append)
    assert not any("second time" in text for text in notes)
    applying.apply(
        plan(str(tmp_path / "two"), "weight-int8"), tmp_path / "three", note=notes.append
    )
    assert "weight-int8 rounds it a second time" in next(one for one in notes if "already" in one)
    with pytest.raises(Refused, match=r"lora: layers\.0\.qkv of .* is quantized already"):
        applying.apply(plan(str(tmp_path / "two"), "lora:steps=1"), tmp_path / "four")
    assert not (tmp_path / "four").exists()
    formats = [load_folder(tmp_path / name)[0].layers[0].o.format for name in ("one", "two")]
    assert [*formats, load_folder(tmp_path / "three")[0].head.format] == ["bf16", "nf4-g64", "int8"]


def test_a_model_whose_answers_are_not_finite_is_not_written(source: Path, tmp_path: Path) -> None:
    tensors = load_file(source / "model.safetensors")
    # In bf16 the product is finite, in fp16 it is not.
    for name in ("gate_proj", "up_proj"):
        tensors[f"model.layers.0.mlp.{name}.weight"] *= 3000
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    applying.apply(plan(str(source), "cast:dtype=fp32"), tmp_path / "fine")
    with pytest.raises(Refused, match=r"answers of .* are not finite .* nothing was written"):
        applying.apply(plan(str(source), "cast:dtype=fp16"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["trimtab", "gguf", "compressed-tensors"])
def test_a_changed_byte_of_the_weights_is_found_when_they_are_loaded(
    format: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    made = applying.apply(plan("pycode-small", "weight-int8"), out, format)
    (name,) = made.digests
    load_folder(out)
    content = bytearray((out / name).read_bytes())
    content[-1000] ^= 1
    (out / name).write_bytes(content)
    with pytest.raises(BadInput, match=rf"{name} is not the file that trimtab\.json says"):
        load_folder(out)
    (out / "trimtab.json").unlink()
    load_folder(out)


def test_a_gguf_file_may_be_applied_to(tmp_path: Path) -> None:
    applying.apply(plan("pycode-small", "weight-int8"), tmp_path / "one", "gguf")
    made = applying.apply(plan(str(tmp_path / "one"), "nf4"), tmp_path / "two")
    again, text = load_folder(tmp_path / "two")
    assert again.layers[0].o.format == "nf4-g64"
    assert text is not None
    assert made.sizes["source"] == (tmp_path / "one" / "model.gguf").stat().st_size


def test_settings_of_serving_are_kept_for_whoever_serves(tmp_path: Path) -> None:
    one = plan("pycode-small", "weight-int8", "static-batch:size=8", seed=3)
    made = applying.apply(one, tmp_path / "out")
    assert made.runtime == [{"name": "static-batch", "size": 8}]
    assert made.techniques == [{"name": "weight-int8"}]
    assert made.seed == 3
    assert made.source["digest"] == one.case.model.revision
    assert made.versions["torch"] == torch.__version__
    written = json.loads((tmp_path / "out" / "trimtab.json").read_text())
    assert written["sizes"]["weights"] == (tmp_path / "out" / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    ("model", "given", "format", "kind", "reason"),
    [
        ("pycode-small", (), "trimtab", Refused, "no technique is given"),
        ("pycode-small", ("static-batch:size=4",), "trimtab", Refused, "nothing to write"),
        (
            "pycode-small",
            ("kv-cache",),
            "trimtab",
            Refused,
            "kv-cache changes how",
        ),
        ("shape:smollm2-135m", ("weight-int8",), "trimtab", Refused, "has random weights"),
        ("pycode-small", ("weight-int8", "prune-mlp"), "trimtab", Refused, "must come before"),
        ("pycode-small", ("weight-int8",), "zip", BadInput, "--format 'zip' is not one of trimtab"),
        ("pycode-small", ("prune-mlp",), "gptq", Refused, "nothing is quantized, which gptq"),
        ("pycode-small", ("rtn:bits=3",), "awq", Refused, "formats that hold it: trimtab, gptq"),
        ("digits-mlp", ("rtn:bits=8",), "awq", Refused, "the format that holds it: trimtab"),
        ("digits-mlp", ("rtn:bits=8",), "gguf", Refused, "the format that holds it: trimtab"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(
    model: str, given: tuple[str, ...], format: str, kind: type, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=reason):
        applying.apply(plan(model, *given), tmp_path / "out", format)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_manifest_is_one_sentence(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    for content, reason in (
        ("{", "trimtab.json is not valid JSON"),
        ('{"version": 9}', "trimtab.json: version 9 is not 1"),
        ('{"version": 1, "format": 3}', "trimtab.json: format is missing or no str"),
    ):
        (tmp_path / "trimtab.json").write_text(content)
        with pytest.raises(BadInput, match=reason):
            read_manifest(tmp_path)


def test_the_pre_flight_knows_the_folder(tmp_path: Path) -> None:
    applying.apply(plan("pycode-small", "rtn:bits=2"), tmp_path / "out")
    found = check_folder(tmp_path / "out", need_tokenizer=True)
    assert found.quantized
    # Codes of 2 bits and their scales, and the embedding, a third of all numbers, in 16.
    assert found.bits == 7
