"""The least change that leaves nothing of a concept to any linear reader (Belrose et al. 2023, theorem 4.3).

    r(x) = x - W^+ P W (x - mu),     W = (Sigma_xx^1/2)^+,     P the orthogonal projection onto the columns of W Sigma_xz

x are states with mean mu and covariance Sigma_xx, z the concept (one number a class, 1 for the class a state has), Sigma_xz
the covariance between them. After r that covariance is zero, and by theorem 3.2 no linear probe then does better than the
constant that is best without looking, whatever its convex loss. Among all affine maps that do so, r moves states least, in
the norm E|r(x) - x|^2 and in every other norm that an inner product M gives.

P has rank k - 1 at most for k classes, so r is kept as two thin factors,

    r(x) = x - left (right x) + bias,     left = W^+ U (d, r),   right = U^T W (r, d),   bias = left right mu,

U an orthonormal basis of the columns of W Sigma_xz. That is what `palimpsest.edit.Hook` applies.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit import Hook
from palimpsest.errors import InputError
from palimpsest.model import Site

CORRELATION = 1e-6  # a direction with a smaller correlation to the concept is rounding: states have seven digits


@dataclass(frozen=True, eq=False)
class Eraser:
    """x - left (right x) + bias. It is frozen: fitting more states gives another eraser.

    Attributes:
        proj_left: left, shape (width, rank).
        proj_right: right, shape (rank, width).
        bias: what is added to every state, shape (width,).
    """

    proj_left: Float[Tensor, "width rank"]
    proj_right: Float[Tensor, "rank width"]
    bias: Float[Tensor, "width"]

    @property
    def rank(self) -> int:
        """How many directions are taken out; 0 where the states say nothing of the concept."""
        return int(self.proj_left.shape[1])

    @cached_property
    def projection(self) -> Float[Tensor, "width width"]:
        """W^+ P W, the whole matrix. It projects: twice is as once."""
        return self.proj_left @ self.proj_right

    def __call__(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """r(x) in the precision of x."""
        left, right, bias = (t.to(x.device, x.dtype) for t in (self.proj_left, self.proj_right, self.bias))
        return x - (x @ right.T) @ left.T + bias

    def hook(self, site: Site) -> Hook:
        """The payload that applies it to every token at `site`."""
        return Hook(
            site,
            -self.proj_left.float().contiguous(),
            self.proj_right.float().contiguous(),
            self.bias.float().contiguous(),
        )

    def without_constant(self) -> "Eraser":
        """x - left (right x): it erases as well, because a constant is no covariance, but it moves the mean of the states."""
        return replace(self, bias=torch.zeros_like(self.bias))


def closed_form(
    mean: Float[Tensor, "width"],
    sigma_xx: Float[Tensor, "width width"],
    sigma_xz: Float[Tensor, "width classes"],
    spread: float = 1.0,
) -> Eraser:
    """Theorem 4.3 from the moments, in float64.

    Args:
        mean: mu.
        sigma_xx: covariance of the states, or a shrunken estimate of it; singular is allowed.
        sigma_xz: covariance of states and concept.
        spread: standard deviation of the concept, sqrt(tr Sigma_zz): W Sigma_xz is at most so large, so directions below
            `CORRELATION` times it are rounding.
    """
    root, inverse_root = roots(sigma_xx, size=float(mean.abs().max()))
    u, singular, _ = torch.linalg.svd(inverse_root @ sigma_xz.double(), full_matrices=False)
    u = u[:, singular > CORRELATION * spread]
    left, right = root @ u, u.T @ inverse_root
    return Eraser(left, right, left @ (right @ mean.double()))


def roots(
    sigma: Float[Tensor, "width width"], *, size: float = 0.0
) -> tuple[Float[Tensor, "width width"], Float[Tensor, "width width"]]:
    """sigma^1/2 and its pseudo-inverse, in float64.

    Eigenvalues that are zero but for rounding count as zero: that of the largest, and that of states of the given size.
    """
    eigenvalues, vectors = torch.linalg.eigh(sigma.double())
    rounding = len(eigenvalues) * torch.finfo(torch.float64).eps
    kept = (eigenvalues > eigenvalues[-1] * rounding) & (eigenvalues > (size * rounding) ** 2)
    scale = torch.where(kept, eigenvalues, 0.0).sqrt()
    inverse = torch.where(kept, 1 / torch.where(kept, scale, 1.0), 0.0)
    return (vectors * scale) @ vectors.T, (vectors * inverse) @ vectors.T


def random_eraser(mean: Float[Tensor, "width"], rank: int, *, seed: int) -> Eraser:
    """The control: x - Q Q^T (x - mu) for `rank` orthonormal directions drawn evenly.

    Raises:
        InputError: the rank is below 0 or above the width.
    """
    width = len(mean)
    if not 0 <= rank <= width:
        raise InputError(f"A random projection of states {width} wide has a rank of 0 to {width}, got {rank}.")
    drawn = torch.from_numpy(np.random.default_rng(seed).standard_normal((width, rank)))
    q = torch.linalg.qr(drawn)[0]
    return Eraser(q, q.T.contiguous(), q @ (q.T @ mean.double()))
