"""What a killed supervisor left running: processes that carry the mark of an owner that no longer
lives.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from core.measure.child.processes import OWNER, TRIAL, ProcessTree, marks, owner_lives, table


@dataclass(frozen=True)
class Orphans:
    """Processes of some trials: `orphans` ended just now, and the ids of living `owners` that run
    such a trial at this moment.
    """

    orphans: int
    owners: tuple[int, ...]


def end_orphans(trial_ids: Collection[str] = ()) -> Orphans:
    """End every process whose owner is known to be dead: nobody reads what it measures and it
    takes the cores from what is measured next. `owners` are those of processes of `trial_ids` that
    are not this one.
    """
    ended = 0
    owners: set[int] = set()
    for process in table().values():
        if process.pid == os.getpid():
            continue
        variables = marks(process.pid)
        if OWNER not in variables:
            continue
        lives = owner_lives(variables[OWNER])
        if lives is False:
            family = ProcessTree(process.pid, variables.get(TRIAL, ""))
            ended += not family.kill()
        elif lives and variables.get(TRIAL) in trial_ids:
            owner = int(variables[OWNER].partition(".")[0])
            if owner != os.getpid():
                owners.add(owner)
    return Orphans(ended, tuple(sorted(owners)))
