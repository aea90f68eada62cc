"""Everything that reads what a user or a disk gives, each fed one mutated input by one call."""

from __future__ import annotations

import contextlib
import io
import json
import random
import types
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.evidence import ROOT
from tests.evidence.files.fuzz_artefacts import ArtefactReaders
from tests.evidence.files.fuzz_inputs import (
    any_value,
    json_bytes,
    mutate,
    mutate_bytes,
    mutate_text,
)

Target = Callable[[random.Random], object]
BASE: dict[str, Any] = {
    "vocab_size": 300, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": [2, 3],
    "hidden_act": "silu", "sliding_window": 16, "use_sliding_window": True, "max_window_layers": 0,
    "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 16},
}  # fmt: skip
CONFIGS: tuple[dict[str, Any], ...] = (
    *({"model_type": kind, **BASE} for kind in ("llama", "mistral", "qwen2", "qwen3", "mixtral")),
    {"model_type": "gpt2", "vocab_size": 300, "n_embd": 48, "n_layer": 2, "n_head": 6},
    {"model_type": "gpt_neo", "vocab_size": 300, "hidden_size": 48, "num_layers": 2,
     "attention_types": [[["global", "local"], 1]]},
    {"model_type": "trimtab-mlp", "layers": [32, 16], "classes": 10},
    {"model_type": "trimtab-cnn", "channels": [8, 16], "classes": 10},
)  # fmt: skip
SMALL = {"model_type": "gpt2", "vocab_size": 4, "n_layer": 2}
HEADER = {
    "__metadata__": {"format": "pt"},
    "model.embed_tokens.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]},
    "model.norm.weight": {"dtype": "BF16", "shape": [2], "data_offsets": [32, 36]},
    "h.0.attn.bias": {"dtype": "BOOL", "shape": [4], "data_offsets": [36, 40]},
    "h.1.ln_1.weight": {"dtype": "F16", "shape": [2], "data_offsets": [40, 44]},
}
TOKENIZER = {
    "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
    "added_tokens": [{"id": 4, "content": "<end>", "single_word": False, "lstrip": False,
                      "rstrip": False, "normalized": False, "special": True}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                      "use_regex": True}, "decoder": {"type": "ByteLevel",
        "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<end>",
        "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [],
        "special_tokens": {"<end>": {"id": "<end>", "ids": [4], "tokens": ["<end>"]}}},
    "model": {"type": "BPE", "dropout": None, "unk_token": "c", "fuse_unk": False,
              "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": [["a", "b"]]},
}  # fmt: skip
LINES = (
    {"text": "Some text."},
    {"prompt": "Two and two?", "choices": ["four", "five"], "answer": 0},
    {"question": "Two and two?", "answer": "four", "stop": "\n", "max_tokens": 8},
    {"pixels": [[0, 1], [2, 3]], "label": 1},
)
TRACES = (
    "arrival_s,prompt_tokens,output_tokens\n0,10,5\n0.5,20,5\n",
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.0099300,2162,5\n",
    '{"timestamp": 27482, "input_length": 6955, "output_length": 52}\n',
)
WORDS = {
    "technique": ("weight-int8", "weight-int4:group_size=32", "static-batch:size=8",
                  "speculative:tokens=4", "prune-mlp-channels:fraction=0.25",
                  "soft-targets:steps=40,rate=0.001"),
    "limit": ("kl_nats<=0.05", "tokens_per_s>=100", " accuracy >= 0.9 ", "perplexity<=10"),
    "priority": ("latency=2", "size=0.5", "quality=1e0"),
    "margin": ("accuracy=0.01", "nats_per_byte=1%", "kl_nats=0.02"),
    "budget": ("90s", "5m", "1.5h", "7"),
    "arrival": ("4", "0.5", "trace:/nowhere", "1e3"),
    "model": ("pycode", "shape:llama-3.1-8b", "./nowhere", "/", "~/x", "a/b/c"),
    "target": ("local", "h100-sxm", "stm32l4r5"),
    "workload": ("chat", "batch", "sensor-frame"),
    "data": ("./nowhere.jsonl", "/dev/zero", "lm-eval:hellaswag:100", "/"),
}  # fmt: skip


class Readers(ArtefactReaders):
    """The targets by name, each fed by one call."""

    def __init__(self, folder: Path) -> None:
        from core.journal import codec, lines

        self.folder = folder
        from tests import conftest as synthetic
        from tests.app import conftest as journals

        study = (
            synthetic.synthetic_study.__wrapped__()
            if hasattr(synthetic.synthetic_study, "__wrapped__")
            else synthetic.synthetic_study._get_wrapped_function()()
        )
        self.study = study
        self.events = journals.events_of(study)
        self.lines = [lines.to_line(one) for one in self.events]
        values = (study.with_trials(study.trials[:2]), study.trials[1], study.case,
                  study.priorities, study.trials[1].measurements[0])  # fmt: skip
        self.documents = [json.loads(codec.dumps(value)) for value in values]
        self.tomls = [
            Path(file).read_bytes()
            for file in sorted((ROOT / "core" / "catalogue").glob("*s.toml"))
            if Path(file).name in ("targets.toml", "workloads.toml")
        ]
        self.targets: dict[str, Target] = {
            name.removeprefix("do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("do_")
        }

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    # What lies in a model's folder.

    def do_config(self, rng: random.Random) -> None:
        from core.catalogue.models import classifier_shape, decoder_shape
        from core.files import jsonfile, tables
        from core.files.config.classifier import CLASSIFIERS

        read = jsonfile.parse_object("config.json", json_bytes(rng, rng.choice(CONFIGS)))
        tables.check_config(read)
        if read["model_type"] in CLASSIFIERS:
            classifier_shape(read)
        else:
            decoder_shape(read)

    def do_header(self, rng: random.Random) -> None:
        from core.files.header import read_header
        from core.files.tables import check_dtypes, check_tensors

        text = json_bytes(rng, HEADER)
        length = len(text) if rng.random() < 0.8 else rng.choice((0, 1, 2**63, len(text) + 1))
        path = self.file("m.safetensors", length.to_bytes(8, "little") + text + bytes(44))
        entries, _ = read_header(path)
        config = rng.choice((*CONFIGS[:5], *[SMALL] * 5))
        check_dtypes(config, entries, path.name)
        check_tensors(config, {one.name: one.shape for one in entries}, path.name)

    def do_tokenizer(self, rng: random.Random) -> None:
        from core.files import tokenizer

        path = self.file("tokenizer.json", json_bytes(rng, TOKENIZER))
        tokenizer.check(path, {"vocab_size": rng.choice((5, 5, 5, None, 300))})
        tokenizer.load(path)

    def do_index(self, rng: random.Random) -> None:
        from core.files import listing as files

        names = {"a": "x.safetensors", "b": "y.safetensors"}
        (self.folder / "sharded").mkdir(exist_ok=True)
        for name in names.values():
            self.file(f"sharded/{name}", b"")
        self.file(f"sharded/{files.INDEX}", json_bytes(rng, {"weight_map": names}))
        files.weight_files(self.folder / "sharded")

    # What the store and the journals hold.

    def do_journal(self, rng: random.Random) -> None:
        from core.journal import journal

        folder = self.folder / "s-synthetic"
        folder.mkdir(exist_ok=True)
        path = folder / "study.jsonl"
        path.unlink(missing_ok=True)
        with journal.Journal(path) as written:
            written.extend(rng.sample(self.events, 6))
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        journal.read(path)
        journal.damage(path)
        with journal.Journal(path) as written:
            written.append(rng.choice(self.events))
        journal.read(path)

    def do_event(self, rng: random.Random) -> None:
        from core.journal.lines import from_line
        from store import open_store

        store = open_store("memory:")
        lines = list(self.lines[: rng.choice((2, 8))])
        at = rng.randrange(len(lines))
        lines[at] = json_bytes(rng, json.loads(rng.choice(self.lines))).decode("utf-8", "replace")
        store.ingest([from_line(line) for line in lines])
        store.studies()
        store.study("s-synthetic")

    def do_codec(self, rng: random.Random) -> None:
        from core.journal import codec
        from core.study import Study
        from core.verdict.documents import study_document

        read = codec.loads(json_bytes(rng, rng.choice(self.documents)).decode("utf-8", "replace"))
        if isinstance(read, Study):
            study_document(read)

    def do_calibration(self, rng: random.Random) -> None:
        from core.machine.calibration import record

        rate = {
            "name": "read",
            "unit": "B/s",
            "best": 2e10,
            "median": 1e10,
            "low": 1e10,
            "high": 2e10,
            "n": 5,
            "size": 1 << 20,
            "threads": 2,
            "format": "",
            "how": "",
        }
        data = {"version": 2, "environment": "e", "taken_at": "2026-11-21T10:00:00.000",
                "device": "cpu", "bandwidth": 2e10, "peaks": [["fp32", 1e11]], "seconds": 9.0,
                "others_cores": None, "rates": [rate, rate | {"size": 1 << 28}]}  # fmt: skip
        path = record.path_of("e")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json_bytes(rng, data))
        found = record.stored("e")
        if found is not None:
            found.read_bandwidth(1e6)
            found.memory_bandwidth()

    # What a user uploads or points to.

    def do_lines(self, rng: random.Random) -> None:
        from core.data.parsing import parse

        name = rng.choice(
            ("data.jsonl", "data.jsonl", "data.txt", "data.csv", mutate_text(rng, "a.jsonl"))
        )
        row = rng.choice(LINES)
        rows = [json.dumps(row).encode()] * 11
        rows[rng.randrange(11)] = json_bytes(rng, row)
        content = b"\n".join(rows)
        parse(name, mutate_bytes(rng, content) if rng.random() < 0.3 else content)

    def do_images(self, rng: random.Random) -> None:
        import numpy as np

        from core.data.parsing import parse

        out = io.BytesIO()
        pixels = np.zeros((12, 8, 8), rng.choice(("u1", "f4", "i8", "c8", "U1", "?")))
        arrays = {
            "pixels": pixels,
            "labels": np.zeros(rng.choice((12, 11)), rng.choice(("i8", "f8"))),
        }
        if rng.random() < 0.5:
            np.savez(out, **arrays)
        else:
            with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, array in arrays.items():
                    one = io.BytesIO()
                    np.save(one, array)
                    archive.writestr(f"{name}.npy", mutate_bytes(rng, one.getvalue()))
        content = out.getvalue()
        parse("data.npz", mutate_bytes(rng, content) if rng.random() < 0.7 else content)

    def do_trace(self, rng: random.Random) -> None:
        from core.data.arrivals import read_trace

        text = rng.choice(TRACES)
        if text.startswith("{") and rng.random() < 0.5:
            content = json_bytes(rng, json.loads(text))
        else:
            content = mutate_bytes(rng, text.encode())
        read_trace(self.file("trace.csv", content))

    def do_toml(self, rng: random.Random) -> None:
        from core.catalogue import targets, workloads

        content = rng.choice(self.tomls)
        start = rng.randrange(len(content))
        piece = mutate_bytes(rng, content[start : start + 400])
        whole = content[:start] + piece + content[start + 400 :]
        (targets if b"bandwidth" in content else workloads).load(self.file("own.toml", whole))

    # What is typed on the command line and in the address bar.

    def do_words(self, rng: random.Random) -> None:
        from app.cli.run import seconds
        from core import margin, priorities, techniques
        from core.catalogue import models, workloads
        from core.data import arrivals, files
        from core.machine import targets

        kind = rng.choice(sorted(WORDS))
        word = mutate_text(rng, rng.choice(WORDS[kind]))
        if kind == "technique":
            techniques.parse(word)
        elif kind == "limit":
            priorities.parse([], [word, rng.choice(WORDS["limit"])])
        elif kind == "priority":
            priorities.parse([word, rng.choice(WORDS["priority"])], [])
        elif kind == "margin":
            str(margin.parse_margin(word))
        elif kind == "budget":
            seconds(word)
        elif kind == "arrival":
            arrivals.with_arrivals(workloads.resolve("chat"), word)
        elif kind == "data":
            files.read_datasets([word])
        elif kind == "target" and word != "local":
            targets.resolve(word)
        elif kind == "workload":
            workloads.resolve(word)
        elif kind == "model" and (word.strip().count("/") != 1 or word.startswith((".", "/", "~"))):
            models.resolve(word)

    def do_command(self, rng: random.Random) -> None:
        from app.cli import main as cli

        words = list(rng.choice((
            ("show", "s-1", "--json"), ("compare", "t-1", "t-2", "--format", "csv"),
            ("report", "new", "s-1", "--title", "x"), ("cancel", "s-1"), ("studies",),
            ("report", "export", "r-1", "--format", "md", "-o", "x"), ("resume", "s-1"),
            ("run", "--model", "pycode-small", "--limit", "kl_nats<=1", "--preset", "x"),
        )))  # fmt: skip
        at = rng.randrange(1, len(words)) if len(words) > 1 else 0
        words[at] = mutate_text(rng, words[at])
        # A run that starts measuring, or a server, is no input that is refused.
        if words[0] == "run" and words[-1] in ("", "quick", "standard", "deep"):
            return
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                code = cli.main([*words, "--store", "memory:"])
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 1
        if code not in (0, 2):
            raise AssertionError(f"exit {code} of {words}")

    def do_url(self, rng: random.Random) -> None:
        from app import state
        from app.main import PAGES

        told = types.SimpleNamespace(session_state={}, query_params={})
        before, state.st = state.st, told  # type: ignore[assignment]
        try:
            for page in rng.sample(PAGES, 3):
                for name, default in page.parameters.items():
                    if rng.random() < 0.5:
                        raw = str(default if default not in (None, ()) else "a,b")
                        told.query_params[name] = mutate_text(rng, raw)
                state.enter(page.path, page.parameters)
                for name, default in page.parameters.items():
                    options = rng.choice((None, ["a", "b"], [], [default]))
                    value = told.session_state[state.key(name, options)]
                    state.keep(name, value)
                    state.words(**{name: state.chosen(name)})
        finally:
            state.st = before

    # What a report carries.

    def do_report(self, rng: random.Random) -> None:
        from app.reports import export, file_name, new_report
        from store import open_store

        store = open_store("memory:")
        text = mutate_text(rng, "A <b>title</b> | with *marks* & =1+1")
        trials = tuple(
            replace(one, reason=mutate_text(rng, text), notes=(mutate_text(rng, text),))
            for one in self.study.trials
        )
        study = self.study.with_trials(trials)
        chosen = rng.choice(
            (None, ["t-0001", "t-0002"], [text], [trials[0].id, mutate_text(rng, "t-0001")])
        )
        facts = json.dumps(mutate(rng, {"cpu": text, "cores": 2, "flags": ["a"]}))
        with contextlib.suppress(AttributeError):
            store.ingest(self.events)
        report = replace(
            new_report(store, study.id, text, chosen, None, mutate_text(rng, text)),
            study=study, environments=(("env-7f3a", facts), (text, str(any_value(rng)))),
        )  # fmt: skip
        for format_ in rng.sample(("csv", "md", "json", "html", "docx", text), 2):
            file_name(report, format_)
            export(report, format_)
