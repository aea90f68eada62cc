"""Does our GPTQ choose what llm-compressor's does? One layer of `pycode`, same scales and inputs.

    pip install llmcompressor       in an environment of its own: it pins other versions
    python -m tests.evidence gptq-peer

Both get each matrix of the layer with its Hessian, the scales and zeros of round-to-nearest, blocks
of 128, damping 0.01, and both orders of columns; ours without the refitting of scales that theirs
does not have. Prints the share of equal codes and both losses tr(D H D^T), and the figure last:
losses within 1 %; exit 1 when it is missed.
"""

from __future__ import annotations

from typing import Any

import torch

from core.catalogue import models, workloads
from core.engine.load.load import load_engine, load_tokenizer
from core.engine.matrices import Matrix
from core.machine import targets
from core.plan import Case
from core.techniques.deployment import Deployment
from core.techniques.solve.calibration import CalibrationSet, each_matrix
from core.techniques.solve.gptq_rounding import Grid, loss, round_in_order
from core.techniques.solve.hessian import factor
from core.techniques.solve.inputs import Inputs
from kernels.linear_lowbit.codes import LowBit

LAYER, BITS, GROUP = 2, 4, 64


def theirs(weight: torch.Tensor, hessian: torch.Tensor, start: LowBit, order: bool) -> torch.Tensor:
    """llm-compressor's codes, uint8 [n, k]."""
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight

    symmetric = start.zero is None
    chosen = QuantizationArgs(
        num_bits=BITS,
        symmetric=symmetric,
        strategy="group",
        group_size=GROUP,
        actorder="weight" if order else None,
    )
    # Their codes are signed: zeros are counted from the middle.
    middle = 2 ** (BITS - 1)
    zero = start.zeros() - middle
    found, _, fell_back = quantize_weight(
        weight[None].clone(), hessian[None].clone(), start.scale[None], zero[None], None, chosen
    )
    assert not bool(fell_back.any())
    columns = torch.arange(start.k) // GROUP
    codes = (found[0] / start.scale[:, columns]).round() + start.zeros()[:, columns]
    return codes.clamp(0, 2**BITS - 1).to(torch.uint8)


def main() -> int:
    """Compare; 0 when the figure is reached."""
    try:
        import llmcompressor
    except ImportError as error:
        print(f"llm-compressor is not installed here ({error}): nothing was compared")
        return 1
    case = Case(
        models.resolve("pycode"), targets.resolve("local"), workloads.resolve("autocomplete")
    )
    deployment = Deployment(case, load_engine(case.model), lambda: None, load_tokenizer(case.model))
    apart: list[float] = []

    def compare(matrix: Matrix, inputs: Inputs) -> Any:
        if matrix.layer != LAYER:
            return None
        weight, hessian = matrix.dense(), inputs.hessian()
        for symmetric in (False, True):
            start = Grid(BITS, GROUP, symmetric).nearest(weight)
            # The scale of the value of largest magnitude may be negative; theirs are not.
            start = LowBit(start.codes, start.scale.abs(), start.zero, BITS, GROUP)
            for order in (False, True):
                factored = factor(hessian, 0.01, order)
                ours = round_in_order(weight, start.scale, start.zero, BITS, GROUP, factored)
                codes = theirs(weight, hessian, start, order)
                lost = [
                    float(
                        loss(
                            weight,
                            LowBit(one, start.scale, start.zero, BITS, GROUP),
                            hessian,
                        ).sum()
                    )
                    for one in (ours, codes)
                ]
                apart.append(abs(lost[0] / lost[1] - 1))
                kind = "symmetric" if symmetric else "affine"
                print(
                    f"{matrix.name} {kind}, {'ordered' if order else 'in turn'}:"
                    f" {float((ours == codes).float().mean()):.2%} of the codes are equal,"
                    f" loss {lost[0]:.5g} and theirs {lost[1]:.5g}"
                )
        return None

    each_matrix(deployment, CalibrationSet(rows=1), compare)
    reached = max(apart) <= 0.01
    print(
        f"Our GPTQ and llm-compressor {llmcompressor.__version__} lose the same within"
        f" {max(apart):.2%} on every matrix of one layer: {'reached' if reached else 'MISSED'}"
    )
    return 0 if reached else 1
