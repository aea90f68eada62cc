"""The commands that make trials run: run, resume, again, cancel."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from app.cli.console import CANCEL, Console
from app.cli.progress import StudyProgress
from app.facts import facts_of
from app.jobs import supervisor
from app.planning import plan_again, plan_study
from app.services import Services, studies_folder
from core import format as formats
from core.catalogue import models
from core.errors import BadInput, StoreError
from core.journal import codec
from core.machine.stays import stays
from core.metrics import listed
from core.plan import Plan
from core.priorities import parse as parse_priorities
from core.study import Study
from core.verdict.anchor import anchored
from core.verdict.documents import margins_kept, study_document
from core.verdict.environments import Facts, warnings
from core.verdict.recommend import recommend
from core.verdict.robust.firmness import robustness
from core.verdict.robust.words import sentences as sentences_of

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def plan(parsed: argparse.Namespace) -> None:
    """Read what `run` was given, here where its files lie: `planned` holds the study and its plans
    as data.
    """
    priorities = parse_priorities(parsed.priority, parsed.limit, parsed.margin)
    workload = parsed.workload or (
        "chat" if models.resolve(parsed.model).task == "text" else "sensor-frame"
    )
    study, plans = plan_study(
        parsed.model,
        parsed.target,
        workload,
        priorities,
        tuple(parsed.technique),
        parsed.preset,
        parsed.seed,
        seconds(parsed.budget) if parsed.budget else None,
        tuple(parsed.data),
        parsed.arrival,
    )
    parsed.planned = codec.to_data((replace(study, who=parsed.who), *plans))


def run(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Run a planned study to its end, print it."""
    study, *plans = codec.from_data(parsed.planned)
    return _submit(study, tuple(plans), parsed.json, services, console)


def _submit(
    study: Study, plans: tuple[Plan, ...], as_json: bool, services: Services, console: Console
) -> int:
    print(f"study {study.id}: {len(plans)} trials", file=console.err)
    with services.jobs.listening(StudyProgress(console, study.id, len(plans))):
        services.jobs.submit(study, plans)
        ahead = services.jobs.ahead(study.id)
        if ahead:
            studies = "study" if ahead == 1 else "studies"
            print(f"it waits for {ahead} other {studies} to end first", file=console.err)
        return _finish(services, study.id, study.who, as_json, console)


def resume(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Go on with a study's trials that did not end."""
    if parsed.study in services.jobs.active():
        raise BadInput(
            f"study {parsed.study} is running already: follow it in the dashboard, or with"
            f" trimtab show {parsed.study}"
        )
    services.jobs.ingest_journals(parsed.study)
    study = services.store.study(parsed.study)
    progress = StudyProgress(console, parsed.study, 0, study)
    with services.jobs.listening(progress):
        services.jobs.resume(parsed.study, parsed.who)
        return _finish(services, parsed.study, parsed.who, parsed.json, console)


def again(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Measure a study's leading trials again, more thoroughly, as a new study."""
    parent = services.store.study(parsed.study)
    if parent is None:
        raise BadInput(
            f"there is no study {parsed.study!r} in this store; `trimtab studies` lists them"
        )
    study, plans = plan_again(parent, parsed.preset)
    if study.case.target.name != parent.case.target.name:
        print(
            f"study {parent.id} was measured on {parent.case.target.name}; this is a study of its"
            f" own, on {study.case.target.name}",
            file=console.err,
        )
    return _submit(replace(study, who=parsed.who), plans, parsed.json, services, console)


def cancel(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Cancel a study, whether it runs here or not."""
    services.jobs.cancel(parsed.study, parsed.who)
    print(f"cancelled {parsed.study}", file=console.out)
    return 0


def ask_to_cancel(parsed: argparse.Namespace) -> bool:
    """Ask another command that holds the store, by a marker in the study's folder; False when
    there is no such study.
    """
    folder = studies_folder(parsed.store) / parsed.study
    if Path(parsed.study).name != parsed.study or not folder.is_dir():
        return False
    try:
        (folder / supervisor.CANCEL).write_text(parsed.who, encoding="utf-8")
    except OSError as error:
        raise StoreError(f"the study cannot be asked to stop: {folder}: {error.strerror}") from None
    print(f"asked the process that holds the store to cancel {parsed.study}")
    return True


def seconds(text: str) -> float:
    """Seconds of `90s`, `5m`, `1.5h`; BadInput otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise BadInput(f"--budget {text!r} is not a time such as 90s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _finish(services: Services, study_id: str, who: str, as_json: bool, console: Console) -> int:
    """Wait for the study's end, or for a wish to stop it, and print it."""
    interrupted = False

    def stop(wish: str) -> None:
        nonlocal interrupted
        if wish == CANCEL:
            services.jobs.cancel(study_id, who)
        else:
            interrupted = True
            services.jobs.interrupt(study_id, who)

    with console.heeding(stop):
        study = services.jobs.wait(study_id)
    go_on = f"go on with: trimtab resume {study_id}"
    if interrupted and study.state == "paused":
        print(f"\ninterrupted; {go_on}", file=console.err)
        return 130
    if study.state in ("running", "queued"):
        print(f"trimtab: the server that ran the study was stopped; {go_on}", file=console.err)
        return 1
    if as_json:
        document = study_document(study, facts_of(services.store, study.trials))
        console.out.write(json.dumps(document, indent=2) + "\n")
    else:
        print_study(study, console, facts_of(services.store, study.trials))
    if study.state == "paused":
        print(f"trimtab: {study.reason}", file=console.err)
        return 1
    return 1 if any(trial.state == "failed" for trial in study.trials) else 0


def print_study(
    study: Study, console: Console, facts: Mapping[str, Facts | None] | None = None
) -> None:
    """A table of the trials, what they ran on by the `facts` of their environments, the warnings,
    and the recommendation with its reasons."""
    sentences = warnings(study.trials, facts)
    hosts = stays(study.trials, facts or {})
    study = anchored(study)
    out = console.out
    shown = [
        name
        for name in listed("run_table")
        if any(trial.value(name) is not None for trial in study.trials)
    ]
    rows = [["trial", "state", *shown, "techniques"]]
    for trial in study.trials:
        cells = [formats.of_metric(name, trial.value(name)) for name in shown]
        rows.append([trial.id, trial.state, *cells, trial.plan.title])
    print(
        f"study {study.id}  {study.case.model.id} on {study.case.target.id},"
        f" {study.case.workload.id}: {study.state}",
        file=out,
    )
    for stay in hosts:
        counted = f" ({len(stay.trials)} trials)" if len(hosts) > 1 else ""
        print(f"ran on {stay.line}{counted}", file=out)
    print_table(rows, console)
    for trial in study.trials:
        if trial.reason:
            print(f"{trial.id} {trial.state}: {trial.reason}", file=out)
    for warning in sentences:
        print(f"warning: {warning}", file=out)
    for trial in study.trials:
        for _, _, sentence in margins_kept(trial, study.priorities.margins):
            print(f"{trial.id} {sentence}", file=out)
    advice = recommend(study)
    chosen = study.trial(advice.trial_id) if advice.trial_id else None
    word = "recommended" if advice.proven else "leading, not proven"
    print(
        f"\n{word}: {chosen.id} {chosen.plan.title}" if chosen else "\nno recommendation",
        file=out,
    )
    firm = sentences_of(study, chosen, robustness(study, chosen)) if chosen else ()
    for sentence in (*advice.because, *firm):
        print(f"  {sentence}", file=out)
    for trial_id, sentence in advice.rejected:
        rejected = study.trial(trial_id)
        print(f"  not {rejected.plan.title if rejected else trial_id}: {sentence}", file=out)
    if advice.again:
        print(f"measure the leading trials again with: trimtab again {study.id}", file=out)


def print_table(rows: list[list[str]], console: Console) -> None:
    """Columns padded to their widest cell; the last one is left ragged."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        print(line[: console.width], file=console.out)
