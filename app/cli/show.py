"""The commands that read: listings, studies, show, compare, report."""

from __future__ import annotations

import argparse
import json
from typing import Any

from app.cli.compare import comparison_text
from app.cli.console import Console, Writer, here
from app.cli.run import print_study, print_table
from app.facts import facts_of, places
from app.reports import export, new_report
from app.services import Services
from core import format as formats
from core import techniques
from core.catalogue import models, workloads
from core.errors import BadInput
from core.journal import codec
from core.machine import targets
from core.study import Study
from core.verdict.anchor import at_own_baseline
from core.verdict.compare import compare
from core.verdict.documents import study_document
from store.interface import Store


def listing(what: str, as_json: bool) -> int:
    """Print the models, targets, workloads or techniques."""
    if what == "techniques":
        rows = [["name", "kind", "what it does", "settings (default)"]]
        data: list[Any] = []
        for kind in techniques.TECHNIQUES:
            default = techniques.build(kind.name, {})
            defaults = {
                key: value for key, value in codec.to_data(default).items() if key != "technique"
            }
            data.append(
                {"name": kind.name, "kind": kind.kind, "title": kind.title, "settings": defaults}
            )
            rows.append(
                [
                    kind.name,
                    kind.kind,
                    kind.title,
                    ", ".join(f"{key}={value}" for key, value in defaults.items()) or "-",
                ]
            )
    elif what == "models":
        catalogue = models.list_models()
        data = [
            {
                **codec.to_data(model),
                "params": model.params(),
                "active_params": model.active_params(),
                "weight_bytes": model.weight_bytes(),
            }
            for model in catalogue
        ]
        rows = [["id", "family", "parameters", "weights", "what"]]
        rows += [
            [
                model.id,
                model.family,
                f"{model.params():,}",
                formats.number(model.weight_bytes(), "B"),
                model.title,
            ]
            for model in catalogue
        ]
    elif what == "targets":
        places = targets.list_targets()
        data = [codec.to_data(place) for place in places]
        rows = [["id", "place", "memory", "bandwidth", "power", "$/hour", "what"]]
        rows += [
            [
                place.id,
                place.place,
                formats.number(place.memory_bytes, "B"),
                _or_unknown(place.bandwidth, "B/s"),
                _or_unknown(place.power_w, "W"),
                _or_unknown(place.usd_per_hour, "$"),
                place.title,
            ]
            for place in places
        ]
    else:
        loads = workloads.list_workloads()
        data = [codec.to_data(load) for load in loads]
        rows = [["id", "task", "prompt", "output", "concurrency", "what"]]
        rows += [
            [
                load.id,
                load.task,
                str(load.prompt_tokens or "-"),
                str(load.output_tokens or "-"),
                str(load.concurrency),
                load.note,
            ]
            for load in loads
        ]
    console = here()
    if as_json:
        _print_json(data, console.out)
    else:
        print_table(rows, console)
    return 0


def studies(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """List stored studies, the newest first."""
    summaries = services.store.studies(limit=1000)
    if parsed.json:
        _print_json([vars(summary) for summary in summaries], console.out)
        return 0
    if not summaries:
        print("no studies yet; start one with: trimtab run --model pycode", file=console.err)
        return 0
    where = places(services.store, summaries)
    rows = [["study", "state", "trials", "failed", "model", "target", "workload", "created (UTC)"]]
    rows += [
        [
            summary.id,
            summary.state,
            f"{summary.ended}/{summary.trials}",
            str(summary.failed),
            summary.model_id,
            where[summary.id],
            summary.workload_id,
            str(summary.created_at)[:19],
        ]
        for summary in summaries
    ]
    print_table(rows, console)
    return 0


def show(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Print one study as a table or as the documented JSON."""
    study = _study(services.store, parsed.study)
    facts = facts_of(services.store, study.trials)
    if parsed.json:
        _print_json(study_document(study, facts), console.out)
    else:
        print_study(study, console, facts)
    return 0


def compare_trials(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Compare trials side by side against a baseline."""
    store, trials = services.store, []
    baseline = [parsed.baseline] if parsed.baseline else []
    for trial_id in dict.fromkeys((*baseline, *parsed.trials)):
        trial = store.trial(trial_id)
        if trial is None:
            raise BadInput(
                f"there is no trial {trial_id!r} in this store;"
                " `trimtab show STUDY` lists a study's trials"
            )
        trials.append(trial)
    if len(trials) < 2:
        raise BadInput("compare needs at least two different trials")
    environments = facts_of(store, trials)
    studies = [
        store.study(study_id) for study_id in dict.fromkeys(trial.study_id for trial in trials)
    ]
    shown = at_own_baseline(trials, [study for study in studies if study is not None])
    comparison = compare(shown, parsed.baseline or trials[0].id, environments)
    console.out.write(comparison_text(comparison, parsed.format))
    return 0


def report(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Save, list or export reports."""
    store = services.store
    if parsed.action == "new":
        saved = new_report(
            store,
            parsed.study,
            parsed.title,
            tuple(parsed.trial) or None,
            note=parsed.note,
            who=parsed.who,
        )
        print(saved.id, file=console.out)
        print(f"saved version {saved.version} of {saved.title!r}", file=console.err)
    elif parsed.action == "list":
        _list_reports(store, parsed.json, console)
    else:
        kept = store.report(parsed.report)
        if kept is None:
            raise BadInput(
                f"there is no report {parsed.report!r} in this store;"
                " `trimtab report list` lists them"
            )
        console.save(export(kept, parsed.format))
    return 0


def _list_reports(store: Store, as_json: bool, console: Console) -> None:
    reports = store.reports()
    if as_json:
        listed = [
            {
                "id": report.id,
                "version": report.version,
                "title": report.title,
                "study": report.study.id,
                "created_at": report.created_at,
                "who": report.who or None,
            }
            for report in reports
        ]
        _print_json(listed, console.out)
        return
    rows = [["report", "version", "study", "created (UTC)", "title"]]
    rows += [
        [report.id, str(report.version), report.study.id, report.created_at[:19], report.title]
        for report in reports
    ]
    print_table(rows, console)


def _study(store: Store, study_id: str) -> Study:
    study = store.study(study_id)
    if study is None:
        raise BadInput(
            f"there is no study {study_id!r} in this store; `trimtab studies` lists them"
        )
    return study


def _or_unknown(value: float | None, unit: str) -> str:
    return "unknown" if value is None else formats.number(value, unit)


def _print_json(data: Any, out: Writer) -> None:
    out.write(json.dumps(data, indent=2) + "\n")
