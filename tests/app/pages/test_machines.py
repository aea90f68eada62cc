"""Pages say which machine trials ran on, and open the reference study with one click."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import services
from app.ingest import ingest
from app.parts import reference_study
from app.reference import package
from app.reference.making import make
from core.ids import now
from core.study import Study
from core.verdict.anchor import anchored
from core.verdict.recommend import recommend
from tests.app.pages.test_pages import frames, show, tables_of, texts
from tests.app.reference.conftest import H200, LINE, on_gpu, pack, write

TODAY = now()[:10]
MACHINE = f"NVIDIA H200, driver 580.95.05, torch 2.11.0+cu130, {TODAY}"
Opened = services.Services


@pytest.fixture
def results(tmp_path: Path, synthetic_study: Study) -> Path:
    """The journals that a machine with an H200 wrote."""
    write(on_gpu(synthetic_study), tmp_path / "results", H200)
    return tmp_path / "results"


@pytest.fixture
def ingested(opened: Opened, results: Path) -> Opened:
    """A store with that study."""
    assert ingest(opened.store, opened.folder, results).notices == ()
    return opened


def here(study: Study) -> Study:
    """The study once more, of this machine."""
    trials = tuple(
        replace(
            trial,
            id=f"{trial.id}-here",
            study_id="s-here",
            measurements=tuple(replace(row, environment="env-here") for row in trial.measurements),
        )
        for trial in study.trials
    )
    return replace(study, id="s-here", trials=trials)


def said(at: AppTest) -> str:
    return texts(at).replace("\\", "")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("trial", {"trial": "t-0001"}),
        ("compare", {"study": "s-gpu"}),
        ("tradeoffs", {"study": "s-gpu"}),
        ("live", {"study": "s-gpu"}),
    ],
)
def test_the_head_names_another_machine(ingested: Opened, page: str, words: dict[str, str]) -> None:
    text = said(show(page, **words))
    assert f"Measured on **{MACHINE}** :blue-badge[:material/lan: another machine]" in text
    assert "this machine" not in text.lower().replace("on this machine, chat, quick preset", "")


def test_the_head_says_this_machine_of_a_study_from_here(filled: Opened) -> None:
    text = said(show("tradeoffs", study="s-synthetic"))
    assert f"Measured on this machine: Test CPU, 2 cores, {TODAY}" in text
    assert "another machine" not in text


def test_home_and_pickers_name_the_machine_in_the_place_of_local(ingested: Opened) -> None:
    assert "**pycode** on NVIDIA H200, chat" in said(show(""))
    picker = show("compare").selectbox[0]
    assert picker.options[0].startswith("pycode on NVIDIA H200, chat")


def test_tables_have_a_column_of_machines_where_it_tells_something(
    ingested: Opened, fill: Callable[[Study], None], synthetic_study: Study
) -> None:
    wide, phone, *_ = frames(show("trials"))
    assert set(wide["Machine"]) == {"NVIDIA H200"}
    assert all(plan.endswith(" · NVIDIA H200") for plan in phone["Plan"])
    assert set(frames(show("tradeoffs", study="s-gpu"))[0]["Machine"]) == {"NVIDIA H200"}
    fill(here(synthetic_study))
    wide, phone, *_ = frames(show("trials"))
    assert {"NVIDIA H200", "this machine"} <= set(wide["Machine"])
    assert "Machine" not in frames(show("tradeoffs", study="s-here"))[0]


def test_a_comparison_across_machines_names_each_and_warns_once(
    ingested: Opened, fill: Callable[[Study], None], synthetic_study: Study
) -> None:
    fill(here(synthetic_study))
    at = show("compare", study="s-gpu", trials="t-0001,t-0000-here", baseline="t-0000-here")
    (warning,) = [one.value.replace("\\", "") for one in at.warning]
    assert warning.count("unlike environments") == 1
    assert "on 2 machines" in warning
    assert "NVIDIA H200, env-7f3a: weight-int8" in warning
    heads = tables_of(at)[0].split("</thead>")[0]
    assert "<small>NVIDIA H200</small>" in heads
    assert "<small>Test CPU, 2 cores</small>" in heads
    (chart,) = at.get("plotly_chart")
    assert "NVIDIA H200" in chart.proto.spec


def test_home_says_that_no_reference_ships_and_how_to_make_one(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(reference_study, "reference", lambda: package.reference(tmp_path))
    text = said(show(""))
    assert "No study measured on a GPU ships with this version" in text
    assert "tests/evidence/gpu/run.sh" in text
    assert "trimtab ingest results" in text


@pytest.fixture
def shipped(results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the synthetic study, as if it shipped."""
    folder = tmp_path / "data"
    make([results], folder)
    monkeypatch.setattr(reference_study, "reference", lambda: package.reference(folder))
    return folder


def test_one_click_opens_the_reference_study_and_a_second_doubles_nothing(
    opened: Opened, shipped: Path
) -> None:
    for _ in range(2):
        at = show("")
        assert f"Measured on an **{LINE}**" in said(at)
        at.button(key="reference-s-gpu").click().run()
        assert not at.exception
        assert not at.error
        assert at.title[0].value == "Trade-offs"
        assert f"Measured on **{MACHINE}**" in said(at)
        assert [study.id for study in opened.store.studies()] == ["s-gpu"]


@pytest.mark.parametrize("damage", ["manifest", "digest", "missing"])
def test_a_damaged_package_is_a_sentence_and_home_stays_up(
    opened: Opened, shipped: Path, damage: str
) -> None:
    archive = shipped / "journals.tar.gz"
    if damage == "manifest":
        (shipped / package.MANIFEST).write_text("{}")
    elif damage == "digest":
        archive.write_bytes(archive.read_bytes() + b"x")
    else:
        archive.unlink()
    at = show("")
    if damage != "manifest":
        at.button(key="reference-s-gpu").click().run()
    (error,) = at.error
    assert {"manifest": "manifest", "digest": "SHA", "missing": "missing"}[damage] in error.value
    assert at.title[0].value.startswith("Make a model")
    assert opened.store.studies() == ()


def test_trials_has_the_commands_for_the_study_at_hand(opened: Opened, results: Path) -> None:
    text = said(show("trials"))
    assert "trimtab bundle --model pycode --workload chat -o study.zip" in text
    ingest(opened.store, opened.folder, results)
    text = said(show("trials"))
    for command in (
        "trimtab bundle s-gpu -o study.zip",
        "python -m core.measure.study study.zip results",
        "trimtab ingest results",
    ):
        assert command in text


def test_uploaded_journals_are_taken_in_and_shown(
    opened: Opened, results: Path, tmp_path: Path
) -> None:
    content = pack(results, tmp_path / "journals.tar.gz").read_bytes()
    for _ in range(2):
        at = show("trials")
        at.file_uploader[0].upload("journals.tar.gz", content).run()
        assert not at.exception
        assert not at.error
        assert at.title[0].value == "Trade-offs"
        assert f"1 study taken in from {MACHINE}" in said(at)
        assert [study.id for study in opened.store.studies()] == ["s-gpu"]


def test_an_upload_that_is_no_archive_is_a_sentence(opened: Opened) -> None:
    at = show("trials")
    at.file_uploader[0].upload("journals.zip", b"dear diary").run()
    (error,) = at.error
    assert "journals\\.zip" in error.value
    assert opened.store.studies() == ()


def test_leading_trials_of_another_machine_are_measured_again_there(
    opened: Opened, tmp_path: Path, synthetic_study: Study
) -> None:
    close = synthetic_study.with_trials(synthetic_study.trials[:2])
    write(on_gpu(close), tmp_path / "close", H200)
    ingest(opened.store, opened.folder, tmp_path / "close")
    at = show("tradeoffs", study="s-gpu")
    again = "do so on NVIDIA H200: `trimtab bundle s-gpu -o study.zip`" in said(at)
    study = opened.store.study("s-gpu")
    assert study is not None
    assert again == bool(recommend(anchored(study)).again)
    assert "measure-again" not in {button.key for button in at.button}
