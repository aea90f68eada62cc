"""Plans of studies in files: what goes along, and what strangers may have written."""

from __future__ import annotations

import json
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import BadInput
from core.measure.study.archive import PLAN, read, unpack, write
from core.measure.study.collect import collect
from core.measure.study.here import for_this_box
from core.measure.study.plan import LONGEST, from_document, to_document


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Text to judge on."""
    path = tmp_path / "notes.txt"
    path.write_text("A line of notes about what a model is for.\n" * 3000)
    return path


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    lines = [f"{0.1 * n},{16 + n % 3},8" for n in range(30)]
    path.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *lines]))
    return path


@pytest.fixture
def full(planned: Callable, folder: Path, data: Path, trace: Path, tmp_path: Path) -> Path:
    """An archive with a model, a draft, data and a trace."""
    draft = Path(shutil.copytree(folder, tmp_path / "small"))
    words = ("weight-int8", f"speculative:draft={draft}")
    made = planned(folder, *words, data=(str(data),), arrival=f"trace:{trace}")
    path = tmp_path / "full.zip"
    write(path, *collect(*made))
    return path


def test_what_a_study_needs_goes_along_and_is_used_there(
    full: Path, folder: Path, data: Path, trace: Path, tmp_path: Path
) -> None:
    plan = read(full)
    assert [len(plan.of_role(role)) > 0 for role in ("model", "draft", "data", "trace")] == [
        True
    ] * 4
    for path in (folder, tmp_path / "small"):
        shutil.rmtree(path)
    data.unlink()
    trace.unlink()
    place = tmp_path / "there"
    unpack(full, plan, place)
    study, plans, files = for_this_box(plan, "s-0000000000000a", place)
    assert files is not None
    assert files.path == str(place / "model")
    assert study.case.data[0].identity == plan.study.case.data[0].identity
    assert Path(study.case.data[0].path).is_relative_to(place)
    assert Path(study.case.workload.trace).is_relative_to(place)
    assert study.case.target.local
    assert all(each.case == study.case for each in plans)
    assert plans[2].techniques[0].draft == str(place / "draft-0")  # type: ignore[attr-defined]
    written = (place / "model" / "config.json").stat().st_mtime_ns
    unpack(full, plan, place)
    assert (place / "model" / "config.json").stat().st_mtime_ns == written
    (place / "model" / "config.json").write_text("spoilt")
    unpack(full, plan, place)
    assert (place / "model" / "config.json").read_text() != "spoilt"


def test_data_that_is_missing_is_named_and_may_be_given(
    planned: Callable, data: Path, tmp_path: Path
) -> None:
    plan, _ = collect(*planned(data=(str(data),)))
    moved = data.rename(tmp_path / "moved.txt")
    with pytest.raises(BadInput, match=r"needs the data notes\.txt .* --data FILE"):
        for_this_box(plan, "s-0000000000000a", tmp_path / "nothing")
    study, _, _ = for_this_box(plan, "s-0000000000000a", tmp_path / "nothing", data=[moved])
    assert study.case.data[0].path == str(moved)


def test_files_that_changed_since_the_study_are_not_taken_along(
    planned: Callable, folder: Path, data: Path
) -> None:
    made = planned(folder, data=(str(data),))
    data.write_text("Other words, which nobody planned with.\n" * 3000)
    with pytest.raises(BadInput, match=r"notes\.txt has changed"):
        collect(*made)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    with pytest.raises(Exception, match="changed since this study was planned"):
        collect(*made)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plan.json", r"needs files .* plan\.zip, or leave the model out with --no-model"),
        ("plan.tar", r"ends in \.json or \.zip"),
        ("none/plan.zip", "cannot be written"),
    ],
)
def test_a_plan_is_not_written_where_it_does_not_fit(
    name: str, words: str, planned: Callable, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=words):
        write(tmp_path / name, *collect(*planned(folder)))
    assert not list(tmp_path.glob("*plan*"))


@pytest.mark.parametrize("changed", ["gone", "new", "words"])
def test_a_folder_that_is_not_the_one_of_the_plan_is_named(
    changed: str, planned: Callable, folder: Path, tmp_path: Path
) -> None:
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "tokenizer_config.json").unlink()
    plan, _ = collect(*planned(folder), False)
    there = Path(shutil.copytree(folder, tmp_path / "there"))
    shutil.rmtree(folder)
    name = "generation_config.json"
    if changed == "gone":
        (there / name).unlink()
    elif changed == "words":
        (there / name).write_text('{"eos_token_id": 3}')
    else:
        name = "tokenizer_config.json"
        (there / name).write_text("{}")
    with pytest.raises(BadInput, match=f"{name} are not those that the study was planned with"):
        for_this_box(plan, "s-0000000000000a", tmp_path / "files", there)


def test_only_a_model_can_be_left_out(planned: Callable, data: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        write(tmp_path / "plan.json", *collect(*planned(data=(str(data),))))
    assert str(error.value).endswith("give it the name plan.zip")


def test_a_plan_survives_its_document(planned: Callable) -> None:
    plan, sources = collect(*planned())
    assert sources == {}
    assert from_document("p", to_document(plan)) == plan


def spoilt(planned: Callable, **changes: Any) -> bytes:
    plan, _ = collect(*planned())
    return json.dumps(json.loads(to_document(plan)) | changes).encode()


FILE = {"role": "data", "name": "x", "sha256": "0" * 64, "bytes": 3, "place": "", "of": ""}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "other"}, "is no plan of a study"),
        ({"version": 2}, "version 2"),
        ({"study": None}, "its study is none"),
        ({"study": {"type": "Plan"}}, "cannot be used"),
        ({"study": {"type": "Evil"}}, "unknown type"),
        ({"plans": []}, "it has no plans"),
        ({"plans": "all"}, "its plans are no list"),
        ({"plans": [{"technique": "magic"}]}, "magic"),
        ({"plans": [{"type": "Limit", "metric": "ttft_s", "op": "<=", "value": 1.0}]}, "cannot"),
        ({"files": [3]}, "is no object"),
        ({"files": [FILE | {"role": "code"}]}, "no known role"),
        ({"files": [FILE | {"sha256": "abc"}]}, "no SHA-256"),
        ({"files": [FILE | {"bytes": "3"}]}, "damaged"),
        ({"files": [FILE | {"bytes": -3}]}, "where none may"),
        ({"files": [FILE | {"place": "../../etc/passwd"}]}, "where none may"),
        ({"files": [FILE | {"place": "data/../../x"}]}, "where none may"),
        ({"files": [FILE | {"place": "/etc/passwd"}]}, "where none may"),
        ({"files": [FILE | {"place": "data/x"}] * 2}, "one place"),
        ({"files": [FILE | {"place": "data/x"}]}, r"is no \.zip"),
        ({"files": [FILE] * 501}, "at most 500"),
    ],
)
def test_a_document_of_a_stranger_is_one_sentence(
    changes: dict[str, Any], words: str, planned: Callable, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(spoilt(planned, **changes))
    with pytest.raises(BadInput, match=words) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"PK\x03\x04"])
def test_what_is_no_document_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"p\.json"):
        read(path)


def test_a_study_of_another_case_is_refused(planned: Callable, tmp_path: Path) -> None:
    other, _ = collect(*planned("pycode"))
    path = tmp_path / "p.json"
    path.write_bytes(spoilt(planned, plans=json.loads(to_document(other))["plans"]))
    with pytest.raises(BadInput, match="plan number 1 is no plan for the study's case"):
        read(path)


def repacked(full: Path, change: Callable[[zipfile.ZipFile, dict[str, bytes]], None]) -> Path:
    """The archive again, as `change` writes it from its contents."""
    with zipfile.ZipFile(full) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    path = full.with_name("spoilt.zip")
    with zipfile.ZipFile(path, "w") as archive:
        change(archive, contents)
    return path


def _all(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        archive.writestr(name, content)


def _outside(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    _all(archive, contents)
    archive.writestr("../outside.txt", "x")


def _twice(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    _all(archive, contents)
    with pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr(PLAN, contents[PLAN])


def _without_plan(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    _all(archive, {name: content for name, content in contents.items() if name != PLAN})


def _without_model(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    del contents["model/config.json"]
    _all(archive, contents)


def _longer(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    _all(archive, contents | {"model/config.json": contents["model/config.json"] + b" "})


def _link(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    link = zipfile.ZipInfo("model/config.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    content = contents.pop("model/config.json")
    _all(archive, contents)
    archive.writestr(link, content)


def _endless_plan(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
    archive.writestr(PLAN, b" " * (LONGEST + 1), zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_outside, r"holds '../outside\.txt', which its plan does not name"),
        (_twice, "holds a name twice"),
        (_without_plan, r"holds no PLAN\.json"),
        (_without_model, r"lacks model/config\.json"),
        (_longer, "does not have the size"),
        (_link, r"model/config\.json is a link"),
        (_endless_plan, "has more than the 64 MiB"),
    ],
)
def test_an_archive_of_a_stranger_is_one_sentence(
    change: Callable[[zipfile.ZipFile, dict[str, bytes]], None], words: str, full: Path
) -> None:
    with pytest.raises(BadInput, match=words) as error:
        read(repacked(full, change))
    assert "\n" not in str(error.value)


def test_a_file_of_other_content_leaves_nothing(full: Path, tmp_path: Path) -> None:
    def change(archive: zipfile.ZipFile, contents: dict[str, bytes]) -> None:
        config = contents["model/config.json"]
        _all(archive, contents | {"model/config.json": config[:-1] + b" "})

    path = repacked(full, change)
    plan = read(path)
    with pytest.raises(BadInput, match="its SHA-256 is not the plan's"):
        unpack(path, plan, tmp_path / "out" / "files")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_cut_archive_is_named(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.zip"
    content = full.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(BadInput, match=r"cut\.zip"):
        read(path)
    # The directory at the end is whole, what lies before it is not.
    path.write_bytes(content[:2000] + b"\0" * 4000 + content[6000:])
    with pytest.raises(BadInput, match=r"cut\.zip"):
        unpack(path, read(path), tmp_path / "out" / "files")
    assert not list(tmp_path.glob("out/*"))


def test_what_does_not_fit_on_the_disk_is_refused_before(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read(full)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(BadInput, match=r"the disk of .* has 5\.00 B left"):
        unpack(full, plan, tmp_path / "out" / "files")


def test_an_archive_whose_end_is_missing_is_called_so(full: Path) -> None:
    full.write_bytes(full.read_bytes()[:2000])
    with pytest.raises(BadInput, match=r"damaged \.zip, its end is missing: copy it again"):
        read(full)


def test_a_file_of_another_machine_is_named_with_a_way_out(
    planned: Callable, folder: Path, data: Path
) -> None:
    made = planned(folder, data=(str(data),))
    data.unlink()
    with pytest.raises(BadInput, match=r"notes\.txt, which is not on this machine: bundle it"):
        collect(*made)
