"""Tables of plans at two widths: what is ticked in one form is ticked in the other."""

from __future__ import annotations

from typing import Any

from streamlit.testing.v1 import AppTest

from core import metrics


def drawn() -> None:
    """A page with one table that can be ticked."""
    import streamlit as st

    from app.parts import tables

    names = ("tpot_s", "model_bytes", "accuracy")
    values = {"tpot_s": 0.0123456, "model_bytes": 2e6, "accuracy": 0.9911}
    rows = [{"Plan": f"gptq(bits={n})", **tables.numbers(names, values.get)} for n in range(3)]
    help_ = tables.help_of(names, lambda one: one)
    ticked = tables.draw("t", rows, rows, "Plans", help_, ticked=[0])
    st.markdown(f"ticked {ticked}")


def keys(at: AppTest) -> dict[str, str]:
    """The table's forms and their keys."""
    return {form: one.key for one in at.dataframe for form in ("wide", "phone") if form in one.key}


def tick(at: AppTest, form: str, *rows: int) -> None:
    """Tick rows as the browser does: the new value, then the callback."""
    at.session_state[keys(at)[form]] = {"selection": {"rows": list(rows), "columns": []}}
    from app import state  # the callback writes through it

    other = "phone" if form == "wide" else "wide"
    at.session_state["form-t"] = form
    generation = f"{state._GENERATION}t-{other}"
    known = generation in at.session_state
    before = at.session_state[generation] if known else 0
    at.session_state[generation] = before + 1
    at.run()


def said(at: AppTest) -> Any:
    return at.markdown[0].value


def test_both_forms_hold_the_plan_and_short_numbers_with_units() -> None:
    at = AppTest.from_function(drawn).run()
    assert not at.exception
    wide, phone = (one.value for one in at.dataframe)
    assert list(phone.columns) == ["Plan", "TPOT, ms", "Size, MB", "Acc., %"]
    assert phone.iloc[0].tolist() == ["gptq (bits=0)", 12.35, 2.0, 99.11]
    assert wide["Plan"][2] == "gptq(bits=2)"
    assert said(at) == "ticked [0]"


def test_ticks_go_with_the_user_from_form_to_form() -> None:
    at = AppTest.from_function(drawn).run()
    tick(at, "wide", 0, 2)
    assert said(at) == "ticked [0, 2]"
    tick(at, "phone", 2)
    assert said(at) == "ticked [2]"
    tick(at, "wide", 1, 2)
    assert said(at) == "ticked [1, 2]"
    assert not at.exception


def test_every_metric_explains_its_column() -> None:
    from app.parts import tables, words

    found = tables.help_of([one.name for one in metrics.METRICS], words.short_column)
    assert len(found) == len(metrics.METRICS)
    for one in metrics.METRICS:
        assert one.meaning in found[words.short_column(one.name)]["help"]
