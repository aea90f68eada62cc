"""A small part of the payload figure, and that its watch sees a payload which does run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evidence.pages import hostile, payloads

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not Path(payloads.CHROMIUM).exists(), reason="no Chromium at /usr/bin/chromium"
    ),
]


def test_the_watch_sees_what_runs(tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    running = ("<script>", "<img src=x", "<svg onload", "<a href", f"<img src={hostile.E}")
    chosen = [one for one in hostile.PAYLOADS if one.startswith(running)]
    assert len(chosen) >= 7
    with payloads.browser() as chromium:
        for payload in chosen:
            found = payloads.Found()
            watched = payloads.Watched(chromium, "file:", found)
            file.write_text(f"<meta charset=utf-8><main>Text {payload}</main>", encoding="utf-8")
            watched.look("a page", file.as_uri(), "main")
            watched.page.wait_for_timeout(100)
            watched.page.close()
            assert found.wrong, payload


def test_ten_studies_hold_more_than_two_hundred_pairs() -> None:
    assert len(set(hostile.PAYLOADS)) >= 60
    assert hostile.pairs(10) >= 200


def test_hostile_texts_run_nowhere() -> None:
    found = payloads.run(1, ("compare", "trial"))
    assert found.wrong == []
    assert found.pages == 5
    assert found.cells > 1000
