"""What the journals of the studies say: each study with its trials as far as they got."""

from __future__ import annotations

from pathlib import Path

from core.measure.study.standing import STUDY, standing_of
from core.study import Study


def studies(folder: Path) -> list[Study]:
    """Every study that began in `folder`, in the order in which they did."""
    places = sorted(path.parent for path in folder.glob(f"*/{STUDY}"))
    read = (standing_of(place).study for place in places)
    return [study for study in read if study is not None]
