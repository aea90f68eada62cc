"""The user's data in two parts: disjoint, the same for every trial, by documents or by blocks."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

import numpy as np
import pytest

from core.catalogue.zoo import corpus
from core.data import split as dataset_split
from core.data.files import read_datasets
from core.data.images import Images
from core.data.overlap import SHARED, runs, without_shared
from core.data.parsing import AnswerTask, ChoiceTask, Content
from core.data.passages import encode
from core.data.split import Parts, load_parts, split, task_text
from core.engine.load.load import load_tokenizer


def words(count: int, seed: int) -> str:
    """Lines of words that nobody has written."""
    draw = random.Random(seed)
    made = [
        "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 9))) for _ in range(count)
    ]
    return "".join(word + ("\n" if at % 11 == 10 else " ") for at, word in enumerate(made))


def windows(texts: tuple[str, ...], size: int) -> set[str]:
    """All runs of `size` characters, found without hashes."""
    plain = [" ".join(text.split()) for text in texts]
    return {text[at : at + size] for text in plain for at in range(len(text) - size + 1)}


def texts_of(name: str, parts: Parts) -> tuple[str, ...]:
    return parts.judged[name].texts


def test_documents_are_parted_whole_by_their_content_alone() -> None:
    documents = tuple(words(150, seed) for seed in range(80))
    parts = split({"a.jsonl": Content(texts=documents)})
    learned, judged = parts.learning_texts(), texts_of("a.jsonl", parts)
    assert sorted(learned + judged) == sorted(documents)
    share = sum(map(len, learned)) / sum(map(len, documents))
    assert 0.2 < share < 0.3
    assert parts.taken == ("a.jsonl",)
    # In another order and under another name the same documents are on the same sides.
    other = split({"b.jsonl": Content(texts=documents[::-1])})
    assert set(texts_of("b.jsonl", other)) == set(judged)
    assert other.learning_texts() == learned


@pytest.mark.parametrize("newlines", [True, False])
def test_one_long_text_is_cut_into_blocks_with_gaps(newlines: bool) -> None:
    text = words(20_000, 1)
    text = text if newlines else text.replace("\n", " ")
    parts = split({"a.txt": Content(texts=(text,))})
    learned, judged = parts.learning_texts(), texts_of("a.txt", parts)
    assert len(judged) >= 2
    at = 0
    for part in judged:
        # In the order of the file, and every byte of it as it was.
        at = text.index(part, at) + len(part)
    total = len(text)
    assert 0.2 < sum(map(len, learned)) / total < 0.26
    assert 0.7 < sum(map(len, judged)) / total < 0.8
    for part in learned:
        begin = text.index(part)
        for other in judged:
            place = text.index(other)
            apart = place - (begin + len(part)) if place > begin else begin - place - len(other)
            assert apart >= dataset_split.GAP
    assert not windows(learned, 32) & windows(judged, 32)


def test_no_run_of_tokens_is_on_both_sides_whatever_is_repeated() -> None:
    """Library modules repeat licences, imports and idioms; two documents are whole copies."""
    sources = corpus.training_set(limit_bytes=400_000).texts
    notice = words(60, 5) + "\n"
    documents = (*(notice + text for text in sources), notice + sources[0], sources[1])
    parts = split({"code.jsonl": Content(texts=documents)})
    learned, judged = parts.learning_texts(), texts_of("code.jsonl", parts)
    assert sum(map(len, learned)) > 30_000
    assert not windows(learned, SHARED) & windows(judged, SHARED)
    assert windows(learned, 24) & windows(judged, 24), "the data is no test: it repeats nothing"
    assert not any(notice.split("\n")[0] in text for text in learned)
    tokenizer, size = load_tokenizer("pycode-small"), SHARED

    def grams(texts: tuple[str, ...]) -> set[tuple[int, ...]]:
        rows = [encode(tokenizer, (text,), (), 10**9)[0] for text in texts]
        return {tuple(row[at : at + size]) for row in rows for at in range(len(row) - size + 1)}

    assert not {
        gram
        for gram in grams(learned) & grams(judged)
        if len(" ".join(tokenizer.decode(list(gram)).split())) >= SHARED
    }


def test_copies_of_a_document_are_on_one_side() -> None:
    documents = tuple(words(150, seed % 30) + " " * (seed // 30) for seed in range(90))
    parts = split({"a.jsonl": Content(texts=documents)})
    learned = {" ".join(text.split()) for text in parts.learning_texts()}
    judged = {" ".join(text.split()) for text in texts_of("a.jsonl", parts)}
    assert learned
    assert not learned & judged
    assert len(learned) + len(judged) == 30


def test_a_copy_in_another_file_is_dropped_from_what_is_learned() -> None:
    documents = tuple(words(200, seed) for seed in range(60))
    alone = split({"a.jsonl": Content(texts=documents)})
    quiz = tuple(AnswerTask(text, "yes", max_tokens=4) for text in alone.learning_texts()[:3]) * 4
    both = split({"a.jsonl": Content(texts=documents), "quiz.jsonl": Content(answers=quiz)})
    assert both.taken == ("a.jsonl",)
    assert both.judged["quiz.jsonl"].answers == quiz
    assert set(both.learning_texts()) == set(alone.learning_texts()[3:])


@pytest.mark.parametrize(
    ("content", "words_"),
    [
        (Content(texts=(words(500, 0),)), "40 kB of text"),
        (Content(texts=("the same line again\n" * 5000,)), "not all alike"),
        (Content(texts=(words(3000, 0),) * 40), "not all alike"),
        (Content(answers=(AnswerTask("a?", "b"),) * 20), "40 kB of text"),
        (Content(answers=tuple(AnswerTask(words(900, n), "b") for n in range(20))), "40 kB"),
        (
            Content(pictures=Images(np.zeros((20, 64), np.float32), np.zeros(20, np.int64))),
            "400 im",
        ),
    ],
)
def test_what_cannot_be_parted_is_judged_whole_and_says_so(content: Content, words_: str) -> None:
    parts = split({"a": content})
    assert parts.judged["a"] is content
    assert parts.learning_texts() == ()
    assert parts.images is None
    assert words_ in parts.why_not
    assert not parts.taken


def test_questions_are_parted_by_their_prompt_where_there_is_no_text() -> None:
    tasks = tuple(
        ChoiceTask(words(60, seed), (words(3, -seed - 1), "no", str(copy)), 0)
        for seed in range(200)
        for copy in range(2)
    )
    parts = split({"quiz.jsonl": Content(choices=tasks)})
    judged = parts.judged["quiz.jsonl"].choices
    assert 0.65 * len(tasks) < len(judged) < 0.85 * len(tasks)
    prompts = {task.prompt for task in judged}
    learned = set(parts.learning_texts())
    assert learned == {task_text(task) for task in tasks if task.prompt not in prompts}
    assert len(judged) == 2 * len(prompts)
    assert task_text(tasks[0]).endswith(tasks[0].choices[0])


def test_images_are_parted_by_their_pixels() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.random((500, 64), dtype=np.float32)
    pixels[250:] = pixels[:250]
    parts = split({"a.npz": Content(pictures=Images(pixels, np.arange(500) % 10))})
    assert parts.images is not None
    judged = parts.judged["a.npz"].images()
    assert len(parts.images) + len(judged) == 500
    assert 100 <= len(parts.images) <= 150
    assert not set(map(bytes, parts.images.pixels)) & set(map(bytes, judged.pixels))
    for side in (parts.images, judged):
        for row, label in zip(side.pixels, side.labels, strict=True):
            assert label in np.flatnonzero((pixels == row).all(1)) % 10


def test_files_are_read_and_parted_by_their_bytes_wherever_they_lie(tmp_path: Path) -> None:
    documents = [{"text": words(150, seed)} for seed in range(80)]
    one, two = tmp_path / "one.jsonl", tmp_path / "sub" / "two.jsonl"
    two.parent.mkdir()
    for path in (one, two):
        path.write_text("\n".join(map(json.dumps, documents)))
    first, second = (load_parts(read_datasets([str(path)])) for path in (one, two))
    assert first.judged["one.jsonl"] == second.judged["two.jsonl"]
    assert first.learning_texts() == second.learning_texts() != ()


def test_runs_are_equal_where_the_characters_are() -> None:
    text = words(40, 3) + "漢字🙂é" * 30
    found = runs(text)
    assert len(found) == len(text) - SHARED + 1
    real = [text[at : at + SHARED] for at in range(len(found))]
    for at in range(0, len(found), 7):
        assert [n for n, run in enumerate(found) if run == found[at]] == [
            n for n, run in enumerate(real) if run == real[at]
        ]
    assert len(runs("short")) == 0


def test_lines_that_share_a_run_are_dropped_and_no_others() -> None:
    long = words(30, 8).replace("\n", " ").strip()
    text = f"first line {words(12, 1)}\nbefore {long} behind\n{words(33, 2)}\nlast {words(5, 3)}"
    kept = without_shared([text, "tiny", long], [words(500, 99), "x " + long.replace(" ", "\n")])
    assert "tiny" in kept
    assert long not in " ".join(kept)
    assert sum(len(part.split()) for part in kept) > 40
    assert without_shared([text], [long[: SHARED - 1]]) == [text]
    assert without_shared([], ["a"]) == []
    assert without_shared([text], []) == [text]
