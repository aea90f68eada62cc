"""What the parts of a run on a GPU do on the device, on one that is only pretended: the lines that
a rehearsal on the processor does not reach.
"""

from __future__ import annotations

import json
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.measure.energy.nvml import Nvml
from tests.core.pretended_gpu import pretended_gpu
from tests.evidence.gpu import decoding, energy, environment, graph
from tests.evidence.gpu.place import Place


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, tmp_path, time.monotonic() + 30)


def test_three_ways_of_a_step_choose_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (decoding, graph):
        monkeypatch.setattr(module, "TOKENS", 6)
    with pretended_gpu(monkeypatch), torch.inference_mode():
        data = graph.measured("pycode-small", "cuda")
    assert set(data["seconds_a_token"]) == {"captured", "eager", "plain"}
    assert all(len(taken) == graph.REPEATS for taken in data["seconds_a_token"].values())
    assert data["same_tokens"] == 1.0
    # Nothing is captured here, and the figure is not content with that.
    assert data["not_captured"]
    assert not graph._captured(data)


def test_a_model_that_breaks_does_not_take_the_other_along(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = {"seconds_a_token": {"captured": [1.0], "eager": [2.0]}, "same_tokens": 1.0}

    def measured(name: str, device: str) -> dict[str, object]:
        if name == "pycode":
            raise RuntimeError("an illegal memory access")
        return {**whole, "not_captured": []}

    monkeypatch.setattr(graph, "measured", measured)
    good, told = graph.run(place)
    assert not good
    assert told.startswith("pycode RuntimeError: an illegal memory access; shape:qwen2.5-0.5b capt")
    assert set(json.loads((place.out / "steps.json").read_text())["graph"]) == {
        "pycode",
        "shape:qwen2.5-0.5b",
    }


def test_spans_of_decoding_have_joules_a_token(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "MODEL", {"cuda": "pycode-small"})
    monkeypatch.setattr(decoding, "TOKENS", 6)
    monkeypatch.setattr(decoding, "UPDATES", 1.0)
    monkeypatch.setattr(decoding, "SPAN_S", {"cuda": 0.02})
    with pretended_gpu(monkeypatch):
        data = decoding.joules(place, Nvml(energy.StandIn()), idle_w=20.0)
    assert len(data["spans"]) == len(data["joules_a_token"]) == decoding.SPANS
    assert all(span["tokens"] % 6 == 0 for span in data["spans"])
    seconds = sum(span["seconds"] for span in data["spans"])
    joules = sum(span["joules"] for span in data["spans"])
    assert joules / seconds == pytest.approx(100.0, rel=0.2)


def test_the_energy_part_compares_the_counter_with_power_and_decodes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"IDLE_S": 0.2, "LOAD_S": 0.2, "WATCH_S": 0.1, "ROWS": {"cuda": 16}}.items():
        monkeypatch.setattr(energy, name, value)
    monkeypatch.setattr(energy, "_nvml", lambda: Nvml(energy.StandIn()))
    monkeypatch.setattr(
        decoding, "joules", lambda place, nvml, idle_w: {"spans": [{}], "idle_w": idle_w}
    )
    with pretended_gpu(monkeypatch):
        _, told = energy.run(place)
    assert "under load" in told
    assert told.endswith("1 spans")
    data = json.loads((place.out / "steps.json").read_text())
    assert data["rehearsal"] is False
    assert set(data["energy"]) == {"updates_s", "idle", "load", "decode"}
    assert data["energy"]["decode"]["idle_w"] == pytest.approx(100.0, rel=0.1)


def test_what_torch_says_of_the_card_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    card = types.SimpleNamespace(
        name="NVIDIA H200", multi_processor_count=132, total_memory=141, L2_cache_size=60
    )
    with pretended_gpu(monkeypatch):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
        facts = environment._torch(place)
    assert (facts["name"], facts["capability"], facts["l2_bytes"]) == ("NVIDIA H200", [9, 0], 60)


def test_without_a_gpu_the_part_says_so(place: Place) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RuntimeError, match="torch sees no CUDA device here"):
        environment._torch(place)
