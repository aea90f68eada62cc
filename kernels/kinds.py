"""How the C++ kernels name the type of x and y in their records: Kind of simd.h."""

from kernels.dtypes import FLOATS, as_torch

KINDS = {as_torch(name): code for code, name in enumerate(FLOATS)}
