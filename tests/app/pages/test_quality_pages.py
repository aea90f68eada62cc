"""Margins and the user's data on the Plan and Trial pages, and on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import services
from app.cli import main as cli
from app.cli.console import here
from app.cli.run import print_study
from core.margin import Margin
from core.measurement import Measurement
from core.study import Study

MAIN = Path(__file__).parents[3] / "app" / "main.py"
QUIZ = "\n".join(
    json.dumps({"prompt": f"{n} + 1 =", "choices": [str(n + 1), "none"], "answer": 0})
    for n in range(10)
).encode()


def show(page: str, /, **words: str) -> AppTest:
    at = AppTest.from_file(str(MAIN), default_timeout=30)
    for name, value in words.items():
        at.query_params[name] = value
    at._page_hash = calc_hash(page)
    at.run()
    assert not at.exception
    return at


def texts(at: AppTest) -> str:
    return "\n".join(
        str(one.value) for kind in ("markdown", "caption", "error") for one in at.get(kind)
    )


def test_a_margin_is_added_replaced_and_kept_in_the_url(opened: services.Services) -> None:
    at = show("plan", model="pycode-small")
    at.number_input(key="margin-value").set_value(1.0)
    at.button(key="margin-add").click().run()
    assert at.query_params["margins"] == "nats_per_byte=1%"
    at.number_input(key="margin-value").set_value(0.05)
    at.selectbox(key="margin-unit").set_value("absolute")
    at.button(key="margin-add").click().run()
    assert at.query_params["margins"] == "nats_per_byte=0.05"
    at.selectbox(key="margin-metric-text").set_value("kl_nats")
    at.button(key="margin-add").click().run()
    assert at.query_params["margins"] == "nats_per_byte=0.05,kl_nats=0.05"
    assert not at.error
    assert not at.exception


@pytest.mark.parametrize(
    ("margins", "said"),
    [
        ("kl_nats=1%", "the baseline's kl\\_nats is 0, give the loss without %"),
        ("bogus", "is not of the form metric=value or metric=value%"),
        ("kl_nats=0.1,kl_nats=0.2", "give each metric one margin"),
    ],
)
def test_a_margin_in_the_url_that_is_wrong_is_a_sentence(
    opened: services.Services, margins: str, said: str
) -> None:
    at = show("plan", model="pycode-small", margins=margins)
    assert said in texts(at)
    assert len(at.error) == 1


def test_an_upload_is_checked_kept_in_the_url_and_goes_with_the_study(
    opened: services.Services,
) -> None:
    at = show("plan", model="pycode-small", techniques="weight-int8")
    at.file_uploader[0].set_value(("quiz.jsonl", QUIZ, "application/json")).run()
    assert not at.error
    token = at.query_params["data"]
    assert len(token) == 16
    again = show("plan", model="pycode-small", techniques="weight-int8", data=token)
    shown = next(one for one in again.pills if one.key == "choice-data")
    assert shown.options == ["quiz.jsonl: multiple choice, 10 items"]
    again.button(key="start").click().run()
    assert not again.exception
    jobs: Any = opened.jobs
    study = opened.store.study(jobs.asked[0][1])
    assert study is not None
    data = study.case.data
    assert [one.kind for one in data] == ["choices"]
    assert Path(data[0].path) == (opened.folder / study.id / "data" / "quiz.jsonl").resolve()
    assert Path(data[0].path).read_bytes() == QUIZ


def test_an_upload_that_cannot_be_used_names_its_line(opened: services.Services) -> None:
    at = show("plan", model="pycode-small")
    at.file_uploader[0].set_value(("quiz.jsonl", b'{"prompt": 1}\n', "application/json")).run()
    assert "line 1" in at.error[0].value
    assert "data" not in at.query_params
    at = show("plan", model="digits-cnn")
    at.file_uploader[0].set_value(("quiz.jsonl", QUIZ, "application/json")).run()
    assert "is for text models" in at.error[0].value
    at = show("plan", model="pycode-small", data="../../etc/passwd,0123456789abcdef")
    assert "bundled held\\-out data" in texts(at) or "bundled held-out data" in texts(at)


def judged(study: Study) -> Study:
    """The study with two margins; one candidate's nats per byte are paired."""
    pairs = Measurement(
        "nats_per_byte",
        tuple(0.40 + 0.01 * n for n in range(8)),
        "nat/B",
        "measured",
        "eight windows",
        reference=tuple(0.399 + 0.01 * n for n in range(8)),
    )
    margins = (Margin("nats_per_byte", 0.05, True), Margin("kl_nats", 0.01))
    trials = tuple(
        replace(
            trial,
            measurements=tuple(
                pairs if one.metric == "nats_per_byte" else one for one in trial.measurements
            ),
        )
        if trial.id == "t-0001"
        else trial
        for trial in study.trials
    )
    return replace(study, priorities=replace(study.priorities, margins=margins), trials=trials)


def test_the_trial_page_says_whether_the_margins_are_kept(
    fill: Callable[[Study], None], synthetic_study: Study
) -> None:
    fill(judged(synthetic_study))
    at = show("trial", trial="t-0001")
    said = texts(at)
    assert "non-inferior]" in said
    assert "paired over 8 windows" in said
    assert "undecided]" in said
    assert "Accepted loss" not in texts(show("trial", trial="t-0000"))


def test_the_command_line_prints_a_sentence_for_each_margin(
    synthetic_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    print_study(judged(synthetic_study), here())
    printed = capsys.readouterr().out
    assert "t-0001 Nats per byte changes by +0.23 %" in printed
    assert "t-0001 KL to baseline was not measured in pairs" in printed
    assert "t-0000 Nats" not in printed


def test_bad_data_and_margins_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_bytes(QUIZ.replace(b'"answer": 0', b'"answer": 7'))
    for words, named in (
        (("--data", str(quiz)), "quiz.jsonl, line 1: 'answer' 7 is out of range"),
        (("--data", str(tmp_path)), "is not a regular file"),
        (("--margin", "tpot_s=0.1"), "a margin is for quality"),
        (("--margin", "flips=0.1", "--margin", "flips=0.2"), "flips twice"),
    ):
        assert cli.main(["run", "--model", "pycode-small", *words, "--store", "memory:"]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert named in lines[0]


def test_techniques_are_added_with_their_settings_and_start_a_study(
    opened: services.Services,
) -> None:
    at = show("plan", model="pycode-small")
    at.selectbox(key="technique-name").set_value("weight-int4").run()
    at.selectbox(key="technique-weight-int4-group_size").set_value(64)
    at.button(key="technique-add").click().run()
    at.selectbox(key="technique-name").set_value("static-batch").run()
    at.button(key="technique-add").click().run()
    assert at.query_params["techniques"] == "weight-int4:group_size=64,static-batch"
    at.button(key="start").click().run()
    assert not at.exception
    jobs: Any = opened.jobs
    assert [plan.title for plan in jobs.plans] == [
        "baseline",
        "weight-int4(group_size=64)",
        "static-batch(size=4)",
        "weight-int4(group_size=64) + static-batch(size=4)",
    ]


def test_a_stack_stands_beside_single_techniques(opened: services.Services) -> None:
    at = show("plan", model="pycode-small", techniques="prune-mlp")
    at.selectbox(key="technique-name").set_value("distill-soft").run()
    at.button(key="technique-stack").click().run()
    at.selectbox(key="technique-name").set_value("weight-int8").run()
    at.button(key="technique-add").click().run()
    assert at.query_params["techniques"] == "prune-mlp+distill-soft,weight-int8"
    at.button(key="start").click().run()
    assert not at.exception
    jobs: Any = opened.jobs
    kinds = [[technique.name for technique in plan.techniques] for plan in jobs.plans]
    assert kinds == [[], ["prune-mlp", "distill-soft"], ["weight-int8"]]


def test_every_technique_can_be_chosen_on_the_page(opened: services.Services) -> None:
    from core.techniques import TECHNIQUES

    at = show("plan", model="pycode-small")
    for one in TECHNIQUES:
        at.selectbox(key="technique-name").set_value(one.name).run()
        at.button(key="technique-add").click().run()
        assert not at.error, one.name
    assert at.query_params["techniques"] == ",".join(one.name for one in TECHNIQUES)


def test_a_setting_that_cannot_be_is_a_sentence(opened: services.Services) -> None:
    at = show("plan", model="pycode-small")
    at.selectbox(key="technique-name").set_value("static-batch").run()
    at.number_input(key="technique-static-batch-size").set_value(0)
    at.button(key="technique-add").click().run()
    assert "size" in at.error[0].value
    assert "techniques" not in at.query_params
