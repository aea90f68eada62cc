"""What the READMEs say is so: commands, techniques, folders, files and links."""

from __future__ import annotations

import fnmatch
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli import run as cli_run
from app.cli.main import main, parser
from core.techniques import BY_NAME
from tests.evidence import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
PACKAGES = ("app", "core", "kernels", "store")
PAGES = ("README.md", *(f"{name}/README.md" for name in PACKAGES), "tests/evidence/README.md")
# What takes seconds in place of what takes a minute.
CHEAPER = {"pycode": "pycode-small", "gptq:bits=4": "rtn:bits=4"}
# A manner of speaking that a stranger stumbles over.
ODD = ("the house", "the way of", "on wish", "the least in brackets", "stranger")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def indented(text: str) -> Iterator[str]:
    """The lines of code, without the comment behind them."""
    for line in text.splitlines():
        if line.startswith("    "):
            yield line.strip()


def commands() -> list[list[str]]:
    """The words of every `trimtab ...` line of the READMEs, and between backticks with options."""
    found = []
    for page in PAGES:
        lines = [*indented(text_of(page)), *re.findall(r"`(trimtab [^`]* -[^`]+)`", text_of(page))]
        found += [shlex.split(line)[1:] for line in lines if line.startswith("trimtab ")]
    return found


def test_it_is_short_enough_to_be_read() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_trimtab_knows(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if words[-1] == "--help":
        with pytest.raises(SystemExit):
            parser().parse_args(words)
        assert "usage: trimtab" in capsys.readouterr().out
    else:
        parser().parse_args(words)


@pytest.mark.parametrize("words", [w for w in commands() if "--model" in w], ids=" ".join)
def test_what_it_runs_can_be_planned(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("A line of notes about what a model is for.\n" * 3000)
    task = '{"question": "1 + %d?", "choices": ["2", "3"], "answer": 0}\n'
    Path("quiz.jsonl").write_text("".join(task % number for number in range(20)))
    parsed = parser().parse_args(words)
    if parsed.command == "run":
        parsed.who = "a reader"
        cli_run.plan(parsed)
        assert len(parsed.planned) > 1


def test_a_model_is_written_and_a_store_copied_as_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIMTAB_STORE", str(tmp_path / "mine.duckdb"))
    listed = [words for words in commands() if words[0] in ("apply", "backup", "restore")]
    for words in listed[:3]:
        assert main([CHEAPER.get(word, word) for word in words]) == 0, capsys.readouterr().err
    assert {words[0] for words in listed[:3]} == {"apply", "backup", "restore"}
    assert (tmp_path / "pycode-4bit" / "config.json").exists()
    assert (tmp_path / "new.duckdb").exists()


def test_its_rows_of_techniques_are_the_registry_in_the_order_of_kinds() -> None:
    table = README.split("## Techniques")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ((?:`[a-z0-9-]+`(?:, )?)+) \|", table, flags=re.MULTILINE)
    found = [(kind, name) for kind, names in rows for name in re.findall(r"`([^`]+)`", names)]
    assert sorted(found) == sorted((BY_NAME[name].kind, name) for _, name in found)
    assert {name for _, name in found} == set(BY_NAME)
    assert len(found) == len(BY_NAME)
    order = list(dict.fromkeys(kind for kind, _ in found))
    assert [kind for kind, _ in found] == sorted((kind for kind, _ in found), key=order.index)


def test_its_tree_has_every_folder_and_names_none_that_is_not_there() -> None:
    tree = re.findall(r"^    ([\w.]+)/ {2,}", README, flags=re.MULTILINE)
    ignored = [line.strip("/") for line in text_of(".gitignore").split()]
    folders = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and not any(fnmatch.fnmatch(path.name, one) for one in (*ignored, ".git"))
    }
    assert set(tree) == folders


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_that_are_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", text_of(page))
    missing = [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


@pytest.mark.parametrize("package", PACKAGES)
def test_files_in_the_tables_of_a_package_are_there(package: str) -> None:
    first = re.findall(r"^\| (`[^|]+`) \|", text_of(f"{package}/README.md"), flags=re.MULTILINE)
    names = [name for cell in first for name in re.findall(r"`([\w./*-]+(?:/|\.\w+))`", cell)]
    assert names
    assert [name for name in names if not list((ROOT / package).glob(name.rstrip("/")))] == []


def test_every_room_of_core_is_in_its_table() -> None:
    rooms = {path.parent.name for path in (ROOT / "core").glob("*/__init__.py")}
    table = text_of("core/README.md").split("## Rooms")[1].split("\n## ")[0]
    assert rooms == set(re.findall(r"`([a-z]+)/`", table)) - {"load", "serve", "solve", "zoo"}


def test_the_way_from_the_command_to_the_kernel_takes_twelve_files() -> None:
    """Each function that an entry names stands in the file that it links or names beside it."""
    way = text_of("core/README.md").split("## From the command")[1].split("\n## ")[0]
    entries = re.split(r"^\d+\. ", way, flags=re.MULTILINE)[1:]
    assert 8 <= len(entries) <= 12
    earlier = ""
    for entry in entries:
        link = (ROOT / "core" / re.findall(r"\]\(([^)]+)\)", entry)[0]).resolve()
        beside = [link.parent / name for name in re.findall(r"\b(\w+\.py)\b", entry)]
        named = [ROOT / path for path in re.findall(r"\bcore/[\w/]+\.py", entry)]
        files = [path for path in (link, *beside, *named) if path.is_file()]
        source = earlier + "".join(path.read_text(encoding="utf-8") for path in files)
        for name in re.findall(r"`([A-Za-z_]+)`", entry):
            assert re.search(rf"\b{name}\b", source), f"{name} is not in {entry.splitlines()[0]}"
        earlier = source


@pytest.mark.parametrize("page", PAGES)
def test_it_is_plain_english(page: str) -> None:
    assert [words for words in ODD if words in text_of(page).lower()] == []
