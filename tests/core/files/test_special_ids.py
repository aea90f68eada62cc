"""Where a text starts and ends, against transformers' own generate and its tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, processors

from core.engine.load.load import load_folder
from core.engine.serve.generate import generate
from core.errors import BadInput
from core.files import special_ids
from core.files.folder import check_folder
from core.files.special_ids import SpecialIds
from tests.evidence.files.sound_folders import tokenizer as plain_tokenizer

SIZE = {"vocab_size": 300, "pad_token_id": None, "bos_token_id": 1}
SHAPE = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", SHAPE),
    "qwen3": ("Qwen3ForCausalLM", SHAPE | {"head_dim": 12}),
    "mistral": ("MistralForCausalLM", SHAPE),
    "olmo2": ("Olmo2ForCausalLM", SHAPE),
    "granite": ("GraniteForCausalLM", SHAPE),
    "gemma": ("GemmaForCausalLM", SHAPE | {"head_dim": 12}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}),
}


def save(path: Path, family: str, **fields: Any) -> Any:
    """A random model as a folder with a tokenizer; the transformers model."""
    kind, shape = FAMILIES[family]
    cls = getattr(transformers, kind)
    torch.manual_seed(3)
    model = cls(cls.config_class(**(SIZE | shape | fields))).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text(json.dumps(plain_tokenizer()))
    return model


def rewrite(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def theirs(path: Path, prompt: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        whole: torch.Tensor = model.generate(  # type: ignore[attr-defined]
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False
        )
    return whole[:, prompt.shape[1] :]


@pytest.mark.parametrize(("family", "pad"), [*((name, None) for name in FAMILIES), ("llama", 5)])
def test_rows_end_where_transformers_ends_them(
    family: str, pad: int | None, tmp_path: Path
) -> None:
    save(tmp_path, family, eos_token_id=2)
    prompt = torch.randint(3, 300, (4, 5))
    generation = tmp_path / "generation_config.json"
    rewrite(generation, eos_token_id=None, pad_token_id=pad)
    endless = theirs(tmp_path, prompt)
    assert endless.shape == (4, 24)
    # Tokens that rows say at different steps become ends, and only generation_config names them.
    ends = sorted({int(endless[0, 6]), int(endless[1, 3]), int(endless[2, 13])})
    rewrite(generation, eos_token_id=ends)
    want = theirs(tmp_path, prompt)
    assert not torch.equal(want, endless[:, : want.shape[1]])
    engine, _ = load_folder(tmp_path, "fp32")
    assert engine.special_ids.stops == tuple(ends)
    got = generate(engine, prompt, 24, stop_ids=engine.special_ids.stops)
    assert torch.equal(got, want)
    assert torch.equal(generate(engine, prompt, 24), endless)


NOTHING: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("config", "generation"),
    [
        ({"eos_token_id": 7}, None),
        ({"eos_token_id": [7, 9]}, None),
        ({"eos_token_id": 7}, {"eos_token_id": 9}),
        ({"eos_token_id": 7}, {"eos_token_id": [9, 7, 9]}),
        ({"eos_token_id": 7}, NOTHING),
        ({"eos_token_id": 7, "pad_token_id": 4}, {"eos_token_id": 8}),
        ({"eos_token_id": None}, None),
        ({"eos_token_id": None}, {"eos_token_id": 8, "pad_token_id": 3}),
    ],
)
def test_ids_are_those_that_generate_takes(
    config: dict[str, Any], generation: dict[str, Any] | None, tmp_path: Path
) -> None:
    save(tmp_path, "llama")
    rewrite(tmp_path / "config.json", **config)
    (tmp_path / "generation_config.json").unlink()
    if generation is not None:
        rewrite(tmp_path / "generation_config.json", **generation)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    prepared, _ = model._prepare_generation_config(None)
    model._prepare_special_tokens(prepared, device="cpu")
    wanted, pad = prepared._eos_token_tensor, prepared._pad_token_tensor
    got = load_folder(tmp_path)[0].special_ids
    assert set(got.stops) == set(() if wanted is None else wanted.tolist())
    if pad is not None:
        assert got.filler == int(pad)


@pytest.mark.parametrize(
    "post",
    [
        None,
        {"single": "<start> $A"},
        {"single": "$A <end>"},
        {"single": "<end> <start> $A <end>"},
        {"single": "<start> <start> $A"},
    ],
)
def test_a_start_that_the_tokenizer_adds_is_told_as_transformers_adds_it(
    post: dict[str, str] | None, tmp_path: Path
) -> None:
    save(tmp_path, "llama", bos_token_id=0)
    words = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    if post is not None:
        special = [("<start>", 1), ("<end>", 2)]
        words.post_processor = processors.TemplateProcessing(**post, special_tokens=special)
        words.save(str(tmp_path / "tokenizer.json"))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    bare = theirs("tin", add_special_tokens=False)["input_ids"]
    engine, _ = load_folder(tmp_path)
    found = engine.special_ids
    assert [*found.prefix, *bare, *found.suffix] == theirs("tin")["input_ids"]
    assert found.adds_start == (theirs("tin")["input_ids"][: len(bare)] != bare)
    assert found.start == (found.prefix[0] if found.prefix else 0)


def test_the_start_comes_from_the_first_file_that_names_one(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    _, words = load_folder(tmp_path)

    def start(config: dict[str, Any]) -> int | None:
        return special_ids.read(tmp_path, {"vocab_size": 300} | config, words).start

    assert (start({"bos_token_id": 1}), start({"bos_token_id": 5})) == (1, 1)
    rewrite(tmp_path / "generation_config.json", bos_token_id=None)
    assert (start({"bos_token_id": 5}), start({})) == (5, None)
    rewrite(tmp_path / "tokenizer_config.json", bos_token={"content": "<end>", "special": True})
    assert (start({"bos_token_id": 5}), start({})) == (5, 2)
    rewrite(tmp_path / "tokenizer_config.json", bos_token="<start>")
    assert (start({}), start({"bos_token_id": -1})) == (1, 1)
    rewrite(tmp_path / "tokenizer_config.json", bos_token="no such token")
    assert start({}) is None


@pytest.mark.parametrize(
    ("file", "fields", "said"),
    [
        ("generation_config.json", {"eos_token_id": "x"}, "generation_config.json: eos_token_id"),
        ("generation_config.json", {"eos_token_id": [1, True]}, "must be a token id or a list"),
        ("generation_config.json", {"eos_token_id": -3}, "generation_config.json: eos_token_id"),
        ("generation_config.json", {"bos_token_id": 300}, "bos_token_id 300 is no token"),
        ("generation_config.json", {"pad_token_id": 1.5}, "generation_config.json: pad_token_id"),
        ("config.json", {"bos_token_id": "a"}, "config.json: bos_token_id"),
    ],
)
def test_ids_without_meaning_are_refused_by_name(
    file: str, fields: dict[str, Any], said: str, tmp_path: Path
) -> None:
    save(tmp_path, "gpt2", bos_token_id=None)
    rewrite(tmp_path / file, **fields)
    with pytest.raises(BadInput, match=said):
        check_folder(tmp_path)


def test_a_generation_config_that_is_no_json_is_refused(tmp_path: Path) -> None:
    save(tmp_path, "llama")
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(BadInput, match=r"generation_config\.json is not valid JSON"):
        check_folder(tmp_path)


def test_a_row_that_ended_is_filled_with_pad_else_with_the_first_stop() -> None:
    assert SpecialIds(stops=(7, 3)).filler == 7
    assert SpecialIds(stops=(7, 3), pad=0).filler == 0
    assert SpecialIds().filler == 0
