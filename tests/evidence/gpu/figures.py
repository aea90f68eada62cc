"""The figures that a GPU is asked to reach, from what the parts before wrote; `not measured` where
that is absent. Measures nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from core import format as formats
from core.machine import gpus
from core.measurement import bootstrap_median
from core.study import Study, Trial
from tests.evidence.gpu import results
from tests.evidence.gpu.bench import FILE
from tests.evidence.gpu.place import Place
from tests.evidence.gpu.studies import begun

DECODED, DECODED_BY = "shape:llama-3.1-8b", "weight-int4"
FEWEST_SPANS = 3
SHOWN = ("tpot_s", "tokens_per_s", "mbu", "mfu", "energy_j_per_token", "peak_bytes")


@dataclass(frozen=True)
class Figure:
    """`value` against what is `wanted`, None where it was not measured; `how` says of what, or why
    it is missing. Shares lie in 0 to 1 and have the unit %.
    """

    name: str
    value: float | None
    wanted: float | None
    unit: str
    how: str
    interval: tuple[float, float] | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the value is what was wanted; None where there is nothing to say."""
        return None if self.value is None or self.wanted is None else self.value >= self.wanted

    @property
    def sentence(self) -> str:
        """The figure in one line."""
        if self.value is None:
            return f"{self.name}: not measured ({self.how})"
        told = f"{self.name}: {self._shown(self.value)}"
        if self.interval is not None:
            told += f" [{', '.join(map(self._shown, self.interval))}]"
        if self.wanted is not None:
            verdict = "reached" if self.reached else "MISSED"
            told += f" ({self._shown(self.wanted)} wanted: {verdict})"
        return f"{told}; {self.how}"

    def _shown(self, value: float) -> str:
        if self.unit == "%":
            return f"{100 * value:.0f} %"
        return formats.ratio(value) if self.unit == "x" else formats.number(value, self.unit)


def run(place: Place) -> tuple[bool, str]:
    """Write figures.json in the scratch folder for the summary, a line a trial to the log, and the
    clocks at the end of all beside those before.
    """
    results.add_json(place, "environment.json", "end", gpus.gpu_now())
    found = begun(place.work / results.STUDIES)
    for line in lines(found):
        print(line)
    figures = [*kernels(place), decode_share(found), energy(place, found)]
    data = [
        asdict(figure) | {"reached": figure.reached, "sentence": figure.sentence}
        for figure in figures
    ]
    results.write(place.work, "figures.json", json.dumps(data).encode())
    there = sum(figure.value is not None for figure in figures)
    done = [trial for study in found for trial in study.done()]
    carry = sum(trial.value("energy_j_per_token") is not None for trial in done)
    told = f"{there} of {len(figures)} measured; {carry} of {len(done)} trials carry energy"
    return True, told


def kernels(place: Place) -> Iterator[Figure]:
    """What the benchmark of the kernels says of its goals, however far it got."""
    from tests.evidence.kernels.gpu import GOALS, UNITS, goal

    try:
        rows = json.loads((place.work / FILE).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError):
        rows = []
    for asked in GOALS:
        reached = goal(rows, *asked)
        unit = "%" if reached["field"] == "copy_share" else "x"
        how = f"the worst of {reached['cases']} cases, {UNITS[reached['field']]}"
        yield Figure(
            reached["name"],
            reached["worst"],
            reached["least"],
            unit,
            how if reached["cases"] else "no such case was timed on a GPU",
        )


def trials(found: Sequence[Study], model: str, techniques: tuple[str, ...]) -> list[Trial]:
    """The trials of a model with exactly these techniques."""
    return [
        trial
        for study in found
        for trial in study.trials
        if trial.plan.case.model.id == model
        and tuple(technique.name for technique in trial.plan.techniques) == techniques
    ]


def decode_share(found: Sequence[Study]) -> Figure:
    """The share of the bandwidth limit that decoding in 4 bit reaches at batch 1."""
    name = f"{DECODED} {DECODED_BY}, decode at batch 1 of the bandwidth limit"
    value, how, _ = _measured(trials(found, DECODED, (DECODED_BY,)), "mbu")
    return Figure(name, value, 0.60, "%", how)


def energy(place: Place, found: Sequence[Study]) -> Figure:
    """Joules a token of the same trial with their interval; where its rounds were too short for
    that, of the spans that the part `energy` decoded.
    """
    name = f"energy per token, {DECODED} {DECODED_BY}"
    value, how, interval = _measured(trials(found, DECODED, (DECODED_BY,)), "energy_j_per_token")
    if interval is None:
        spans = _spans(place)
        if len(spans) >= FEWEST_SPANS:
            how = f"{len(spans)} spans by the driver's counter at batch 1, idle power taken off"
            value, interval = float(np.median(spans)), bootstrap_median(np.array(spans))
    return Figure(name, value, None, "J", how, interval)


def _spans(place: Place) -> list[float]:
    """Joules a token of the spans of DECODED; none in a rehearsal, which decodes another model."""
    try:
        steps = json.loads((place.out / "steps.json").read_text(encoding="utf-8"))
        decode = steps["energy"]["decode"]
        return list(decode["joules_a_token"]) if decode["model"] == DECODED else []
    except (OSError, ValueError, KeyError):
        return []


def _measured(
    fitting: Sequence[Trial], metric: str
) -> tuple[float | None, str, tuple[float, float] | None]:
    """The first value of `metric`, its method or why there is none, and its interval."""
    why = "no such trial"
    for trial in fitting:
        measurement = trial.metric(metric)
        if measurement is not None and measurement.value is not None:
            return measurement.value, measurement.method, measurement.interval()
        why = measurement.method if measurement is not None else trial.reason or trial.state
    return None, why, None


def lines(found: Sequence[Study]) -> Iterator[str]:
    """A line a trial: how it ended and what it reached."""
    for study in found:
        for trial in study.trials:
            values = ", ".join(_values(trial))
            yield f"{_title(trial)}: {trial.state}{_because(trial)}; {values}"


def _values(trial: Trial) -> Iterator[str]:
    for name in SHOWN:
        measurement = trial.metric(name)
        if measurement is not None and measurement.value is not None:
            yield f"{name} {formats.of_metric(name, measurement.value)}"
    for measurement in trial.measurements:
        shown = measurement.metric in SHOWN and measurement.condition
        if shown and measurement.value is not None:
            value = formats.of_metric(measurement.metric, measurement.value)
            yield f"{measurement.metric} at {measurement.condition} {value}"


def _title(trial: Trial) -> str:
    return f"{trial.plan.case.model.id} {trial.plan.title}"


def _because(trial: Trial) -> str:
    return f" ({trial.reason})" if trial.reason else ""
