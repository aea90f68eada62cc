"""How the C++ kernels name the type of x and y in their records: Kind of simd.h."""

import torch

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
