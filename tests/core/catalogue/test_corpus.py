"""The text sets: apart by name and by content, named by a digest, spread when cut."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from core.catalogue.zoo import corpus

# Some small modules copy a few lines of a held-out one or open with the same licence: in Python
# 3.11 wsgiref/headers.py has 22 lines of email/message.py, four others fewer than 10 each.
MOST_COPIED_LINES = 30


@pytest.fixture(scope="module")
def training() -> corpus.TextSet:
    return corpus.training_set()


@pytest.fixture(scope="module")
def held() -> corpus.TextSet:
    return corpus.held_out_set()


def test_no_held_out_module_is_trained_on(training: corpus.TextSet, held: corpus.TextSet) -> None:
    assert not set(training.names) & set(corpus.HELD_OUT)
    assert not set(training.texts) & set(held.texts)
    assert set(held.names) <= set(corpus.HELD_OUT)


def test_the_held_out_modules_exist_in_this_python(held: corpus.TextSet) -> None:
    missing = set(corpus.HELD_OUT) - set(held.names)
    assert len(missing & {"zipfile.py", "zipfile/__init__.py"}) == 1
    assert missing <= {"zipfile.py", "zipfile/__init__.py"}
    assert held.bytes > 1_000_000


def test_no_training_module_copies_held_out_code(
    training: corpus.TextSet, held: corpus.TextSet
) -> None:
    lines = frozenset(line for text in held.texts for line in corpus.long_lines(text))
    copies = {
        name: sum(line in lines for line in corpus.long_lines(text))
        for name, text in zip(training.names, training.texts, strict=True)
        if corpus.shares_lines(text, lines)
    }
    assert all(count < MOST_COPIED_LINES for count in copies.values()), copies
    assert sum(copies.values()) < 0.003 * len(lines)


def test_tests_packages_and_bulk_are_left_out(training: corpus.TextSet) -> None:
    folders = {part for name in training.names for part in Path(name).parts[:-1]}
    assert not folders & {"site-packages", "test", "tests", "idle_test", "__pycache__"}
    assert all(len(text.encode()) <= 400_000 for text in training.texts)
    assert list(training.names) == sorted(training.names)


def test_the_digest_is_the_sha256_of_names_and_bytes_and_stays_the_same() -> None:
    one = corpus.TextSet(("a.py", "b.py"), ("x = 1\n", "ü"))
    by_hand = hashlib.sha256(b"a.py\0x = 1\n\0" + b"b.py\0\xc3\xbc\0").hexdigest()
    assert one.digest == by_hand
    assert one.bytes == 8
    assert corpus.TextSet(("a.py", "b.py"), ("x = 1\n", "u")).digest != by_hand
    assert corpus.TextSet(("a.py", "c.py"), ("x = 1\n", "ü")).digest != by_hand
    assert corpus.held_out_set().digest == corpus.held_out_set().digest


def test_a_small_budget_is_spread_over_the_library() -> None:
    small = corpus.training_set(limit_bytes=500_000)
    assert 500_000 <= small.bytes < 1_000_000
    assert len(small.names) >= 15
    assert len({name[0] for name in small.names}) >= 8
    assert not set(small.names) & set(corpus.HELD_OUT)
    assert corpus.training_set(limit_bytes=500_000) == small
    assert set(corpus.training_set(limit_bytes=250_000).names) <= set(small.names)


def test_files_that_are_not_text_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 'ß'\n", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    (tmp_path / "blank.py").write_text(" \n\n")
    (tmp_path / "huge.py").write_text("#" * 400_001)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text("x = 1")
    names = corpus.python_files(tmp_path)
    assert names == ["blank.py", "good.py", "latin.py"]
    assert corpus.read_set(tmp_path, [*names, "gone.py"]).names == ("good.py",)


def test_long_lines_are_stripped_and_at_least_thirty_characters() -> None:
    line = "x" * 30
    assert corpus.long_lines(f"  {line}  \n{line[:-1]}\n\n") == [line]
    assert corpus.shares_lines(f"{line}\n", frozenset({line}))
    assert not corpus.shares_lines("short\n", frozenset({"short"}))
    others = "\n".join(f"{i:030d}" for i in range(9))
    assert not corpus.shares_lines(f"{line}\n{others}", frozenset({line}))
    assert corpus.shares_lines(f"{line}\n{others}", frozenset({line}), most=0.09)
