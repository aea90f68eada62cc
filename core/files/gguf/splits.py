"""Which of llama.cpp's names stands for how a tokenizer cuts text into words before merging.

Data: each name with the pieces of tokenizer.json's pre_tokenizer that it stands for, and whether a
word that is a token is taken whole (ignore_merges). Source: llama.cpp, src/llama-vocab.cpp, whose
comments have the published patterns. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.errors import Refused

BYTES, GPT2_BYTES, DIGITS = "<bytes>", "<bytes, split as GPT-2 does>", "<single digits>"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+@|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*@|"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = _CASED.replace("@", "") + r"\p{N}|" + _REST
_GPT4O = _CASED.replace("@", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"\p{N}{1,3}|" + _REST
_DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^" "\r\n" r"\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[" "\r\n" r"]*|\s*[" "\r\n" r"]+|\s+(?!\S)|\s+"
)  # fmt: skip
# Name, what cuts, whether merges are ignored for whole words.
SPLITS: tuple[tuple[str, tuple[str, ...], bool], ...] = (
    ("gpt-2", (GPT2_BYTES,), False),
    ("smollm", (DIGITS, GPT2_BYTES), False),
    ("llama-bpe", (_LLAMA3, BYTES), True),
    ("smaug-bpe", (_LLAMA3, BYTES), False),
    ("qwen2", (_QWEN2, BYTES), False),
    ("qwen35", (_QWEN35, BYTES), False),
    ("tekken", (_TEKKEN, BYTES), True),
    ("gpt-4o", (_GPT4O, BYTES), False),
    ("deepseek-v3", (r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+", _DEEPSEEK3, BYTES), False),
)


def name_of(tokenizer: Mapping[str, Any]) -> str:
    """llama.cpp's name for a byte-level BPE tokenizer.json; Refused when it has none."""
    cuts = _cuts(tokenizer.get("pre_tokenizer"))
    whole = bool((tokenizer.get("model") or {}).get("ignore_merges"))
    for name, pieces, ignores in SPLITS:
        if pieces == cuts and ignores == whole:
            return name
    raise Refused(
        "gguf: llama.cpp has no name for how this tokenizer cuts text into words"
        f" ({' then '.join(cuts) or 'not at all'}"
        f"{', whole words before merges' if whole else ''}), so it would make other tokens; the"
        " formats that keep tokenizer.json: trimtab, compressed-tensors, gptq, awq"
    )


def _cuts(rule: Any) -> tuple[str, ...]:
    """The pieces of a pre-tokenizer, in order."""
    if not isinstance(rule, Mapping):
        return ()
    kind = rule.get("type")
    if kind == "Sequence":
        pieces: tuple[str, ...] = ()
        for part in rule.get("pretokenizers") or ():
            pieces += _cuts(part)
        return pieces
    if kind == "ByteLevel" and not rule.get("add_prefix_space", True):
        return (GPT2_BYTES if rule.get("use_regex", True) else BYTES,)
    if kind == "Digits" and rule.get("individual_digits"):
        return (DIGITS,)
    pattern = rule.get("pattern")
    if kind == "Split" and rule.get("behavior") == "Isolated" and not rule.get("invert"):
        return (str(pattern.get("Regex")) if isinstance(pattern, Mapping) else str(pattern),)
    return (f"{kind} {dict(rule)}"[:200],)
