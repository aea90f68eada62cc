"""The tokenizer that a GGUF file says, and that llama.cpp makes the same ids with it."""

from __future__ import annotations

import json
from array import array
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from core.errors import Refused
from core.files import tokenizer as tokenizer_file
from core.files.gguf import file as gguf_file
from core.files.gguf.splits import _LLAMA3, _QWEN2, SPLITS, name_of
from core.files.gguf.tokenizer import metadata_of
from core.files.gguf.words import tokenizer_of

TEXT = [Path(json.__file__).read_text(encoding="utf-8"), "été 漢字 12345 2024 don't I'LL\n" * 9]
TEXTS = (
    "def f(x):\n\treturn {'Az': 0.19} # é 漢字 🙂\n", "  two  spaces   three\n\n\n end ",
    "12345678", "I'll DON'T we've it's", "", " ", "a", "\n", "<s>inside</s>",
    "ünïcode ß Ω д", "x\r\ny\r\n",
    "-->>==!!", "tab\tseparated\t\tvalues", TEXT[0][:3000],
)  # fmt: skip


def byte_level(
    split: str | None = None, digits: bool = False, ignore_merges: bool = False, start: bool = False
) -> Any:
    made = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    parts: list[Any] = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    parts += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    parts += [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)]
    made.pre_tokenizer = pre_tokenizers.Sequence(parts)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ))  # fmt: skip
    if start:
        made.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return made


def with_bytes(prefix: bool = True, metaspace: bool = False) -> Any:
    """BPE over characters as converted from SentencePiece, with bytes to fall back on."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    special = ["<unk>", "<s>", "</s>", *bytes_]
    trained.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False)
    )
    content = json.loads(trained.to_str())
    vocab = content["model"]["vocab"]
    # Every way to make a token is a merge, ordered by the token, as the conversion writes them.
    content["model"]["merges"] = [
        [word[:at], word[at:]]
        for word in sorted(vocab, key=vocab.__getitem__)
        if word not in special
        for at in range(1, len(word))
        if word[:at] in vocab and word[at:] in vocab
    ]
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 3]
    made = Tokenizer.from_str(json.dumps(content))
    replace = normalizers.Replace(" ", "▁")
    if metaspace:
        made.normalizer = None  # type: ignore[assignment]
        made.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first" if prefix else "never", False)
    else:
        made.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), replace] if prefix else [replace]
        )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return made


KINDS = {
    "gpt-2": byte_level(),
    "smollm": byte_level(digits=True),
    "llama-bpe": byte_level(_LLAMA3, ignore_merges=True, start=True),
    "smaug-bpe": byte_level(_LLAMA3),
    "qwen2": byte_level(_QWEN2),
}
CHARACTERS = {
    "prepend": with_bytes(), "replace": with_bytes(prefix=False),
    "metaspace": with_bytes(metaspace=True), "never": with_bytes(prefix=False, metaspace=True),
}  # fmt: skip


def texts(name: str) -> list[str]:
    """Metaspace adds no second space, and none behind special tokens, which a note tells."""
    return [one for one in TEXTS if name != "metaspace" or not one.startswith((" ", "<s>"))]


def content(made: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(made.to_str())
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_split_has_the_name_that_llama_cpp_knows(name: str) -> None:
    assert name_of(content(KINDS[name])) == name


def test_every_pattern_cuts_as_its_name_says() -> None:
    assert len({(pieces, ignores) for _, pieces, ignores in SPLITS}) == len(SPLITS)
    for _, pieces, _ in SPLITS:
        for piece in pieces:
            if not piece.startswith("<"):
                cut = pre_tokenizers.Split(Regex(piece), "isolated").pre_tokenize_str(TEXTS[0])
                assert "".join(word for word, _ in cut) == TEXTS[0]


@pytest.mark.parametrize(
    "made",
    [
        byte_level(r"\w+|\s+"), byte_level(_QWEN2, ignore_merges=True),
        byte_level(_LLAMA3, digits=True),
    ],
)  # fmt: skip
def test_a_split_without_a_name_is_refused(made: Any) -> None:
    with pytest.raises(Refused, match=r"no name for how this tokenizer cuts.*tokenizer\.json"):
        metadata_of(content(made), 700)


def test_what_changes_a_text_first_is_refused_or_told() -> None:
    made = byte_level()
    made.normalizer = normalizers.NFC()
    assert "does not compose" in metadata_of(content(made), 700)[1][0]
    made.normalizer = normalizers.Lowercase()
    with pytest.raises(Refused, match="changes a text first"):
        metadata_of(content(made), 700)
    unigram = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0)], 0, byte_fallback=False))
    found, notes = metadata_of(content(unigram), 2)
    assert found == {"tokenizer.ggml.model": "no_vocab"}
    assert "a Unigram model and no BPE" in notes[0]
    spaced = with_bytes()
    spaced.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(Refused, match="by Whitespace"):
        metadata_of(content(spaced), 900)
    lacking = content(with_bytes())
    lacking["model"]["merges"].pop()
    with pytest.raises(Refused, match="would join"):
        metadata_of(lacking, 900)


def test_flags_kinds_and_padding_are_those_of_the_tokenizer() -> None:
    made = byte_level(_LLAMA3, ignore_merges=True, start=True)
    made.add_tokens([AddedToken("<tool>", special=False)])
    found, notes = metadata_of(content(made), 705)
    assert notes == []
    assert found["tokenizer.ggml.add_bos_token"] is True
    assert found["tokenizer.ggml.add_eos_token"] is False
    assert found["tokenizer.ggml.bos_token_id"] == 0
    assert found["tokenizer.ggml.token_type"][0] == 3
    assert list(found["tokenizer.ggml.token_type"][-5:]) == [4, 5, 5, 5, 5]
    assert len(set(found["tokenizer.ggml.tokens"])) == 705
    assert "leaves out 1 tokens" in metadata_of(content(made), 700)[1][0]
    spoken = metadata_of(content(CHARACTERS["prepend"]), 900)[0]
    assert spoken["tokenizer.ggml.model"] == "llama"
    assert spoken["tokenizer.ggml.add_space_prefix"] is True
    assert (spoken["tokenizer.ggml.add_bos_token"], spoken["tokenizer.ggml.add_eos_token"]) == (
        True, True,
    )  # fmt: skip
    assert spoken["tokenizer.ggml.unknown_token_id"] == 0
    assert "begins with one, too" in metadata_of(content(CHARACTERS["metaspace"]), 900)[1][0]
    assert list(spoken["tokenizer.ggml.token_type"][:4]) == [2, 3, 3, 6]
    assert not metadata_of(content(CHARACTERS["never"]), 900)[0]["tokenizer.ggml.add_space_prefix"]


@pytest.mark.parametrize("name", [*KINDS, *CHARACTERS])
def test_what_is_read_back_makes_the_same_ids(name: str) -> None:
    made = {**KINDS, **CHARACTERS}[name]
    size = made.get_vocab_size() + 3
    found = {
        key: list(value) if isinstance(value, array) else value
        for key, value in metadata_of(content(made), size)[0].items()
    }
    back = tokenizer_of(found)
    assert back is not None
    tokenizer_file.check_content("model.gguf", back, {"vocab_size": size})
    again = tokenizer_file.made("model.gguf", back, size)
    for text in texts(name):
        assert again.encode(text).ids == made.encode(text).ids, text
        ids = made.encode(text, add_special_tokens=False).ids
        assert again.encode(text, add_special_tokens=False).ids == ids, text
    assert again.decode(made.encode(TEXTS[0]).ids) == TEXTS[0]


@pytest.mark.parametrize(
    "change",
    [
        {"model": "bert"}, {"pre": "nobody-knows"}, {"tokens": None}, {"tokens": [1, 2]},
        {"merges": ["a b c"]}, {"model": "llama"},
    ],
)  # fmt: skip
def test_a_vocabulary_that_is_not_known_is_none(change: dict[str, Any]) -> None:
    found = metadata_of(content(KINDS["gpt-2"]), 700)[0]
    assert (
        tokenizer_of(found | {f"tokenizer.ggml.{key}": one for key, one in change.items()}) is None
    )


@pytest.mark.parametrize("name", [*KINDS, *CHARACTERS])
def test_llama_cpp_makes_the_same_ids(name: str, tmp_path: Path) -> None:
    llama = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    made = {**KINDS, **CHARACTERS}[name]
    size = made.get_vocab_size()
    words, _ = metadata_of(content(made), size)
    architecture = {
        "general.architecture": "llama", "llama.context_length": 64, "llama.block_count": 1,
        "llama.embedding_length": 32, "llama.feed_forward_length": 32, "llama.vocab_size": size,
        "llama.attention.head_count": 1, "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }  # fmt: skip
    file = tmp_path / "vocabulary.gguf"
    file.write_bytes(b"".join(gguf_file.pieces(architecture | words, [])))
    theirs = llama.Llama(str(file), vocab_only=True, verbose=False)
    for text in texts(name):
        plain = made.encode(text, add_special_tokens=False).ids
        got = theirs.tokenize(text.encode(), add_bos=False, special=True)
        # llama-cpp-python adds an end where the file says so, whatever it is told of the start.
        if name in CHARACTERS:
            got = got[: len(plain)] if got[len(plain) :] in ([], [2]) else got
        assert got == plain, text
        assert theirs.tokenize(text.encode(), add_bos=True, special=True)[: len(plain) + 1] == (
            made.encode(text).ids[: len(plain) + 1] if made.post_processor else plain
        ), text
