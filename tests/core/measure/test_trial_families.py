"""Trials of models that run through transformers, quantized and measured to the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from core.catalogue import models
from core.engine.load.load import load_engine
from core.machine.calibrate import Calibration, Rate
from core.machine.work import work_of
from core.measure import trial
from core.measure.steps import share
from core.measurement import Measurement
from core.plan import Case, Plan
from core.planner.presets import PRESETS, Preset
from core.target import Target
from core.techniques.quantize.rtn import RoundToNearest
from core.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")
TARGET = Target("local", "here", "cpu", "local", 10**9, None, (), local=True)
SHORT = Workload("short", "Short", "text", 16, 4)
VOCABULARY, HIDDEN = 4096, 64
PLAIN = {"hidden_size": HIDDEN, "num_hidden_layers": 1, "num_attention_heads": 4,
         "intermediate_size": 96, "max_position_embeddings": 128}  # fmt: skip
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt_neox": ("gpt_neox", PLAIN | {"tie_word_embeddings": False}),
    "gpt_neox-tied": ("gpt_neox", PLAIN | {"tie_word_embeddings": True}),
    "gpt2": ("gpt2", {"n_embd": HIDDEN, "n_layer": 1, "n_head": 4, "n_positions": 128}),
    "mixtral": ("mixtral", PLAIN | {"num_local_experts": 2, "num_key_value_heads": 2}),
}


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    monkeypatch.setitem(PRESETS, "quick", Preset("quick", 3, 0.001, 3, 32, 1, 0.0, 60.0))
    # Without limits of this environment a trial would not count what a step reads.
    read = Rate("read", "B/s", 1e10, 1e10, 1e10, 1e10, 5, 1 << 28, 1)
    at = "2026-11-21T10:00:00.000"
    known = Calibration("env-1", at, "cpu", 1e10, (("bf16", 1e12),), (read,))
    monkeypatch.setattr(share, "ensure", lambda: known)


def folder(kind: str, path: Path) -> str:
    """A new model of KINDS with the bundled tokenizer, as transformers saves it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family, fields = KINDS[kind]
    ids = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **ids, **fields))
    model.to(torch.bfloat16).save_pretrained(path)
    shutil.copy(models.ZOO / "pycode-small" / "tokenizer.json", path)
    return str(path)


def run(plan: Plan) -> tuple[dict[str, Measurement], list[str]]:
    """Measurements without conditions by metric, and the notes."""
    found: dict[str, Measurement] = {}
    notes: list[str] = []

    def emit(kind: str, **body: Any) -> None:
        if kind == "measurement" and not body["measurement"].condition:
            found[body["measurement"].metric] = body["measurement"]
        if kind == "note":
            notes.append(body["text"])

    trial.run_trial(plan, "quick", "env-1", emit)
    return found, notes


@pytest.mark.parametrize("kind", KINDS)
def test_a_replaced_head_is_measured_to_the_end(kind: str, tmp_path: Path) -> None:
    model = models.resolve(folder(kind, tmp_path / kind))
    found, notes = run(Plan(Case(model, TARGET, SHORT), (RoundToNearest(8, 32),)))
    for metric in ("tokens_per_s", "model_bytes", "memory_bytes", "mbu", "mfu", "kl_nats"):
        assert found[metric].value is not None, found[metric]
    assert found["top1_agreement"].value is not None
    assert found["top1_agreement"].value > 0.7
    assert not [note for note in notes if "not in linear layers" in note]


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_reads_the_head_and_no_table(kind: str, tmp_path: Path) -> None:
    from core.techniques.deployment import Deployment

    model = models.resolve(folder(kind, tmp_path / kind))
    engine = load_engine(model)
    tables = 2 * HIDDEN * (VOCABULARY + (128 if kind == "gpt2" else 0))
    head = 2 * HIDDEN * VOCABULARY
    tied = kind in ("gpt_neox-tied", "gpt2")
    # A tied table is read as the head.
    untouched = tables - (head if tied else 0)
    assert work_of(engine, model.decoder()).weights == engine.weight_bytes() - untouched
    plan = Plan(Case(model, TARGET, SHORT))
    RoundToNearest(8, 32).apply(Deployment(plan.case, engine, lambda: engine))
    assert work_of(engine, model.decoder()).weights == engine.weight_bytes() - tables
    codes = sum(tensor.nbytes for tensor in engine.model.lm_head.buffers())
    assert VOCABULARY * HIDDEN <= codes < head
    assert work_of(engine, model.decoder()).weights > codes


def test_a_dense_head_of_ours_over_the_tied_table_reads_it(tmp_path: Path) -> None:
    from core.engine.modules import KernelLinear
    from kernels import linear_dense

    model = models.resolve(folder("gpt_neox-tied", tmp_path / "model"))
    engine = load_engine(model)
    table = engine.model.get_input_embeddings().weight.detach()
    engine.model.lm_head = KernelLinear(linear_dense.prepare(table))
    assert work_of(engine, model.decoder()).weights == engine.weight_bytes()
