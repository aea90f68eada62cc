"""The files of classes and of published rows: every number checked, hostile files refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.catalogue import classes, published
from core.errors import BadInput

ROW = """
[[row]]
id = "a"
target = "l4"
model = "shape:llama-3.1-8b"
prompt = 8
output = 8
metric = "ttft_s"
value = 1.5
unit = "s"
program = "p"
dated = "2024-05"
source = "s"
use = "fit"
[sources]
s = "somebody's table"
[classifier]
small = { parameters = 10, macs = 20, inputs = 3, classes = 2, activations = 4 }
"""
CLASS = """
dated = "2026-11-30"
[[class]]
id = "fast"
title = "fast things"
bandwidth = { 16 = 0.8, 8 = 0.7, 4 = 0.6 }
compute = { 16 = 0.8, weights = 0.7, both = 0.6 }
layer_overhead_s = 1e-5
overlapped = true
spread = 1.5
[[core]]
id = "core"
title = "a core"
cycles_per_mac = 1.5
cycles_per_weight = 0.5
spread = 1.5
note = "a table"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "file.toml"
    path.write_text(text)
    return path


def test_good_files_are_read(tmp_path: Path) -> None:
    (row,) = published.load(written(tmp_path, ROW))
    assert (row.batch, row.techniques, row.miss) == (1, (), "")
    found = classes.load(written(tmp_path, CLASS))
    assert found.ids() == ("fast", "core")
    assert found.device("core") is None
    assert found.core("fast") is None


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('target = "l4"', 'target = "l5"', "unknown target 'l5'"),
        ('"shape:llama-3.1-8b"', '"shape:llama-9"', "unknown shape 'llama-9'"),
        ('metric = "ttft_s"', 'metric = "speed"', "metric is 'speed'; it must be one of"),
        ('unit = "s"', 'unit = "ms"', "unit is 'ms'; it must be one of s"),
        ('use = "fit"', 'use = "both"', "use is 'both'"),
        ('source = "s"', 'source = "t"', "source is 't'"),
        ("value = 1.5", "value = -1", "value must be above 0"),
        ('dated = "2024-05"', 'dated = "May"', "must be a month or a day"),
        ("prompt = 8", "prompt = 8.5", "prompt must be a whole number"),
        ("prompt = 8", "promt = 8", "unknown field 'promt'"),
        ("macs = 20", "macs = 0", "macs must be above 0"),
        ('s = "somebody', 's = 3 # "', "must map short names to texts"),
    ],
)
def test_a_damaged_row_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in ROW
    with pytest.raises(BadInput, match=sentence):
        published.load(written(tmp_path, ROW.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("16 = 0.8, 8", "16 = 1.8, 8", "a share is at most 1"),
        ("16 = 0.8, 8 = 0.7", "16 = 0.8", r"bandwidth\.8 must be a finite number"),
        ("both = 0.6", "mine = 0.6", "unknown field 'mine'"),
        ("spread = 1.5", "spread = 1.8", "above 1 and at most the root of 3"),
        ("spread = 1.5", "spread = 1", "above 1"),
        ("overlapped = true", "overlapped = 1", "overlapped must be true or false"),
        ("layer_overhead_s = 1e-5", "layer_overhead_s = 0", "must be above 0"),
        ('id = "core"', 'id = "fast"', "'fast' is a class and a core"),
        ("cycles_per_mac = 1.5", "", "cycles_per_mac must be a finite number"),
    ],
)
def test_a_damaged_class_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in CLASS
    with pytest.raises(BadInput, match=sentence):
        classes.load(written(tmp_path, CLASS.replace(old, new, 1)))


def test_every_source_is_used_and_says_when_it_was_read() -> None:
    text = published.FILE.read_text(encoding="utf-8")
    for line in text[text.index("[sources]") : text.index("[classifier]")].splitlines()[1:]:
        if line.strip() and not line.startswith("#"):
            name, source = line.split(" = ", 1)
            assert "read 2026-11-30" in source, name
            assert f'source = "{name}"' in text
    assert all(len(row.source) > 40 for row in published.rows())
