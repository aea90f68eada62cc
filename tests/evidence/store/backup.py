"""R16: backups while eight writers run, each restored to an empty place and compared.

    python -m tests.evidence backup [--count 20] [--writers 8]

Every writer keeps a trial's batches one after another and notes each that was acknowledged, first
in a journal, then in the store. Of every backup taken meanwhile the restored store must hold, of
each writer, whole batches only, from the first to the last without a gap; all that was acknowledged
before the backup began, and nothing that was begun after it ended; and every row as it was written.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from core.journal import events
from core.journal.events import Event
from core.journal.journal import Journal
from core.measurement import Measurement
from core.report import Report
from store import Store, open_store
from store.copies.backup import BackupManifest, back_up, restore_to
from tests.store.conftest import Make

PER_BATCH = 5


@dataclass
class Writer:
    """What one writer began and what was acknowledged to it, in batches."""

    name: str
    begun: int = 0
    acknowledged: int = 0
    failed: list[str] = field(default_factory=list)

    def batch(self, number: int) -> list[Event]:
        """Measurements whose samples say which batch and place they are."""
        return [
            events.MeasurementTaken(
                1,
                Measurement(
                    "ttft_s",
                    tuple(float(number * PER_BATCH + place + sample) for sample in range(30)),
                    "s",
                    "measured",
                    f"batch {number}",
                ),
            ).event(self.name, f"{self.name}-t")
            for place in range(PER_BATCH)
        ]

    def run(self, store: Store, folder: Path, stop: threading.Event) -> None:
        """Journal, then store, until told to stop; at least one batch."""
        try:
            with Journal(folder / self.name / "work.jsonl") as journal:
                while self.begun == 0 or not stop.is_set():
                    self.begun += 1
                    batch = self.batch(self.begun)
                    journal.extend(batch)
                    if store.ingest(batch) != PER_BATCH:
                        self.failed.append(f"batch {self.begun} was not kept whole")
                    self.acknowledged += 1
        except Exception as error:
            self.failed.append(f"{type(error).__name__}: {error}")


def first_events(name: str) -> list[Event]:
    """A study with one running trial."""
    make = Make()
    study = make.study(name)
    trial = make.trial(study, f"{name}-t")
    started = events.event("trial-started", name, trial.id, attempt=1, pid=1)
    return [events.study_created(study), events.trial_queued(trial), started]


def wrong(
    place: Path, writers: list[Writer], least: dict[str, int], most: dict[str, int]
) -> list[str]:
    """What the restored store at `place` does not hold as it should."""
    import duckdb

    found = []
    with duckdb.connect(str(place), read_only=True) as connection:
        for writer in writers:
            rows = connection.execute(
                "select m.method, m.samples, e.id from measurements m"
                " left join events e on e.id = m.event_id where m.study_id = ? order by m.event_id",
                [writer.name],
            ).fetchall()
            batches = len(rows) // PER_BATCH
            if len(rows) % PER_BATCH:
                found.append(f"{writer.name}: {len(rows)} rows are no whole batches")
            if not least[writer.name] <= batches <= most[writer.name]:
                found.append(
                    f"{writer.name}: {batches} batches, but {least[writer.name]} were acknowledged"
                    f" before and {most[writer.name]} begun when it ended"
                )
            for place_, (method, samples, event_id) in enumerate(rows):
                number = place_ // PER_BATCH + 1
                first = float(number * PER_BATCH + place_ % PER_BATCH)
                written = str([first + sample for sample in range(30)])
                if (method, samples) != (f"batch {number}", written) or event_id is None:
                    found.append(f"{writer.name}: row {place_} is not what was written")
    return found


def run(count: int, writers: int) -> bool:
    """Take and compare `count` backups; print the figure."""
    problems: list[str] = []
    manifests: list[BackupManifest] = []
    crew = [Writer(f"s-{number}") for number in range(writers)]
    with tempfile.TemporaryDirectory() as base:
        folder, url = Path(base) / "live.studies", f"{base}/live.duckdb"
        store = open_store(url)
        for writer in crew:
            store.ingest(first_events(writer.name))
        study = store.study(crew[0].name)
        assert study is not None
        store.save_report(Report("r-1", 1, "One", study, (), "", "2026-11-21T10:00:00.000"))
        stop = threading.Event()
        threads = [threading.Thread(target=one.run, args=(store, folder, stop)) for one in crew]
        for thread in threads:
            thread.start()
        for number in range(count):
            archive = Path(base) / f"{number}.tar"
            least = {one.name: one.acknowledged for one in crew}
            manifests.append(back_up(store, folder, archive))
            most = {one.name: one.begun for one in crew}
            place = Path(base) / f"empty-{number}" / "restored.duckdb"
            journals = place.with_name("restored.studies")
            restore_to(archive, place, journals)
            problems += [f"backup {number}: {what}" for what in wrong(place, crew, least, most)]
            problems += [f"backup {number}: {what}" for what in same_as_store(place, store, crew)]
            archive.unlink()
        stop.set()
        for thread in threads:
            thread.join()
        store.close()
    problems += [f"{one.name}: {what}" for one in crew for what in one.failed]
    for what in problems[:20]:
        print(what)
    rows = sum(sum(one.rows.values()) for one in manifests)
    journals_kept = sum(one.journals for one in manifests)
    print(
        f"R16: {count} backups while {writers} writers kept"
        f" {sum(one.acknowledged for one in crew):,} batches, restored to empty places: {rows:,}"
        f" rows and {journals_kept} journals, {len(problems)} differences from a prefix of what"
        " was acknowledged (wanted: 0)"
    )
    return not problems


def same_as_store(place: Path, store: Store, crew: list[Writer]) -> list[str]:
    """Where the restored store answers otherwise than the live one, which only has more."""
    found = []
    restored = open_store(str(place))
    for writer in crew:
        ours, theirs = store.trial(f"{writer.name}-t"), restored.trial(f"{writer.name}-t")
        assert ours is not None
        if theirs is None or theirs.measurements != ours.measurements[: len(theirs.measurements)]:
            found.append(f"{writer.name}: the trial reads differently")
    if restored.reports() != store.reports():
        found.append("the reports read differently")
    restored.close()
    return found


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--writers", type=int, default=8)


def main(options: argparse.Namespace) -> int:
    """0 when the figure is reached."""
    return 0 if run(options.count, options.writers) else 1
