"""Tokens for measuring and training: bytes of the predicted tokens, parts that stay apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from core.catalogue.zoo import corpus
from core.data import passages
from core.engine.load.load import load_tokenizer
from core.errors import BadInput


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("pycode-small")


def byte_length(tokenizer: Any, token: int) -> int:
    """Bytes of a token of a byte-level vocabulary: one character of its name a byte."""
    name = tokenizer.id_to_token(token)
    return 0 if name == "<|endoftext|>" else len(name)


def test_the_bytes_of_a_window_are_those_of_its_predicted_tokens(tokenizer: Any) -> None:
    found = passages.held_out_windows(tokenizer, (0,), 12, 96)
    assert found.ids.shape == (12, 97)
    assert found.ids.dtype == torch.int64
    assert len(found.row_bytes) == 12
    assert set(found.ids[:, 0].tolist()) == {0}
    for row, counted in zip(found.ids.tolist(), found.row_bytes, strict=True):
        assert counted == sum(byte_length(tokenizer, token) for token in row[1:])


def test_windows_are_pinned_text_of_held_out_modules_and_do_not_overlap(tokenizer: Any) -> None:
    found = passages.held_out_windows(tokenizer, (0,), 8, 512)
    texts = corpus.held_out_set()
    whole, used = passages.encode(tokenizer, texts.texts, (0,), 10**9)
    assert used == texts.bytes
    starts = np.linspace(0, len(whole) - 513, 8).astype(int)
    assert min(np.diff(starts)) >= 513
    for row, start in zip(found.ids.tolist(), starts, strict=True):
        assert row == [0, *whole[start + 1 : start + 513]]
    assert texts.digest[:12] in found.name
    assert "8 x 512 tokens" in found.name
    assert torch.equal(found.ids, passages.held_out_windows(tokenizer, (0,), 8, 512).ids)


def test_more_windows_than_there_is_text_are_refused(tokenizer: Any) -> None:
    with pytest.raises(BadInput, match=r"gives only [0-9]+ tokens .* 2049000 are needed"):
        passages.held_out_windows(tokenizer, (0,), 1000, 2048)


def test_each_document_begins_with_one_start_token_whatever_the_tokenizer_adds() -> None:
    doubling = Tokenizer(models.WordLevel({"<s>": 0, "a": 1, "b": 2}, unk_token="a"))
    doubling.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    doubling.add_special_tokens(["<s>"])
    doubling.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    assert doubling.encode("a b").ids == [0, 1, 2]
    assert passages.encode(doubling, ("a b", "b"), (0,), 99) == ([0, 1, 2, 0, 2], 4)
    assert passages.encode(doubling, ("a b", "b"), (), 99) == ([1, 2, 2], 4)
    assert passages.encode(doubling, ("a b", "b"), (0,), 2) == ([0, 1, 2], 3)
    # A text that brings its start token with it, as filled chat templates do.
    assert passages.encode(doubling, ("<s> a b", "b"), (0,), 99)[0] == [0, 1, 2, 0, 2]
    assert passages.encode_with_ends(doubling, ("<s> a b", "b"), (0,))[0].tolist() == [
        0,
        1,
        2,
        0,
        2,
    ]


def test_without_a_start_token_a_window_is_the_text_as_it_stands(tokenizer: Any) -> None:
    found = passages.held_out_windows(tokenizer, (), 4, 96)
    whole, _ = passages.encode(tokenizer, corpus.held_out_set().texts, (), 10**9)
    starts = np.linspace(0, len(whole) - 97, 4).astype(int)
    for row, start in zip(found.ids.tolist(), starts, strict=True):
        assert row == whole[start : start + 97]
    assert [one.count for one in found.passages] == [96] * 4
    assert "no start tokens" in found.name


def test_two_tokens_may_start_a_text(tokenizer: Any) -> None:
    found = passages.held_out_windows(tokenizer, (7, 0), 4, 96)
    assert found.ids[:, :2].tolist() == [[7, 0]] * 4
    assert [one.scored for one in found.passages] == [95] * 4
    assert passages.prompts(tokenizer, (7, 0), 3, 20, 4096, 0)[:, :2].tolist() == [[7, 0]] * 3
    row = passages.drawn(list(range(50)), (7, 0), 5, 9, torch.Generator().manual_seed(1))
    assert row.shape == (5, 9)
    for first, second, third, *rest in row.tolist():
        assert (first, second) == (7, 0)
        assert rest == list(range(third + 1, third + 7))


def test_what_is_too_long_keeps_its_start() -> None:
    assert passages.fitted([5, 1, 2, 3, 4], 3, (5,)) == [5, 3, 4]
    assert passages.fitted([5, 1, 2, 3, 4], 3, ()) == [2, 3, 4]
    assert passages.fitted([1, 2, 3, 4], 3, (5,)) == [2, 3, 4]
    assert passages.fitted([5, 1], 3, (5,)) == [5, 1]


def test_start_tokens_are_in_no_count(tokenizer: Any) -> None:
    texts = ("a", "import os\n", "", "x = 1\n" * 3)
    found = passages.text_passages(tokenizer, (0,), texts, "four", 8, 10**6)
    own, size = passages.encode(tokenizer, texts, (), 10**9)
    assert sum(one.count for one in found.passages) == len(own)
    assert sum(one.text_bytes for one in found.passages) == size
    assert all(one.count for one in found.passages)
    assert f"all {len(own)} tokens" in found.name
    for one in found.passages:
        assert one.ids[0] == 0
        assert len(one.ids) <= 9


def test_prompts_are_held_out_passages_of_the_asked_length(tokenizer: Any) -> None:
    found = passages.prompts(tokenizer, (0,), 5, 40, 4096, seed=0)
    assert found.shape == (5, 40)
    whole, _ = passages.encode(tokenizer, corpus.held_out_set().texts, (0,), 10**9)
    assert found[0].tolist() == whole[:40]
    assert set(found[:, 0].tolist()) == {0}
    assert found[1].tolist()[1:] in [whole[at : at + 39] for at in range(len(whole))]
    assert len({tuple(row) for row in found.tolist()}) == 5
    assert torch.equal(found, passages.prompts(tokenizer, (0,), 5, 40, 4096, seed=9))
    assert passages.prompts(tokenizer, (0,), 1, 7, 4096, seed=0).shape == (1, 7)


def test_prompts_without_a_tokenizer_are_seeded_ids_of_the_vocabulary() -> None:
    found = passages.prompts(None, (), 3, 200, 50, seed=1)
    assert found.shape == (3, 200)
    assert int(found.min()) >= 0
    assert int(found.max()) < 50
    assert torch.equal(found, passages.prompts(None, (), 3, 200, 50, seed=1))
    assert not torch.equal(found, passages.prompts(None, (), 3, 200, 50, seed=2))


def test_the_training_stream_never_reads_a_held_out_module(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def watched(root: Any, names: list[str]) -> corpus.TextSet:
        read.extend(names)
        return real(root, names)

    real = corpus.read_set
    monkeypatch.setattr(corpus, "read_set", watched)
    stream = passages.training_stream(tokenizer, (0,), 5000)
    assert len(stream) >= 5000
    assert read
    assert not set(read) & set(corpus.HELD_OUT)


def test_the_digits_are_split_into_two_parts_that_cover_them() -> None:
    from safetensors.torch import load_file

    from core.catalogue.models import ZOO

    raw = load_file(ZOO / "digits" / "digits.safetensors")
    train, held = set(raw["train"].tolist()), set(raw["held_out"].tolist())
    assert not train & held
    assert train | held == set(range(len(raw["images"])))
    assert len(raw["train"]) + len(raw["held_out"]) == len(raw["images"]) == 1797
    for part, size in (("train", 1347), ("held_out", 450)):
        images, labels = passages.digits(part)
        assert images.shape == (size, 1, 8, 8)
        assert images.dtype == torch.float32
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        assert torch.bincount(labels, minlength=10).min() > size / 20


def test_no_held_out_digit_is_a_copy_of_a_training_digit() -> None:
    train, held = passages.digits("train")[0], passages.digits("held_out")[0]
    seen = {tuple(image.flatten().tolist()) for image in train}
    assert sum(tuple(image.flatten().tolist()) in seen for image in held) == 0


def test_passages_score_every_token_once_behind_enough_others(tokenizer: Any) -> None:
    texts = corpus.held_out_set().texts[:2]
    found = passages.text_passages(tokenizer, (0,), texts, "two modules", 256, 10**9)
    ids, size = passages.encode(tokenizer, texts, (0,), 10**9)
    begin = 1
    for passage in found.passages:
        end = begin + passage.scored
        assert passage.ids.tolist() == [0, *ids[max(0, end - 257) + 1 : end]]
        assert len(passage.ids) - passage.scored >= min(begin, 129)
        begin = end
    assert begin == len(ids)
    assert sum(one.text_bytes for one in found.passages) == size
    assert {one.scored for one in found.passages} <= {127, 128}
    assert "context 256, stride 128" in found.name
    assert f"all {len(ids) - 2:,} tokens scored once in {len(found.passages)} windows" in found.name
    assert sum(one.count for one in found.passages) == len(ids) - 2


def test_a_long_text_is_sampled_evenly_without_overlap(tokenizer: Any) -> None:
    text = corpus.held_out_set().texts[0]
    found = passages.text_passages(tokenizer, (0,), (text,), "a module", 64, 320)
    ids, _ = passages.encode(tokenizer, (text,), (0,), 10**9)
    assert [one.scored for one in found.passages] == [32] * 10
    firsts = np.linspace(1, len(ids) - 32, 10).astype(int)
    assert min(np.diff(firsts)) >= 32
    for passage, first in zip(found.passages, firsts, strict=True):
        assert passage.ids[-32:].tolist() == ids[first : first + 32]
    assert f"320 of {len(ids) - 1:,} tokens scored once, evenly spread in 10 windows" in found.name


def test_a_short_text_still_has_windows_to_compare(tokenizer: Any) -> None:
    found = passages.text_passages(
        tokenizer, (0,), ("def f(x):\n    return x + 1\n",), "short", 512, 4096
    )
    assert len(found.passages) == passages.LEAST_WINDOWS
    assert sum(one.text_bytes for one in found.passages) == 27
    few = passages.text_passages(tokenizer, (), ("a漢",), "few", 512, 4096)
    count = len(tokenizer.encode("a漢").ids)
    assert [one.scored for one in few.passages] == [1] * (count - 1)


@pytest.mark.parametrize(("start", "text"), [((0,), "a"), ((), "a"), ((0,), "")])
def test_a_text_of_fewer_than_two_tokens_is_refused(
    tokenizer: Any, start: tuple[int, ...], text: str
) -> None:
    with pytest.raises(BadInput, match=f"tiny has {len(text)} tokens for this model: at least 2"):
        passages.text_passages(tokenizer, start, (text,), "tiny", 512, 4096)


def test_the_bytes_behind_tokens_add_up_whatever_the_characters(tokenizer: Any) -> None:
    texts = ("naïve Ω≈ç√ 漢字 🙂 code\n", "  indented\n\n\n", "e\u0301 \u200b end")
    ids, ends = passages.encode_with_ends(tokenizer, texts, (0,))
    whole, used = passages.encode(tokenizer, texts, (0,), 10**9)
    assert ids.tolist() == whole
    assert len(ends) == len(ids)
    assert int(ends[-1]) == used
    assert (np.diff(ends) >= 0).all()
    ascii_ids, ascii_ends = passages.encode_with_ends(tokenizer, ("import os  \n x",), ())
    assert (
        ascii_ends.tolist()
        == np.cumsum([byte_length(tokenizer, token) for token in ascii_ids]).tolist()
    )


def test_a_long_line_is_tokenized_in_pieces_that_lose_nothing(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "one\ntwo three\n" * 30 + "x" * 50
    parts = list(passages.pieces(text, 20))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 20
    assert all(part.endswith("\n") for part in parts[:-3])
    monkeypatch.setattr(passages, "PIECE", 20)
    ids, ends = passages.encode_with_ends(tokenizer, (text,), ())
    assert tokenizer.decode(ids.tolist()) == text
    assert int(ends[-1]) == len(text)
