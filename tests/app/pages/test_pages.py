"""Every page over an empty store, a filled one, hostile text, and URLs that name what does not
exist."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import planning, services, state, who
from app.main import PAGES
from core.study import Study

MAIN = Path(__file__).parents[3] / "app" / "main.py"
PATHS = tuple("" if page.path == state.HOME else page.path for page in PAGES)
HOSTILE = (
    "![x](http://evil.test/x.png) <script>alert(1)</script> **b** :red[r] $x$ [a](javascript:1)"
)


def show(page: str, /, **words: str) -> AppTest:
    """Run `page` as the URL with these words would."""
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    for name, value in words.items():
        at.query_params[name] = value
    # AppTest switches by file; our pages are functions, which the session knows by the hash of
    # their path.
    at._page_hash = calc_hash(page)
    at.run()
    assert not at.exception
    return at


def texts(at: AppTest) -> str:
    """Everything that is written on the page, Markdown included."""
    found: list[str] = []
    for kind in (
        "title",
        "header",
        "subheader",
        "markdown",
        "caption",
        "warning",
        "error",
        "toast",
        "code",
    ):
        found += [str(one.value) for one in at.get(kind)]
    return "\n".join(found)


def frames(at: AppTest) -> list[Any]:
    """The tables on the page."""
    return [one.value for one in at.dataframe]


def tables_of(at: AppTest) -> list[str]:
    """The HTML of the comparison's tables."""
    return [one.proto.body for one in at.get("html") if 'class="side-by-side"' in one.proto.body]


@pytest.mark.parametrize("page", PATHS)
def test_every_page_says_what_to_do_when_the_store_is_empty(
    page: str, opened: services.Services
) -> None:
    at = show(page)
    assert not at.error
    assert [one for one in at.button if one.proto.type == "primary"], (
        "an empty state needs a primary action"
    )


@pytest.mark.parametrize("page", PATHS)
def test_every_page_draws_a_stored_study(page: str, filled: services.Services) -> None:
    at = show(page, trial="t-0001")
    assert not at.error
    assert len(at.title) == 1


@pytest.mark.parametrize("page", PATHS)
def test_no_page_lets_stored_text_speak_markdown(
    page: str, fill: Callable[[Study], None], synthetic_study: Study
) -> None:
    case = replace(
        synthetic_study.case,
        model=replace(synthetic_study.case.model, id=HOSTILE, title=HOSTILE),
        target=replace(synthetic_study.case.target, id=HOSTILE),
    )
    trials = tuple(
        replace(trial, plan=replace(trial.plan, case=case), reason=HOSTILE, notes=(HOSTILE,))
        for trial in synthetic_study.trials
    )
    fill(replace(synthetic_study, case=case, reason=HOSTILE, trials=trials))
    at = show(page, trial="t-0001", study="s-synthetic")
    assert not at.error
    for kind in (
        "title",
        "header",
        "subheader",
        "markdown",
        "caption",
        "warning",
        "error",
        "success",
        "info",
    ):
        for one in at.get(kind):
            text = str(one.value)
            assert "![x]" not in text
            assert "<script>" not in text
            assert "**b**" not in text
            assert ":red[r]" not in text
            assert not getattr(one, "allow_html", False)


@pytest.mark.parametrize("page", PATHS)
def test_unknown_ids_in_the_url_are_named_and_the_page_stays_up(
    page: str, filled: services.Services
) -> None:
    at = show(
        page,
        study="s-gone",
        trials="t-gone,t-0001",
        trial="t-gone",
        report="r-gone",
        baseline="t-gone",
        x="no_metric",
        y="ttft_s",
        target="moon",
        model="nothing",
        page="999999",
        columns="purple",
        state="eaten",
        weights="latency:x",
        limits="bogus",
        bars="zzz",
        logx="maybe",
        preset="huge",
        workload="w",
    )
    assert not at.exception
    if page in ("live", "compare", "tradeoffs"):
        assert "s\\-gone" in texts(at)
    if page == "compare":
        assert "t\\-gone" in texts(at)


def test_the_first_study_starts_with_one_button_and_opens_live(
    opened: services.Services, monkeypatch: pytest.MonkeyPatch, synthetic_study: Study
) -> None:
    asked: list[tuple[Any, ...]] = []

    def plan_study(*words: Any) -> tuple[Study, tuple[()]]:
        asked.append(words)
        return replace(synthetic_study, trials=()), ()

    monkeypatch.setattr(planning, "plan_study", plan_study)
    at = show("")
    at.button(key="first-study").click().run()
    assert not at.exception
    assert asked[0][:3] == ("pycode", "local", "chat")
    assert opened.jobs.who == who.of_process() != ""  # type: ignore[attr-defined]
    assert at.title[0].value == "Live"
    assert at.query_params["study"] == synthetic_study.id


def test_plan_previews_predictions_with_origin_and_refusals(opened: services.Services) -> None:
    at = show("plan", model="pycode-small")
    assert not at.error
    table = frames(at)[0]
    assert {
        "Plan",
        "Time to first token",
        "Time per output token",
        "Model size",
        "Peak memory",
        "Origin",
    } <= set(table.columns)
    assert table["Plan"][0] == "baseline"
    assert set(table["Origin"]) <= {"estimated", "projected", "unavailable"}


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"arrival": "abc"}, "abc"),
        ({"place": "sensor", "target": "stm32f746"}, "of flash of"),
        ({"source": "path", "path": "/nonexistent/dir"}, "there is no such folder"),
        ({"source": "path"}, "Choose a model first"),
    ],
)
def test_a_refused_choice_keeps_the_start_bar_with_its_reason(
    opened: services.Services, choice: dict[str, str], said: str
) -> None:
    at = show("plan", **({"model": "pycode-small"} | choice))
    start = at.button(key="start")
    assert start.disabled
    (bar,) = [one.value for one in at.markdown if one.value.startswith(":material/block:")]
    assert said in bar
    assert "--" not in bar
    # The field says it too, in its own card; nothing typed yet is no error.
    assert [one.value for one in at.error] == [bar.removeprefix(":material/block: ")] * (
        said != "Choose a model first"
    )


def test_plan_keeps_limits_and_weights_in_the_url(opened: services.Services) -> None:
    at = show("plan", model="pycode-small", limits="kl_nats<=0.05", weights="latency:3")
    assert at.slider(key="choice-weights-latency").value == 3.0
    at.slider(key="choice-weights-size").set_value(2.5).run()
    assert at.query_params["weights"] == "latency:3,size:2.5"
    at.number_input(key="limit-value").set_value(0.1)
    at.button(key="limit-add").click().run()
    assert not at.error
    assert at.query_params["limits"] == "kl_nats<=0.05,kl_nats<=0.1"


def test_plan_says_in_a_sentence_what_is_wrong_with_a_folder(
    opened: services.Services, tmp_path: Path
) -> None:
    at = show("plan", source="path", path=str(tmp_path / "nothing"))
    assert len(at.error) == 1
    assert "no such folder" in at.error[0].value


def test_a_limit_that_cannot_hold_is_an_error_sentence(opened: services.Services) -> None:
    at = show("plan", model="pycode-small")
    at.number_input(key="limit-value").set_value(-1.0)
    at.button(key="limit-add").click().run()
    assert "can never hold" in at.error[0].value
    assert not at.exception


def test_live_shows_progress_and_steers_from_outside_the_fragment(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    trials = tuple(
        replace(
            trial,
            state="running" if index == 2 else "queued",
            measurements=(),
            kernels=(),
            reason="",
        )
        if index > 1
        else trial
        for index, trial in enumerate(synthetic_study.trials)
    )
    fill(replace(synthetic_study, state="running", trials=trials))
    at = show("live")
    assert [one.value for one in at.metric] == ["2 of 11", "0", "about 42 s", "timing"]
    assert frames(at)[0]["Progress"].tolist()[:4] == [100, 100, 40, 0]
    at.button(key="pause").click().run()
    at.button(key="cancel").click().run()
    at.button(key="cancel-yes").click().run()
    assert opened.jobs.asked == [("pause", "s-synthetic"), ("cancel", "s-synthetic")]  # type: ignore[attr-defined]


def test_a_cancelled_study_can_be_resumed(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    fill(replace(synthetic_study, state="cancelled"))
    at = show("live")
    at.button(key="resume").click().run()
    assert opened.jobs.asked == [("resume", "s-synthetic")]  # type: ignore[attr-defined]


def test_a_study_of_another_machine_says_why_it_does_not_go_on_here(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    fill(replace(synthetic_study, state="paused"))
    opened.jobs.elsewhere = "it was begun on NVIDIA H200"  # type: ignore[attr-defined]
    at = show("live")
    assert "resume" not in {each.key for each in at.button}
    told = " ".join(each.value for each in at.caption).replace("\\", "")
    assert "does not go on here: it was begun on NVIDIA H200" in told


def test_a_resumed_study_is_watched_before_the_store_says_that_it_runs(
    fill: Callable[[Study], None], opened: services.Services, synthetic_study: Study
) -> None:
    fill(replace(synthetic_study, state="paused"))
    opened.jobs.studies = (synthetic_study.id,)  # type: ignore[attr-defined]
    at = show("live")
    keys = {one.key for one in at.button}
    assert "pause" in keys
    assert "resume" not in keys


def test_trials_are_filtered_by_the_url_and_by_the_widgets(filled: services.Services) -> None:
    at = show("trials", state="failed,refused")
    assert len(frames(at)[0]) == 2
    at = show("trials", **{"with": "weight-int8"})
    assert all("weight-int8" in plan for plan in frames(at)[0]["Plan"])
    at.text_input(key="choice-text").set_value("batch").run()
    assert at.query_params["text"] == "batch"
    assert all("batch" in plan for plan in frames(at)[0]["Plan"])
    at.text_input(key="choice-text").set_value("no such text").run()
    assert not at.dataframe
    at.button(key="clear").click().run()
    assert len(frames(at)[0]) == 11


def test_ticked_trials_stay_ticked_and_go_on_to_compare(filled: services.Services) -> None:
    at = show("trials")
    plans = list(frames(at)[0]["Plan"])
    rows = [plans.index("baseline"), plans.index("weight-int8")]
    key = next(one.key for one in at.dataframe if one.key)
    at.session_state[key] = {"selection": {"rows": rows, "columns": [], "cells": []}}
    at.run()
    assert at.query_params["trials"] == "t-0000,t-0001"
    at.button(key="to-compare").click().run()
    assert at.title[0].value == "Compare"
    assert at.multiselect(key="choice-trials").value == ["t-0000", "t-0001"]
    at._page_hash = calc_hash("trials")
    at.query_params.clear()
    at.run()
    assert "**2** selected" in texts(at)
    at.button(key="unselect").click().run()
    assert "trials" not in at.query_params


def test_compare_hides_equal_rows_until_asked_and_names_the_verdict(
    filled: services.Services,
) -> None:
    at = show("compare", study="s-synthetic", trials="t-0000,t-0001,t-0002")
    results, configuration, _diagnostics = tables_of(at)
    assert "▲ better" in results
    assert "▲ better" not in configuration
    assert "Techniques" in configuration
    assert "Seed" not in configuration
    # On hover at first, in the table when asked.
    assert "n 20 · measured</small>" not in results
    at.toggle(key="choice-details").set_value(True).run()
    assert "n 20 · measured</small>" in tables_of(at)[0]
    assert at.query_params["details"] == "1"
    at.toggle(key="choice-differing").set_value(False).run()
    assert "Seed" in tables_of(at)[1]
    assert at.query_params["differing"] == "0"
    at.text_input(key="choice-search").set_value("size").run()
    assert "Model size" in tables_of(at)[0]
    assert "Perplexity" not in tables_of(at)[0]


def test_compare_judges_against_the_chosen_baseline(filled: services.Services) -> None:
    at = show("compare", study="s-synthetic", trials="t-0000,t-0001", baseline="t-0001")
    assert "▼ worse" in tables_of(at)[0]


def test_tradeoffs_recommends_with_reasons_and_has_a_table_twin(filled: services.Services) -> None:
    at = show("tradeoffs")
    said = texts(at)
    assert "Recommended" in said
    assert len(frames(at)[0]) == 9
    assert "recommended" in set(frames(at)[0]["Role"])
    figure = at.get("plotly_chart")[0].proto
    assert figure.alt
    assert "t-0001" in figure.spec
    at.selectbox(key="choice-x").set_value("model_bytes").run()
    assert at.query_params["x"] == "model_bytes"
    assert "beaten on these axes" in set(frames(at)[0]["Role"])
    at.toggle(key="choice-dominated").set_value(False).run()
    assert "beaten on these axes" not in set(frames(at)[0]["Role"])


def test_a_report_is_saved_listed_and_previewed(filled: services.Services) -> None:
    at = show("reports", study="s-synthetic", trials="t-0000,t-0001", baseline="t-0000")
    at.text_input(key="report-title").set_value("Which bits?")
    at.text_area(key="report-note").set_value("For the laptop.")
    at.button(key="save-report").click().run()
    assert not at.exception
    assert not at.error
    saved = filled.store.reports()
    assert [(one.title, one.note, one.trial_ids) for one in saved] == [
        ("Which bits?", "For the laptop.", ("t-0000", "t-0001"))
    ]
    assert at.query_params["report"] == saved[0].id
    assert len(at.get("download_button")) == 4


def test_a_report_without_a_title_is_refused_in_a_sentence(filled: services.Services) -> None:
    at = show("reports", study="s-synthetic", trials="t-0000,t-0001")
    at.button(key="save-report").click().run()
    assert "title" in at.error[0].value
    assert filled.store.reports() == ()


def test_a_surprise_becomes_a_sentence_and_the_frame_stays(
    filled: services.Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(limit: int = 100) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(filled.store, "studies", broken)
    at = show("compare")
    assert "could not be drawn" in at.error[0].value
    assert "secret detail" not in texts(at)


def test_main_stays_short() -> None:
    """The table of pages grows with them; what stands around it is the frame and nothing else."""
    text = MAIN.read_text(encoding="utf-8")
    table = text[text.index("# fmt: off") : text.index("# fmt: on")]
    assert len(text.splitlines()) - len(table.splitlines()) < 90


def test_every_file_of_a_page_has_its_row_in_the_table() -> None:
    files = {path.stem for path in (MAIN.parent / "views").glob("*.py")} - {"__init__"}
    assert {page.draw.__module__.rpartition(".")[2] for page in PAGES} == files
    assert len({page.path for page in PAGES}) == len(PAGES) == len(files)


def test_drawing_every_page_imports_no_torch() -> None:
    script = (
        "import sys; from app import server\n"
        "from app import main\n"
        "print(sorted({'torch', 'triton', 'transformers'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=MAIN.parents[1],
    )
    assert run.stdout.strip() == "[]"


def test_only_state_names_session_and_query_keys() -> None:
    for path in sorted((MAIN.parent / "views").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert "session_state" not in text, path.name
        assert "query_params[" not in text, path.name
        assert "unsafe_allow_html" not in text, path.name
        # The one that writes HTML escapes it all: tests/app/pages/test_side_by_side.py.
        assert "st.html(" not in text or path.name == "side_by_side.py", path.name
