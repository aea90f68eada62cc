"""What a GGUF file says of a tokenizer, so that llama.cpp makes the same tokens of a text.

Byte-level BPE goes by its merges and by llama.cpp's name for how text is cut into words; BPE over
characters with bytes to fall back on (Llama 2, Mistral) by a score for each token. What llama.cpp
would read in another way is refused. It needs no torch.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from typing import Any

from core.errors import Refused
from core.files.gguf.splits import name_of

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE = "▁"
KEY = "tokenizer.ggml."
KEEPS = "the formats that keep tokenizer.json: trimtab, compressed-tensors, gptq, awq"


def metadata_of(tokenizer: Mapping[str, Any], size: int) -> tuple[dict[str, Any], list[str]]:
    """The metadata of a checked tokenizer.json for a model of `size` tokens, and sentences on what
    llama.cpp does not do. Refused says what it would do differently.
    """
    model = tokenizer.get("model") or {}
    if model.get("type") != "BPE":
        return {f"{KEY}model": "no_vocab"}, [
            f"the tokenizer is a {model.get('type')} model and no BPE: the gguf has no vocabulary,"
            " keep tokenizer.json"
        ]
    notes: list[str] = []
    if _is_byte_level(tokenizer):
        metadata: dict[str, Any] = {f"{KEY}model": "gpt2", f"{KEY}pre": name_of(tokenizer)}
        _check_normalizer(tokenizer.get("normalizer"), notes)
        merges = [" ".join(pair) for pair in _merges(model)]
        if merges:
            metadata[f"{KEY}merges"] = merges
    else:
        metadata = {f"{KEY}model": "llama", f"{KEY}pre": "default"}
        metadata[f"{KEY}add_space_prefix"] = _space_prefix(tokenizer, notes)
        metadata[f"{KEY}scores"] = array("f", _scores(model, size))
    words, kinds, left = _words(tokenizer, size)
    notes += left
    metadata[f"{KEY}tokens"] = words
    metadata[f"{KEY}token_type"] = array("i", kinds)
    unknown = model.get("vocab", {}).get(model.get("unk_token"))
    if unknown is not None:
        metadata[f"{KEY}unknown_token_id"] = unknown
    return metadata | _around(tokenizer, notes), notes


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    """Whether tokens are written in GPT-2's letters for bytes."""
    return '"ByteLevel"' in json.dumps([tokenizer.get("pre_tokenizer"), tokenizer.get("decoder")])


def _words(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int], list[str]]:
    """Each token's text and kind by id; what no text makes is filled up with names of its own."""
    model, words, kinds = tokenizer["model"], [""] * size, [UNUSED] * size
    fallback = bool(model.get("byte_fallback"))
    beyond = 0
    for word, number in model["vocab"].items():
        byte = fallback and len(word) == 6 and word.startswith("<0x") and word.endswith(">")
        words[number], kinds[number] = word, BYTE if byte else NORMAL
        if word == model.get("unk_token"):
            kinds[number] = UNKNOWN
    for token in tokenizer.get("added_tokens") or []:
        if token["id"] >= size:
            beyond += 1
            continue
        words[token["id"]] = token["content"]
        if kinds[token["id"]] != UNKNOWN:
            kinds[token["id"]] = CONTROL if token.get("special") else USER_DEFINED
    names = set(words)
    for number, word in enumerate(words):
        if not word:
            name = f"[PAD{number}]"
            while name in names:
                name = f"[{name}]"
            words[number] = name
            names.add(name)
    left = [f"gguf leaves out {beyond} tokens that the model has no row for"] if beyond else []
    return words, kinds, left


def _around(tokenizer: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Whether a start and an end are put around a text, and which, as the tokenizer itself does."""
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_str(json.dumps(tokenizer))
    around, own = encoder.encode("a"), encoder.encode("a", add_special_tokens=False)
    marks = list(around.special_tokens_mask)
    before = marks.index(0) if 0 in marks else 0
    start, end = around.ids[:before], around.ids[before + len(own.ids) :]
    if len(start) > 1 or len(end) > 1:
        notes.append(
            f"the tokenizer puts {len(start)} tokens before a text and {len(end)} behind it, gguf"
            " one of each at most"
        )
    metadata: dict[str, Any] = {
        f"{KEY}add_bos_token": bool(start),
        f"{KEY}add_eos_token": bool(end),
    }
    if start:
        metadata[f"{KEY}bos_token_id"] = start[-1]
    if end:
        metadata[f"{KEY}eos_token_id"] = end[0]
    return metadata


def _check_normalizer(rule: Any, notes: list[str]) -> None:
    """llama.cpp changes nothing of a text before it cuts it."""
    kinds = [part.get("type") for part in _parts(rule, "normalizers")]
    if not kinds:
        return
    if kinds != ["NFC"]:
        raise Refused(
            f"gguf: the tokenizer changes a text first ({', '.join(map(str, kinds))}), which"
            f" llama.cpp does not; {KEEPS}"
        )
    notes.append("llama.cpp does not compose letters and accents (NFC) as this tokenizer does")


def _space_prefix(tokenizer: Mapping[str, Any], notes: list[str]) -> bool:
    """Whether a text begins with a space of its own; Refused for other changes of a text."""
    parts = [*_parts(tokenizer.get("normalizer"), "normalizers"),
             *_parts(tokenizer.get("pre_tokenizer"), "pretokenizers")]  # fmt: skip
    prefix, replaced = False, False
    for part in parts:
        kind = part.get("type")
        if kind == "Prepend" and part.get("prepend") == SPACE:
            prefix = True
        elif kind == "Replace" and part.get("pattern") == {"String": " "}:
            replaced = part.get("content") == SPACE
        elif (
            kind == "Metaspace" and part.get("replacement") == SPACE and not part.get("split", True)
        ):
            prefix, replaced = part.get("prepend_scheme") in ("first", "always"), True
            if prefix:
                notes.append(
                    "llama.cpp puts a space before a text that begins with one, too, and behind"
                    " special tokens, which this tokenizer does not"
                )
        else:
            raise Refused(
                f"gguf: the tokenizer changes or cuts a text by {kind}, which llama.cpp does not"
                f" for this kind of tokenizer; {KEEPS}"
            )
    if not replaced:
        raise Refused(f"gguf: the tokenizer does not write spaces as {SPACE}; {KEEPS}")
    return prefix


def _scores(model: Mapping[str, Any], size: int) -> list[float]:
    """A score for each token, the higher the sooner it is merged. llama.cpp joins whatever makes a
    token; Refused when the tokenizer would not, or in an order that no score gives.
    """
    vocab = model["vocab"]
    if not model.get("byte_fallback") or any(f"<0x{byte:02X}>" not in vocab for byte in range(256)):
        raise Refused(f"gguf: the tokenizer has no bytes to fall back on; {KEEPS}")
    scores = [0.0] * size
    rank, last = 0, ""
    ways: dict[str, set[tuple[str, str]]] = {}
    for left, right in _merges(model):
        word = left + right
        if word != last and word in ways:
            raise Refused(
                f"gguf: the token {word!r:.40} is merged at two places of the list; {KEEPS}"
            )
        if word != last:
            rank, last = rank + 1, word
            scores[vocab[word]] = -float(rank)
        ways.setdefault(word, set()).add((left, right))
    for word in vocab:
        for at in range(1, len(word)):
            pair = word[:at], word[at:]
            if pair[0] in vocab and pair[1] in vocab and pair not in ways.get(word, ()):
                # Special tokens and bytes are never made of others' letters in a text.
                if word.startswith("<") and word.endswith(">"):
                    continue
                raise Refused(
                    f"gguf: llama.cpp would join {pair[0]!r:.40} and {pair[1]!r:.40}, which this"
                    f" tokenizer has no merge for; {KEEPS}"
                )
    return scores


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = (
        merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges") or ()
    )
    return [(left, right) for left, right in pairs]


def _parts(rule: Any, inner: str) -> list[Mapping[str, Any]]:
    if not isinstance(rule, Mapping):
        return []
    if rule.get("type") != "Sequence":
        return [rule]
    return [part for item in rule.get(inner) or () for part in _parts(item, inner)]
