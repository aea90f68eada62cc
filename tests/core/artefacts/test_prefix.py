"""Kept prefixes of plans: made once, loaded bit for bit, made again where they are damaged."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from core.artefacts import prefix as prefixes
from core.artefacts.prefix import FILE, Prefixes, prefix_key
from core.catalogue import models
from core.measure.steps.apply import apply
from core.measure.steps.context import TrialRun
from core.measure.steps.load import load
from core.measurement import Measurement
from core.plan import Case, Plan
from core.planner.presets import PRESETS
from core.target import Target
from core.techniques.distill.soft_targets import SoftTargets
from core.techniques.prune.mlp_channels import PruneMlpChannels
from core.techniques.quantize.gptq import Gptq
from core.techniques.quantize.qat import Qat
from core.techniques.quantize.rtn import RoundToNearest
from core.techniques.recover.lora import Lora
from core.workload import Workload

TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
CASE = Case(models.resolve("pycode-small"), TARGET, Workload("short", "Short", "text", 16, 4))
TRAINED = (PruneMlpChannels(0.25), SoftTargets(steps=2))


@dataclass
class Log:
    """What a trial said."""

    notes: list[str] = field(default_factory=list)
    rows: list[Measurement] = field(default_factory=list)

    def __call__(self, kind: str, **body: Any) -> None:
        if kind == "note":
            self.notes.append(body["text"])
        if kind == "measurement":
            self.rows.append(body["measurement"])


class Prepared(NamedTuple):
    run: TrialRun
    log: Log
    steps: int


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch):
    """Loads and applies a plan, as a trial does, and counts the optimizer's steps."""
    taken: list[int] = []
    step = torch.optim.AdamW.step

    def counted(self: Any, *arguments: Any) -> Any:
        taken.append(1)
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", counted)
    monkeypatch.setattr("core.measure.steps.load.rehearse", lambda *given: None)

    def prepare(plan: Plan, kept: Prefixes | None = None) -> Prepared:
        log, before = Log(), len(taken)
        torch.manual_seed(plan.seed)
        run = TrialRun(plan, PRESETS["quick"], "env-1", log, prefixes=kept)
        load(run)
        apply(run)
        return Prepared(run, log, len(taken) - before)

    return prepare


def weights(run: TrialRun) -> dict[str, torch.Tensor]:
    engine = run.deployment.engine
    return {
        "embedding": engine.embedding,
        "final_norm": engine.final_norm,
        **{
            f"{name}.{i}": tensor
            for name, linear in engine.linears()
            for i, tensor in enumerate(linear.tensors())
        },
    }


def assert_same(first: TrialRun, second: TrialRun) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype is theirs[name].dtype, name
        assert torch.equal(tensor, theirs[name]), name
    ids = torch.arange(40)[None]
    engines = first.deployment.engine, second.deployment.engine
    assert torch.equal(*(engine.forward(ids) for engine in engines))
    assert engines[0].special_ids == engines[1].special_ids
    assert engines[0].weight_bytes() == engines[1].weight_bytes()


def test_two_trials_that_share_a_trained_prefix_train_once(prepared: Any, tmp_path: Path) -> None:
    made = prepared(Plan(CASE, TRAINED), Prefixes(tmp_path, "t-1", "env-1", (2,)))
    assert made.steps == 2
    longer = Plan(CASE, (*TRAINED, RoundToNearest(8, 64)))
    loaded = prepared(longer, Prefixes(tmp_path, "t-2", "env-1"))
    assert loaded.steps == 0
    alone = prepared(longer)
    assert alone.steps == 2
    assert_same(loaded.run, alone.run)
    # Both say what the training said and read.
    assert loaded.log.notes == alone.log.notes
    assert any("2 steps of" in note and "loss" in note for note in loaded.log.notes)
    assert loaded.log.rows == alone.log.rows
    assert {row.metric for row in loaded.log.rows} == {"learning_items"}
    # The seconds of making it are counted, those of loading it are not.
    assert loaded.run.prefix is not None
    assert loaded.run.prefix.making.trial == "t-1"
    assert loaded.run.prepared_s > loaded.run.prefix.making.seconds > 0


@pytest.mark.parametrize(
    "techniques",
    [
        (*TRAINED, Gptq(samples=4)),
        (PruneMlpChannels(0.25), Qat(3, steps=1, start="nearest")),
        (Gptq(samples=4), Lora(4, steps=1)),
        (Qat(3, steps=2, start="nearest"), Lora(4, steps=1)),
    ],
    ids=["distilled, then gptq", "pruned, then qat", "gptq, then lora", "qat, then lora"],
)
def test_what_follows_reads_on_as_if_it_had_all_been_done_here(
    prepared: Any, tmp_path: Path, techniques: tuple[Any, ...]
) -> None:
    plan, count = Plan(CASE, techniques, seed=3), len(techniques) - 1
    first = prepared(plan, Prefixes(tmp_path, "t-1", "env-1", (count,)))
    again = prepared(plan, Prefixes(tmp_path, "t-2", "env-1"))
    assert again.run.prefix is not None
    assert again.run.prefix.count == count
    assert_same(first.run, again.run)
    assert first.log.notes == again.log.notes
    assert first.log.rows == again.log.rows


def test_a_prefix_of_another_seed_model_or_machine_is_not_loaded(
    prepared: Any, tmp_path: Path
) -> None:
    plan = Plan(CASE, (PruneMlpChannels(0.25),))
    prepared(plan, Prefixes(tmp_path, "t-1", "env-1", (1,)))
    assert Prefixes(tmp_path, "t-2", "env-1").load(plan, "cpu")[0] is not None
    for other in (Plan(CASE, plan.techniques, 1), Plan(CASE, (PruneMlpChannels(0.5),))):
        assert Prefixes(tmp_path, "t-2", "env-1").load(other, "cpu") == (None, [])
    assert Prefixes(tmp_path, "t-2", "env-2").load(plan, "cpu") == (None, [])


def test_the_key_knows_nothing_of_target_and_workload() -> None:
    plan = Plan(CASE, TRAINED)
    elsewhere = Target("there", "there", "cuda", "x", 1, None, ())
    other = Case(CASE.model, elsewhere, Workload("long", "Long", "text", 900, 90))
    assert prefix_key(plan, 2, "e") == prefix_key(Plan(other, TRAINED), 2, "e")
    assert prefix_key(plan, 1, "e") != prefix_key(plan, 2, "e")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def changed(path: Path) -> None:
    facts = json.loads(path.read_text())
    facts["state"]["seconds"] = 1e6
    path.write_text(json.dumps(facts))


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: flip(place / "model.safetensors"),
        lambda place: flip(place / "config.json"),
        lambda place: flip(place / FILE),
        lambda place: changed(place / FILE),
        lambda place: (place / FILE).write_text("[]"),
        lambda place: (place / FILE).unlink(),
        lambda place: (place / "model.safetensors").unlink(),
    ],
)
def test_what_is_damaged_is_made_again_with_a_note(
    prepared: Any, tmp_path: Path, damage: Any
) -> None:
    plan = Plan(CASE, (PruneMlpChannels(0.25),))
    kept = Prefixes(tmp_path, "t-1", "env-1", (1,))
    first = prepared(plan, kept)
    (place,) = tmp_path.iterdir()
    damage(place)
    again = prepared(plan, kept)
    assert again.run.prefix is None
    (note,) = [note for note in again.log.notes if note not in first.log.notes]
    assert note.startswith("the kept weights of prune-mlp(sparsity=0.25) cannot be used (")
    assert note.endswith("they are made again")
    assert_same(first.run, again.run)
    assert prepared(plan, kept).run.prefix is not None


def test_a_full_disk_keeps_nothing_and_says_so(
    prepared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(prefixes.shutil, "disk_usage", lambda place: usage)
    plan = Plan(CASE, (PruneMlpChannels(0.25),))
    log = prepared(plan, Prefixes(tmp_path / "kept", "t-1", "env-1", (1,))).log
    assert "were not kept" in log.notes[-1]
    assert "only 1.00 MB are free" in log.notes[-1]
    assert not any((tmp_path / "kept").iterdir())


def test_a_classifier_comes_back_too(prepared: Any, tmp_path: Path) -> None:
    sensor = Workload("sensor", "Sensor", "image")
    plan = Plan(Case(models.resolve("digits-mlp"), TARGET, sensor), (Qat(4, steps=2),))
    first = prepared(plan, Prefixes(tmp_path, "t-1", "env-1", (1,)))
    again = prepared(plan, Prefixes(tmp_path, "t-2", "env-1"))
    assert again.steps == 0
    images = torch.rand(5, 1, 8, 8)
    engines = (done.run.deployment.engine for done in (first, again))
    assert torch.equal(*(engine(images) for engine in engines))
