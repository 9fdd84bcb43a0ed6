"""The precision numbers are read in: a model's own, and never less than float32."""

import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in float32, or in float64 where it is that already (half-precision models are scored in float32)."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
