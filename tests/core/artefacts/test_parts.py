"""Our writer of .safetensors against the library's reader, and against a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from core import disk
from core.artefacts.save import check_place, write_folder
from core.errors import BadInput, Refused
from core.files.formats.parts import Part, blocks, file_bytes, part, write_file
from core.files.header import read_header

TENSORS = {
    "a": torch.randn(3, 5).bfloat16(),
    "b": torch.arange(7, dtype=torch.uint8),
    "c": torch.randn(2, 2),
    "d": torch.tensor([[1], [-2]], dtype=torch.int32),
    "e": torch.tensor([3, 4]),
    "f": torch.randn(3).half(),
    "g": torch.randn(5).to(torch.float8_e4m3fn),
}


def test_the_library_reads_what_was_written_and_the_size_was_known(tmp_path: Path) -> None:
    parts = [part(name, tensor) for name, tensor in TENSORS.items()]
    path = tmp_path / "x.safetensors"
    assert write_file(path, blocks(parts)) == file_bytes(parts) == path.stat().st_size
    found = load_file(path)
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype is tensor.dtype
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8))
    assert {one.name for one in read_header(path)[0]} == TENSORS.keys()


def test_a_tensor_that_is_not_what_was_said_is_no_file() -> None:
    wrong = Part("a", "F32", (3,), lambda: torch.zeros(4))
    with pytest.raises(ValueError, match=r"a was to be F32 \[3\]"):
        list(blocks([wrong]))


class FullDisk(disk.System):
    """The Nth write fails for want of space, or comes through in small pieces."""

    def __init__(self, good: int, number: int = errno.ENOSPC) -> None:
        self.good, self.number = good, number

    def write(self, handle: int, data: bytes) -> int:
        self.good -= 1
        if self.good < 0:
            raise OSError(self.number, os.strerror(self.number))
        return os.write(handle, data[:1000])


@pytest.mark.parametrize("good", [0, 1, 5])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    good: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "system", FullDisk(good))
    pieces = [("x.bin", [bytes(4000)]), ("y.bin", [bytes(4000)])]
    with pytest.raises(Refused, match="the disk is full; nothing was left there"):
        write_folder(tmp_path / "new", pieces, 8000)
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "system", FullDisk(10**6))
    content = bytes(range(256)) * 40
    sizes = write_folder(tmp_path / "new", [("x.bin", [content])], 1)
    assert (tmp_path / "new" / "x.bin").read_bytes() == content
    assert sizes == {"x.bin": len(content)}


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"takes 1,000,000,000,000,000,000 bytes, [\d,]+ are free"):
        write_folder(tmp_path / "new", [("x.bin", [b"x"])], 10**18)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken_is_refused_and_kept(tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, reason in (
        ("taken", "the folder is not empty"),
        ("file", "there is a file or a link"),
        ("link", "there is a file or a link"),
        ("file/below", "is no folder that you may write into"),
    ):
        with pytest.raises(BadInput, match=reason):
            write_folder(tmp_path / name, [("x.bin", [b"x"])], 1)
    assert (taken / "mine").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_an_empty_folder_and_one_below_nothing_are_filled(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "a/b/c"):
        write_folder(tmp_path / name, [("x.bin", [b"x"])], 1)
        assert [path.name for path in (tmp_path / name).iterdir()] == ["x.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]


@pytest.mark.parametrize("name", ["n" * 250, f"new/{'n' * 250}", f"{'n' * 300}/below"])
def test_a_name_that_is_too_long_is_found_before_the_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="File name too long"):
        check_place(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux's /proc")
def test_a_place_where_nothing_can_be_made_is_found_before_the_work() -> None:
    with pytest.raises(BadInput, match="-o /proc/x: "):
        check_place(Path("/proc/x"))


def test_checking_a_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    check_place(tmp_path / "there/new/deeper")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
