"""Text that can be read: contrast by WCAG's formula in both themes, captions as Streamlit fades
them, and in exported reports."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from app.figures import palette

ROOT = Path(__file__).parents[3]
THEME: dict[str, Any] = tomllib.loads((ROOT / ".streamlit/config.toml").read_text())["theme"]
LOOK = (ROOT / "app/parts/look.css").read_text()
REPORT = (ROOT / "app/reports/templates/report.css").read_text()
# WCAG 2.2, 1.4.3: text of usual size.
ENOUGH = 4.5
# What Streamlit leaves of the text colour in captions, and of a colour in a badge's ground.
CAPTION, BADGE = 0.6, {"light": 0.1, "dark": 0.2}
Colour = tuple[float, float, float]


def rgb(text: str) -> Colour:
    """`#0b6e75` as three numbers to 255."""
    return tuple(int(text[at : at + 2], 16) for at in (1, 3, 5))  # type: ignore[return-value]


def over(text: Colour, ground: Colour, share: float) -> Colour:
    """`share` of a colour laid over a ground."""
    return tuple(share * a + (1 - share) * b for a, b in zip(text, ground, strict=True))  # type: ignore[return-value]


def contrast(one: Colour, other: Colour) -> float:
    """The ratio of WCAG 2.2, from 1 to 21."""

    def luminance(colour: Colour) -> float:
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
            for part in (value / 255 for value in colour)
        ]
        return sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_formula_gives_the_known_ratios() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.01)
    # What was measured in a browser before the text was made darker.
    white = rgb("#ffffff")
    assert contrast(over(rgb("#14252c"), white, CAPTION), white) == pytest.approx(4.27, abs=0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_captions_badges_and_links_can_be_read_on_every_ground(scheme: str) -> None:
    theme = THEME[scheme]
    grounds = [
        rgb(place[name])
        for place in (theme, theme["sidebar"])
        for name in ("backgroundColor", "secondaryBackgroundColor")
    ]
    plain = (grounds[0], grounds[2])
    for ground in plain:
        assert contrast(over(rgb(theme["textColor"]), ground, CAPTION), ground) >= ENOUGH
        assert contrast(rgb(theme["linkColor"]), ground) >= ENOUGH
        for name in ("green", "orange", "gray", "blue"):
            text = rgb(theme[f"{name}TextColor"])
            badge = over(rgb(theme[f"{name}Color"]), ground, BADGE[scheme])
            assert contrast(text, ground) >= ENOUGH, name
            assert contrast(text, badge) >= ENOUGH, name
    for ground in grounds:
        assert contrast(rgb(theme["textColor"]), ground) >= 7
    # White stands on the accent of buttons and of picked trials.
    assert contrast((255, 255, 255), rgb(theme["primaryColor"])) >= ENOUGH


def test_what_the_style_sheet_colours_can_be_read() -> None:
    pairs = re.findall(r"(--[a-z]+|\bcolor): light-dark\((#\w{6}), (#\w{6})\)", LOOK)
    texts = [pair for pair in pairs if pair[0] in ("color", "--quiet")]
    assert len(texts) >= 4
    for _, light, dark in texts:
        for scheme, ink in (("light", light), ("dark", dark)):
            ground, accent = (
                rgb(THEME[scheme][name]) for name in ("backgroundColor", "primaryColor")
            )
            assert contrast(rgb(ink), ground) >= ENOUGH
            # A chosen segment lies on a trace of the accent.
            assert contrast(rgb(ink), over(accent, ground, 0.1)) >= ENOUGH


@pytest.mark.parametrize("dark", [False, True])
def test_the_writing_on_charts_can_be_read(dark: bool) -> None:
    colors = palette.palette(dark)
    ground = rgb(THEME["dark" if dark else "light"]["backgroundColor"])
    for ink in (colors.ink, colors.muted, colors.series[1]):
        assert contrast(rgb(ink), ground) >= ENOUGH
        assert contrast(rgb(ink), rgb(colors.paper)) >= ENOUGH


def test_an_exported_report_can_be_read_on_screen_in_the_dark_and_on_paper() -> None:
    blocks = re.findall(r":root \{(.*?)\}", REPORT, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        inks = dict(re.findall(r"--([a-z-]+): (#\w{6})", block))
        for ground in ("paper", "ground", "tint", "warn"):
            for ink in ("ink", "soft", "faint", "accent", "good", "bad"):
                if ground == "warn" and ink != "ink":
                    continue
                assert contrast(rgb(inks[ink]), rgb(inks[ground])) >= ENOUGH, (ink, ground)
