"""The workload presets and the refusal of damaged ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.catalogue import workloads
from core.errors import BadInput

GOOD = """
[[workload]]
id = "w"
title = "W"
task = "text"
prompt_tokens = 8
output_tokens = 4
note = "a note"
"""


def test_the_presets_are_there_and_fit_the_bundled_context() -> None:
    found = {workload.id: workload for workload in workloads.list_workloads()}
    assert set(found) >= {"chat", "autocomplete", "summarize", "batch", "sensor-frame"}
    assert found["batch"].concurrency == 8
    assert found["sensor-frame"].task == "image"
    for workload in found.values():
        assert workload.prompt_tokens + workload.output_tokens <= 1024
        assert workload.note


def test_an_unknown_workload_names_the_closest() -> None:
    assert workloads.resolve("chat").prompt_tokens == 128
    with pytest.raises(BadInput, match=r"did you mean 'summarize'\?"):
        workloads.resolve("sumarise")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("prompt_tokens = 8", "", "needs prompt_tokens and output_tokens"),
        ("prompt_tokens = 8", "prompt_tokens = 0", "integer from 1"),
        ("prompt_tokens = 8", "prompt_tokens = 8.5", "integer from 1"),
        ("prompt_tokens = 8", "prompt_tokens = true", "integer from 1"),
        ("prompt_tokens = 8", "promt_tokens = 8", "unknown field 'promt_tokens'"),
        ('task = "text"', 'task = "video"', "must be one of text, image"),
        ('note = "a note"', "ttft_limit_s = 0", "above 0"),
        ('note = "a note"', "", "note is missing"),
        ('id = "w"', "id = 7", "has no id"),
    ],
)
def test_a_damaged_preset_is_refused_with_a_sentence(
    tmp_path: Path, old: str, new: str, sentence: str
) -> None:
    path = tmp_path / "workloads.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(BadInput, match=sentence):
        workloads.load(path)
