"""The user's data files: what is read, what is refused with file and line, and unchanged bytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import dataset
from core.catalogue import models
from core.data import files
from core.data import parsing as dataset_files
from core.data.files import load_dataset, read_dataset, read_datasets, refusal
from core.data.parsing import AnswerTask, ChoiceTask, parse
from core.dataset import Dataset
from core.errors import BadInput
from core.journal import codec
from core.plan import Case, Plan
from core.target import Target
from core.workload import Workload

TASK = {"prompt": "2 + 2 =", "choices": ["3", "4"], "answer": 1}
QUESTION = {"question": "Capital of France?", "answer": "Paris"}
IMAGE = {"pixels": [[0, 0.5], [1, 0]], "label": 3}


def lines(*items: Any, repeat: int = 10) -> bytes:
    return "\n".join(json.dumps(item) for item in items * repeat).encode()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def put(folder: Path, name: str, data: bytes) -> str:
    path = folder / name
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("name", "data", "kind", "items"),
    [
        ("book.txt", "Ein Buch über Ω.\n".encode(), "text", 1),
        ("BOOK.TXT", b"x", "text", 1),
        ("docs.jsonl", lines({"text": "a"}, {"text": "b", "id": 3}, repeat=1), "text", 2),
        ("quiz.jsonl", lines(TASK), "choices", 10),
        ("asked.jsonl", lines(QUESTION), "answers", 10),
        ("small.jsonl", lines(IMAGE), "images", 10),
        (
            "digits.npz",
            npz(pixels=np.zeros((12, 8, 8), np.float32), labels=np.arange(12) % 10),
            "images",
            12,
        ),
    ],
)
def test_each_kind_of_file_is_known_by_what_it_holds(
    tmp_path: Path, name: str, data: bytes, kind: str, items: int
) -> None:
    word = put(tmp_path, name, data)
    found = read_dataset(word)
    assert found == Dataset(
        name, kind, str(Path(word).resolve()), hashlib.sha256(data).hexdigest(), items, len(data)
    )
    assert len(load_dataset(found)) == items
    assert codec.loads(codec.dumps(found)) == found


def test_tasks_are_read_as_they_are_meant() -> None:
    _, found = parse(
        "a.jsonl", lines(TASK, {"question": "Q", "choices": ["x", "yy"], "answer": "yy"})
    )
    assert found.choices[:2] == (
        ChoiceTask("2 + 2 =", ("3", "4"), 1),
        ChoiceTask("Q", ("x", "yy"), 1),
    )
    asked = {"prompt": "P", "answer": " two\nlines ", "stop": "\n\n", "max_tokens": 9}
    _, found = parse("a.jsonl", lines(QUESTION, asked))
    assert found.answers[:2] == (
        AnswerTask("Capital of France?", "Paris"),
        AnswerTask("P", "two\nlines", "\n\n", 9),
    )


def test_marks_and_foreign_line_ends_change_nothing() -> None:
    plain = parse("a.jsonl", lines(TASK))
    assert parse("a.jsonl", b"\xef\xbb\xbf" + lines(TASK)) == plain
    assert parse("a.jsonl", lines(TASK).replace(b"\n", b"\r\n") + b"\r\n\r\n") == plain
    assert parse("a.txt", "\ufeffeins\r\nzwei\rdrei\u2028".encode())[1].texts == (
        "eins\nzwei\ndrei\u2028",
    )


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.csv", b"x", "a.csv: data files end in .txt, .jsonl, .npz"),
        ("a", b"x", "data files end in"),
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b" \r\n\t", "a.txt holds no text"),
        ("a.txt", b"ok\nfine\n\xff\xfe", "a.txt, line 3: byte 8 is not UTF-8"),
        ("a.txt", "text".encode("utf-16"), "a.txt is UTF-16"),
        ("a.txt", b"one\ntw\0o", "a.txt, line 2: a NUL character"),
        ("a.jsonl", b"\n \n", "a.jsonl holds no items"),
        ("a.jsonl", lines(TASK) + b'\n{"prompt": ', "a.jsonl, line 11: not JSON"),
        ("a.jsonl", b"[1]", "a.jsonl, line 1: each line must be one JSON object"),
        ("a.jsonl", b'{"answer": NaN}', "line 1: not JSON (NaN is not a JSON number)"),
        ("a.jsonl", b'{"a":' * 100_000, "line 1: nested too deeply"),
        ("a.jsonl", b'{"answer": 1' + b"0" * 5000 + b"}", "line 1: not JSON"),
        ("a.jsonl", b'{"text": "' + b"x" * 1_000_001 + b'"}', "at most 1000000 are read"),
        ("a.jsonl", lines({"answer": 1}), "line 1: the object must be one of"),
        ("a.jsonl", lines({"text": ""}), "'text' must be text that is not empty"),
        ("a.jsonl", lines({"text": 3}), "'text' must be text that is not empty"),
        ("a.jsonl", lines({"text": "\ud800"}), "half of a surrogate pair"),
        ("a.jsonl", lines(TASK, repeat=9), "has only 9 tasks: at least 10"),
        ("a.jsonl", lines(TASK) + b"\n" + lines(QUESTION), "line 11: answers after choices"),
        ("a.jsonl", lines({**TASK, "question": "x"}), "'prompt' or 'question', not both"),
        ("a.jsonl", lines({**TASK, "prompt": " "}), "'prompt' must be text"),
        ("a.jsonl", lines({**TASK, "choices": ["a"]}), "a list of 2 to 64 texts"),
        ("a.jsonl", lines({**TASK, "choices": "ab"}), "a list of 2 to 64 texts"),
        ("a.jsonl", lines({**TASK, "choices": ["a", 2]}), "texts that are not empty"),
        ("a.jsonl", lines({**TASK, "choices": ["a  b", " a b"]}), "are the same text"),
        ("a.jsonl", lines({**TASK, "answer": 2}), "line 1: 'answer' 2 is out of range"),
        ("a.jsonl", lines({**TASK, "answer": -1}), "count from 0 to 1"),
        ("a.jsonl", lines({**TASK, "answer": True}), "the index or the text of a choice"),
        ("a.jsonl", lines({**TASK, "answer": 1.0}), "the index or the text of a choice"),
        ("a.jsonl", lines({**TASK, "answer": "5"}), "'5' is none of the 'choices'"),
        ("a.jsonl", lines({**QUESTION, "answer": "a\nb"}), "could never be given in full"),
        ("a.jsonl", lines({**QUESTION, "stop": ""}), "'stop' must be text"),
        ("a.jsonl", lines({**QUESTION, "max_tokens": 0}), "'max_tokens' must be a number"),
        ("a.jsonl", lines({**QUESTION, "max_tokens": True}), "'max_tokens' must be a number"),
        ("a.jsonl", lines({**IMAGE, "label": -1}), "'label' must be a class"),
        ("a.jsonl", lines({**IMAGE, "pixels": "x"}), "'pixels' must be a list of numbers"),
        ("a.jsonl", lines({**IMAGE, "pixels": [[1], [1, 0]]}), "'pixels' must be a list"),
        ("a.jsonl", lines({**IMAGE, "pixels": []}), "0 pixels"),
        ("a.jsonl", lines(IMAGE, {**IMAGE, "pixels": [1]}), "line 2: 1 pixels"),
        ("a.jsonl", lines({**IMAGE, "pixels": [0, 16]}), "pixels go from 0 to 16"),
        ("a.jsonl", lines({**IMAGE, "scale": 0}), "'scale' must be a number above 0"),
        ("a.npz", b"PK\x03\x04 no archive", "a.npz cannot be read as .npz"),
        ("a.npz", npz(x=np.zeros(3)), "a.npz holds x; it needs the arrays pixels and labels"),
        (
            "a.npz",
            npz(pixels=np.zeros((12, 4)), labels=np.zeros(11, int)),
            "must be [n, ...] and [n]",
        ),
        (
            "a.npz",
            npz(pixels=np.zeros((12, 4)), labels=np.zeros(12)),
            "labels must be whole numbers",
        ),
        (
            "a.npz",
            npz(pixels=np.full((12, 4), np.nan), labels=np.zeros(12, int)),
            "a pixel is not finite",
        ),
        (
            "a.npz",
            npz(pixels=np.full((12, 4), 255, np.uint8), labels=np.zeros(12, int)),
            "divide them, or give a 'scale'",
        ),
        (
            "a.npz",
            npz(pixels=np.array([["x"]] * 12), labels=np.zeros(12, int)),
            "not numbers",
        ),
        ("a.npz", npz(pixels=np.zeros((4, 4)), labels=np.zeros(4, int)), "only 4 images"),
        (
            "a.npz",
            npz(pixels=np.zeros((12, 4)), labels=np.arange(12) - 1),
            "labels are classes",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(name: str, data: bytes, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(name, data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_loaded() -> None:
    stream = io.BytesIO()
    np.savez(stream, pixels=np.array([{}] * 12, dtype=object), labels=np.zeros(12, int))
    with pytest.raises(BadInput, match="not numbers"):
        parse("a.npz", stream.getvalue())


def test_a_header_cannot_ask_for_more_than_its_bytes() -> None:
    body = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        body, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 64)}
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("pixels.npy", body.getvalue() + b"\0" * 64)
        made.writestr("labels.npy", b"")
    with pytest.raises(BadInput, match="not the size that its header gives"):
        parse("a.npz", archive.getvalue())


def test_a_bomb_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.data import images as dataset_images

    monkeypatch.setattr(dataset_images, "MAX_ARRAY", 1000)
    with pytest.raises(BadInput, match=r"pixels\.npy has more than"):
        parse("a.npz", npz(pixels=np.zeros((200, 4)), labels=np.zeros(200, int)))


def test_integers_are_divided_by_the_scale_that_is_given() -> None:
    raw = (np.arange(12 * 4) % 17).reshape(12, 2, 2)
    _, found = parse("a.npz", npz(images=raw, label=np.arange(12), scale=16))
    assert found.images().pixels == pytest.approx(raw.reshape(12, 4) / 16)
    assert found.images().labels.tolist() == list(range(12))
    fortran = np.asfortranarray(raw.reshape(12, 4) / 16)
    _, again = parse("b.npz", npz(pixels=fortran, labels=np.arange(12)))
    assert np.array_equal(again.images().pixels, found.images().pixels)
    items = [{"pixels": row.tolist(), "label": 1, "scale": 16} for row in raw]
    _, third = parse("c.jsonl", lines(*items, repeat=1))
    assert np.array_equal(third.images().pixels, found.images().pixels)


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
        st.lists(
            st.dictionaries(
                st.sampled_from(
                    ["text", "prompt", "question", "choices", "answer", "pixels", "label", "stop"]
                ),
                st.recursive(
                    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3),
                    max_leaves=5,
                ),
            ),
            min_size=1,
            max_size=3,
        ).map(lambda items: lines(*items)),
    ),
    st.sampled_from(["a.txt", "a.jsonl", "a.npz"]),
)
def test_any_bytes_are_data_or_bad_input(data: bytes, name: str) -> None:
    try:
        kind, found = parse(name, data)
    except BadInput:
        return
    assert kind in dataset.KINDS
    assert len(found) >= 1


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 700), st.integers(0, 255))
def test_a_damaged_archive_is_data_or_bad_input(position: int, value: int) -> None:
    data = bytearray(npz(pixels=np.zeros((12, 4)), labels=np.zeros(12, int)))
    data[position % len(data)] = value
    try:
        parse("a.npz", bytes(data))
    except BadInput:
        return


def test_a_file_that_changed_is_named_before_it_is_measured(tmp_path: Path) -> None:
    word = put(tmp_path, "a.jsonl", lines(TASK))
    found = read_dataset(word)
    put(tmp_path, "a.jsonl", lines(TASK, repeat=11))
    with pytest.raises(BadInput, match=r"a\.jsonl has changed since the study was planned"):
        load_dataset(found)
    Path(word).unlink()
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        load_dataset(found)


def test_only_regular_files_of_a_bearable_size_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for word in (str(tmp_path), str(tmp_path / "pipe.txt"), "/dev/zero"):
        with pytest.raises(BadInput, match="is not a regular file"):
            read_dataset(word)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_dataset(str(tmp_path / "none.txt"))
    with pytest.raises(BadInput, match="cannot be read"):
        read_dataset("a\0b.txt")
    with pytest.raises(BadInput, match="not UTF-8; rename"):
        read_dataset(str(tmp_path / "a\udcff.txt"))
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    with pytest.raises(BadInput, match="has more than"):
        read_dataset(put(tmp_path, "large.txt", b"x" * 11))
    assert read_dataset(put(tmp_path, "fits.txt", b"x" * 10)).bytes == 10


def test_too_many_items_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset_files, "MAX_ITEMS", 10)
    assert len(parse("a.jsonl", lines(TASK))[1]) == 10
    with pytest.raises(BadInput, match="more than 10 items"):
        parse("a.jsonl", lines(TASK, repeat=11))


def test_the_same_data_twice_is_refused(tmp_path: Path) -> None:
    first = put(tmp_path, "a.jsonl", lines(TASK))
    with pytest.raises(BadInput, match=r"the same content as a\.jsonl"):
        read_datasets([first, put(tmp_path, "b.jsonl", lines(TASK))])
    (tmp_path / "other").mkdir()
    with pytest.raises(BadInput, match=r"two files are called a\.jsonl"):
        read_datasets([first, put(tmp_path / "other", "a.jsonl", lines(QUESTION))])
    with pytest.raises(BadInput, match="at most 8"):
        read_datasets([first] * 9)


@pytest.mark.parametrize(
    "word",
    ["lm-eval:", "lm-eval:a b", "lm-eval:a:0", "lm-eval:a:x", "lm-eval:../x:5", "lm-eval:a:1:2"],
)
def test_a_task_word_of_another_form_is_refused(word: str) -> None:
    with pytest.raises(BadInput, match="lm-eval:TASK or lm-eval:TASK:LIMIT"):
        read_dataset(word)


def test_an_lm_eval_task_needs_the_extra_and_keeps_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"pip install 'trimtab\[eval\]'"):
        read_dataset("lm-eval:arc_easy:100")
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: object())
    found = read_dataset("lm-eval:arc_easy:100")
    assert found == Dataset("lm-eval:arc_easy:100", "lm-eval", "", "", 100, 0)
    assert files.lm_eval_task(found) == ("arc_easy", 100)
    assert files.lm_eval_task(read_dataset("lm-eval:arc_easy")) == ("arc_easy", None)


def test_data_and_model_must_belong_together(tmp_path: Path) -> None:
    text = read_dataset(put(tmp_path, "a.txt", b"words"))
    pixels, labels = np.zeros((12, 64)), np.arange(12) % 10
    images = read_dataset(put(tmp_path, "a.npz", npz(pixels=pixels, labels=labels)))
    small = read_dataset(put(tmp_path, "b.npz", npz(pixels=pixels[:, :9], labels=labels)))
    classes = read_dataset(put(tmp_path, "c.npz", npz(pixels=pixels, labels=labels + 5)))
    language, digits = models.resolve("pycode-small"), models.resolve("digits-cnn")
    assert refusal(text, language) is None
    assert refusal(images, digits) is None
    assert "is for text models" in str(refusal(text, digits))
    assert "is for image models" in str(refusal(images, language))
    assert "images of 9 pixels, digits-cnn reads 64" in str(refusal(small, digits))
    assert "has the label 14, digits-cnn knows 10 classes" in str(refusal(classes, digits))
    assert "random weights" in str(refusal(text, models.resolve("shape:smollm2-135m")))


def test_the_data_is_part_of_a_plans_key_but_its_place_is_not(tmp_path: Path) -> None:
    target = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
    case = Case(models.resolve("pycode-small"), target, Workload("chat", "Chat", "text", 8, 8))
    one = read_dataset(put(tmp_path, "a.txt", b"words"))
    two = read_dataset(put(tmp_path, "b.txt", b"other words"))
    plain = Plan(case).key
    keys = {Plan(replace(case, data=data)).key for data in ((), (one,), (two,), (one, two))}
    assert len(keys) == 4
    assert plain in keys
    moved = replace(one, path="/elsewhere/c.txt", id="c.txt")
    assert Plan(replace(case, data=(moved,))).key == Plan(replace(case, data=(one,))).key
    assert Plan(replace(case, data=(two, one))).key == Plan(replace(case, data=(one, two))).key
    with_data = Plan(replace(case, data=(one, two)))
    assert codec.loads(codec.dumps(with_data)) == with_data


def test_a_plan_that_was_stored_before_there_was_data_is_still_read() -> None:
    target = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
    plan = Plan(Case(models.resolve("pycode-small"), target, Workload("chat", "Chat", "text")))
    document = json.loads(codec.dumps(plan))
    del document["value"]["case"]["data"]
    assert codec.loads(json.dumps(document)) == plan


def test_nothing_here_imports_torch() -> None:
    code = "import core.dataset, core.data.files, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])
