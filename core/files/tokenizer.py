"""Owns the check and the loading of tokenizer.json. It never runs a tokenizer's own code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import BadInput
from core.files.jsonfile import read_object
from core.files.vocabulary import Bounded

MAX_BYTES = 64_000_000
# Letters, digits, spaces, code, other scripts: what held-out text and prompts may hold.
PROBE = "def f(x):\n\treturn {'Az': 0.19} # é 漢字 🙂 \u0000\u200b\n"
SIGNS = " ".join(map(chr, range(33, 127)))


def check(path: Path, config: Mapping[str, Any]) -> None:
    """Raise BadInput unless every token id in tokenizer.json lies below the config's vocab_size, or
    is an added one's just past it.
    """
    check_content(path.name, read_object(path, MAX_BYTES), config)


def check_content(file: str, content: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """As `check`, of the content of `file`."""
    size = config.get("vocab_size")
    homes: dict[int, str] = {}
    largest, name = -1, ""
    for number, token in _ids(file, content):
        if homes.setdefault(number, token) != token:
            raise BadInput(
                f"{file} gives the id {number} to {homes[number][:60]!r} and to {token[:60]!r}."
            )
        if number > largest:
            largest, name = number, token
    if largest < 0:
        raise BadInput(f"{file}: model.vocab is missing or empty.")
    _check_merges(file, content.get("model"))
    beyond = _beyond(content, size) if isinstance(size, int) else set()
    if beyond:
        largest, name = max(
            (home for home in homes.items() if home[0] not in beyond), default=(-1, "")
        )
    for number in _inserted(content.get("post_processor")):
        if number > largest:
            largest, name = number, "post_processor"
    if isinstance(size, int) and largest >= size:
        raise BadInput(
            f"{file} gives the token {name[:60]!r} the id {largest}, but config.json's "
            f"vocab_size is {size}; tokenizer and weights do not belong together."
        )


def load(path: Path, size: Any = None) -> Any:
    """The `tokenizers.Tokenizer` in a checked tokenizer.json; BadInput when the library refuses.

    Text is never cut or filled up, whatever the file asks for: the caller counts tokens. `size` is
    the config's vocab_size: the library numbers an added token anew where the file contradicts
    itself.
    """
    return made(path.name, read_object(path, MAX_BYTES), size, path)


def made(file: str, content: Mapping[str, Any], size: Any = None, path: Path | None = None) -> Any:
    """As `load`, of the content of `file`, which is read from `path` where there is one."""
    from tokenizers import Tokenizer

    try:
        if path is None:
            tokenizer = Tokenizer.from_str(json.dumps(content))
        else:
            tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids)
        spans = tokenizer.encode(SIGNS, add_special_tokens=False).offsets
        largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # Plain Exception; a panic of the library derives from its base.
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{file} cannot be used: {reason}.") from None
    beyond = _beyond(content, size) if isinstance(size, int) else set()
    if isinstance(size, int) and largest != max(beyond, default=min(largest, size - 1)):
        raise BadInput(
            f"{file}: an added token gets the id {largest}, but config.json's vocab_size is {size}."
        )
    # The library counts places by the tokens that it found: which sign is lost it does not say.
    covered = {at for begin, end in spans for at in range(begin, end)}
    if any(sign != " " and at not in covered for at, sign in enumerate(SIGNS)):
        raise BadInput(f"{file} drops signs between '!' and '~' that model.vocab has no token for.")
    return Bounded(tokenizer, size) if beyond else tokenizer


def _beyond(content: Mapping[str, Any], size: int) -> set[int]:
    """The ids of added tokens that follow the embedding without a gap; none where the vocabulary
    itself has ids there.
    """
    model, added = content.get("model"), content.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    own = vocab.values() if isinstance(vocab, Mapping) else range(_length(vocab))
    entries = added if isinstance(added, list) else []
    ids = [entry.get("id") for entry in entries if isinstance(entry, Mapping)]
    past = {number for number in ids if type(number) is int and number >= size}
    whole = past == set(range(size, size + len(past)))
    inside = all(type(number) is int and number < size for number in own)
    return past if whole and inside else set()


def _length(vocab: Any) -> int:
    return len(vocab) if isinstance(vocab, list) else 0


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


def _check_merges(name: str, model: Any) -> None:
    """Every merge of a BPE model must make a token that there is: the library does not look."""
    if not isinstance(model, Mapping) or not isinstance(model.get("vocab"), Mapping):
        return
    vocab, merges = model["vocab"], model.get("merges")
    prefix = model.get("continuing_subword_prefix") or ""
    for merge in merges if isinstance(merges, list) else ():
        parts = merge.split(" ") if isinstance(merge, str) else merge
        whole = isinstance(parts, list) and len(parts) == 2 and all(type(p) is str for p in parts)
        if not whole or parts[0] + parts[1].removeprefix(str(prefix)) not in vocab:
            raise BadInput(f"{name}: the merge {merge!r:.60} makes no token of model.vocab.")


def _inserted(processor: Any) -> Iterator[int]:
    """Ids that a post-processor puts around a text: template pieces, and pairs of token and id."""
    if isinstance(processor, Mapping):
        for key, value in processor.items():
            if key in ("ids", "sep", "cls") and isinstance(value, list):
                yield from (number for number in value if isinstance(number, int))
            else:
                yield from _inserted(value)
    elif isinstance(processor, list):
        for part in processor:
            yield from _inserted(part)


def _checked(name: str, token: str, number: Any) -> int:
    if type(number) is not int or not 0 <= number < 1 << 31:
        raise BadInput(f"{name}: the token {token[:60]!r} has the id {number!r:.40}.")
    return number
