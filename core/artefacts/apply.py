"""Apply a plan's techniques to a model and write what comes of it as a deployable artefact.

The flow of `trimtab apply`: check, load, apply, take apart, write.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from core.artefacts import foreign, gguf
from core.artefacts.contents import Contents, contents
from core.artefacts.foresee import foresee
from core.artefacts.save import FolderLayout, check_place, native_layout, write_folder
from core.catalogue.models import find_folder
from core.catalogue.planned import checked
from core.data.passages import digits
from core.engine.load.load import load_engine, load_tokenizer
from core.errors import BadInput, Refused
from core.files.folder import CheckedFolder
from core.files.formats import chat_template, native
from core.files.formats import manifest as manifests
from core.files.formats.companions import TOKENIZER, companions
from core.files.formats.foreign import MODULES
from core.files.formats.manifest import Manifest
from core.files.gguf import folder as gguf_files
from core.files.gguf import tokenizer as gguf_tokenizer
from core.files.gguf.parse import parse
from core.files.listing import SINGLE
from core.plan import Plan, Technique, settings
from core.techniques.applying import apply_all
from core.techniques.deployment import Deployment
from core.techniques.kinds import KINDS, refuse

WEIGHTS = (SINGLE, gguf.FILE)
FORMATS = (native.METHOD, *MODULES, gguf.METHOD)
# Tokens, or images, that the changed model must answer before it is written.
TOKENS_TRIED = 32
PACKAGES = ("trimtab", "torch", "transformers", "safetensors", "numpy")


def apply(
    plan: Plan,
    folder: Path,
    format: str = "trimtab",
    note: Callable[[str], None] = lambda text: None,
    report: Callable[[str, float], None] = lambda stage, share: None,
) -> Manifest:
    """Write the model of `plan` into `folder`; the manifest says what came of it.

    `note` is told what a technique says, `report` the stage and its progress in [0, 1]. Raises
    BadInput or Refused with one sentence, before anything is loaded where that can be seen.
    """
    notes: list[str] = []

    def keep(text: str) -> None:
        notes.append(text)
        note(text)

    changing, runtime = divided(plan, format)
    check_place(folder)
    source = checked(plan.case.model)
    foresee(plan, format, source.config)
    texts = _texts(plan, source, keep)
    if format == gguf.METHOD and TOKENIZER in texts:
        # Refused before the work where llama.cpp would make other tokens of a text.
        gguf_tokenizer.metadata_of(json.loads(texts[TOKENIZER]), source.config["vocab_size"])
    deployment = _applied(plan, source, changing, keep, report)
    content = contents(deployment.engine, source.config)
    laid_out = lay_out(content, format, texts, plan.case.model.title or plan.case.model.id)
    for text in laid_out.notes:
        keep(text)
    report("write", 0.0)
    manifest = Manifest(
        format=format,
        source={
            "model": plan.case.model.id,
            "family": plan.case.model.family,
            "digest": plan.case.model.revision,
        },
        techniques=[settings(technique) for technique in changing],
        runtime=[settings(technique) for technique in runtime],
        seed=plan.seed,
        sizes={
            "weights": laid_out.weights_bytes(),
            "resident": int(deployment.engine.weight_bytes()),
            "source": sum(path.stat().st_size for path in source.weight_files),
        },
        matrices=content.formats(),
        versions=_versions(),
        made_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        notes=notes,
    )
    named = [
        (name, manifests.digested(name, pieces, manifest.digests) if name in WEIGHTS else pieces)
        for name, pieces in laid_out.files()
    ]
    named += ((name, [data]) for name, data in texts.items())
    # Last, when the digests are known.
    named.append((manifests.NAME, map(Manifest.to_bytes, (manifest,))))
    total = manifest.sizes["weights"] + sum(map(len, texts.values())) + len(manifest.to_bytes())
    write_folder(folder, named, total)
    report("write", 1.0)
    return manifest


def lay_out(
    content: Contents, format: str, texts: Mapping[str, bytes], name: str
) -> FolderLayout | gguf.GgufLayout:
    """The files of an engine in a format; Refused names the formats that can hold it.

    `texts` are the files beside the weights, `name` is what the model is called.
    """
    if format == native.METHOD:
        return native_layout(content)
    if format == gguf.METHOD:
        laid_out = gguf.layout(content, texts.get(TOKENIZER), name)
        spoken = chat_template.to_gguf(chat_template.templates(texts))
        return replace(laid_out, metadata=laid_out.metadata | spoken)
    return foreign.layout(content, format)


def divided(plan: Plan, format: str) -> tuple[list[Technique], list[Technique]]:
    """The techniques that change the weights, and those that are settings of serving.

    Raises BadInput or Refused for a plan that leaves nothing to write.
    """
    if format not in FORMATS:
        raise BadInput(f"--format {format!r} is not one of {', '.join(FORMATS)}.")
    reason = refuse(plan)
    if reason is not None:
        raise Refused(reason)
    if plan.case.model.source == "shape":
        raise Refused(
            f"{plan.case.model.id} has random weights, there is nothing in it to deploy; apply to a"
            " bundled model, a folder or a hub id."
        )
    runtime = [technique for technique in plan.techniques if KINDS[technique.kind].serves]
    changing = [technique for technique in plan.techniques if not KINDS[technique.kind].serves]
    if not changing:
        what = ", ".join(technique.name for technique in runtime)
        raise Refused(
            f"{what} changes how the model is run, not its weights: there is nothing to write; add"
            " a technique that changes them, or name it when the model is served."
            if what
            else "no technique is given, so that the model would only be copied; add --technique."
        )
    return changing, runtime


def _applied(
    plan: Plan,
    source: CheckedFolder,
    changing: Iterable[Technique],
    note: Callable[[str], None],
    report: Callable[[str, float], None],
) -> Deployment:
    import torch

    model = plan.case.model
    torch.manual_seed(plan.seed)
    report("load", 0.0)
    has_text = model.task == "text" and source.tokenizer_file is not None
    deployment = Deployment(
        case=plan.case,
        engine=load_engine(source),
        load_baseline=lambda: load_engine(source),
        tokenizer=load_tokenizer(source) if has_text else None,
        seed=plan.seed,
        note=lambda line: note(str(line)),
    )
    apply_all(deployment, changing, lambda name: lambda share: report(name, share))
    _check_answers(deployment)
    return deployment


def _check_answers(deployment: Deployment) -> None:
    """Refused when the changed model answers with NaN or infinity: nobody wants such a folder."""
    import torch

    engine, seed = deployment.engine, torch.Generator().manual_seed(0)
    with torch.inference_mode():
        if deployment.case.model.task == "text":
            length = min(TOKENS_TRIED, engine.max_positions)
            ids = torch.randint(0, engine.vocab_size, (1, length), generator=seed)
            answers = engine.forward(ids)
        else:
            answers = engine(digits("train")[0][:TOKENS_TRIED])
    if not bool(torch.isfinite(answers).all()):
        raise Refused(
            f"the answers of {deployment.case.model.id} are not finite with these techniques:"
            " nothing was written; try others, or look at the model itself"
        )


def _texts(plan: Plan, source: CheckedFolder, note: Callable[[str], None]) -> dict[str, bytes]:
    """The files beside the weights, and the chat templates that a GGUF file has inside."""
    beside = companions(find_folder(plan.case.model.id))
    for text in beside.notes:
        note(text)
    if gguf_files.is_gguf(source.config) and not chat_template.templates(beside.texts):
        beside.texts |= chat_template.of_gguf(parse(source.weight_files[0]).metadata)
    return beside.texts


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions
