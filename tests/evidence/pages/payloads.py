"""R12: hostile texts in every stored text, drawn in Chromium and exported: nothing of them runs.

    python -m tests.evidence payloads [--studies 10]

Each study carries one payload in each field, another one than the other studies. Every page shows
every study, every report is opened as HTML and as rendered Markdown, its CSV is read cell by cell.
A script that runs sets a mark, opens a dialog or asks for a foreign address; all three are watched.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import shutil
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.cli.compare import comparison_text
from app.reports import export
from core.journal.events import event
from core.study import Study
from core.verdict.compare import compare
from store import open_store
from tests.evidence.pages.hostile import FIELDS, PAYLOADS, facts, hostile, pairs, picker, report_of

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PAGES = ("", "plan", "live", "trials", "compare", "tradeoffs", "reports", "trial")
WORDS = ("study", "trials", "baseline", "trial", "report", "model", "path", "text", "limits")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
# What a page holds where a payload became markup instead of text; the pages' own have no such.
MARKUP = """() => {
  const bad = [];
  for (const one of document.querySelectorAll('*')) {
    for (const part of one.attributes) {
      if (part.name.startsWith('on') && part.value.includes('__ran')) bad.push(one.outerHTML);
      const address = part.value.replace(/[\\x00-\\x20]/g, '');
      if (['src', 'href', 'action', 'data', 'xlink:href', 'formaction'].includes(part.name)
          && /^(javascript|data:text)/i.test(address)) bad.push(one.outerHTML);
      if (['src', 'href', 'action', 'srcset'].includes(part.name)
          && part.value.includes('evil.test')) bad.push(one.outerHTML);
    }
    if (one.tagName === 'SCRIPT' && one.type !== 'application/json'
        && one.textContent.includes('__ran')) bad.push(one.outerHTML.slice(0, 80));
  }
  if (window.__ran) bad.push('a script ran');
  return bad.map(text => text.slice(0, 200));
}"""


@dataclass
class Found:
    """What was looked at, and what ran."""

    pages: int = 0
    cells: int = 0
    wrong: list[str] = field(default_factory=list)


class Watched:
    """A Chromium page whose dialogs, foreign requests and marks are written down."""

    def __init__(self, browser: Any, home: str, found: Found) -> None:
        self.page = browser.new_page(viewport={"width": 1440, "height": 2400})
        self.home, self.found, self.where = home, found, ""
        self.page.on("dialog", self._dialog)
        self.page.route("**/*", self._route)

    def _dialog(self, dialog: Any) -> None:
        self.found.wrong.append(f"{self.where}: a dialog opened")
        dialog.dismiss()

    def _route(self, route: Any) -> None:
        url = route.request.url
        if url.startswith((self.home, "data:", "blob:", "file:", "about:")):
            route.continue_()
        else:
            self.found.wrong.append(f"{self.where}: asked for {url[:100]}")
            route.abort()

    def look(self, where: str, url: str, ready: str) -> None:
        """Open an address, wait until it is drawn, and search every frame."""
        self.where = where
        self.page.goto(url)
        self.page.wait_for_selector(ready, timeout=60_000)
        if "stApp" in ready:
            self.page.wait_for_function(
                "() => document.querySelector('[data-testid=stApp]').dataset.testScriptState"
                " !== 'running' && !document.querySelector('[data-testid=stSkeleton]')",
                timeout=60_000,
            )
            self.page.wait_for_timeout(300)
        self.found.pages += 1
        for frame in self.page.frames:
            # A frame may have gone since it was listed.
            with contextlib.suppress(Exception):
                self.found.wrong += [f"{where}: {one}" for one in frame.evaluate(MARKUP)]


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium without a sandbox of its own: tests run as root."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield opened
        opened.close()


def exports(study: Study, number: int, chromium: Any, folder: Path, found: Found) -> None:
    """The report in every format, and the comparison of the command line."""
    report = report_of(study, number)
    watched = Watched(chromium, "file:", found)
    try:
        page = folder / f"report-{number}.html"
        page.write_bytes(export(report, "html"))
        watched.look(f"report {number} as HTML", page.as_uri(), "main h1")
        for name, text in (
            ("report", export(report, "md").decode()),
            ("comparison", comparison_text(compare(report.trials(), report.baseline_id), "md")),
        ):
            drawn = folder / f"{name}-{number}-md.html"
            drawn.write_text(f"<meta charset=utf-8><main>{_markdown(text)}</main>", "utf-8")
            watched.look(f"{name} {number} as Markdown", drawn.as_uri(), "main")
    finally:
        watched.page.close()
    comparison = compare(report.trials(), report.baseline_id)
    for text in (export(report, "csv").decode(), comparison_text(comparison, "csv")):
        for row in csv.reader(io.StringIO(text, newline="")):
            for cell in row:
                found.cells += 1
                if cell.startswith(FORMULA) and not _number(cell):
                    found.wrong.append(f"report {number} as CSV: the cell {cell[:60]!r}")


def _markdown(text: str) -> str:
    """Markdown as a forge or an editor draws it, HTML let through."""
    from markdown_it import MarkdownIt

    return str(
        MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").render(text)
    )


def _number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def addresses(number: int, study: Study) -> Iterator[tuple[str, str]]:
    """Every page over the study, and one whose address carries payloads itself."""
    trials = ",".join(trial.id for trial in study.done()[:4])
    told = f"study={study.id}&trials={trials}&trial={study.trials[0].id}&report=r-hostile-{number}"
    for page in PAGES:
        yield page or "home", f"{page}?{told}"
    pick = picker(number)
    said = urllib.parse.urlencode({w: pick(f) for w, f in zip(WORDS, FIELDS, strict=False)})
    page = PAGES[number % len(PAGES)]
    yield f"{page or 'home'} by its address", f"{page}?{said}"


def run(studies: int, pages: tuple[str, ...] | None = None) -> Found:
    """Draw that many hostile studies; `pages` limits which pages are opened."""
    found = Found()
    from tests import conftest as synthetic
    from tests.app import conftest as kept
    from tests.app.pages import test_browser as serving

    sound = synthetic.synthetic_study
    sound = getattr(sound, "__wrapped__", None) or sound._get_wrapped_function()
    made = [hostile(sound(), number) for number in range(studies)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = open_store(str(folder / "store.duckdb"))
        for number, study in enumerate(made):
            events = [one for one in kept.events_of(study) if one.kind != "environment"]
            known = {"environment": picker(number)("environment id"), "facts": facts(number)}
            store.ingest([*events, event("environment", study.id, **known)])
            store.save_report(report_of(study, number))
        store.close()
        port = serving.free_port()
        home = f"http://localhost:{port}/"
        with (
            serving.server(folder / "store.duckdb", port, folder / "log"),
            browser() as chromium,
        ):
            for number, study in enumerate(made):
                exports(study, number, chromium, folder, found)
                watched = Watched(chromium, home, found)
                for name, address in addresses(number, study):
                    if pages is None or name in pages:
                        where = f"{name}, study {number}"
                        watched.look(where, home + address, "[data-testid=stApp] h1")
                watched.page.close()
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--studies", type=int, default=10)


def main(options: argparse.Namespace) -> int:
    """Print what ran, and the figure last."""
    if not Path(CHROMIUM).exists():
        print("skipped: there is no Chromium on this machine.")
        return 0
    began = time.monotonic()
    found = run(options.studies)
    for one in found.wrong:
        print(one)
    print(
        f"{pairs(options.studies)} pairs of {len(PAYLOADS)} payloads and {len(FIELDS)} fields, in "
        f"{found.pages} pages drawn by Chromium and {found.cells:,} cells of CSV, "
        f"{time.monotonic() - began:.0f} s: {len(found.wrong)} ran, asked for an address or stayed "
        "a formula."
    )
    return 1 if found.wrong else 0
