"""Environments beside each other: which facts change from run to run, in what two environments
differ, and the sentences that every screen and export shows where trials of unlike ones meet.

Reads nothing and draws nothing: facts and trials are given (core.machine.environment takes them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from core.caution import Caution
from core.ids import distinct
from core.machine.facts import LABELS, VOLATILE, text_of
from core.machine.naming import machines
from core.study import Trial
from core.verdict.limits import broken

Facts = Mapping[str, Any]

# So many differences are named; a reader needs the first few to know what happened.
NAMED = 6
SHORT = 48


def differences(environments: Sequence[Facts]) -> tuple[str, ...]:
    """What these environments differ in, as `torch (2.12.0 / 2.13.0)`; volatile facts left out."""
    flat = [dict(_flat(facts)) for facts in environments]
    keys = dict.fromkeys(key for facts in flat for key in facts)
    sentences = []
    for key in sorted(keys, key=_position):
        values = [facts.get(key) for facts in flat]
        if len({repr(value) for value in values}) > 1:
            sentences.append(_difference(key, values))
    return tuple(sentences)


def warnings(
    trials: Sequence[Trial], environments: Mapping[str, Facts | None] | None = None
) -> tuple[str, ...]:
    """Sentences to show wherever `trials` stand beside each other: unlike environments with what
    differs, and trials that ran under conditions that disturb their numbers.

    `environments` gives the facts of environment ids. Empty when nothing needs to be said.
    """
    # One that was cancelled before it ran says nothing, and must not make the others look fewer.
    ran = [trial for trial in trials if trial.measurements or trial.notes]
    names = distinct({trial.id: trial.plan.title for trial in ran})
    ids = {names[trial.id]: trial.environments for trial in ran}
    return (*unlike(ids, environments), *_shared(ran, names))


def unlike(
    ids_by_name: Mapping[str, Sequence[str]],
    environments: Mapping[str, Facts | None] | None = None,
    whose: str = "The trials",
) -> tuple[str, ...]:
    """The sentence for names of trials with the environments each ran in; none when they are
    alike.

    `whose` begins it.
    """
    known = environments or {}
    ids = list(dict.fromkeys(chain.from_iterable(ids_by_name.values())))
    if len(ids) < 2:
        return ()
    facts = [known.get(environment_id) for environment_id in ids]
    silent = [environment_id for environment_id, fact in zip(ids, facts, strict=True) if not fact]
    unlike_in = differences([fact for fact in facts if fact])
    if not silent and not unlike_in:
        return ()
    on = machines({key: known.get(key) for key in ids})
    names = dict.fromkeys(machine.name for machine in on.values())
    several = f" on {len(names)} machines" if len(names) > 1 else ""
    titles = {key: f"{on[key].name}, {key}" if several and key in on else key for key in ids}
    where = "; ".join(f"{titles[key]}: {_who(key, ids_by_name)}" for key in ids)
    text = (
        f"{whose} ran in {len(ids)} unlike environments{several} ({where}): a difference between "
        "their numbers may come from there."
    )
    if unlike_in:
        more = len(unlike_in) - NAMED
        rest = f", and {more} more" if more > 0 else ""
        text += f" The environments differ in {', '.join(unlike_in[:NAMED])}{rest}."
    if silent:
        text += f" Nothing is recorded of {', '.join(silent)}."
    return (text,)


def cautions(trial: Trial) -> tuple[Caution, ...]:
    """What disturbed this trial, as its own process noted it, and limits that its settings promised
    and its numbers break."""
    return (*(Caution("promise", sentence) for sentence in broken(trial)), *trial.cautions)


def disturbed(trial: Trial) -> bool:
    """Whether other work, the host, heat or a changing clock disturbed what this trial timed."""
    return any(caution.about.disturbs_times for caution in trial.cautions)


def _shared(trials: Sequence[Trial], names: Mapping[str, str]) -> Iterable[str]:
    """One sentence for each kind of trouble, naming the plans that had it."""
    by_kind: dict[str, list[tuple[str, Caution]]] = {}
    for trial in trials:
        for caution in cautions(trial):
            by_kind.setdefault(caution.kind, []).append((names[trial.id], caution))
    for hits in by_kind.values():
        plans = list(dict.fromkeys(name for name, _ in hits))
        first = hits[0][1]
        if len(plans) == 1:
            yield f"{plans[0]}: {first.text}."
        elif len(plans) == len(trials) and first.about.of_machine:
            yield f"All trials: {first.text}."
        else:
            # What follows the colon is the reason; it is said when it is that of all of them.
            reasons = {caution.text.partition(": ")[2] for _, caution in hits}
            why = f" ({reasons.pop()})" if len(reasons) == 1 and "" not in reasons else ""
            yield f"{_counted(plans, len(trials))} ran {first.about.several}{why}."


def _counted(hit: Sequence[str], total: int) -> str:
    """`All 12 trials`, or how many with their names."""
    if len(hit) == total:
        return "Both trials" if total == 2 else f"All {total} trials"
    return f"{len(hit)} of {total} trials ({_listed(hit)})"


def _who(environment_id: str, ids_by_name: Mapping[str, Sequence[str]]) -> str:
    return _listed([name for name, ids in ids_by_name.items() if environment_id in ids])


def _listed(names: Sequence[str], most: int = 4) -> str:
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def _flat(facts: Facts, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Nested objects as `key.inner`, GPUs as `gpus.0.name`; volatile facts left out."""
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if key in VOLATILE:
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            for position, item in enumerate(value):
                yield from _flat(item, f"{name}.{position}.")
        else:
            yield name, value


def _position(key: str) -> tuple[int, str]:
    top = key.partition(".")[0]
    order = list(LABELS)
    return (order.index(top) if top in LABELS else len(order), key)


def _difference(key: str, values: Sequence[Any]) -> str:
    top, _, inner = key.partition(".")
    label = LABELS.get(top, top.replace("_", " "))
    if inner:
        part = inner.replace(".", " ").replace("_", " ")
        label = inner if top == "versions" else f"{label} {part}"
    if all(isinstance(value, list) for value in values if value is not None):
        sets = [{text_of(item) for item in value or ()} for value in values]
        everything, common = sets[0].union(*sets), sets[0].intersection(*sets)
        apart = sorted(everything - common)
        return f"{label} ({_listed(apart)})" if apart else label
    texts = list(
        dict.fromkeys("not known" if value is None else text_of(value) for value in values)
    )
    shown = " / ".join(texts)
    return f"{label} ({shown})" if len(shown) <= SHORT else label
