"""Studies that were measured elsewhere are taken into every kind of store."""

from __future__ import annotations

from pathlib import Path

from app.ingest import ingest
from core.measure.study.standing import standing_of
from core.study import Study
from store import Store
from tests.app.journals import BOX, write


def test_every_store_takes_in_what_was_measured_elsewhere(
    store: Store, tmp_path: Path, synthetic_study: Study
) -> None:
    place = write(synthetic_study, tmp_path / "box", ("begin",))
    begun = ingest(store, tmp_path / "studies", tmp_path / "box")
    write(synthetic_study, tmp_path / "box", ("trials", "end"))
    taken = ingest(store, tmp_path / "studies", tmp_path / "box")
    assert begun.new > 0
    assert (taken.study_ids, taken.notices) == ((synthetic_study.id,), ())
    assert [machine.rpartition(", ")[0] for machine in taken.machines] == [BOX]
    assert store.study(synthetic_study.id) == standing_of(place).study
    assert ingest(store, tmp_path / "studies", tmp_path / "box").new == 0
