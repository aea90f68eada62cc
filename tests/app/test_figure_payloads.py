"""A small part of the payload figure, and that its watch sees a payload which does run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import figure_payloads
import payloads

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not Path(figure_payloads.CHROMIUM).exists(), reason="no Chromium at /usr/bin/chromium"
    ),
]


@pytest.mark.parametrize(
    "payload",
    [one for one in payloads.PAYLOADS if one.startswith(("<img src=x", "<svg onload", "<a href"))],
)
def test_the_watch_sees_what_runs(payload: str, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_text(f"<meta charset=utf-8><main>{payload}</main>", encoding="utf-8")
    found = figure_payloads.Found()
    with figure_payloads.browser() as chromium:
        watched = figure_payloads.Watched(chromium, "file:", found)
        watched.look("a page", file.as_uri(), "main")
        watched.page.wait_for_timeout(200)
    assert found.wrong


def test_twelve_studies_hold_more_than_two_hundred_pairs() -> None:
    assert len(set(payloads.PAYLOADS)) >= 60
    assert payloads.pairs(12) >= 200


def test_hostile_texts_run_nowhere() -> None:
    found = figure_payloads.run(1, ("compare", "reports", "trial", "home by its address"))
    assert found.wrong == []
    assert found.pages == 7
    assert found.cells > 1000
