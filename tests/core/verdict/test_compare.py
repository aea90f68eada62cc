"""Side by side: cells stand in their columns, differences are flagged, unlike things are said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import BadInput
from core.study import Study
from core.verdict.compare import compare


def test_every_row_has_a_cell_per_column_in_order(synthetic_study: Study) -> None:
    trials = synthetic_study.trials
    assert synthetic_study.baseline is not None
    found = compare(trials, synthetic_study.baseline.id)
    assert [column.trial_id for column in found.columns] == [trial.id for trial in trials]
    for row in found.rows:
        assert [cell.trial_id for cell in row.cells] == [trial.id for trial in trials]
        for trial, cell in zip(trials, row.cells, strict=True):
            if row.kind == "metric":
                assert cell.value == trial.value(row.key)


def test_deltas_and_percent_follow_the_baseline(synthetic_study: Study) -> None:
    base, other = synthetic_study.done()[:2]
    row = compare((base, other), base.id).row("tpot_s")
    assert row is not None
    before, after = base.value("tpot_s"), other.value("tpot_s")
    assert before is not None
    assert after is not None
    assert row.cells[0].verdict == "baseline"
    assert row.cells[1].delta == pytest.approx(after - before)
    assert row.cells[1].change == pytest.approx(after / before - 1)
    swapped = compare((base, other), other.id).row("tpot_s")
    assert swapped is not None
    assert {row.cells[1].verdict, swapped.cells[0].verdict} == {"better", "worse"}


def test_a_trial_against_its_copy_differs_in_nothing_measured(synthetic_study: Study) -> None:
    base = synthetic_study.done()[0]
    found = compare((base, replace(base, id="t-copy")), base.id)
    assert [row.key for row in found.rows if row.differs] == []
    verdicts = {row.cells[1].verdict for row in found.metrics()}
    assert verdicts <= {"within noise", "same", "too few runs", "not comparable", "baseline"}


def test_unlike_environments_and_failed_trials_are_warned_about(synthetic_study: Study) -> None:
    base, other = synthetic_study.done()[:2]
    moved = replace(
        other, measurements=tuple(replace(one, environment="env-b") for one in other.measurements)
    )
    name = base.measurements[0].environment
    facts = {name: {"cpu": "A", "load": 1}, "env-b": {"cpu": "B", "load": 9}}
    warnings = " ".join(compare((base, moved), base.id, facts).warnings)
    assert "env-b" in warnings or "cpu" in warnings
    same = {name: {"cpu": "A", "load": 1}}
    assert compare((base, other), base.id, same).warnings == ()
    failed = next(trial for trial in synthetic_study.trials if trial.state == "failed")
    said = " ".join(compare((base, failed), base.id).warnings)
    assert f"{failed.plan.title} is failed" in said
    assert failed.id not in said


def test_bad_selections_are_sentences(synthetic_study: Study) -> None:
    base, other = synthetic_study.done()[:2]
    with pytest.raises(BadInput, match="nothing to compare"):
        compare((), base.id)
    with pytest.raises(BadInput, match="named twice"):
        compare((base, base), base.id)
    with pytest.raises(BadInput, match="t-none"):
        compare((base, other), "t-none")
