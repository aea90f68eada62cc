"""Tokens past the embedding, and whether two tokenizers make the same ids."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from core.errors import BadInput
from core.files import tokenizer as tokenizer_file
from core.files.vocabulary import Bounded, unlike

TEXT = [Path(json.__file__).read_text(encoding="utf-8")]
LINE = "def f(x):\n    return x + 1 # é 漢字\n"


def bpe(size: int = 320, normalize: bool = False, digits: bool = False, first: str = "<s>") -> Any:
    made = Tokenizer(models.BPE())
    parts: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [*parts, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    if normalize:
        made.normalizer = normalizers.NFC()
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[first, "</s>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXT, trainer)
    return made


def saved(
    made: Any, folder: Path, change: Callable[[dict[str, Any]], object] | None = None
) -> Path:
    path = folder / "tokenizer.json"
    content = json.loads(made.to_str())
    if change is not None:
        change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("special", [True, False])
def test_added_tokens_just_past_the_embedding_are_refused_in_texts_alone(
    count: int, special: bool, tmp_path: Path
) -> None:
    made = bpe()
    size = made.get_vocab_size()
    plain = made.encode(LINE).ids
    made.add_tokens([AddedToken(f"<image{i}>", special=special) for i in range(count)])
    path = saved(made, tmp_path)
    tokenizer_file.check(path, {"vocab_size": size})
    loaded = tokenizer_file.load(path, size)
    assert isinstance(loaded, Bounded)
    assert loaded.encode(LINE, add_special_tokens=False).ids == plain
    assert loaded.decode(plain) == LINE
    assert loaded.token_to_id("<image0>") == size
    with pytest.raises(BadInput, match=rf"'<image0>' \(id {size}\).*ends at {size}; leave"):
        loaded.encode(f"{LINE}<image0>{LINE}")
    # With one more row the model reads them all.
    enough = tokenizer_file.load(path, size + count)
    assert enough.encode("<image0>").ids == [size]


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["added_tokens"][-1].update(id=330),
        lambda content: content["model"]["vocab"].update(zz=320),
        lambda content: content["added_tokens"].append(content["added_tokens"][-1] | {"id": 322}),
    ],
)
def test_what_is_no_added_token_just_past_it_is_another_models_tokenizer(
    change: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    made = bpe()
    made.add_tokens([AddedToken("<image>", special=True)])
    path = saved(made, tmp_path, change)
    with pytest.raises(BadInput, match=r"^tokenizer\.json gives "):
        tokenizer_file.check(path, {"vocab_size": 320})


def test_a_number_that_the_library_changes_is_refused(tmp_path: Path) -> None:
    made = bpe(300)
    made.add_tokens([AddedToken("<image>", special=True)])
    path = saved(made, tmp_path, lambda content: content["added_tokens"][-1].update(id=320))
    with pytest.raises(BadInput, match="an added token gets the id"):
        tokenizer_file.load(path, 320)


def test_a_tokenizer_is_like_itself_and_like_one_with_more_tokens_elsewhere() -> None:
    more = bpe()
    more.add_tokens([AddedToken("<tool>", special=True)])
    assert unlike(bpe(), bpe(), 320) == ""
    assert unlike(bpe(), more, 400) == ""
    assert unlike(more, bpe(), 320) == ""
    assert unlike(Bounded(more, 320), bpe(), 320) == ""


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (bpe(normalize=True), "change a text"),
        (bpe(digits=True), "cut a text into words"),
        (bpe(310), "join the pieces"),
        (bpe(first="<bos>"), "the id 0 is '<s>' in one tokenizer and '<bos>' in the other"),
    ],
)
def test_every_difference_that_changes_ids_is_told(other: Any, words: str) -> None:
    assert words in unlike(bpe(), other, 320)


def test_merges_in_another_order_and_tokens_with_swapped_ids_are_told() -> None:
    content = json.loads(bpe().to_str())
    content["model"]["merges"].reverse()
    swapped = Tokenizer.from_str(json.dumps(content))
    assert swapped.encode(TEXT[0]).ids != bpe().encode(TEXT[0]).ids
    assert "join the pieces" in unlike(bpe(), swapped, 320)
    content = json.loads(bpe().to_str())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    assert "the id" in unlike(bpe(), Tokenizer.from_str(json.dumps(content)), 320)


def test_scores_of_unigram_models_count() -> None:
    pieces = [("<unk>", 0.0), ("a", -1.0), ("b", -2.0), ("ab", -2.5)]
    one = Tokenizer(models.Unigram(pieces, unk_id=0))
    other = Tokenizer(models.Unigram([*pieces[:3], ("ab", -3.5)], unk_id=0))
    assert one.encode("ab").ids != other.encode("ab").ids
    assert unlike(one, one, 4) == ""
    assert "weigh" in unlike(one, other, 4)


@pytest.mark.parametrize("vocab", [1.5, "words", None, True, {"a": "b"}, {"a": 0.5}, [["a"]]])
@pytest.mark.parametrize("added", [None, 7, "x", [1], [{"id": [3]}], [{"id": None}], [{"id": 600}]])
def test_ids_of_any_kind_are_beyond_nothing_or_counted(vocab: object, added: object) -> None:
    from core.files.tokenizer import _beyond

    content = {"model": {"vocab": vocab}, "added_tokens": added}
    assert _beyond(content, 600) in (set(), {600})
    assert _beyond({"model": vocab, "added_tokens": added}, 600) in (set(), {600})
