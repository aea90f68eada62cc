"""GPTQ: low-bit codes chosen one column after another, so that later ones make up for earlier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from core.errors import Refused
from core.plan import Case
from core.techniques.base import QUICK, STANDARD, Calibrated, Proposal
from core.techniques.effects import Effects, integers

if TYPE_CHECKING:
    from core.engine.matrices import Matrix
    from core.techniques.solve.inputs import Inputs
    from kernels.weight import KernelWeight


@dataclass(frozen=True)
class Gptq(Calibrated):
    """Second-order rounding of `bits` in groups of `group_size` inputs (0: one group a row), after
    Frantar et al. 2022.

    `act_order` takes the columns of the largest inputs first, under scales set before, so that the
    codes need no permutation at run time; `damping` is the share of the Hessian's mean diagonal
    added to it. Beyond the paper: with `clip` the range of each group is searched, `refits` times
    the scales are set anew to fit the codes, and with `clean` the outputs of the unchanged model
    are matched rather than those of the same weights on inputs that are already changed. `samples`
    is the number of calibration sequences of 256 tokens.
    """

    bits: int = 4
    group_size: int = 32
    symmetric: int = 0
    act_order: int = 1
    damping: float = 0.01
    clip: int = 1
    refits: int = 1
    clean: int = 1
    samples: int = 64

    name: ClassVar[str] = "gptq"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "GPTQ: second-order rounding"
    choices: ClassVar[dict[str, tuple[Any, ...]]] = {
        "bits": (2, 3, 4, 8),
        "group_size": (0, 32, 64, 128),
        "symmetric": (0, 1),
        "act_order": (0, 1),
        "clip": (0, 1),
        "clean": (0, 1),
    }
    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "damping": (0, 1),
        "refits": (0, 10),
        "samples": (1, 4096),
    }

    needs_trained: ClassVar[bool] = True

    @classmethod
    def proposals(cls, case: Case) -> tuple[Proposal, ...]:
        """4 bit, where it keeps most of the quality, then 3."""
        return (Proposal(cls(4), QUICK, turn=60), Proposal(cls(3), STANDARD, turn=160))

    def effect(self, before: Effects, case: Case) -> Effects:
        """The format of `rtn`, with codes and scales chosen by the calibration inputs."""
        return integers(before, self.bits, self.group_size, self.symmetric)

    def apply(self, deployment: Any) -> None:
        """Replace every matrix, the head included, by low-bit codes. Raises Refused."""
        from core.techniques.solve.calibration import CalibrationSet, each_matrix
        from core.techniques.solve.gptq_rounding import Effort, Grid, quantize_by_inputs
        from kernels.linear_lowbit import LowBitWeight

        grid = Grid(self.bits, self.group_size, bool(self.symmetric))
        effort = Effort(self.damping, bool(self.act_order), bool(self.clip), self.refits)
        before = deployment.engine.weight_bytes()

        def choose(matrix: Matrix, inputs: Inputs) -> KernelWeight | None:
            try:
                form = quantize_by_inputs(
                    matrix.dense(),
                    inputs,
                    grid,
                    effort,
                    note=lambda text: deployment.note(f"{matrix.name}: {text}"),
                )
            except ValueError as error:
                raise Refused(f"{matrix.name}: {error}") from None
            return LowBitWeight(form, matrix.bias, matrix.dtype)

        # One kept row: GPTQ reads only the sums.
        settings = CalibrationSet(samples=self.samples, rows=1)
        each_matrix(deployment, settings, choose, clean=bool(self.clean))
        deployment.note(
            f"gptq: weights went from {before:,} to {deployment.engine.weight_bytes():,} bytes"
        )
