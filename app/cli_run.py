"""The commands that make trials run: run, resume, cancel."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType

from app.again import plan_again
from app.facts import facts_of, warnings
from app.jobs import CANCEL, Listener
from app.services import Services, open_services, plan_study, studies_folder
from core import format as formats
from core.anchor import anchored
from core.catalogue import models
from core.documents import margins_kept, study_document
from core.errors import BadInput, StoreError
from core.events import Event
from core.priorities import parse as parse_priorities
from core.recommend import recommend
from core.study import Study

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def run(parsed: argparse.Namespace) -> int:
    """Plan a study, run it to its end, print it."""
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
    services = opened(parsed.store, Progress(len(plans)))
    try:
        print(f"study {study.id}: {len(plans)} trials", file=sys.stderr)
        services.jobs.submit(study, plans)
        return _finish(services, study.id, parsed.json)
    finally:
        services.close()


def resume(parsed: argparse.Namespace) -> int:
    """Go on with a study's trials that did not end."""
    progress = Progress(0)
    services = opened(parsed.store, progress)
    try:
        services.jobs.resume(parsed.study)
        study = services.store.study(parsed.study)
        progress.total = len(study.trials) if study else 0
        progress.ended = (
            sum(trial.state in ("done", "failed", "refused") for trial in study.trials)
            if study
            else 0
        )
        return _finish(services, parsed.study, parsed.json)
    finally:
        services.close()


def again(parsed: argparse.Namespace) -> int:
    """Measure a study's leading trials again, more thoroughly, as a new study."""
    progress = Progress(0)
    services = opened(parsed.store, progress)
    try:
        parent = services.store.study(parsed.study)
        if parent is None:
            raise BadInput(
                f"there is no study {parsed.study!r} in this store; `trimtab studies` lists them"
            )
        study, plans = plan_again(parent, parsed.preset)
        progress.total = len(plans)
        print(f"study {study.id}: {len(plans)} trials", file=sys.stderr)
        services.jobs.submit(study, plans)
        return _finish(services, study.id, parsed.json)
    finally:
        services.close()


def cancel(parsed: argparse.Namespace) -> int:
    """Cancel here, or ask the server that holds the store by a marker in the study's folder."""
    try:
        services = opened(parsed.store)
    except StoreError:
        folder = studies_folder(parsed.store) / parsed.study
        if Path(parsed.study).name != parsed.study or not folder.is_dir():
            raise
        (folder / CANCEL).touch()
        print(f"asked the process that holds the store to cancel {parsed.study}")
        return 0
    try:
        services.jobs.cancel(parsed.study)
        print(f"cancelled {parsed.study}")
        return 0
    finally:
        services.close()


def opened(url: str | None, listener: Listener | None = None) -> Services:
    """The services; what was found damaged or lost is said first."""
    services = open_services(url, listener)
    for notice in services.notices:
        print(f"trimtab: {notice}", file=sys.stderr)
    return services


def seconds(text: str) -> float:
    """Seconds of `90s`, `5m`, `1.5h`; BadInput otherwise."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text.strip())
    if match is None or float(match[1]) <= 0:
        raise BadInput(f"--budget {text!r} is not a time such as 90s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2] or "s"]


class Progress:
    """Writes one line a trial to stderr, and the running stage on a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.ended = 0
        self._titles: dict[str, str] = {}
        self._terminal = sys.stderr.isatty()

    def __call__(self, event: Event) -> None:
        """Called by the supervisor for every event that was kept."""
        if event.kind == "trial-queued":
            from core import codec

            self._titles[event.trial_id] = codec.from_data(event.body["trial"]).plan.title
        title = self._titles.get(event.trial_id, event.trial_id)
        if event.kind == "trial-ended":
            self.ended += 1
            reason = f": {event.body['reason']}" if event.body["reason"] else ""
            self._line(f"[{self.ended}/{self.total}] {event.body['state']:9} {title}{reason}\n")
        elif event.kind == "progress" and self._terminal:
            self._line(
                f"[{self.ended}/{self.total}] {title}:"
                f" {event.body['stage']} {event.body['share']:.0%}"
            )

    def _line(self, text: str) -> None:
        clear = "\r\x1b[K" if self._terminal else ""
        print(clear + text, end="", file=sys.stderr, flush=True)


def _finish(services: Services, study_id: str, as_json: bool) -> int:
    def stop(number: int, frame: FrameType | None) -> None:
        services.jobs.cancel(study_id)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        study = services.jobs.wait(study_id)
    except KeyboardInterrupt:
        services.jobs.pause(study_id)
        services.jobs.close()
        print(f"\ninterrupted; go on with: trimtab resume {study_id}", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    if as_json:
        document = study_document(study, facts_of(services.store, study.trials))
        json.dump(document, sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        print_study(study, warnings(services.store, study.trials))
    if study.state == "paused":
        print(f"trimtab: {study.reason}", file=sys.stderr)
        return 1
    return 1 if any(trial.state == "failed" for trial in study.trials) else 0


def print_study(study: Study, said: tuple[str, ...] = ()) -> None:
    """A table of the trials, the warnings `said` and the recommendation with its reasons."""
    study = anchored(study)
    names = (
        "ttft_s",
        "tpot_s",
        "tokens_per_s",
        "examples_per_s",
        "latency_s",
        "latency_p95_s",
        "model_bytes",
        "peak_bytes",
        "perplexity",
        "kl_nats",
        "accuracy",
        "task_accuracy",
        "task_accuracy_norm",
        "flips",
        "top1_agreement",
    )
    shown = [name for name in names if any(trial.value(name) is not None for trial in study.trials)]
    rows = [["trial", "state", *shown, "techniques"]]
    for trial in study.trials:
        cells = [formats.of_metric(name, trial.value(name)) for name in shown]
        rows.append([trial.id, trial.state, *cells, trial.plan.title])
    print(
        f"study {study.id}  {study.case.model.id} on {study.case.target.id},"
        f" {study.case.workload.id}: {study.state}"
    )
    print_table(rows)
    for trial in study.trials:
        if trial.reason:
            print(f"{trial.id} {trial.state}: {trial.reason}")
    for warning in said:
        print(f"warning: {warning}")
    for trial in study.trials:
        for _, _, sentence in margins_kept(trial, study.priorities.margins):
            print(f"{trial.id} {sentence}")
    found = recommend(study)
    chosen = study.trial(found.trial_id) if found.trial_id else None
    word = "recommended" if found.proven else "leading, not proven"
    print(f"\n{word}: {chosen.id} {chosen.plan.title}" if chosen else "\nno recommendation")
    for sentence in found.because:
        print(f"  {sentence}")
    for trial_id, sentence in found.rejected:
        rejected = study.trial(trial_id)
        print(f"  not {rejected.plan.title if rejected else trial_id}: {sentence}")
    if found.again:
        print(f"measure the leading trials again with: trimtab again {study.id}")


def print_table(rows: list[list[str]]) -> None:
    """Columns padded to their widest cell; the last one is left ragged."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    width = os.get_terminal_size().columns if sys.stdout.isatty() else 10_000
    for row in rows:
        line = "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        print(line[:width])
