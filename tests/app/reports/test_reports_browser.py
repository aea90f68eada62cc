"""An exported report in a real browser that has no network: it opens, draws, asks for nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.reports import export, new_report
from app.services import Services
from core.study import Study

CHROMIUM = Path("/usr/bin/chromium")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="no Chromium at /usr/bin/chromium"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_exported_report_opens_offline_and_makes_no_request(
    filled: Services, synthetic_study: Study, tmp_path: Path, scheme: str
) -> None:
    from playwright.sync_api import sync_playwright

    report = new_report(filled.store, synthetic_study.id, "Which one?", note="<b>why</b>")
    file = tmp_path / "report.html"
    file.write_bytes(export(report, "html"))
    requests: list[str] = []
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_context(offline=True, color_scheme=scheme).new_page()  # type: ignore[arg-type]
        page.on("request", lambda one: requests.append(one.url))
        page.on("console", lambda one: complaints.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda one: complaints.append(str(one)))
        page.goto(file.as_uri())
        page.wait_for_selector(".js-plotly-plot .main-svg")
        text = page.inner_text("body")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    assert [one for one in requests if not one.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []
    for trial in report.trials():
        assert trial.id in text
    assert "<b>why</b>" in text
    red = int(background.split("(")[1].split(",")[0])
    assert (red < 128) == (scheme == "dark")
