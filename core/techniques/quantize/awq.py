"""AWQ: columns of large inputs are scaled up before rounding, so that they lose less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refused
from core.plan import Case
from core.techniques.base import STANDARD, Calibrated, Proposal
from core.techniques.effects import Effects, integers

if TYPE_CHECKING:
    from torch import Tensor

    from core.engine.decoder import Decoder, Layer
    from core.engine.matrices import Matrix
    from core.techniques.solve.gptq_rounding import Grid
    from core.techniques.solve.inputs import Inputs
    from core.techniques.solve.smoothquant import Folded
    from kernels.weight import KernelWeight

THEN = ("nearest", "gptq")


@dataclass(frozen=True)
class Awq(Calibrated):
    """Input columns of `bits` integers in groups of `group_size` (0: one group a row) are scaled by
    mean|x|^alpha, searched for each matrix, after Lin et al. 2023.

    What makes x takes the inverse scales: the norm before qkv, gate_up and the head, the rows of v
    before o, the rows of up before down; so running costs nothing. `clip` searches the range of
    each group as well; `then` rounds to nearest or by GPTQ, whose own settings are its defaults.
    """

    bits: int = 4
    group_size: int = 32
    symmetric: int = 0
    clip: int = 1
    then: str = "nearest"
    samples: int = 64

    name: ClassVar[str] = "awq"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "AWQ: activation-aware scales"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "bits": (2, 3, 4, 8),
        "group_size": (0, 32, 64, 128),
        "symmetric": (0, 1),
        "clip": (0, 1),
        "then": THEN,
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {"samples": (1, 4096)}

    needs_trained: ClassVar[bool] = True

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """4 bit with GPTQ and alone, then 3 with GPTQ."""
        return (
            Proposal(cls(4, then="gptq")),
            Proposal(cls(4), STANDARD, turn=160),
            Proposal(cls(3, then="gptq")),
        )

    def refuse(self, case: Case) -> str | None:
        """Needs something before each matrix that takes the inverse scales."""
        if case.model.task == "text":
            return None
        return (
            "needs a decoder, whose norms take the inverse scales: between the layers of an image"
            " classifier nothing can; use gptq"
        )

    def effect(self, before: Effects, case: Case) -> Effects:
        """The format of `rtn`, with codes and scales chosen by the calibration inputs."""
        return integers(before, self.bits, self.group_size, self.symmetric)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix, the head included, by low-bit codes. Raises Refused."""
        from core.techniques.solve.awq_scales import clipped
        from core.techniques.solve.calibration import CalibrationSet, each_matrix
        from core.techniques.solve.gptq_rounding import Effort, Grid, quantize_by_inputs
        from core.techniques.solve.groups import check_fp16_scales
        from core.techniques.solve.matrices import lean
        from kernels.linear_lowbit import LowBitWeight

        engine = lean(deployment, "awq, which folds scales into norms,")
        grid = Grid(self.bits, self.group_size, bool(self.symmetric))
        before = engine.weight_bytes()
        folded: dict[str, Folded] = {}

        def prepare(layer: Layer | None, inputs: dict[str, Inputs]) -> None:
            folded.clear()
            folded.update(_folded(engine, layer, inputs, grid))

        def choose(matrix: Matrix, inputs: Inputs) -> KernelWeight:
            mine = folded.pop(matrix.name.rpartition(".")[2])
            check_fp16_scales(mine.weight, self.bits)
            bias: Tensor | None = None if mine.bias is None else mine.bias.to(matrix.dtype)
            if self.then == "gptq":
                form = quantize_by_inputs(
                    mine.weight,
                    inputs,
                    grid,
                    Effort(),
                    mine.s,
                    note=lambda text: deployment.note(f"{matrix.name}: {text}"),
                )
            elif self.clip:
                form = clipped(mine.weight, inputs.sample, grid)
            else:
                form = grid.nearest(mine.weight)
            return LowBitWeight(form, bias, matrix.dtype)

        second = self.then == "gptq"
        try:
            each_matrix(
                deployment, CalibrationSet(samples=self.samples), choose, second, second, prepare
            )
        except ValueError as error:
            raise Refused(f"awq: {error}") from None
        deployment.note(
            f"awq: weights went from {before:,} to {engine.weight_bytes():,} bytes; the scales are"
            " in the norms and in the matrices before"
        )


def _folded(
    engine: Decoder, layer: Layer | None, inputs: dict[str, Inputs], grid: Grid
) -> dict[str, Folded]:
    """A layer's matrices, or the head (None), with their scales."""
    from core.techniques.solve.awq_scales import fold_layer, search_columns
    from core.techniques.solve.smoothquant import Folded, through_norm

    if layer is not None:
        return fold_layer(layer, engine.config, inputs, grid)
    head = Folded.of(engine.head)
    s = search_columns(head.weight, inputs["head"], grid)
    engine.final_norm, s = through_norm(engine.final_norm, s)
    head.scale_columns(s)
    return {"head": head}
