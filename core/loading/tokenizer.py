"""Owns the check and the loading of tokenizer.json. It never runs a tokenizer's own code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.loading.jsonfile import read_object

MAX_BYTES = 100_000_000


def check(path: Path, config: Mapping[str, Any]) -> None:
    """Raise BadInput unless every token id in tokenizer.json lies below the config's vocab_size."""
    content = read_object(path, MAX_BYTES)
    size = config.get("vocab_size")
    largest, token = max(_ids(path.name, content), default=(-1, ""))
    if largest < 0:
        raise BadInput(f"{path.name}: model.vocab is missing or empty.")
    if isinstance(size, int) and largest >= size:
        raise BadInput(
            f"{path.name} gives the token {token[:60]!r} the id {largest}, but config.json's "
            f"vocab_size is {size}; tokenizer and weights do not belong together."
        )


def load(path: Path) -> Any:
    """The `tokenizers.Tokenizer` in a checked tokenizer.json; BadInput when the library refuses."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises plain Exception.
        raise BadInput(f"{path.name} cannot be used: {error}.") from None


def _ids(name: str, content: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    model = content.get("model")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocab, Mapping):
        for token, number in vocab.items():
            yield _checked(name, token, number), token
    elif isinstance(vocab, list):
        for number, entry in enumerate(vocab):
            yield number, str(entry[0]) if isinstance(entry, list) and entry else ""
    added = content.get("added_tokens") or []
    if not isinstance(added, list) or not all(isinstance(entry, Mapping) for entry in added):
        raise BadInput(f"{name}: added_tokens must be a list of objects.")
    for entry in added:
        token = str(entry.get("content"))
        yield _checked(name, token, entry.get("id")), token


def _checked(name: str, token: str, number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 31:
        raise BadInput(f"{name}: the token {token[:60]!r} has the id {number!r:.40}.")
    return number
