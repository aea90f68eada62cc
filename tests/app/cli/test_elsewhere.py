"""`trimtab bundle`: the plan of a stored study, or of the options of `trimtab run`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.cli import main as cli
from core.catalogue.models import resolve
from core.journal.events import StudyStateChanged, study_created, trial_queued
from core.measure.study.archive import read
from core.plan import Case, Plan
from core.priorities import Priorities
from core.study import Study, Trial
from core.techniques.quantize.weight_int import WeightInt8
from store import open_store
from tests.conftest import TARGET, WORKLOAD


def test_the_options_of_run_become_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    words = ("--model", "shape:llama-3.1-8b", "--target", "h200-sxm", "--technique", "nf4")
    assert cli.main(["bundle", *words, "--as", "Ada", "--preset", "standard", "-o", str(path)]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "python -m core.measure.study p.json OUT" in captured.err
    plan = read(path)
    assert plan.study.who == "Ada"
    assert plan.study.preset == "standard"
    assert [each.title for each in plan.plans] == ["baseline", "nf4(group_size=64)"]


def test_a_stored_study_becomes_a_plan_with_the_plans_of_its_trials(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, path = tmp_path / "store.duckdb", tmp_path / "p.json"
    case = Case(resolve("pycode-small"), TARGET, WORKLOAD)
    study = Study("s-0000000000000a", case, Priorities(), who="Ada")
    plans = (Plan(case), Plan(case, (WeightInt8(),)))
    opened = open_store(str(store))
    opened.ingest(
        [
            study_created(study),
            *(trial_queued(Trial(f"t-{n}", study.id, plan)) for n, plan in enumerate(plans)),
            StudyStateChanged("done").event(study.id),
        ]
    )
    opened.close()
    assert cli.main(["bundle", study.id, "-o", str(path), "--store", str(store)]) == 0
    plan = read(path)
    assert plan.plans == plans
    assert (plan.study.id, plan.study.case, plan.study.who) == (study.id, case, "Ada")
    assert json.loads(path.read_text())["schema"] == "trimtab study plan"
    capsys.readouterr()
    assert cli.main(["bundle", "s-none", "-o", str(path), "--store", str(store)]) == 2
    assert "there is no study 's-none'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("s-1", "--model", "pycode"), "not both"),
        (("s-1", "--preset", "deep"), "--preset: bundle takes"),
        ((), "needs a stored study"),
        (("--model", "pycod"), "pycode"),
    ],
)
def test_bad_words_are_one_sentence(
    words: tuple[str, ...], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.json"
    assert cli.main(["bundle", *words, "-o", str(path), "--store", "memory:"]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert named in captured.err
    assert not path.exists()
