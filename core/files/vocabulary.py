"""Owns tokenizers that know more tokens than a model has rows, and whether two speak one language.

It reads what the library says of itself; no text is tokenized here but through it.
"""

from __future__ import annotations

import json
from typing import Any

from core.errors import BadInput


class Bounded:
    """A tokenizer with tokens just past the embedding, as published text-only Gemma 3 has one: a
    text that uses one is refused, everything else is the tokenizer's own.
    """

    def __init__(self, tokenizer: Any, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode(self, *texts: Any, **settings: Any) -> Any:
        """See tokenizers.Tokenizer.encode; BadInput names the token that the model cannot read."""
        encoding = self._tokenizer.encode(*texts, **settings)
        for number in encoding.ids:
            if number >= self._size:
                token = self._tokenizer.id_to_token(number)
                raise BadInput(
                    f"the text uses the token {token!r:.60} (id {number}), for which the model has"
                    f" no row: its vocabulary ends at {self._size}; leave the token out of the text"
                )
        return encoding


def unlike(ours: Any, theirs: Any, size: int) -> str:
    """Why two tokenizers do not make the same ids below `size` of one text, or nothing.

    Compared are what changes a text before it is cut, how it is cut, merges or scores, and every
    token whose id lies below `size`; a token that one of them alone has is no difference where the
    other has nothing under that id. What is put around a text does not count.
    """
    first, second = (json.loads(each.to_str()) for each in (ours, theirs))
    for part, what in (
        ("normalizer", "change a text in different ways before they cut it"),
        ("pre_tokenizer", "cut a text into words in different ways"),
    ):
        if _plain(first.get(part)) != _plain(second.get(part)):
            return f"the tokenizers {what}"
    models = [dict(each.get("model") or {}) for each in (first, second)]
    for each in models:
        each.pop("vocab", None)
        each["merges"] = [
            tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge)
            for merge in each.get("merges") or ()
        ]
        each.pop("dropout", None)
    if models[0] != models[1]:
        return "the tokenizers join the pieces of a word by different rules"
    words = [_words(each, size) for each in (ours, theirs)]
    for number in sorted(words[0].keys() & words[1].keys()):
        if words[0][number] != words[1][number]:
            mine, yours = words[0][number], words[1][number]
            return (
                f"the id {number} is {mine!r:.40} in one tokenizer and {yours!r:.40} in the other"
            )
    homes = [{word: number for number, word in each.items()} for each in words]
    for word in homes[0].keys() & homes[1].keys():
        if homes[0][word] != homes[1][word]:
            return f"the token {word!r:.40} has the ids {homes[0][word]} and {homes[1][word]}"
    marks = [_marks(each, size) for each in (first, second)]
    for number in marks[0].keys() & marks[1].keys():
        if marks[0][number] != marks[1][number]:
            return f"the added token {words[0][number]!r:.40} is looked for in different ways"
    scores = [_scores(each) for each in (first, second)]
    if scores[0] != scores[1]:
        return "the tokenizers weigh the pieces of a word differently"
    return ""


def _words(tokenizer: Any, size: int) -> dict[int, str]:
    known = tokenizer.get_vocab(with_added_tokens=True)
    return {number: word for word, number in known.items() if number < size}


def _marks(content: dict[str, Any], size: int) -> dict[int, tuple[Any, ...]]:
    """How each added token is looked for in a text."""
    fields = ("content", "lstrip", "rstrip", "single_word", "normalized")
    added = content.get("added_tokens") or ()
    return {
        token["id"]: tuple(token.get(name) for name in fields)
        for token in added
        if token["id"] < size
    }


def _scores(content: dict[str, Any]) -> Any:
    """Of a Unigram model the pieces with their scores."""
    vocab = (content.get("model") or {}).get("vocab")
    return vocab if isinstance(vocab, list) else None


def _plain(part: Any) -> Any:
    """Without settings that change offsets alone."""
    if isinstance(part, dict):
        return {key: _plain(value) for key, value in part.items() if key != "trim_offsets"}
    return [_plain(item) for item in part] if isinstance(part, list) else part
