"""The plans that each preset proposes for a case, by title and key, as they have been since the
first release: proposals.json is changed on purpose or not at all.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.model import ClassifierShape, DecoderShape, Model
from core.plan import Case
from core.planner.search import propose
from core.priorities import Limit
from core.target import Target
from core.workload import Workload

PINNED = Path(__file__).parent / "proposals.json"
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CHAT = Workload("chat", "Chat", "text", 128, 64)
SHAPE = DecoderShape(64, 2, 4, 2, 16, 96, 512, 256)
TEXT = Case(Model("pycode", "llama", "bundled", "r1", SHAPE), TARGET, CHAT)
RANDOM = Case(Model("shape:x", "llama", "shape", "r1", SHAPE), TARGET, CHAT)
IMAGES = Case(
    Model("digits-cnn", "image-classifier", "bundled", "r1", ClassifierShape(1, 1, 64, 10, 64)),
    TARGET,
    Workload("sensor", "Sensor", "image"),
)
MCU = replace(IMAGES, target=replace(TARGET, id="mcu", kind="mcu", local=False))
CASES = {"text": TEXT, "shape": RANDOM, "image": IMAGES, "mcu": MCU}


def proposals() -> dict[str, list[str]]:
    """`KEY TITLE` of every proposed plan, by case, concurrency and preset."""
    found = {}
    for name, case in CASES.items():
        for concurrency in (1, 4, 16):
            asked = replace(case, workload=replace(case.workload, concurrency=concurrency))
            for preset in ("quick", "standard", "deep"):
                plans = propose(asked, preset)
                found[f"{name} x{concurrency} {preset}"] = [f"{p.key} {p.title}" for p in plans]
    limited = propose(TEXT, "standard", limits=(Limit("kl_nats", "<=", 0.005),))
    found["text standard kl_nats<=0.005"] = [f"{p.key} {p.title}" for p in limited]
    return found


@pytest.mark.parametrize("name", json.loads(PINNED.read_text()))
def test_the_proposed_plans_are_the_pinned_ones(name: str) -> None:
    assert proposals()[name] == json.loads(PINNED.read_text())[name]
