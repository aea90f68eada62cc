"""What the text is worth that GPTQ calibrates and distillation learns on, for a model of stories.

Trains a small model of stories, then prints the KL divergence from the unchanged model on stories
that nothing learned from: rounded to nearest, and by GPTQ at 4 and 3 bit calibrated on the bundled
Python source, on text that the model wrote itself, and on the user's own stories; and after cutting
a quarter of the MLP and 100 steps of distillation on each. Exits 1 unless both kinds of story text
leave less than the Python source does, everywhere.

    python -m tests.evidence calibration-text
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from core import techniques
from core.catalogue.models import resolve
from core.data.files import read_datasets
from core.engine.load.load import load_folder
from core.measure.quality.measure import measure_quality
from core.plan import Case
from core.planner.presets import PRESETS
from core.target import Target
from core.techniques.applying import apply_all
from core.techniques.deployment import Deployment
from core.workload import Workload
from tests.evidence.techniques.story_model import train, write_stories

PLANS = (
    ("rtn:bits=4",),
    ("gptq:bits=4",),
    ("rtn:bits=3",),
    ("gptq:bits=3",),
    ("prune-mlp:sparsity=0.25", "distill-soft:steps=100"),
)
SOURCES = ("bundled", "sampled", "data")
PRESET = replace(PRESETS["quick"], windows=16, window=256)


def lost(folder: Path, words: tuple[str, ...], source: str, stories: Path) -> tuple[float, str]:
    """(KL in nats per token on stories, what was said of the text) after the techniques."""
    model = resolve(str(folder))
    case = Case(
        # Only a bundled model learns from the bundled text.
        replace(model, source="bundled" if source == "bundled" else "folder"),
        Target("local", "here", "cpu", "local", 10**9, None, (), local=True),
        Workload("chat", "Chat", "text", 32, 8),
    )
    data = read_datasets([str(stories)])
    notes: list[str] = []
    engine, tokenizer = load_folder(folder)
    deployment = Deployment(
        replace(case, data=data if source == "data" else ()),
        engine,
        lambda: load_folder(folder)[0],
        tokenizer,
        note=notes.append,
    )
    made = tuple(map(techniques.parse, words))
    apply_all(deployment, made, lambda name: lambda share: None)
    # Judged on the same part whatever was learned from.
    judged = replace(deployment, case=replace(case, data=data), learned={})
    found = measure_quality(judged, PRESET, judged.prefix, unchanged=False)
    nats = next(one.value for one in found if one.metric == "kl_nats")
    said = next((note for note in notes if note.startswith(("calibrated", "trained"))), "")
    return float(nats or 0.0), said


def main() -> int:
    """0 when text of the model's own kind is better everywhere."""
    sentences, better = [], True
    with tempfile.TemporaryDirectory() as place:
        folder, stories = Path(place) / "model", Path(place) / "stories.jsonl"
        loss = train(folder)
        write_stories(stories, range(1500))
        print(f"a model of stories, {loss:.3f} nats a token in training", flush=True)
        for words in PLANS:
            name, found = " + ".join(words), {}
            for source in SOURCES if "rtn" not in words[0] else SOURCES[:1]:
                found[source], said = lost(folder, words, source, stories)
                print(f"{name}: {found[source]:.4f} nats; {said}", flush=True)
            if len(found) > 1:
                bundled, sampled, data = (found[source] for source in SOURCES)
                better &= max(sampled, data) < bundled
                sentences.append(f"{name} {bundled:.4f} -> {sampled:.4f} / {data:.4f}")
    print(
        "KL in nats per token of stories, learned from Python source -> from the model's own text /"
        f" from other stories: {'; '.join(sentences)}: {'better' if better else 'NOT better'}"
        " everywhere."
    )
    return 0 if better else 1
