"""Making a tokenizer.json of what a GGUF file says of its tokenizer: the inverse of
gguf_tokenizer.py. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.files.gguf.splits import BYTES, DIGITS, GPT2_BYTES, SPLITS
from core.files.gguf.tokenizer import CONTROL, KEY, NORMAL, SPACE, UNUSED, USER_DEFINED

# Other names by which llama.cpp knows the same cuts.
ALIKE = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "starcoder": "smollm", "dbrx": "smaug-bpe",
         "stablelm2": "qwen2", "deepseek-r1-qwen": "qwen2", "phi-2": "gpt-2"}  # fmt: skip


def tokenizer_of(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """A tokenizer.json's content, still to be checked; None where the file has no vocabulary, or
    one of a kind that is not known here.
    """
    kind, words = metadata.get(f"{KEY}model"), metadata.get(f"{KEY}tokens")
    if not isinstance(words, list) or not all(type(word) is str for word in words):
        return None
    kinds = metadata.get(f"{KEY}token_type")
    if not isinstance(kinds, list) or len(kinds) != len(words):
        kinds = [NORMAL] * len(words)
    vocab = {word: i for i, word in enumerate(words) if kinds[i] != UNUSED}
    rules = _by_bytes(metadata, vocab) if kind == "gpt2" else None
    if kind == "llama":
        rules = _by_scores(metadata, vocab, kinds)
    if rules is None:
        return None
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [
        {"id": i, "content": word, "special": kinds[i] == CONTROL, **flags}
        for i, word in enumerate(words)
        if kinds[i] in (CONTROL, USER_DEFINED)
    ]
    rest = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    return {**rest, **rules, "post_processor": _around(metadata, words)}


def _by_bytes(metadata: Mapping[str, Any], vocab: dict[str, int]) -> dict[str, Any] | None:
    name = metadata.get(f"{KEY}pre")
    known = {split[0]: split for split in SPLITS}.get(ALIKE.get(str(name), str(name)))
    merges = metadata.get(f"{KEY}merges") or []
    pairs = [merge.split(" ") for merge in merges if isinstance(merge, str)]
    if known is None or not all(len(pair) == 2 for pair in pairs):
        return None
    _, cuts, whole = known
    plain = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [_cut(cut, plain) for cut in cuts]},
        "decoder": plain | {"add_prefix_space": True, "use_regex": True},
        "model": _bpe(vocab, pairs) | {"ignore_merges": whole},
    }


def _by_scores(
    metadata: Mapping[str, Any], vocab: dict[str, int], kinds: list[int]
) -> dict[str, Any] | None:
    scores = metadata.get(f"{KEY}scores")
    if not isinstance(scores, list) or len(scores) != len(kinds):
        return None
    merges = [
        [word[:at], word[at:]]
        for word in sorted(vocab, key=lambda word: (-scores[vocab[word]], vocab[word]))
        if kinds[vocab[word]] == NORMAL
        for at in range(1, len(word))
        if word[:at] in vocab and word[at:] in vocab
    ]
    unknown = metadata.get(f"{KEY}unknown_token_id")
    name = next((word for word, i in vocab.items() if i == unknown), None)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prefix = metadata.get(f"{KEY}add_space_prefix", True) is True
    steps = [{"type": "Prepend", "prepend": SPACE}, replace] if prefix else [replace]
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    if prefix:
        back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    model = _bpe(vocab, merges)
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": back},
        "model": model | {"unk_token": name, "fuse_unk": True, "byte_fallback": True},
    }


def _bpe(vocab: dict[str, int], merges: list[list[str]]) -> dict[str, Any]:
    return {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": False, "vocab": vocab, "merges": merges,
    }  # fmt: skip


def _cut(piece: str, plain: dict[str, Any]) -> dict[str, Any]:
    if piece in (BYTES, GPT2_BYTES):
        return plain | {"use_regex": piece == GPT2_BYTES}
    if piece == DIGITS:
        return {"type": "Digits", "individual_digits": True}
    return {"type": "Split", "pattern": {"Regex": piece}, "behavior": "Isolated", "invert": False}


def _around(metadata: Mapping[str, Any], words: list[str]) -> dict[str, Any] | None:
    """What is put before and behind a text. llama.cpp's own habits hold where nothing is said."""
    habits = metadata.get(f"{KEY}model") == "llama" or metadata.get(f"{KEY}pre") in (
        "llama-bpe", "llama3", "llama-v3", "tekken",
    )  # fmt: skip
    steps: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    special = {}
    for side, default in (("bos", habits), ("eos", False)):
        number = metadata.get(f"{KEY}{side}_token_id")
        asked = metadata.get(f"{KEY}add_{side}_token", default)
        if asked is not True or type(number) is not int or not 0 <= number < len(words):
            continue
        word = words[number]
        piece = {"SpecialToken": {"id": word, "type_id": 0}}
        steps = [piece, *steps] if side == "bos" else [*steps, piece]
        special[word] = {"id": word, "ids": [number], "tokens": [word]}
    if not special:
        return None
    pair = [*steps, {"Sequence": {"id": "B", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": steps, "pair": pair, "special_tokens": special}
