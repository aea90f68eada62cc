"""Owns which tokens begin and end a text: read from a model's files, asked for by all others.

As transformers' `generate` does, generation_config.json alone says where text ends if it is there,
config.json as written if it is not. What is put before a text is the tokenizer's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files import listing as files
from core.files.jsonfile import read_object

CONFIG, GENERATION, TOKENIZER_CONFIG = (
    "config.json", "generation_config.json", "tokenizer_config.json",
)  # fmt: skip
# No config.json has this: a GGUF file's metadata says so where no tokenizer lies beside it.
ADDS_START = ".adds_start"
MAX_BYTES, MAX_VALUES = 1_000_000, 100_000
MAX_TOKENIZER_CONFIG = 16_000_000
# Any text has tokens; the tokenizer marks those that it added itself.
PROBE = "a"


@dataclass(frozen=True)
class SpecialIds:
    """Token ids that begin and end a text of one model.

    `start` begins a document, None where the model has no such token. `stops` end greedy or sampled
    text, in the order of the file; a row that has ended is filled up with `pad`. `prefix` and
    `suffix` are what the tokenizer itself puts around a text.
    """

    start: int | None = None
    stops: tuple[int, ...] = ()
    pad: int | None = None
    prefix: tuple[int, ...] = ()
    suffix: tuple[int, ...] = ()

    @property
    def adds_start(self) -> bool:
        """Whether the tokenizer puts a start token before a text of its own accord."""
        return bool(self.prefix)

    @property
    def filler(self) -> int:
        """What follows in a row that has ended, as in transformers: `pad`, else the first stop."""
        return self.pad if self.pad is not None else self.stops[0] if self.stops else 0


def read(path: Path, config: Mapping[str, Any], tokenizer: Any = None) -> SpecialIds:
    """The special tokens of a model; BadInput names the file and the field that is wrong.

    `path` is its folder or GGUF file, `config` its config.json as read, `tokenizer` the loaded
    `tokenizers.Tokenizer`. The start token is the one that the tokenizer adds, else that of
    generation_config.json, config.json or tokenizer_config.json, the first that names one.
    """
    generation = _generation(path)
    ending, file = (config, CONFIG) if generation is None else (generation, GENERATION)
    size = config.get("vocab_size")
    prefix, suffix = _added(tokenizer)
    if tokenizer is None and config.get(ADDS_START) is True:
        prefix = (config["bos_token_id"],)
    start = prefix[0] if prefix else None
    for source, name in ((generation or {}, GENERATION), (config, CONFIG)):
        token = _token(source, "bos_token_id", name, size)
        start = token if start is None else start
    return SpecialIds(
        start=_named(path, tokenizer, "bos_token") if start is None else start,
        stops=_tokens(ending, "eos_token_id", file),
        pad=_token(ending, "pad_token_id", file, None),
        prefix=prefix,
        suffix=suffix,
    )


def _generation(path: Path) -> dict[str, Any] | None:
    """generation_config.json beside config.json; a GGUF file has none."""
    if not path.is_dir() or not files.present(path, GENERATION):
        return None
    return read_object(files.regular(path, GENERATION), MAX_BYTES, max_values=MAX_VALUES)


def _tokens(source: Mapping[str, Any], field: str, file: str) -> tuple[int, ...]:
    value = source.get(field)
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if any(type(token) is not int or token < 0 for token in ids):
        raise BadInput(f"{file}: {field} must be a token id or a list of them, not {value!r:.60}.")
    return tuple(dict.fromkeys(ids))


def _token(source: Mapping[str, Any], field: str, file: str, size: Any) -> int | None:
    """One id of the vocabulary; some files write -1 for none."""
    value = source.get(field)
    if value is None or value == -1:
        return None
    if type(value) is not int or value < 0 or (type(size) is int and value >= size):
        raise BadInput(f"{file}: {field} {value!r:.60} is no token of the vocabulary.")
    return value


def _added(tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids that the tokenizer's own post-processor puts before and behind a text."""
    if tokenizer is None:
        return (), ()
    around = tokenizer.encode(PROBE, add_special_tokens=True)
    own = tokenizer.encode(PROBE, add_special_tokens=False)
    marks = list(around.special_tokens_mask)
    before = marks.index(0) if 0 in marks else 0
    end = before + len(own.ids)
    return tuple(around.ids[:before]), tuple(around.ids[end:])


def _named(path: Path, tokenizer: Any, field: str) -> int | None:
    """The id of a token that tokenizer_config.json gives by its text, plain or with settings."""
    if not path.is_dir() or not files.present(path, TOKENIZER_CONFIG):
        return None
    value = read_object(files.regular(path, TOKENIZER_CONFIG), MAX_TOKENIZER_CONFIG).get(field)
    text = value.get("content") if isinstance(value, Mapping) else value
    if tokenizer is None or not isinstance(text, str):
        return None
    number: int | None = tokenizer.token_to_id(text)
    return number
