"""Every figure is listed, says what it shows, and takes its options through the runner."""

from __future__ import annotations

import importlib

import pytest

from tests.evidence import FIGURES, ROOT
from tests.evidence.__main__ import main, parse, question

HERE = ROOT / "tests" / "evidence"
# Their first lines import what is not installed everywhere, or CUDA code.
ABSENT_ELSEWHERE = ("gpu", "gptq-peer", "llama-cpp")


def test_every_module_that_prints_a_figure_is_listed() -> None:
    modules = {
        ".".join(path.relative_to(HERE).with_suffix("").parts)
        for path in HERE.glob("*/*.py")
        if "\ndef main(" in path.read_text(encoding="utf-8") and "_worker" not in path.stem
    }
    assert modules == set(FIGURES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_each_figure_says_what_it_shows_and_how_it_is_run(name: str) -> None:
    path = HERE / (FIGURES[name].replace(".", "/") + ".py")
    assert len(question(name)) > 20
    assert f"python -m tests.evidence {name}" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ABSENT_ELSEWHERE])
def test_each_figure_can_be_imported_and_gives_its_defaults(name: str) -> None:
    module = importlib.import_module(f"tests.evidence.{FIGURES[name]}")
    options = vars(parse(name, module, []))
    assert bool(options) == hasattr(module, "arguments")


def test_the_table_of_the_readme_has_every_figure_and_valid_commands() -> None:
    table = (HERE / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in table.splitlines() if "| `python -m " in line]
    commands = [row[1].strip("`").split()[3:] for row in rows]
    assert all(len(row) == 3 for row in rows)
    assert {name for name, *_ in commands} == set(FIGURES)
    for name, *words in commands:
        if name not in ABSENT_ELSEWHERE:
            parse(name, importlib.import_module(f"tests.evidence.{FIGURES[name]}"), words)


def test_the_list_and_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.count("\n") == len(FIGURES)
    assert main(["nonsense"]) == 2
    assert capsys.readouterr().err.startswith("there is no figure 'nonsense'; known are aa, ")


def test_a_figure_runs_and_returns_its_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paired-coverage", "--count", "200"]) in (0, 1)
    printed = capsys.readouterr()
    assert "200 simulated studies" in printed.out
    assert "cores" in printed.err
