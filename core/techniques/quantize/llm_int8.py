"""LLM.int8(): int8 weights and activations, with the outlier columns kept in 16 bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from core.files.storage import OutlierBytes
from core.plan import Case
from core.techniques.base import Calibrated
from core.techniques.effects import Effects

if TYPE_CHECKING:
    from core.engine.matrices import Matrix
    from core.techniques.solve.inputs import Inputs
    from kernels.weight import KernelWeight


@dataclass(frozen=True)
class LlmInt8(Calibrated):
    """Columns of x that exceed `threshold` in calibration are multiplied in the model's own dtype,
    all others vector-wise in int8 (Dettmers et al. 2022).

    The paper looks for them at run time, in every batch; here the set is fixed by the calibration
    pass, so that the weight of those columns is stored once, and only in floats. An outlier that
    calibration did not see widens its token's int8 scale.
    """

    threshold: float = 6.0

    name: ClassVar[str] = "llm-int8"
    kind: ClassVar[str] = "quantize"
    title: ClassVar[str] = "LLM.int8(): outliers in 16 bit"
    positive: ClassVar[tuple[str, ...]] = ("threshold",)

    def effect(self, before: Effects, case: Case) -> Effects:
        """As w8a8; what the outlier columns add is known after calibration only."""
        return replace(before, stored=OutlierBytes())

    def apply(self, deployment: Any) -> None:
        """Replace every matrix, the head included; one without outliers becomes plain W8A8."""
        import torch

        from core.techniques.solve.calibration import CalibrationSet, each_matrix
        from kernels.linear_w8a8 import W8A8Weight, quantize
        from kernels.linear_w8a8.outliers import OutlierWeight

        before = deployment.engine.weight_bytes()
        outliers = columns = whole = 0

        def choose(matrix: Matrix, inputs: Inputs) -> KernelWeight | None:
            nonlocal outliers, columns, whole
            outlying = torch.nonzero(inputs.absmax > self.threshold).flatten()
            columns += matrix.k
            outliers += len(outlying)
            if len(outlying) == matrix.k:
                whole += 1
                return None
            if len(outlying):
                return OutlierWeight.of(matrix.dense(), outlying, matrix.bias, matrix.dtype)
            return W8A8Weight(quantize(matrix.dense()), matrix.bias, matrix.dtype)

        each_matrix(deployment, CalibrationSet(rows=8), choose, second_order=False)
        wholly = f", {whole} matrices wholly" if whole else ""
        deployment.note(
            f"llm-int8: {outliers:,} of {columns:,} columns exceed {self.threshold:g} and stay in"
            f" floats{wholly}; weights went from {before:,} to"
            f" {deployment.engine.weight_bytes():,} bytes"
        )
