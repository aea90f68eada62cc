"""Applies a plan's techniques to a loaded model, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from core.errors import Refused
from core.plan import Technique

if TYPE_CHECKING:
    from core.techniques.deployment import Deployment


def apply_all(
    deployment: Deployment,
    techniques: Iterable[Technique],
    report: Callable[[str], Callable[[float], None]],
    begun: int = 0,
    after: Callable[[int], None] = lambda count: None,
) -> None:
    """Apply each in order; `report` gives the progress function of a technique's name.

    The engine has the first `begun` techniques already. `after` is told how many have been applied,
    one after another; never of a model that was loaded quantized.

    A model that was loaded quantized is rounded a second time, with a note. Raises Refused where a
    technique says so, and for adapters on such a model: they learn from the unchanged one.
    """
    from core.techniques.solve.matrices import left_alone

    packed = None if begun else next(iter(deployment.engine.packed()), None)
    model = deployment.case.model.id
    for count, technique in enumerate(techniques, 1):
        if count <= begun:
            continue
        if packed is not None and technique.kind == "recover":
            raise Refused(
                f"{technique.name}: {packed} of {model} is quantized already, so there is no"
                " unchanged model to learn from; start from the model in 16 bit"
            )
        if packed is not None and technique.rounds:
            deployment.note(
                f"{model} is quantized already ({packed} for one): {technique.name} rounds it a"
                " second time, and what both lose adds up"
            )
        deployment.report = report(technique.name)
        technique.apply(deployment)
        if packed is None:
            after(count)
    left = left_alone(deployment)
    if left:
        deployment.note(left)
