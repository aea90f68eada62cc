"""A real browser walks the whole way over a real study: start, watch, compare, weigh, save.

Screenshots of every page in both themes go to the folder that TRIMTAB_SHOTS names, for people to
look at; the test itself fails on any error text, console error, or request that leaves the machine.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from app import state
from app.main import PAGES
from core.journal.events import Event
from core.journal.journal import read
from core.study import Study
from store import open_store

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
WAIT_S = 1800
# On a deep link Streamlit's page finds its base path by trial: these answers are 404 by design.
PROBES = re.compile(r"/_stcore/(health|host-config)$")
PATHS = {page.path: "" if page.path == state.HOME else page.path for page in PAGES}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not Path(CHROMIUM).exists(), reason="no Chromium at /usr/bin/chromium"),
]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(store: Path, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`trimtab serve` as a user starts it; killed with everything it started."""
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port), "--store", str(store)]
    with log.open("wb") as output:
        running = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_until(lambda: health(port) is not None, 60, "the server did not answer", running)
            yield running
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGINT)
                try:
                    running.wait(20)
                except subprocess.TimeoutExpired:
                    os.killpg(running.pid, signal.SIGKILL)
                    running.wait()


def health(port: int) -> dict[str, Any] | None:
    """What /api/health says, None while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
            return dict(json.load(answer))
    except OSError:
        return None


def wait_until(
    holds: Any, seconds: float, otherwise: str, running: subprocess.Popen[bytes] | None = None
) -> None:
    """Ask `holds()` twice a second; fail after `seconds` or when the process has ended."""
    end = time.monotonic() + seconds
    while not holds():
        assert running is None or running.poll() is None, f"{otherwise}: the server ended"
        assert time.monotonic() < end, otherwise
        time.sleep(0.5)


class Watch:
    """Collects what a user should never meet: console errors, failed or foreign requests."""

    def __init__(self, page: Any, port: int) -> None:
        self.found: list[str] = []
        self.home = (f"http://localhost:{port}/", f"ws://localhost:{port}/", "data:", "blob:")
        page.on("pageerror", lambda error: self.found.append(f"script error: {error}"))
        page.on("console", self._console)
        page.on("request", self._request)
        page.on("response", self._response)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "status of 404" not in message.text:
            self.found.append(f"console: {message.text}")

    def _request(self, request: Any) -> None:
        if not request.url.startswith(self.home):
            self.found.append(f"a request left the machine: {request.url}")

    def _response(self, response: Any) -> None:
        if response.status >= 400 and not PROBES.search(response.url):
            self.found.append(f"{response.status}: {response.url}")


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where screenshots go."""
    folder = Path(os.environ.get("TRIMTAB_SHOTS") or tmp_path / "shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def settle(page: Any) -> None:
    """Wait until Streamlit has drawn: no run in progress, no skeleton, nothing stale."""
    page.wait_for_selector("[data-testid=stMain] h1, [data-testid=stMain] h3", timeout=30_000)
    page.wait_for_function(
        "() => document.querySelector('[data-testid=stApp]')?.dataset.testScriptState !== 'running'"
        " && !document.querySelector('[data-testid=stSkeleton]')",
        timeout=30_000,
    )
    page.wait_for_timeout(600)
    text = page.locator("[data-testid=stApp]").inner_text()
    for word in ("Traceback", "could not be drawn", "Error:", "Page not found"):
        assert word not in text, text


def shoot(page: Any, path: Path) -> None:
    """The whole page, not just the window."""
    height = page.evaluate("() => document.querySelector('[data-testid=stMain]').scrollHeight + 40")
    page.set_viewport_size({"width": 1440, "height": min(max(height, 900), 3600)})
    page.wait_for_timeout(500)
    page.screenshot(path=path)
    page.set_viewport_size({"width": 1440, "height": 900})


def go(page: Any, name: str, heading: str = "") -> None:
    """Click a page in the sidebar and wait for its heading, which is its name unless given."""
    page.locator("[data-testid=stSidebarNav]").get_by_text(name, exact=True).click()
    page.wait_for_selector(f"h1:has-text('{heading or name}')", timeout=20_000)
    settle(page)


def tick(page: Any, *rows: int) -> None:
    """Tick rows of the first table: it is drawn on a canvas, so by position."""
    box = page.locator("[data-testid=stDataFrame]").first.bounding_box()
    for row in rows:
        page.mouse.click(box["x"] + 18, box["y"] + 35 * (row + 1) + 17)
        page.wait_for_timeout(700)
    settle(page)


@contextmanager
def opened(port: int) -> Iterator[tuple[Any, Any, Watch]]:
    """A browser, a page of it, and the watch over that page."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme="light", viewport={"width": 1440, "height": 900})
        yield browser, page, Watch(page, port)
        browser.close()


def test_a_stored_study_is_compared_weighed_and_saved(
    tmp_path: Path,
    shots: Path,
    synthetic_study: Study,
    journal: Callable[[Study], list[Event]],
) -> None:
    port, log, store = free_port(), tmp_path / "server.log", tmp_path / "store.duckdb"
    kept = open_store(str(store))
    kept.ingest(journal(synthetic_study))
    kept.close()
    with server(store, port, log), opened(port) as (browser, page, watch):
        page.goto(f"http://localhost:{port}/")
        settle(page)
        trial = understand(page)
        assert not watch.found, "\n".join(watch.found)
        look(browser, port, shots / "stored", page.url, trial, dark=("compare", "tradeoffs"))
        take_away(page)
    written = log.read_text(encoding="utf-8")
    assert "Traceback" not in written, written


@pytest.mark.slow
def test_the_whole_way_over_a_real_study(tmp_path: Path, shots: Path) -> None:
    port, log = free_port(), tmp_path / "server.log"
    with server(tmp_path / "store.duckdb", port, log), opened(port) as (browser, page, watch):
        start(page, port, shots)
        trial = understand(page)
        assert not watch.found, "\n".join(watch.found)
        look(browser, port, shots / "real", page.url, trial, dark=tuple(PATHS))
        take_away(page)
    written = log.read_text(encoding="utf-8")
    assert "Traceback" not in written, written


def start(page: Any, port: int, shots: Path) -> None:
    """Home with nothing yet, the first study with one button, Live until it has ended."""
    page.goto(f"http://localhost:{port}/")
    settle(page)
    shoot(page, shots / "empty-light.png")
    go(page, "Plan")
    go(page, "Home", "Make a model")
    page.get_by_role("button", name="Run the first study").click()
    page.wait_for_selector("h1:has-text('Live')", timeout=30_000)
    page.wait_for_selector("text=/[1-9][0-9]* of [0-9]+ trials ended/", timeout=WAIT_S * 1000)
    shoot(page, shots / "running-light.png")
    wait_until(lambda: not (health(port) or {"running": ["?"]})["running"], WAIT_S, "no end")
    page.wait_for_selector("[data-testid=stMain] >> text=done", timeout=20_000)
    page.reload()
    settle(page)
    assert page.get_by_role("button", name="Cancel").count() == 0


def understand(page: Any) -> str:
    """Trials, Compare, Trade-offs, Reports: what one does with a study that has ended.

    Returns the id of a trial that was compared.
    """
    go(page, "Trials")
    page.wait_for_selector("[data-testid=stDataFrame] canvas", timeout=20_000)
    tick(page, 0, 1, 2)
    page.get_by_role("button", name="Compare 3").click()
    page.wait_for_selector("h1:has-text('Compare')", timeout=20_000)
    settle(page)
    assert page.get_by_text("lower is better").count() > 3
    named = re.search(r"[?&]trials=([^%&,]+)", page.url)
    assert named is not None, page.url
    go(page, "Trade-offs")
    page.wait_for_selector("[data-testid=stPlotlyChart] .main-svg", timeout=20_000)
    go(page, "Compare")
    page.get_by_role("button", name="Save as a report").click()
    page.wait_for_selector("h1:has-text('Reports')", timeout=20_000)
    settle(page)
    page.get_by_label("Title").fill("The first comparison")
    page.get_by_label("Note").fill("Saved by the browser test.")
    page.get_by_role("button", name="Save the report").click()
    page.wait_for_selector("iframe", timeout=30_000)
    settle(page)
    return named.group(1)


def take_away(page: Any) -> None:
    """The saved report in every format."""
    for label in ("HTML", "Markdown", "CSV", "JSON"):
        with page.expect_download(timeout=20_000) as caught:
            page.get_by_role("button", name=label).last.click()
        assert Path(caught.value.path()).stat().st_size > 200, label


def look(
    browser: Any, port: int, shots: Path, report_url: str, trial: str, dark: tuple[str, ...]
) -> None:
    """Every page by its URL in the light theme, those named in the dark one too; a reload must show
    the same screen.
    """
    shots.mkdir(parents=True, exist_ok=True)
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme, viewport={"width": 1440, "height": 900})
        watch = Watch(page, port)
        for name, path in PATHS.items():
            if scheme == "dark" and name not in dark:
                continue
            url = report_url if name == "reports" else f"http://localhost:{port}/{path}"
            url += f"?trial={trial}" if name == "trial" else ""
            page.goto(url)
            settle(page)
            if name == "compare":
                page.wait_for_selector("[data-testid=stPlotlyChart] .main-svg", timeout=20_000)
            shoot(page, shots / f"{name}-{scheme}.png")
        assert not watch.found, "\n".join(watch.found)
        page.close()


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_a_study_is_finished_by_resume(tmp_path: Path) -> None:
    store, port = tmp_path / "store.duckdb", free_port()
    with server(store, port, tmp_path / "log") as running, opened(port) as (_, page, _watch):
        page.goto(f"http://localhost:{port}/")
        page.get_by_role("button", name="Run the first study").click()
        page.wait_for_selector("text=/[2-9] of [0-9]+ trials ended/", timeout=WAIT_S * 1000)
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
    folder = next((tmp_path / "store.duckdb.studies").glob("s-*"))

    def measured() -> dict[str, set[str]]:
        """Ids of the acknowledged measurements by attempt's journal."""
        return {
            path.name: {one.id for one in read(path)[0] if one.kind == "measurement"}
            for path in folder.glob("t-*.jsonl")
        }

    before = measured()
    resumed = subprocess.run(
        [sys.executable, "-m", "app.cli", "resume", folder.name, "--store", str(store), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    document = json.loads(resumed.stdout)
    assert {trial["state"] for trial in document["trials"]} == {"done"}
    after = measured()
    assert all(ids <= after[name] for name, ids in before.items())
    kept = open_store(str(store))
    study = kept.study(folder.name)
    kept.close()
    assert study is not None
    for trial in study.trials:
        names = [(one.metric, one.condition) for one in trial.measurements]
        assert len(names) == len(set(names))
        assert len(after[f"{trial.id}-{trial.attempt}.jsonl"]) == len(names)
