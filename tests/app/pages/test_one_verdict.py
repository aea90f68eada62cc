"""One judge: of every trial of a disturbed study, all pages, the report, the JSON and the CSV give
one verdict and one ratio."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from app import reports, services
from app.cli.compare import comparison_text
from app.cli.console import here
from app.cli.run import print_study
from app.parts import words
from app.reports.content import content_of
from core import metrics
from core.journal.events import Event
from core.study import Study
from core.verdict import utility
from core.verdict.against import against
from core.verdict.anchor import anchored
from core.verdict.compare import compare
from core.verdict.comparison import VERDICTS
from core.verdict.documents import study_document
from core.verdict.reasons import sentence
from core.verdict.recommend import recommend
from core.verdict.robust.firmness import robustness
from core.verdict.robust.words import sentences
from tests.core.verdict.noisy_study import noisy_study

FIXTURE = Path(__file__).parent / "fixtures" / "busy_study.json"


@pytest.fixture(params=["synthetic", "recorded"])
def study(request: pytest.FixtureRequest, synthetic_study: Study) -> Study:
    """A study whose processes ran at very different speeds: made, and really measured on a machine
    that was busy with other work."""
    if request.param == "synthetic":
        return noisy_study(synthetic_study)
    from core.journal import codec

    recorded = codec.loads(FIXTURE.read_text())
    assert isinstance(recorded, Study)
    return recorded


@pytest.fixture
def stored(
    study: Study, opened: services.Services, journal: Callable[[Study], list[Event]]
) -> services.Services:
    opened.store.ingest(journal(study))
    return opened


Verdicts = dict[tuple[str, str], str]


def judged(study: Study) -> Verdicts:
    """What the judge says of every trial and metric."""
    base = study.baseline
    assert base is not None
    return {
        (trial.id, one.metric): against(trial, base, one.metric).verdict
        for trial in study.done()
        if not trial.is_baseline
        for one in trial.measurements
        if not one.condition and not metrics.metric(one.metric).unjudged
    }


def test_the_json_document_says_what_the_judge_says(study: Study) -> None:
    document = json.loads(json.dumps(study_document(study), allow_nan=False))
    found = {
        (trial["id"], name): entry["verdict"]
        for trial in document["trials"]
        for name, entry in trial["against_baseline"].items()
    }
    assert found == judged(study)
    for trial in document["trials"]:
        for entry in trial["against_baseline"].values():
            assert set(entry) == {"ratio", "low", "high", "verdict", "at_pooled_baseline"}


def test_the_reports_tiles_show_what_decided_after_the_doubt(
    study: Study, stored: services.Services
) -> None:
    from html import unescape

    report = reports.new_report(stored.store, study.id, "Which one?")
    content = content_of(report)
    decided = {metrics.metric(name).label for _, name in utility.axes(study)}
    if content.tiles:
        assert decided <= {tile.label for tile in content.tiles}
    page = unescape(reports.export(report, "html").decode())
    doubt = page.index(content.advice.because[0])
    assert page.count(content.advice.because[0]) == 1
    assert not content.tiles or doubt < page.index('<div class="tiles">')


def _csv_verdicts(text: str) -> Iterator[tuple[tuple[str, str], dict[str, str]]]:
    for row in csv.DictReader(io.StringIO(text)):
        if row["verdict"] != "baseline":
            yield (row["trial"], row["metric"]), row


def test_the_reports_csv_says_what_the_judge_says(study: Study, stored: services.Services) -> None:
    report = reports.new_report(stored.store, study.id, "Which one?")
    wanted = judged(study)
    base = study.baseline
    assert base is not None
    seen = 0
    for key, row in _csv_verdicts(reports.export(report, "csv").decode()):
        if key in wanted:
            assert row["verdict"] == wanted[key], key
            ratio = against(study.trial(key[0]), base, key[1]).ratio  # type: ignore[arg-type]
            if row["change"] and ratio is not None:
                assert float(row["change"]) == pytest.approx(ratio - 1)
            seen += 1
    assert seen >= len(wanted) * 0.9


@pytest.mark.parametrize("format_", ["md", "html"])
def test_the_readable_reports_hold_the_sentences_of_the_choice(
    study: Study, stored: services.Services, format_: str
) -> None:
    from html import unescape

    report = reports.new_report(stored.store, study.id, "Which one?")
    roles = [mark.role for mark in content_of(report).marks]
    assert any("recommended" in role for role in roles) == recommend(study).proven
    text = unescape(reports.export(report, format_).decode()).replace("\\", "")
    for said in recommend(study).because:
        assert said in text


def test_the_command_lines_comparison_says_what_the_judge_says(study: Study) -> None:
    shown = anchored(study)
    base = shown.baseline
    assert base is not None
    found = compare(shown.done(), base.id)
    document = json.loads(comparison_text(found, "json"))
    for row in document["rows"]:
        if row["kind"] == "metric":
            for cell in row["cells"]:
                key = (cell["trial_id"], row["key"])
                if key in judged(study):
                    assert cell["verdict"] == judged(study)[key]


def test_a_sentence_never_contradicts_the_verdict(study: Study) -> None:
    """Better, worse, faster, slower only where the judge says so, with the judge's ratio; and the
    two absolute numbers of the sentence have that ratio."""
    shown = anchored(study)
    base = shown.baseline
    assert base is not None
    good = {"faster", "more", "smaller", "less energy", "cheaper", "better"}
    bad = {"slower", "less", "larger", "more energy", "dearer", "worse"}
    for trial in shown.done():
        if trial.is_baseline:
            continue
        for one in trial.measurements:
            metric = metrics.metric(one.metric)
            if one.condition or not metric.priority or one.value is None:
                continue
            said = sentence(one.metric, trial, base)
            verdict = against(trial, base, one.metric).verdict
            body = said.partition(": ")[2]
            tail = body.partition(" (")[0].partition("x ")[2] or body.partition(" (")[0]
            if verdict == "better":
                assert tail in good, said
            elif verdict == "worse":
                assert tail in bad, said
            else:
                assert tail not in good | bad, said


def test_shown_numbers_have_the_judges_ratio(study: Study) -> None:
    shown = anchored(study)
    base = shown.baseline
    assert base is not None
    for trial in shown.done():
        for name in ("latency_s", "tokens_per_s", "ttft_s", "tpot_s"):
            ours, theirs = trial.value(name), base.value(name)
            if trial.is_baseline or ours is None or theirs is None:
                continue
            assert ours / theirs == pytest.approx(against(trial, base, name).ratio)


def test_the_command_line_prints_the_doubt(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    print_study(study, here())
    out = capsys.readouterr().out
    found = recommend(study)
    assert found.because[0] in out
    assert " of all weightings of " in out
    assert ("recommended:" in out) == found.proven
    assert (f"trimtab again {study.id}" in out) == bool(found.again)


def test_trade_offs_says_the_same_sentences_and_offers_to_measure_again(
    study: Study, stored: services.Services
) -> None:
    main = Path(services.__file__).with_name("main.py")
    at = AppTest.from_file(str(main), default_timeout=60)
    at.query_params["study"] = study.id
    at._page_hash = calc_hash("tradeoffs")
    at.run()
    assert not at.exception
    text = "\n".join(one.value for one in at.markdown).replace("\\", "")
    found = recommend(study)
    winner = anchored(study).trial(found.trial_id or "")
    assert winner is not None
    firm = sentences(study, winner, robustness(anchored(study), winner))
    assert firm
    for said in (*found.because, *firm):
        assert said.replace("://", ":\u2060//") in text
    roles = set(at.dataframe[0].value["Role"])
    assert ("recommended" in roles) == found.proven
    assert ("leading" in roles) != found.proven
    drawn = at.get("plotly_chart")[0].proto.spec.lower()  # type: ignore[attr-defined]
    assert ("recommended" in drawn) == found.proven
    if found.again:
        at.button(key="measure-again").click().run()
        assert not at.exception
        jobs = stored.jobs
        assert jobs.plans[0].title == "baseline"  # type: ignore[attr-defined]
        leading = [study.trial(one).plan.title for one in found.again]  # type: ignore[union-attr]
        asked = {plan.title for plan in jobs.plans}  # type: ignore[attr-defined]
        assert asked == {"baseline", *leading}


def test_disturbed_studies_are_nothing_to_act_on(study: Study) -> None:
    quiet = study.with_trials(tuple(replace(one, notes=()) for one in study.trials))
    assert not recommend(study).proven
    assert "No recommendation to act on yet" in recommend(study).because[0]
    assert "No recommendation to act on yet: every trial" not in recommend(quiet).because[0]


def _cells(html: str) -> Iterator[tuple[str, int, str]]:
    """(row label, column, text of the cell) of the comparison's tables."""
    from html import unescape

    for row in re.findall(r"<tr><th scope=\"row\".*?</tr>", html, re.DOTALL):
        label = re.search(r"<th.*?<span[^>]*>(.*?)</span>", row, re.DOTALL)
        assert label is not None
        for column, cell in enumerate(re.findall(r"<td.*?</td>", row, re.DOTALL)):
            text = unescape(re.sub(r"<[^>]+>", " ", cell.partition(">")[2]))
            yield unescape(label[1]), column, " ".join(text.split())


def test_the_page_that_compares_says_what_the_judge_says(
    study: Study, stored: services.Services
) -> None:
    main = Path(services.__file__).with_name("main.py")
    at = AppTest.from_file(str(main), default_timeout=60)
    base = study.baseline
    assert base is not None
    ids = [trial.id for trial in study.done()]
    for name, value in (("study", study.id), ("trials", ",".join(ids)), ("baseline", base.id)):
        at.query_params[name] = value
    at._page_hash = calc_hash("compare")
    at.run()
    assert not at.exception
    html = "\n".join(one.proto.body for one in at.get("html"))
    by_label = {metrics.metric(name).label: name for _, name in judged(study)}
    seen = 0
    for label, column, text in _cells(html):
        if label not in by_label or ids[column] == base.id:
            continue
        wanted = judged(study).get((ids[column], by_label[label]))
        marks = [word for word in VERDICTS if words.VERDICTS[word] in text]
        if wanted is not None and marks:
            assert marks == [wanted], (label, text)
            seen += 1
    assert seen >= 3 * (len(ids) - 1)


def test_the_table_of_all_trials_shows_the_numbers_of_the_other_pages(
    study: Study, stored: services.Services
) -> None:
    from app.views import trials
    from store.interface import TrialFilter

    found = stored.store.studies()
    rows = trials._at_baseline(stored.store.trial_rows(TrialFilter(), 50, 0), found)
    shown = anchored(study)
    assert len(rows) == len(study.trials)
    for row in rows:
        trial = shown.trial(row["id"])
        assert trial is not None
        for one in trial.measurements:
            if not one.condition and one.value is not None:
                assert row[one.metric] == pytest.approx(one.value)
