"""A small count of the damaged stores of python -m tests.evidence damage."""

from __future__ import annotations

from pathlib import Path

from tests.evidence.store import damage


def test_every_kind_of_damage_is_answered_rightly_or_named(tmp_path: Path) -> None:
    tally = damage.damage_often(tmp_path, len(damage.DAMAGES), seed=3)
    assert tally.faults == []
    assert set(tally.cases) == set(damage.DAMAGES)


def test_an_answer_that_was_never_measured_and_a_silent_loss_are_found(tmp_path: Path) -> None:
    truth, _ = damage.prepare(tmp_path)
    gone = {name: one for name, one in truth.items() if name != "s-2"}
    assert damage.judge(truth, gone, ()) == "a silent loss of s-2"
    assert damage.judge(truth, gone, ("study s-2 is missing; what was said there is lost",)) == (
        "named"
    )
    other = truth | {"s-2": truth["s-1"]}
    assert damage.judge(truth, other, ("study s-2 has no end; it runs again",)) == (
        "wrong answers of s-2"
    )
    assert damage.judge(truth, truth, ()) == "right"
