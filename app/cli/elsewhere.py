"""The commands for studies that are measured on another machine: bundle, ingest."""

from __future__ import annotations

import argparse
import io
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from app import who
from app.archives import unpacked
from app.cli import run as cli_run
from app.cli.console import Console, here
from app.cli.link.remote import server_of
from app.ingest import Ingested, ingest
from app.reference import package
from app.services import Services, opened
from core import format as formats
from core.errors import BadInput
from core.journal import codec
from core.measure.study.archive import write
from core.measure.study.collect import collect

# What says the same as a stored study does, and has a default.
_STATED = {"target": "local", "preset": "quick", "seed": 0}
_OPTIONS = ("model", "workload", "priority", "limit", "margin", "data", "arrival", "technique",
            "budget")  # fmt: skip


def bundle(parsed: argparse.Namespace) -> int:
    """Write the plan of a stored study, or of one that the options describe."""
    output = Path(parsed.output)
    given = [name for name in _OPTIONS if getattr(parsed, name)]
    given += [name for name, default in _STATED.items() if getattr(parsed, name) != default]
    if parsed.study and given:
        raise BadInput(
            f"--{given[0]}: bundle takes a stored study, or the options of `trimtab run`, not both"
        )
    if parsed.study:
        text = io.StringIO()
        code = _ask(argparse.Namespace(command="planned", study=parsed.study), parsed.store, text)
        if code:
            return code
        parsed.planned = json.loads(text.getvalue())
    elif parsed.model:
        parsed.who = who.of_command(parsed.who)
        cli_run.plan(parsed)
    else:
        raise BadInput("bundle needs a stored study, or --model and the options of `trimtab run`")
    study, *plans = codec.from_data(parsed.planned)
    plan, sources = collect(study, tuple(plans), not parsed.no_model)
    size = formats.number(write(output, plan, sources), "B")
    print(f"wrote {output} ({size}): {len(plans)} plans, {len(sources)} files", file=sys.stderr)
    name = shlex.quote(output.name)
    print(f"measure it there with: python -m core.measure.study {name} OUT", file=sys.stderr)
    return 0


def _ask(request: argparse.Namespace, store: str | None, out: io.StringIO) -> int:
    """Let the server that has the store open answer, else this process; returns the exit code."""
    console = replace(here(), out=out)
    with server_of(store) as server:
        if server is not None:
            return server.ask(request, console)
    with opened(store) as services:
        return planned(request, services, console)


def planned(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Print a stored study and its plans as one line of data."""
    study = services.store.study(parsed.study)
    if study is None:
        raise BadInput(
            f"there is no study {parsed.study!r} in this store; `trimtab studies` lists them"
        )
    plans = (trial.plan for trial in study.trials)
    console.out.write(json.dumps(codec.to_data((study.with_trials(()), *plans))) + "\n")
    return 0


def _folder(place: Path, services: Services) -> Ingested:
    with unpacked(place) as folder:
        archive = "" if folder == place else str(place)
        return ingest(services.store, services.folder, folder, archive)


def _reference(services: Services) -> Ingested:
    shipped = package.reference()
    if shipped is None:
        raise BadInput(f"{package.NONE}: {package.WAY_OUT}")
    return package.take_in(services.store, services.folder, shipped)


def ingest_folder(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Take in the studies of a folder; 1 when one of several was refused."""
    if bool(parsed.folder) == parsed.reference:
        raise BadInput("ingest needs a folder of journals, or --reference, and not both")
    taken = _reference(services) if parsed.reference else _folder(Path(parsed.folder), services)
    for notice in taken.notices:
        print(f"trimtab: {notice}", file=console.err)
    if parsed.json:
        document = {
            "studies": list(taken.study_ids),
            "new": taken.new,
            "machines": list(taken.machines),
            "notices": list(taken.notices),
        }
        console.out.write(json.dumps(document, indent=2) + "\n")
        return int(taken.refused > 0)
    for study_id in taken.study_ids:
        study = services.store.study(study_id)
        assert study is not None
        print(
            f"study {study_id}  {study.case.model.id}, {study.case.workload.id}: {study.state},"
            f" {len(study.trials)} trials; show it with: trimtab show {study_id}",
            file=console.out,
        )
    for machine in taken.machines:
        print(f"measured on {machine}", file=console.out)
    print(f"{taken.new:,} new events", file=console.out)
    return int(taken.refused > 0)
