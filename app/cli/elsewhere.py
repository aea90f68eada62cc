"""The commands for studies that are measured on another machine: ingest."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from app.cli.console import Console
from app.ingest import ingest
from app.services import Services


def ingest_folder(parsed: argparse.Namespace, services: Services, console: Console) -> int:
    """Take in the studies of a folder; 1 when one of several was refused."""
    taken = ingest(services.store, services.folder, Path(parsed.folder))
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
