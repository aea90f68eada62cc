"""A model's folder, a study of it, and boxes on which it is measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.planning import plan_study
from core.catalogue.models import ZOO
from core.plan import Plan
from core.priorities import Priorities
from core.study import Study
from tests.core.measure.study import box
from tests.evidence import ROOT

Planned = tuple[Study, tuple[Plan, ...]]
Box = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one's own with a small model."""
    return Path(shutil.copytree(ZOO / "pycode-small", tmp_path / "mine"))


@pytest.fixture
def planned() -> Callable[..., Planned]:
    """A study of a model, by default the small one of the zoo, and its plans."""

    def make(
        model: str | Path = "pycode-small", *techniques: str, data: tuple[str, ...] = (), **given
    ) -> Planned:
        wanted = techniques or ("weight-int8",)
        return plan_study(
            str(model), "local", "autocomplete", Priorities(), wanted, data=data, **given
        )

    return make


@pytest.fixture
def on_a_box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Box:
    """Starts the command with these words where the dashboard's libraries are not installed."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(box.SITE, encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def start(*words: str | Path) -> subprocess.Popen[str]:
        paths = os.pathsep.join([str(site), str(ROOT)])
        return subprocess.Popen(
            [sys.executable, box.__file__, *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    return start
