"""The kernel "triton": codes of 1 to 8 bit multiplied on the GPU, in bf16, fp16 or fp32.

NOT YET RUN ON A GPU: correct under TRITON_INTERPRET=1 and compiled for compute capability 9.0 only
(LOG.md). Owns what the kernel refuses, Product and the launches; device code is kernels.py's.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
import triton

from kernels.cuda import on, processors
from kernels.linear_lowbit.codes import LowBit, levels
from kernels.linear_lowbit.gpu import kernels as device_code
from kernels.linear_lowbit.gpu.layout import WORDS, lay_out, undo
from kernels.tuning import MAX_SPLIT, launch_tuned, rows_bucket

# Up to this many rows the vector units keep up with memory, by an estimate (LOG.md) that counts
# only where nothing may be measured; beyond it the matrix units do, with tiles of 16 rows at least.
FEW_ROWS = 2
# Up to this many the two are compared (kernels.choice.ways).
COMPARED_ROWS = 8
_KINDS = {
    "int": device_code.INTEGER,
    "nf4": device_code.TABLE,
    "fp4": device_code.E2M1,
    "ternary": device_code.TERNARY,
    "binary": device_code.BINARY,
    "e4m3": device_code.E4M3,
    "e5m2": device_code.E5M2,
}
# The smallest code without its sign that is infinite or not a number.
_BROKEN = {"e4m3": 0x7F, "e5m2": 0x7C}


def available() -> str | None:
    """None: importing this module already proved that triton is there."""
    return None


def refuse(form: LowBit, dtype: torch.dtype) -> str | None:
    """None, or the rest of a sentence that begins with the kernel's name."""
    if form.group_size < form.k and form.group_size % 8:
        return f"takes groups of a multiple of 8 or whole rows, not {form.group_size}"
    broken = _BROKEN.get(form.kind)
    if broken is not None and bool(((form.codes & 0x7F) >= broken).any()):
        return f"takes no infinite or undefined {form.kind} codes"
    return None


class Product:
    """See LowBitWeight; the layout is layout.py's."""

    def __init__(self, form: LowBit, dtype: torch.dtype, bias: torch.Tensor | None) -> None:
        self.layout = lay_out(form)
        self.bias = bias
        self.table = levels("nf4").to(form.codes.device) if form.kind == "nf4" else None
        whole_row = form.group_size >= form.k
        per_block = WORDS * (32 // self.layout.width)
        group = 0 if whole_row else form.group_size
        # Neighbouring columns of a block that surely lie in one group.
        stretch = per_block if whole_row else math.gcd(per_block, group)
        centre = 2 ** (form.bits - 1) if form.kind == "int" and form.zero is None else 0
        self.meta = {
            "WIDTH": self.layout.width,
            "KIND": _KINDS[form.kind],
            "CENTRE": centre,
            "GROUP": group,
            "PARTS": per_block // stretch,
            "ZERO": form.zero is not None,
            "DOUBLE": form.double is not None,
        }

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """x [M, k] -> y [M, n]."""
        return self.run(x, x.new_empty(len(x), self.layout.n))

    def ways(self, rows: int) -> dict[str, Callable[..., object]]:
        """Both kernels where either may be the faster, that of the estimate first."""
        both = {"few": partial(self.run, few=True), "many": partial(self.run, few=False)}
        if rows > COMPARED_ROWS:
            return {"many": both["many"]}
        return both if rows <= FEW_ROWS else dict(reversed(both.items()))

    def into(
        self, x: torch.Tensor, out: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See kernels.choice.ways: `run` by the kernel of the estimate."""
        return self.run(x, out, residual)

    def run(
        self,
        x: torch.Tensor,
        out: torch.Tensor,
        residual: torch.Tensor | None = None,
        gated: bool = False,
        split: int | None = None,
        few: bool | None = None,
    ) -> torch.Tensor:
        """Write y of x [M, k], contiguous, into out and return it; + residual where given.

        With `gated` the weight's rows are gate and up, n / 2 each, and out [M, n / 2] =
        silu(gate) * up. out may be residual. `split` programs share a sum over k, by default as
        many as fill the device; `few` chooses the kernel (default: by the rows of x). The first
        call of a shape chooses blocks by running the kernel many times, on an output of its own.
        """
        layout, rows = self.layout, len(x)
        if gated and layout.n % 2:
            raise ValueError(f"a gated product needs an even n, not {layout.n}.")
        few = rows <= FEW_ROWS if few is None else few
        kernel = device_code.few_rows if few else device_code.many_rows

        def splits(meta: dict[str, int]) -> int:
            if split is not None:
                return max(1, min(split, layout.blocks))
            wanted = meta["WAVES"] * processors(x.device)
            most = max(1, min(MAX_SPLIT, layout.blocks // meta["BLOCKS"]))
            return max(1, min(most, wanted // tiles(meta)))

        def tiles(meta: dict[str, int]) -> int:
            high = 1 if few else triton.cdiv(rows, meta["BLOCK_M"])
            return high * triton.cdiv(layout.n, meta["BLOCK_N"])

        def launch(y: torch.Tensor) -> None:
            kernel[lambda m: (tiles(m), splits(m))](y, *others, **meta)

        most = max(splits(config.kwargs) for config in kernel.configs)
        partial_sums = out
        if most > 1 or gated:
            partial_sums = torch.empty(most * rows * layout.n, dtype=torch.float32, device=x.device)
        words = layout.words
        # What is not there is a pointer that is never followed; bias and residual have the dtype
        # that they would have, so that blocks are chosen once for all combinations.
        others = (
            partial_sums, x, words, layout.scale, _or(layout.zero, words),
            _or(layout.double_step, words), _or(layout.double_low, words), _or(self.table, words),
            _or(self.bias, x), _or(residual, x), rows, layout.n, layout.k, layout.blocks,
        )  # fmt: skip
        meta = self.meta | {
            "BIAS": self.bias is not None and not gated,
            "RESIDUAL": residual is not None and not gated,
            "PARTIAL": gated,
        }
        if few:
            meta["ROWS"] = bucket = triton.next_power_of_2(rows)
        else:
            bucket = rows_bucket(rows)
            others += (bucket,)
            meta["PRECISION"] = "ieee" if x.dtype is torch.float32 else "tf32"
            # Triton's interpreter multiplies the bit patterns of bf16 in a dot.
            meta["FP32_DOT"] = x.device.type == "cpu"
        tensors = (side for side in others if isinstance(side, torch.Tensor))
        key = (
            "linear_lowbit",
            few,
            bucket,
            layout.n,
            layout.k,
            x.device,
            *meta.values(),
            out.dtype,
        )
        key += tuple(side.dtype for side in tensors)
        with on(x.device):
            launch_tuned(key, launch, out)
            # That of the launch just before: its own key's.
            used = splits(kernel.best_config.kwargs)
            if used > 1 or gated:
                wide = out.shape[1]
                device_code.finish[(rows, triton.cdiv(wide, 512))](
                    out, partial_sums, _or(self.bias, words), _or(residual, words),
                    rows, layout.n, wide, used, BIAS=self.bias is not None,
                    RESIDUAL=residual is not None, GATED=gated, BLOCK=512,
                )  # fmt: skip
        return out

    def undo(self) -> LowBit:
        """The canonical form."""
        return undo(self.layout)

    def tensors(self) -> list[torch.Tensor]:
        """Words, scales, zeros and the table of values."""
        tensors = self.layout.tensors()
        return tensors if self.table is None else [*tensors, self.table]


def _or(tensor: torch.Tensor | None, other: torch.Tensor) -> torch.Tensor:
    """A pointer that the kernel never follows in place of one that is not there."""
    return other if tensor is None else tensor
