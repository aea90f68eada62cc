"""Which models can be chosen: sizes as published, and one sentence for everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import core
from core.catalogue import models
from core.engine.load.load import load_engine
from core.errors import BadInput
from core.files.config import names
from core.files.config.hf_config import from_hf
from core.model import ClassifierShape, DecoderShape

# As the makers' files hold them; Qwen2's biases and Qwen3's head norms included.
PUBLISHED = {
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "llama-3.1-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shape_has_exactly_the_published_parameters(name: str) -> None:
    assert models.resolve(f"shape:{name}").params() == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_those_of_the_tensors_that_the_engine_asks_for(name: str) -> None:
    config = from_hf(models.shapes()[name]["config"])
    total = 0
    for shape in names.expected(config).values():
        size = 1
        for side in shape:
            size *= side
        total += size
    assert models.resolve(f"shape:{name}").params() == total


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
@pytest.mark.parametrize("flags", [{}, {"attention_bias": True}, {"mlp_bias": True}])
@pytest.mark.parametrize("tied", [True, False])
def test_odd_configs_are_counted_as_transformers_counts_them(
    family: str, flags: dict[str, bool], tied: bool
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "intermediate_size": 80,
        "vocab_size": 97,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        **flags,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **fields))
    shape = models.decoder_shape({"model_type": family, **fields})
    assert shape.params() == sum(p.numel() for p in model.parameters())


def test_every_listed_model_resolves_to_itself() -> None:
    listed = models.list_models()
    assert [one.id for one in listed[:4]] == list(models.BUNDLED)
    assert len({one.id for one in listed}) == len(listed)
    for one in listed:
        assert models.resolve(one.id) == one
        assert one.revision
        assert one.task == ("image" if one.id.startswith("digits") else "text")


@pytest.mark.parametrize("name", models.BUNDLED)
def test_a_bundled_model_weighs_what_its_engine_weighs(name: str) -> None:
    model = models.resolve(name)
    stored = (models.ZOO / name / "model.safetensors").stat().st_size
    assert model.weight_bytes() == model.params() * 2
    assert 0 < stored - model.weight_bytes() < 10_000
    width = 4 if model.task == "image" else 2
    assert load_engine(model).weight_bytes() == model.params() * width


@pytest.mark.parametrize(
    ("model_id", "words"),
    [
        ("pycod", "did you mean 'pycode'?"),
        ("digit-cnn", "did you mean 'digits-cnn'?"),
        ("", "unknown model ''"),
        ("gpt5", "known: pycode, pycode-small"),
        ("a/b/c", "unknown model 'a/b/c'"),
        ("shape:llama-3.1-8", "did you mean 'llama-3.1-8b'?"),
        ("shape:", "known shapes: smollm2-135m"),
        ("shape:nothing-like-it", "unknown shape 'nothing-like-it'; known shapes"),
        ("./nowhere", "there is no such folder"),
        ("/nowhere/at/all", "there is no such folder"),
        ("~nobody-of-this-name/x", "there is no such folder"),
        ("/" + "x" * 5000, "there is no such folder"),
        ("x" * 5000, "unknown model"),
        ("nul\0byte", "unknown model"),
        ("../" * 40 + "nowhere", "there is no such folder"),
    ],
)
def test_a_model_that_is_not_there_gets_a_sentence(model_id: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        models.resolve(model_id)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match="no such folder"):
        models.resolve(str(tmp_path / "model.safetensors"))
    with pytest.raises(BadInput, match=r"config\.json is missing"):
        models.resolve(str(tmp_path))


def test_a_folder_is_named_by_its_resolved_path_and_its_content(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in (models.ZOO / "digits-mlp").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    found, bundled = models.resolve(f"{folder}/../copy"), models.resolve("digits-mlp")
    assert found.id == str(folder.resolve())
    assert found.source == "folder"
    assert found.revision == bundled.revision
    assert replace(bundled, id=found.id, source="folder", title="copy", origin="folder") == found
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config, indent=4))
    assert models.resolve(str(folder)).revision != bundled.revision


def test_a_hub_that_cannot_be_reached_gets_a_sentence_quickly(tmp_path: Path) -> None:
    script = (
        "import sys; from core.catalogue import models; from core.errors import BadInput\n"
        "try: models.resolve('nobody/nothing-of-this-name')\n"
        "except BadInput as error: print(error); sys.exit(2)"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(core.__file__).parent.parent,
        env={**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert "'nobody/nothing-of-this-name' could not be fetched from the hub" in done.stdout
    assert "give a local folder" in done.stdout
    assert len(done.stdout.strip().splitlines()) == 1
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": None},
        {"num_attention_heads": 0},
        {"num_attention_heads": "many"},
        {"vocab_size": []},
        {"intermediate_size": {}},
    ],
)
def test_a_config_with_a_wrong_shape_field_is_bad_input(change: dict[str, object]) -> None:
    config = models.shapes()["smollm2-135m"]["config"] | change
    with pytest.raises(BadInput, match=r"config\.json: a shape field"):
        models.decoder_shape(config)


def test_a_missing_shape_field_is_named() -> None:
    config = dict(models.shapes()["smollm2-135m"]["config"])
    del config["vocab_size"]
    with pytest.raises(BadInput, match="vocab_size"):
        models.decoder_shape(config)


def test_the_arithmetic_of_a_decoder_is_the_one_of_a_textbook() -> None:
    model = models.resolve("shape:llama-3.1-8b")
    assert model.kv_bytes_per_token() == 2 * 32 * 8 * 128 * 2
    matrices = 32 * (4096 * 4096 * 2 + 4096 * 1024 * 2 + 3 * 4096 * 14336) + 128256 * 4096
    assert model.decode_flops(0) == 2 * matrices + 4 * 32 * 32 * 128
    assert model.decode_flops(999) - model.decode_flops(0) == 999 * 4 * 32 * 32 * 128
    one_by_one = sum(model.decode_flops(i) for i in range(3)) - 2 * 2 * 128256 * 4096
    assert model.prefill_flops(3) == one_by_one
    assert model.weight_bytes(4) == 8_030_261_248 / 2


def test_a_classifier_has_no_decoder_arithmetic_and_the_other_way_round() -> None:
    images, text = models.resolve("digits-cnn"), models.resolve("pycode")
    with pytest.raises(TypeError, match="not a decoder"):
        images.decoder()
    with pytest.raises(TypeError, match="not a classifier"):
        text.example_flops()
    assert isinstance(images.shape, ClassifierShape)
    assert isinstance(text.shape, DecoderShape)


@pytest.mark.parametrize("name", ["digits-cnn", "digits-mlp"])
def test_a_classifiers_multiplications_are_those_that_run(name: str) -> None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    engine, model = load_engine(name), models.resolve(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        engine(torch.zeros(1, 1, 8, 8))
    assert model.example_flops() == counter.get_total_flops()
