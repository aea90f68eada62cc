"""The search behind auto-mixed: scores, a choice, and the measured KL that must hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from core.condition import matrix
from core.engine.matrices import Matrix
from core.errors import Refused
from core.measurement import Measurement
from core.techniques.deployment import Deployment
from core.techniques.solve.allocation import (
    DENSE,
    WIDTHS,
    Chosen,
    Option,
    cost,
    within_cost,
    within_loss,
)
from core.techniques.solve.calibration import (
    CalibrationSet,
    calibration_ids,
    calibration_images,
    each_matrix,
)
from core.techniques.solve.gptq_rounding import Effort, Grid, quantize_by_inputs
from core.techniques.solve.inputs import Inputs
from core.techniques.solve.matrices import matrices
from core.techniques.solve.sensitivity import Judge, MatrixPlace, Scores, by_gradient, by_trying
from kernels.linear_lowbit import LowBitWeight, quantize
from kernels.lowbit_bytes import LowBitBytes

if TYPE_CHECKING:
    from core.techniques.quantize.auto_mixed import AutoMixed

# Log-probabilities of the unchanged model that are kept to compare with: 128 MiB.
KEPT = 1 << 25
# How often the budget is changed before the search is content with what it has.
ROUNDS = 6
# The share of the limit on KL that is spent on calibration text: held-out modules of another kind
# lost up to 1.31 times as much (`pycode`, limits of 0.005, 0.02 and 0.1 nats).
UNSEEN = 0.75
IMAGES = 256


def search(deployment: Deployment, settings: AutoMixed) -> None:
    """Replace the matrices as AutoMixed says. Raises Refused when the size cannot be reached."""
    targets = matrices(deployment)
    scored, judged = _probes(deployment, settings.samples)
    places = [MatrixPlace(target) for target in targets]
    judge = Judge(deployment, judged)
    report = deployment.report
    grid = WIDTHS, settings.group_size, lambda share: report(0.8 * share)
    try:
        if settings.score == "trying":
            scores = by_trying(Judge(deployment, scored), places, *grid)
        else:
            scores = by_gradient(deployment, targets, scored, *grid)
    except ValueError as error:
        raise Refused(f"{deployment.case.model.id} cannot be rounded: {error}") from None
    before = deployment.engine.weight_bytes()
    by_name = {place.matrix.name: place for place in places}
    choices = _Choices(deployment, settings, by_name, judge, scores)
    chosen, kl = choices.by_size() if settings.max_mib else choices.by_quality()
    _keep(deployment, settings, scores, chosen)
    counts = Counter(option.bits for option in chosen.values())
    told = ", ".join(f"{count} at {bits} bit" for bits, count in sorted(counts.items()))
    deployment.note(
        f"auto-mixed: {told}; KL {kl:.4g} nats on {sum(map(_positions, judged)):,} positions of "
        f"calibration data; weights went from {before:,} to"
        f" {deployment.engine.weight_bytes():,} bytes"
    )
    report(1.0)


@dataclass
class _Choices:
    """Choices put into the engine and measured.

    `made` are the matrices rounded to nearest by name and bits; `stands` is the choice that the
    engine has now, None where nobody knows.
    """

    deployment: Deployment
    settings: AutoMixed
    places: dict[str, MatrixPlace]
    judge: Judge
    scores: Scores
    made: dict[tuple[str, int], LowBitWeight] = field(default_factory=dict)
    stands: Chosen | None = None

    def by_quality(self) -> tuple[Chosen, float]:
        """The fewest bytes read whose measured KL is within the limit on text that nobody has seen,
        and the KL measured here.
        """
        limit, options = self.settings.max_kl * UNSEEN, self._options(held=False)
        budget, best = limit, None
        tried: dict[tuple[int, ...], float] = {}
        for round_ in range(ROUNDS):
            chosen = within_loss(options, budget)
            key = tuple(option.bits for option in chosen.values())
            if key in tried:
                break
            tried[key] = kl = self._measure(chosen)
            self.deployment.report(0.8 + 0.2 * (round_ + 1) / (ROUNDS + 1))
            if kl <= limit and (best is None or cost(chosen) < cost(best[0])):
                best = (chosen, kl)
            # Losses do not quite add up: ask for more or less of them in proportion.
            budget *= min(max(0.97 * limit / max(kl, 1e-12), 0.25), 2.0)
        while best is None:
            budget *= 0.5
            chosen = within_loss(options, budget)
            kl = self._measure(chosen)
            if kl <= limit or all(option.bits == DENSE for option in chosen.values()):
                best = (chosen, kl)
        self._put(best[0])
        return best

    def by_size(self) -> tuple[Chosen, float]:
        """The least loss found within the resident bytes, and its measured KL."""
        limit, options = self.settings.max_mib * 2**20, self._options(held=True)
        engine = self.deployment.engine
        self._put({})
        dense = sum(choices[-1].cost for choices in options.values())
        other = engine.weight_bytes() - dense
        room, over, chosen = other, 1.0, Chosen()
        while over > 0:
            candidate = within_cost(options, limit - room)
            if candidate is None:
                least = (
                    sum(min(option.cost for option in choices) for choices in options.values())
                    + other
                )
                raise Refused(
                    f"max_mib={self.settings.max_mib:g} cannot be reached: at 2 bit the weights "
                    f"take {least / 2**20:.3g} MiB, of which {other / 2**20:.3g} MiB are not "
                    "matrices; allow more"
                )
            chosen = candidate
            self._nearest(chosen)
            # The kernel that runs may keep more than the one that was counted with.
            over = engine.weight_bytes() - limit
            room += max(0.0, over)
        return chosen, self._measure(chosen)

    def _options(self, held: bool) -> dict[str, list[Option]]:
        """Of every matrix by rising bits, dense last; costs are resident bytes, or those read."""
        options = {}
        for name, place in self.places.items():
            matrix = place.matrix
            kernel = "cpp" if matrix.dtype is torch.bfloat16 else "fp32"
            choices = []
            for bits in WIDTHS:
                stored = LowBitBytes(bits, self.settings.group_size, zero="int8")
                size = stored.nbytes(matrix.n, matrix.k, kernel)
                choices.append(Option(bits, size, self.scores[name, bits]))
            # A dense head that is the embedding itself takes no memory of its own.
            free = held and name == "head" and self._tied()
            dense = 0 if free else matrix.n * matrix.k * matrix.dtype.itemsize
            options[name] = [*choices, Option(DENSE, dense, 0.0)]
        return options

    def _tied(self) -> bool:
        lean, head = self.deployment.engine.lean, self.places["head"].first.weight
        return lean is not None and head.data_ptr() == lean.embedding.data_ptr()

    def _measure(self, chosen: Chosen) -> float:
        self._put(chosen)
        return self.judge.kl()

    def _put(self, chosen: Chosen) -> None:
        if chosen == self.stands:
            return
        self._nearest(chosen if self.settings.method == "nearest" else {})
        if self.settings.method == "gptq":
            self._calibrated(chosen)
        self.stands = chosen

    def _nearest(self, chosen: Chosen) -> None:
        self.stands = None
        for place in self.places.values():
            place.put_back()
        for name, option in chosen.items():
            if option.bits != DENSE:
                matrix = self.places[name].matrix
                matrix.replace(self._weight(matrix, option.bits))

    def _weight(self, matrix: Matrix, bits: int) -> LowBitWeight:
        key = (matrix.name, bits)
        if key not in self.made:
            form = quantize(matrix.dense(), bits, self.settings.group_size, symmetric=False)
            self.made[key] = LowBitWeight(form, matrix.bias, matrix.dtype)
        return self.made[key]

    def _calibrated(self, chosen: Chosen) -> None:
        bits = {name: option.bits for name, option in chosen.items() if option.bits != DENSE}

        def choose(matrix: Matrix, inputs: Inputs) -> LowBitWeight | None:
            if matrix.name not in bits:
                return None
            grid = Grid(bits[matrix.name], self.settings.group_size, symmetric=False)
            form = quantize_by_inputs(matrix.dense(), inputs, grid, Effort())
            return LowBitWeight(form, matrix.bias, matrix.dtype)

        if bits:
            quiet = replace(self.deployment, note=lambda text: None, report=lambda share: None)
            each_matrix(quiet, CalibrationSet(rows=1, draw=1), choose, clean=True)


def _probes(deployment: Deployment, samples: int) -> tuple[list[Tensor], list[Tensor]]:
    """Parts of calibration data to score with, and others to measure the KL on."""
    if deployment.case.model.task == "image":
        images = calibration_images(deployment)
        return [images[:IMAGES]], [images[IMAGES : 2 * IMAGES]]
    ids = calibration_ids(deployment, CalibrationSet(samples=samples))
    # As many tokens as have room beside each other; at least one short sequence of each.
    tokens = max(8, KEPT // deployment.engine.vocab_size)
    ids = ids[:, : min(ids.shape[1], tokens)]
    half = max(1, len(ids) // 2)
    judged = ids[half : half + max(1, tokens // ids.shape[1])]
    return list(ids[:half].split(1)), list(judged.split(4))


def _positions(part: Tensor) -> int:
    return len(part) if part.is_floating_point() else part.numel()


def _keep(deployment: Deployment, settings: AutoMixed, scores: Scores, chosen: Chosen) -> None:
    """The scores and the choice become measurements of the trial, one condition a matrix."""
    origin, how = settings.scored()
    for (name, bits), value in scores.items():
        at = matrix(name, bits)
        deployment.keep(Measurement("sensitivity_kl", (value,), "nat", origin, how, condition=at))
    for name, option in chosen.items():
        why = "16: left as it was" if option.bits == DENSE else f"groups of {settings.group_size}"
        deployment.keep(
            Measurement(
                "chosen_bits", (float(option.bits),), "bit", "measured", why, condition=matrix(name)
            )
        )
