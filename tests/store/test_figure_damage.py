"""A small count of the damaged stores of figure_damage.py."""

from __future__ import annotations


def test_every_kind_of_damage_is_answered_rightly_or_named(script, tmp_path):
    figure = script("figure_damage")
    tally = figure.damage_often(tmp_path, len(figure.DAMAGES), seed=3)
    assert tally.faults == []
    assert set(tally.cases) == set(figure.DAMAGES)


def test_an_answer_that_was_never_measured_and_a_silent_loss_are_found(script, make, tmp_path):
    figure = script("figure_damage")
    truth, _ = figure.prepare(tmp_path)
    gone = {name: one for name, one in truth.items() if name != "s-2"}
    assert figure.judge(truth, gone, ()) == "a silent loss of s-2"
    assert figure.judge(truth, gone, ("study s-2 is missing; what was said there is lost",)) == (
        "named"
    )
    other = truth | {"s-2": truth["s-1"]}
    assert figure.judge(truth, other, ("study s-2 has no end; it runs again",)) == (
        "wrong answers of s-2"
    )
    assert figure.judge(truth, truth, ()) == "right"
