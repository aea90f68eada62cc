"""Prints how long the server needs to draw each page over 1,000 stored trials.

    python -m tests.evidence pages

First paint in a browser is measured too when Debian's chromium is there. Asserts nothing; the last
line is one JSON document.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests.evidence import ROOT

PAGES = ("", "plan", "live", "trials", "compare", "tradeoffs", "reports")
MAIN = ROOT / "app" / "main.py"
PORT = 8597


def fill(path: str) -> str:
    """Store 20 studies of 50 trials with 12 measurements each; returns one study's id."""
    from store import open_store
    from tests.evidence.store.speed import STUDIES, study_events

    store = open_store(path)
    for number in range(STUDIES):
        store.ingest(study_events(number))
    store.close()
    return f"s-{STUDIES - 1:04}"


def server_seconds(page: str, study: str) -> float:
    """Median of five runs of the page's script, the first left out."""
    from streamlit.testing.v1 import AppTest
    from streamlit.util import calc_hash

    at = AppTest.from_file(str(MAIN), default_timeout=60)
    at.query_params["study"] = study
    at._page_hash = calc_hash(page)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        at.run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


def browser_seconds(path: str) -> dict[str, float]:
    """Seconds until each page's heading stands in a real browser, on a server that is up."""
    from playwright.sync_api import sync_playwright

    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(PORT), "--store", path]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{PORT}/"
    try:
        while True:
            try:
                urllib.request.urlopen(address + "api/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"]
            )
            found = {}
            for page in PAGES:
                tab = browser.new_page()
                began = time.perf_counter()
                tab.goto(address + page)
                tab.wait_for_selector("h1", timeout=60_000)
                found[page or "home"] = time.perf_counter() - began
                tab.close()
            browser.close()
        return found
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Fill a store, time every page, print."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "store.duckdb")
        study = fill(path)
        os.environ["TRIMTAB_STORE"] = path
        found = {}
        for page in PAGES:
            found[page or "home"] = server_seconds(page, study)
            print(f"server {page or 'home':10} {found[page or 'home'] * 1e3:7.0f} ms")
        from app.services import close_services

        close_services()
        browser = {}
        if Path("/usr/bin/chromium").exists():
            browser = browser_seconds(path)
            for page, seconds in browser.items():
                print(f"browser {page:10} {seconds * 1e3:7.0f} ms")
        print(json.dumps({"server_s": found, "browser_s": browser}))
