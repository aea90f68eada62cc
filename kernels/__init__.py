"""Kernels: one folder per operation, with a reference, fast kernels and one public function.

Owns: the operations (`linear_dense`, `linear_lowbit`, `linear_w8a8`, ...), the choice between their
kernels (`registry`), the count of what really ran (`calls`) and the C++ builds (`build`).
Knows nothing of models, plans or pages. Importing this package imports neither torch nor triton;
an operation's folder does (`from kernels.linear_dense import linear`).

To add a kernel: write `<op>/<file>.py` with `available() -> str | None` (None, or one sentence why
it cannot run here), add its line to `registry.KERNELS`, call it in the op's `__init__.py` and
count it there, and compare it with `<op>/reference.py` in tests and in `bench`.
"""

from kernels.registry import KERNELS, KernelInfo, KernelUnavailable, kernels_available, select

__all__ = ["KERNELS", "KernelInfo", "KernelUnavailable", "kernels_available", "select"]
