"""The facts of the environments that trials ran in, fetched from a store; and the warnings over
them that screens, commands and exports show alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from core.study import Trial
from core.verdict import environments
from store.interface import Store


def facts_of(store: Store, trials: Iterable[Trial]) -> dict[str, dict[str, Any] | None]:
    """Facts by environment id; None for one that the store does not know."""
    ids = dict.fromkeys(key for trial in trials for key in environments.environment_ids(trial))
    return {key: store.environment(key) for key in ids}


def warnings(store: Store, trials: Sequence[Trial]) -> tuple[str, ...]:
    """What to say where these trials stand beside each other; see
    core.verdict.environments.warnings.
    """
    return environments.warnings(trials, facts_of(store, trials))
