"""Symmetric matrices, of which only one triangle is computed, summed and stored.

k k^T is symmetric, so of the d^2 products of a batch d (d + 1) / 2 are enough. BLAS has a routine for this, `syrk`, which
scipy offers on a CPU; elsewhere the whole product is taken. On one core syrk measured 2.1 times as fast as the product at
d = 1536 (bench/moments.py shows what that gives for a whole pass).
"""

import torch
from jaxtyping import Float
from scipy.linalg import blas
from torch import Tensor


def add_outer(total: Float[Tensor, "d d"], keys: Float[Tensor, "n d"]) -> None:
    """total += sum over rows of k k^T, where only the upper triangle of `total` means anything afterwards.

    The products of one call are summed in the precision of `keys`, and added in that of `total`.
    """
    if keys.device.type == "cpu" and keys.dtype in (torch.float32, torch.float64):
        syrk = blas.ssyrk if keys.dtype == torch.float32 else blas.dsyrk
        # rows of `keys` are columns to Fortran, and its lower triangle is our upper one: nothing is copied
        total += torch.from_numpy(syrk(1.0, keys.contiguous().numpy().T, lower=1)).T
    else:
        total += (keys.T @ keys).to(total.device)


def mirror(upper: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """The symmetric matrix with this upper triangle."""
    return upper.triu() + upper.triu(1).T


def pack(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "packed"]:
    """The upper triangle, row after row: half the numbers."""
    return torch.cat([matrix[i, i:] for i in range(len(matrix))])


def unpack(packed: Float[Tensor, "packed"], width: int) -> Float[Tensor, "d d"]:
    """The symmetric matrix that `pack` was given; raises `ValueError` when the number of entries does not fit."""
    if len(packed) != width * (width + 1) // 2:
        raise ValueError(f"{len(packed)} numbers are not half of a matrix {width} wide")
    upper, at = packed.new_zeros(width, width), 0
    for i in range(width):
        upper[i, i:] = packed[at : at + width - i]
        at += width - i
    return mirror(upper)
