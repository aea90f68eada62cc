"""Environments beside each other: which facts change from run to run, in what two environments
differ, and the sentences that every screen and export shows where trials of unlike ones meet.

Reads nothing and draws nothing: facts and trials are given (core.machine.environment takes them).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.ids import distinct
from core.verdict.promises import broken

if TYPE_CHECKING:
    from core.study import Trial

Facts = Mapping[str, Any]

# Facts that change from run to run without making two runs unlike; none of them is in an id.
VOLATILE = frozenset(
    {
        "id", "at", "taken_at", "pid", "load", "load_1m", "available_bytes", "free_bytes",
        "frequency_mhz", "temperature_c", "torch_threads",
    }
)  # fmt: skip
LABELS = {
    "cpu": "CPU",
    "architecture": "architecture",
    "flags": "CPU flags",
    "cores": "usable cores",
    "cores_online": "cores",
    "affinity": "cores that the process may use",
    "smt": "SMT",
    "caches": "caches",
    "frequency_min_mhz": "lowest clock, MHz",
    "frequency_max_mhz": "highest clock, MHz",
    "governor": "governor",
    "scaling_driver": "clock driver",
    "boost": "boost",
    "cpu_quota": "CPU quota of the container, cores",
    "numa_nodes": "NUMA nodes",
    "huge_pages": "transparent huge pages",
    "huge_pages_reserved": "reserved huge pages",
    "memory_bytes": "memory",
    "memory_speed": "memory modules",
    "gpus": "GPU",
    "driver": "GPU driver",
    "os": "operating system",
    "distribution": "distribution",
    "kernel": "kernel",
    "container": "container",
    "virtual": "virtual machine",
    "python": "Python",
    "versions": "version of",
    "threads": "thread setting",
    "compiler": "compiler",
    "kernels": "build of kernel",
}
# So many differences are named; a reader needs the first few to know what happened.
NAMED = 6
SHORT = 48
# Notes of a trial that begin so are things to know before its numbers are believed.
CAUTION = "caution"
# The kinds of caution that move timed numbers from one minute to the next.
DISTURBANCES = frozenset({"load", "stolen", "throttled", "clock"})
_SEVERAL = {
    "load": "while other processes used the cores: treat speed as unproven",
    "stolen": "while the host of this virtual machine took the cores: treat speed as unproven",
    "throttled": "while the processor was throttled: treat speed as unproven",
    "governor": "with a clock governor that is not `performance`",
    "clock": "while the clock changed: treat speed as unproven",
    "fallback": "without our kernels",
    "promise": "and missed a limit that their settings promise",
}


def environment_ids(trial: Trial) -> tuple[str, ...]:
    """The environments that the trial's measurements name, in order of appearance."""
    return tuple(dict.fromkeys(one.environment for one in trial.measurements if one.environment))


def differences(environments: Sequence[Facts]) -> tuple[str, ...]:
    """What these environments differ in, as `torch (2.12.0 / 2.13.0)`; volatile facts left out."""
    flat = [dict(_flat(one)) for one in environments]
    keys = dict.fromkeys(key for one in flat for key in one)
    found = []
    for key in sorted(keys, key=_position):
        values = [one.get(key) for one in flat]
        if len({repr(value) for value in values}) > 1:
            found.append(_difference(key, values))
    return tuple(found)


def warnings(
    trials: Sequence[Trial], environments: Mapping[str, Facts | None] | None = None
) -> tuple[str, ...]:
    """Sentences to show wherever `trials` stand beside each other: unlike environments with what
    differs, and trials that ran under conditions that disturb their numbers.

    `environments` gives the facts of environment ids. Empty when nothing needs to be said.
    """
    names = distinct({one.id: one.plan.title for one in trials})
    ran = {names[one.id]: environment_ids(one) for one in trials}
    return (*unlike(ran, environments), *_shared(trials, names))


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
    ids = list(dict.fromkeys(one for some in ids_by_name.values() for one in some))
    if len(ids) < 2:
        return ()
    facts = [known.get(one) for one in ids]
    silent = [one for one, fact in zip(ids, facts, strict=True) if not fact]
    unlike_in = differences([fact for fact in facts if fact])
    if not silent and not unlike_in:
        return ()
    where = "; ".join(f"{one}: {_who(one, ids_by_name)}" for one in ids)
    text = (
        f"{whose} ran in {len(ids)} unlike environments ({where}): a difference between their "
        "numbers may come from there."
    )
    if unlike_in:
        more = len(unlike_in) - NAMED
        rest = f", and {more} more" if more > 0 else ""
        text += f" The environments differ in {', '.join(unlike_in[:NAMED])}{rest}."
    if silent:
        text += f" Nothing is recorded of {', '.join(silent)}."
    return (text,)


def cautions(trial: Trial) -> tuple[str, ...]:
    """What disturbed this trial, as its own process noted it: one sentence each."""
    return tuple(sentence for _, sentence in _cautions(trial))


def disturbed(trial: Trial) -> bool:
    """Whether other work, the host, heat or a changing clock disturbed what this trial timed."""
    return any(kind in DISTURBANCES for kind, _ in _cautions(trial))


def caution(kind: str, sentence: str) -> str:
    """The note that cautions() finds again; `kind` groups the same trouble of several trials."""
    return f"{CAUTION} {kind}: {sentence}"


def text_of(value: Any) -> str:
    """A fact's value in one line."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(text_of(one) for one in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text_of(one)}" for key, one in value.items())
    return "unknown" if value is None else str(value)


def _shared(trials: Sequence[Trial], names: Mapping[str, str]) -> Iterable[str]:
    """One sentence for each kind of trouble, naming the plans that had it."""
    found: dict[str, list[tuple[str, str]]] = {}
    for trial in trials:
        for kind, sentence in _cautions(trial):
            found.setdefault(kind, []).append((names[trial.id], sentence))
    for kind, hits in found.items():
        hit = list(dict.fromkeys(name for name, _ in hits))
        if len(hit) == 1:
            yield f"{hit[0]}: {hits[0][1]}."
        elif len(hit) == len(trials) and kind == "governor":
            yield f"All trials: {hits[0][1]}."
        else:
            how = _SEVERAL.get(kind, "under conditions that disturb their numbers")
            # What follows the colon is the reason; it is said when it is that of all of them.
            reasons = {sentence.partition(": ")[2] for _, sentence in hits}
            why = f" ({reasons.pop()})" if len(reasons) == 1 and "" not in reasons else ""
            yield f"{_counted(hit, len(trials))} ran {how}{why}."


def _counted(hit: Sequence[str], total: int) -> str:
    """`All 12 trials`, or how many with their names."""
    if len(hit) == total:
        return "Both trials" if total == 2 else f"All {total} trials"
    return f"{len(hit)} of {total} trials ({_listed(hit)})"


def _cautions(trial: Trial) -> Iterable[tuple[str, str]]:
    for sentence in broken(trial):
        yield "promise", sentence
    for note in trial.notes:
        head, _, sentence = note.partition(": ")
        word, _, kind = head.partition(" ")
        if word == CAUTION and kind and sentence:
            yield kind, sentence


def _who(environment_id: str, ids_by_name: Mapping[str, Sequence[str]]) -> str:
    return _listed([one for one, some in ids_by_name.items() if environment_id in some])


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
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            for position, one in enumerate(value):
                yield from _flat(one, f"{name}.{position}.")
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
        sets = [{text_of(one) for one in value or ()} for value in values]
        everything, common = sets[0].union(*sets), sets[0].intersection(*sets)
        apart = sorted(everything - common)
        return f"{label} ({_listed(apart)})" if apart else label
    texts = list(dict.fromkeys("not known" if one is None else text_of(one) for one in values))
    shown = " / ".join(texts)
    return f"{label} ({shown})" if len(shown) <= SHORT else label
