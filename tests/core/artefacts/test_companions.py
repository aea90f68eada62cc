"""What lies beside the weights goes along: transformers makes the same of the artefact as of the
source.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_apply import plan
from tiny_llama import write_source

from core.artefacts import apply as applying
from core.files.formats import chat_template, companions
from core.files.formats.companions import TEMPLATES
from core.measure.memory.disk import folder_bytes

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
TOOLS = "tools: {{ tools }} " + TEMPLATE
CHAT = [{"role": "user", "content": "Hi é"}, {"role": "assistant", "content": "Ja"}]
PLACES = ("file", "folder", "config", "list")
# awq asks for groups, gptq for one width.
TECHNIQUE = "weight-int4:group_size=32"


def speaking(folder: Path, where: str) -> Path:
    """A model whose chat templates lie in the files of `where`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GenerationConfig, PreTrainedTokenizerFast

    write_source(folder, tie_word_embeddings=False, vocab_size=264)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {sign: i for i, sign in enumerate(letters)}
    raw = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": ["<user>"]})
    several = {"default": TEMPLATE, "tools-2": TOOLS}
    fast.chat_template = {"file": TEMPLATE, "config": TEMPLATE}.get(where, several)
    fast.save_pretrained(folder, save_jinja_files=where in ("file", "folder"))
    GenerationConfig(eos_token_id=[257, 3], temperature=0.7, do_sample=True).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("where", "format"),
    [
        *((where, "trimtab") for where in PLACES),
        *(("folder", format) for format in ("compressed-tensors", "gptq", "awq", "gguf")),
    ],
)
def test_transformers_talks_to_the_artefact_as_to_the_source(
    where: str, format: str, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GenerationConfig

    source = speaking(tmp_path / "source", where)
    applying.apply(plan(str(source), TECHNIQUE), tmp_path / "out", format)
    theirs, ours = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("source", "out"))
    assert ours.chat_template == theirs.chat_template
    assert ours.chat_template
    for given in ({}, {"tools": [{"name": "f"}]}):
        said = [one.apply_chat_template(CHAT, tokenize=False, **given) for one in (theirs, ours)]
        assert said[0] == said[1]
        assert "Hi é" in said[1]
    assert ours.all_special_tokens == theirs.all_special_tokens
    assert ours("<user>Hi é</s>").input_ids == theirs("<user>Hi é</s>").input_ids
    settings = [
        GenerationConfig.from_pretrained(tmp_path / name).to_dict() for name in ("source", "out")
    ]
    assert settings[0] == settings[1]
    assert settings[1]["eos_token_id"] == [257, 3]


@pytest.mark.parametrize("where", PLACES)
def test_a_gguf_holds_the_templates_and_gives_them_back(where: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    source = speaking(tmp_path / "source", where)
    applying.apply(plan(str(source), TECHNIQUE), tmp_path / "out", "gguf")
    fields = gguf.GGUFReader(tmp_path / "out" / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == TEMPLATE
    several = where in ("folder", "list")
    if several:
        assert fields["tokenizer.chat_templates"].contents() == ["tools_2"]
        assert fields["tokenizer.chat_template.tools_2"].contents() == TOOLS
    # Alone, as it is downloaded, the file brings them along.
    (tmp_path / "alone").mkdir()
    os.link(tmp_path / "out" / "model.gguf", tmp_path / "alone" / "model.gguf")
    applying.apply(plan(str(tmp_path / "alone"), "nf4"), tmp_path / "again")
    assert (tmp_path / "again" / "chat_template.jinja").read_text() == TEMPLATE
    assert (tmp_path / "again" / TEMPLATES / "tools_2.jinja").exists() == several


def test_files_of_any_name_go_along_and_code_weights_and_foreign_files_do_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    source = write_source(tmp_path / "source")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "x.jinja").write_text("secret")
    (source / "tokenizer_config.json").write_text(
        json.dumps({"vocab_file": "words.dat", "auto_map": ["run.py"], "deep": {"x": ["pt.bin"]}})
    )
    kept = (
        "words.dat",
        "tokenizer.model",
        "merges.txt",
        "preprocessor_config.json",
        "o200k.tiktoken",
    )
    for name in kept:
        (source / name).write_bytes(b"\x00\xff" + name.encode())
    (source / "merges.txt").rename(source / "moved.txt")
    (source / "merges.txt").symlink_to("moved.txt")
    left = (
        "run.py", "pt.bin", "modeling.py", "pytorch_model.bin", "model.onnx", "words.dat2",
        "pytorch_model.bin.index.json", "quantize_config.json", ".hidden.json", "tf_model.h5",
    )  # fmt: skip
    for name in left:
        (source / name).write_text("no")
    (source / "link.txt").symlink_to(tmp_path / "secret.txt")
    (source / "loop.json").symlink_to("loop.json")
    os.mkfifo(source / "pipe.txt")
    (source / TEMPLATES).symlink_to(tmp_path / "away")
    notes: list[str] = []
    applying.apply(plan(str(source), "nf4"), tmp_path / "out", note=notes.append)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    ours = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert there == {*ours, "trimtab.json", "moved.txt", *kept}
    for name in kept:
        assert (tmp_path / "out" / name).read_bytes() == b"\x00\xff" + name.encode()
    for name in ("link.txt", "loop.json", "pipe.txt", f"{TEMPLATES}/x.jinja"):
        assert [one for one in notes if name in one and "not copied" in one], name
    # What is counted as the model's size is what goes along.
    assert folder_bytes(source).value == sum(
        (source / name).stat().st_size for name in (*ours, "moved.txt", *kept)
    )


@pytest.mark.parametrize(
    ("limit", "value", "lost"),
    [
        ("MAX_FILE", 2000, {"b.txt"}),
        ("MAX_TOTAL", 4000, {"b.txt"}),
        ("MAX_FILES", 1, {"a.txt", "b.txt"}),
    ],
)
def test_limits_leave_out_with_a_sentence(
    limit: str, value: int, lost: set[str], source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "a.txt").write_bytes(bytes(100))
    (source / "b.txt").write_bytes(bytes(3500))
    monkeypatch.setattr(companions, limit, value)
    found = companions.companions(source)
    assert {"tokenizer.json", "a.txt", "b.txt"} - set(found.texts) == lost
    assert len(found.notes) == 1


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"chat_template": 3}', b"\xff\xfe"])
def test_a_damaged_tokenizer_config_has_no_template(content: bytes, source: Path) -> None:
    (source / "tokenizer_config.json").write_bytes(content)
    texts = companions.companions(source).texts
    assert texts["tokenizer_config.json"] == content
    assert chat_template.templates(texts) == {}


def test_beside_a_single_gguf_file_lies_what_its_folder_is_for(tmp_path: Path) -> None:
    for name in ("model.gguf", "other.gguf", "diary.txt", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    assert set(companions.companions(tmp_path / "model.gguf").texts) == {"tokenizer.json"}
    assert companions.companions(tmp_path / "other.gguf").texts == {}


def test_templates_of_a_file_win_over_the_configs() -> None:
    texts: dict[str, Any] = {
        "tokenizer_config.json": json.dumps({"chat_template": "old"}).encode(),
        "chat_template.jinja": b"new",
    }
    assert chat_template.templates(texts) == {"default": "new"}
    del texts["chat_template.jinja"]
    assert chat_template.templates(texts) == {"default": "old"}
