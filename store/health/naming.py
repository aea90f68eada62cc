"""The sentences for what is wrong with a journal, and whether the store still holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.errors import StoreError
from core.journal.journal import JournalReading, Mark
from core.study import ENDED
from store.health.losses import HELD, LOST, Losses
from store.interface import Store

# Sentences about one journal before the rest is counted.
MOST = 5


def journal_name(study_id: str, file: str) -> str:
    """How a journal is called: its place in the studies folder."""
    return f"journal {study_id}/{file}" if study_id else f"journal {file}"


def in_a_journal(
    store: Store,
    losses: Losses,
    reading: JournalReading,
    kept: Mark | None,
    noted: Mark | None,
    refused: Sequence[str],
) -> list[str]:
    """What is wrong in one journal, a few sentences when there are many. `kept` is how far the
    store read it, `noted` how far a note beside the journal says that it was; `refused` are the
    ids of events that were not believed.
    """
    name = journal_name(*reading.mark.key)
    held = kept.number if kept else 0
    before = noted if noted is not None and noted.number > held else kept
    damage, told = reading.checked.damage, []
    known = store.known([*refused, *(item.event_id for item in damage if item.event_id)])
    for item in damage:
        safe = item.event_id in known or 0 < item.number <= held
        means = "nothing is lost" if not item.lost else HELD if safe else LOST
        told += losses.tell(f"{name}, {item.text}", means)
    last = reading.mark.number
    if before is not None:
        means = HELD if before is kept else LOST
        if before.number > last:
            text = f"{name} was cut: it ends after {last} of the {before.number} lines it had"
            told += losses.tell(text, means)
        elif reading.checked.hashes.get(before.number, before.hash) != before.hash:
            told += losses.tell(f"{name} was replaced by one that says something else", means)
        elif before.number == last == 0 and reading.mark.size < before.size:
            told += losses.tell(f"{name} was cut: it is shorter than it was", means)
    strange = set(refused) - known
    if strange:
        text = f"{name} has {len(strange)} events that are not of its trial or not of its time"
        told += losses.tell(text, "they were not taken")
    if len(told) > MOST:
        return [*told[:MOST], f"{name} has {len(told) - MOST} more such lines"]
    return told


def in_a_study(store: Store, losses: Losses, study_id: str, paths: Sequence[Path]) -> list[str]:
    """What can no longer be shown of a study whose journals were damaged."""
    try:
        study = store.study(study_id)
    except StoreError as error:
        return losses.tell(str(error), "a line of its journals is missing")
    if study is None:
        return losses.tell(f"study {study_id} cannot be shown", "the line that began it is lost")
    told: list[str] = []
    shown = {trial.id for trial in study.trials}
    for trial_id in sorted({path.stem.rpartition("-")[0] for path in paths} - shown - {""}):
        text = f"trial {trial_id} of study {study_id} cannot be shown"
        told += losses.tell(text, "the line that queued it is lost")
    for trial in study.trials:
        if study.state == "done" and trial.state not in ENDED:
            text = f"trial {trial.id} of study {study_id} has no end"
            told += losses.tell(
                text, f"`trimtab resume {study_id}` runs it again, on the machine that measured it"
            )
    return told


def gone_studies(losses: Losses, study_ids: Sequence[str]) -> list[str]:
    """One sentence for all studies whose folders are gone."""
    if not study_ids:
        return []
    names = ", ".join(study_ids[:3]) + (", ..." if len(study_ids) > 3 else "")
    count = f"{len(study_ids)} studies" if len(study_ids) > 1 else "study"
    return losses.tell(f"the journals of {count} {names} are missing beside the store", HELD)
