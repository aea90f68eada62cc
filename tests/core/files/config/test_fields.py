"""Folders of the families that call the numbers of their shape by names of their own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from core.catalogue import models
from core.engine.load.load import load_folder
from core.errors import BadInput
from core.model import DecoderShape

IDS = {"vocab_size": 97, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None}
GPT = {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}
PLAIN = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT = PLAIN | {"ffn_dim": 80, "max_position_embeddings": 64, "word_embed_proj_dim": 48}
NEO = {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
       "attention_types": [[["global", "local"], 1]]}  # fmt: skip
# family, fields, then heads of keys and values, intermediate, context, tied
FOLDERS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int, bool]]] = {
    "gpt2": ("gpt2", GPT, (4, 192, 64, True)),
    "gpt2-inner-untied": ("gpt2", GPT | {"n_inner": 80, "tie_word_embeddings": False},
                          (4, 80, 64, False)),
    "gpt_bigcode": ("gpt_bigcode", GPT, (1, 192, 64, True)),
    "gptj": ("gptj", GPT | {"rotary_dim": 4}, (4, 192, 64, False)),
    "gpt_neo": ("gpt_neo", NEO, (4, 192, 64, True)),
    "opt": ("opt", OPT, (4, 80, 64, True)),
    "opt-projected": ("opt", OPT | {"word_embed_proj_dim": 16}, (4, 80, 64, True)),
    "bloom": ("bloom", {"hidden_size": 48, "n_layer": 2, "n_head": 4}, (4, 192, 2048, True)),
    "falcon": ("falcon", PLAIN, (1, 192, 2048, True)),
    "falcon-grouped": ("falcon", PLAIN | {"new_decoder_architecture": True, "num_kv_heads": 2},
                       (4, 192, 2048, True)),
}  # fmt: skip


def saved(kind: str, path: Path) -> Any:
    """The model of FOLDERS[kind], as transformers loads it from the folder that it saved."""
    from transformers import AutoConfig, AutoModelForCausalLM

    family, fields, _ = FOLDERS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(IDS | fields))
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_has_its_shape_and_gives_the_logits_of_transformers(
    kind: str, tmp_path: Path
) -> None:
    model = saved(kind, tmp_path)
    kv_heads, intermediate, context, tied = FOLDERS[kind][2]
    found = models.resolve(str(tmp_path))
    assert found.family == FOLDERS[kind][0]
    plain = DecoderShape(48, 2, 4, kv_heads, 12, intermediate, 97, context, tied)
    shape = found.decoder()
    layers = replace(shape, kinds=(), loose=0, outside=(), embedding=0, trims=False)
    assert layers == plain
    assert found.params() == sum(weight.numel() for weight in model.parameters())
    assert found.weight_bytes() == 4 * found.params()
    engine, _ = load_folder(tmp_path, "fp32")
    ids = torch.randint(0, 97, (1, 9))
    with torch.no_grad():
        assert torch.equal(engine.forward(ids), model(ids).logits)
    cache = engine.new_cache(1, 9)
    engine.forward(ids, cache)
    assert cache.nbytes == found.decoder().kv_values_per_token() * 9 * 4


@pytest.mark.parametrize("kind", ["gpt2", "opt", "bloom", "gptj", "falcon"])
def test_a_config_that_says_nothing_of_the_head_is_as_its_family_is(
    kind: str, tmp_path: Path
) -> None:
    saved(kind, tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    del config["tie_word_embeddings"]
    file.write_text(json.dumps(config))
    assert models.resolve(str(tmp_path)).decoder().tied == FOLDERS[kind][2][3]


def test_bloom_of_before_names_its_hidden_size_n_embed() -> None:
    config = {"model_type": "bloom", "n_embed": 48, "n_layer": 2, "num_attention_heads": 4}
    shape = models.decoder_shape(config | {"vocab_size": 97})
    assert (shape.hidden, shape.layers, shape.heads, shape.intermediate) == (48, 2, 4, 192)


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("gpt2", {"n_embd": None}, "a shape field is missing or not a number: 'n_embd'"),
        ("gpt2", {"n_head": None}, "a shape field is missing or not a number: 'n_head'"),
        ("opt", {"ffn_dim": None}, "a shape field is missing or not a number: 'ffn_dim'"),
        ("bloom", {"n_layer": None}, "a shape field is missing or not a number: 'n_layer'"),
        ("gpt2", {"n_embd": "wide"}, "n_embd must be an integer"),
        ("falcon", {"num_kv_heads": -1}, "num_kv_heads must be an integer"),
        ("gpt2", {"hidden_size": 64}, "hidden_size is 64, but n_embd is 48; they are one number"),
        ("opt", {"intermediate_size": 8}, "intermediate_size is 8, but ffn_dim is 80; they are"),
        ("gpt2", {"n_head": 0}, "n_head must be an integer from 1"),
    ],
)
def test_numbers_that_are_missing_or_contradict_get_one_sentence(
    kind: str, change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    saved(kind, tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(BadInput, match=sentence) as caught:
        models.resolve(str(tmp_path))
    assert str(caught.value).startswith("config.json: ")
    assert "\n" not in str(caught.value)


def test_another_family_may_use_such_a_name_for_something_else() -> None:
    config = models.shapes()["smollm2-135m"]["config"]
    odd = config | {"n_layer": 99, "num_heads": 7, "multi_query": True}
    assert models.decoder_shape(odd) == models.decoder_shape(config)
