"""A real browser over a store with a study of this machine and one that came from another: every
page names the machine, in both themes and on a phone. Screenshots go where TRIMTAB_SHOTS says.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.cli import main as cli
from core.machine.environment import environment
from core.study import Study
from tests.app.pages.test_browser import CHROMIUM, Watch, free_port, server, settle, shoot
from tests.app.reference.conftest import H200, on_gpu, pack, write

PAGES = {
    "home": "",
    "trials": "trials",
    "compare": "compare?study=s-gpu&trials=t-0000,t-0001,t-0002h&baseline=t-0000",
    "tradeoffs": "tradeoffs?study=s-gpu",
    "trial": "trial?trial=t-0001",
}
VIEWS = (("light", 1440, ""), ("dark", 1440, "-dark"), ("light", 390, "-phone"))

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium at /usr/bin/chromium"),
]


@pytest.fixture
def store(tmp_path: Path, synthetic_study: Study) -> Path:
    """A store with the journals of both machines, taken in by the command line."""
    store = tmp_path / "store.duckdb"
    here = tuple(
        replace(
            trial,
            id=f"{trial.id}h",
            measurements=tuple(replace(row, environment="env-here") for row in trial.measurements),
        )
        for trial in synthetic_study.trials
    )
    mine = replace(synthetic_study, id="s-here", trials=here)
    write(mine, tmp_path / "here", environment()[1])
    write(on_gpu(synthetic_study), tmp_path / "results", H200)
    archive = pack(tmp_path / "results", tmp_path / "run" / "journals.tar.gz")
    for source in (tmp_path / "here", archive.parent):
        assert cli.main(["ingest", str(source), "--store", str(store)]) == 0
    return store


def test_pages_name_the_machine_in_both_themes_and_on_a_phone(store: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    shots = Path(os.environ.get("TRIMTAB_SHOTS") or tmp_path / "shots")
    shots.mkdir(parents=True, exist_ok=True)
    port, log = free_port(), tmp_path / "server.log"
    with server(store, port, log), playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for scheme, width, mark in VIEWS:
            page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            watch = Watch(page, port)
            for name, path in PAGES.items():
                page.goto(f"http://localhost:{port}/{path}")
                settle(page)
                _named(page, name)
                if width < 500:
                    page.screenshot(path=shots / f"machines-{name}{mark}.png")
                    _fits(page, width)
                else:
                    shoot(page, shots / f"machines-{name}{mark}.png")
            assert not watch.found, "\n".join(watch.found)
            page.close()
        browser.close()
    written = log.read_text(encoding="utf-8")
    assert "Traceback" not in written, written


def _named(page: Any, name: str) -> None:
    """The page says that its numbers are of an H200, and tables, drawn on canvas, where they
    are."""
    text = page.locator("[data-testid=stMain]").inner_text()
    if name != "trials":
        assert "NVIDIA H200" in text, text
        assert "another machine" in text, text
    else:
        assert "on 2 machines" in text, text
        assert "Add measurements from another machine" in text, text


def _fits(page: Any, width: int) -> None:
    """Nothing makes the page wider than the phone."""
    wide = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollWidth")
    assert wide <= width + 1, wide
