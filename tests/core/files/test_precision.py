"""The unchanged model is the file's: its format, its numbers, against safetensors and transformers
in fp32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from core import techniques
from core.catalogue import models, workloads
from core.engine.decoder import Decoder
from core.engine.load.load import load_folder
from core.files.folder import check_folder
from core.machine import targets
from core.plan import Case, Plan
from core.predict.account import account
from core.techniques.applying import apply_all
from core.techniques.deployment import Deployment

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
NORM, DOWN = "model.norm.weight", "model.layers.0.mlp.down_proj.weight"


def stored(folder: Path, kind: str, change: Any = None) -> Path:
    """A small Llama in `kind`, whose numbers need all bits of it."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=67,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + float(parameter.ndim == 1))
    model.to(DTYPES[kind]).save_pretrained(folder)
    if change is not None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def log_softmax_of_transformers(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float64)
    with torch.no_grad():
        return torch.log_softmax(model(ids).logits, -1)


def divergence(engine: Any, folder: Path) -> float:
    ids = torch.arange(48)[None] * 7 % 67
    want = log_softmax_of_transformers(folder, ids)
    got = torch.log_softmax(engine.forward(ids).double(), -1)
    return float((want.exp() * (want - got)).sum(-1).mean())


@pytest.mark.parametrize(("kind", "most"), [("fp32", 1e-9), ("fp16", 1e-4), ("bf16", 1e-2)])
def test_every_number_of_the_file_is_in_the_engine(kind: str, most: float, tmp_path: Path) -> None:
    folder = stored(tmp_path / "m", kind)
    engine, _ = load_folder(folder)
    assert engine.dtype is DTYPES[kind]
    held = load_file(folder / "model.safetensors")
    for name, tensor in engine.export_tensors().items():
        assert tensor.dtype is DTYPES[kind]
        assert torch.equal(tensor, held[name]), name
    assert 0 <= divergence(engine, folder) < most
    model = models.resolve(str(folder))
    assert (model.precision, check_folder(folder).rounded) == (kind, "")


@pytest.mark.parametrize("kind", DTYPES)
def test_memory_is_predicted_in_the_files_own_format(kind: str, tmp_path: Path) -> None:
    folder = stored(tmp_path / "m", kind)
    model, (engine, _) = models.resolve(str(folder)), load_folder(folder)
    found = account(Plan(Case(model, targets.resolve("local"), workloads.resolve("chat"))))
    assert dict(found.formats) == {kind: engine.weight_bytes()}
    assert found.kv_per_token == engine.new_cache(1, 10).nbytes / 10


def in_another(name: str, kind: torch.dtype, exact: bool) -> Any:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        wide = tensors[name].float()
        tensors[name] = (wide if exact else wide * (1 + 2**-10)).to(kind)

    return change


@pytest.mark.parametrize(
    ("main", "name", "other", "exact", "wanted"),
    [
        ("bf16", NORM, torch.float32, True, "bf16"),
        ("bf16", NORM, torch.float32, False, "fp32"),
        ("bf16", DOWN, torch.float16, False, "fp32"),
        ("fp16", NORM, torch.float32, True, "fp16"),
        ("fp16", NORM, torch.float32, False, "fp32"),
        ("fp16", NORM, torch.float64, True, "fp16"),
        ("fp32", NORM, torch.bfloat16, True, "fp32"),
    ],
)
def test_mixed_files_take_the_narrowest_format_that_holds_all(
    main: str, name: str, other: torch.dtype, exact: bool, wanted: str, tmp_path: Path
) -> None:
    folder = stored(tmp_path / "m", main, in_another(name, other, exact))
    engine, _ = load_folder(folder)
    assert engine.dtype is DTYPES[wanted]
    held = load_file(folder / "model.safetensors")
    for key, tensor in engine.export_tensors().items():
        assert torch.equal(tensor.double(), held[key].double()), key


def test_numbers_of_64_bits_are_rounded_and_that_is_said(tmp_path: Path) -> None:
    def widen(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].double() * (1 + 2**-40)

    found = check_folder(stored(tmp_path / "m", "fp32", widen))
    assert found.dtype == "fp32"
    assert "64 bits are rounded to fp32" in found.rounded


def applied(folder: Path, *words: str) -> tuple[Deployment, list[str]]:
    notes: list[str] = []
    case = Case(models.resolve(str(folder)), targets.resolve("local"), workloads.resolve("chat"))
    deployment = Deployment(
        case, load_folder(folder)[0], lambda: load_folder(folder)[0], note=notes.append
    )
    made = tuple(techniques.parse(word) for word in words)
    apply_all(deployment, made, lambda name: lambda share: None)
    return deployment, notes


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_a_cast_starts_from_the_numbers_of_the_file(kind: str, tmp_path: Path) -> None:
    folder = stored(tmp_path / "m", kind)
    held = load_file(folder / "model.safetensors")
    for to, dtype in DTYPES.items():
        deployment, notes = applied(folder, f"cast:dtype={to}")
        for name, tensor in deployment.engine.export_tensors().items():
            assert torch.equal(tensor, held[name].to(dtype)), (to, name)
        assert any("already" in note for note in notes) == (to == kind)
    proposed = techniques.BY_NAME["cast"].proposals(deployment.case)
    assert {one.technique.dtype for one in proposed} == set(DTYPES) - {kind}


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_rounding_to_codes_starts_from_the_numbers_of_the_file(kind: str, tmp_path: Path) -> None:
    from kernels.linear_lowbit import quantize

    folder = stored(tmp_path / "m", kind)
    held = load_file(folder / "model.safetensors")
    deployment, _ = applied(folder, "rtn:bits=4,group_size=32,symmetric=0")
    engine = deployment.engine
    assert isinstance(engine, Decoder)
    want = quantize(held[DOWN].float(), 4, 32, symmetric=False).dequantize()
    assert torch.equal(engine.layers[0].down.dense(), want)
    assert torch.equal(engine.layers[0].attn_norm, held["model.layers.0.input_layernorm.weight"])
    assert engine.layers[0].down.kernel_weight.kernel in ("cpp", "torch-int4pack", "torch")
    assert engine.layers[0].down.dtype is DTYPES[kind]


@pytest.mark.parametrize("kind", DTYPES)
def test_a_step_of_one_token_gives_what_the_whole_prompt_gives(kind: str, tmp_path: Path) -> None:
    folder = stored(tmp_path / "m", kind)
    engine, _ = load_folder(folder)
    ids = torch.arange(20)[None] * 5 % 67
    want = log_softmax_of_transformers(folder, ids)

    def error(logits: torch.Tensor) -> float:
        return float((torch.log_softmax(logits.double(), -1) - want).abs().mean())

    cache = engine.new_cache(1, 20)
    assert cache.keys.dtype is DTYPES[kind]
    steps = torch.cat([engine.forward(ids[:, i : i + 1], cache) for i in range(20)], dim=1)
    assert error(steps) <= 2 * error(engine.forward(ids)) + 1e-6
    assert error(steps) < {"fp32": 1e-5, "fp16": 2e-2, "bf16": 2e-1}[kind]


def test_a_folder_that_apply_wrote_says_its_own_format(tmp_path: Path) -> None:
    folder = stored(tmp_path / "m", "fp16")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"trimtab": {"dtype": "fp32"}}))
    assert load_folder(folder)[0].dtype is torch.float32
