"""Closed forms: the smallest change of a linear map that writes values at keys.

Every method that solves for its edit solves one problem, with its own price A of a change. For keys k_i and wanted changes
r_i of their values (rows of K and R),

    minimise over dW    tr(dW A dW^T) + (1/s) sum_i |dW k_i - r_i|^2
    gives               dW = R^T (K A^-1 K^T + s I)^-1 K A^-1                  one factor of n rows: rank at most n
                           = R^T K (s A + K^T K)^-1                            the same by the push-through identity

and with s -> 0 the constraint dW k_i = r_i holds exactly.

                  A                                          s
    ROME          C                                          0     one fact        (Meng et al. 2022, eq. 2, appendix A)
    EMMET         lambda C                                   0 up  many facts      (Gupta et al. 2024, arXiv 2403.14236)
    MEMIT         lambda C + keys of earlier edits           1                     (Meng et al. 2023, eq. 14)
    AlphaEdit     ridge I + keys of earlier edits, in the    1                     (Fang et al. 2025, arXiv 2410.02355)
                  null space of C only
    identity      I                                          0                     ("C = I")

C is the second moment of ordinary keys, so W moves least where ordinary text has its keys. EMMET and ROME may have the keys of
earlier edits in A as well (ROME those keys over its `moment_weight`). With n keys of width d the first form costs d^3/3 a batch
and layer for the Cholesky factor of A and then 2 d^2 n + n^3; the second needs only the sums K^T K and R^T K,
whatever n is, and is taken where n > d. `tests/oracles` holds the dense textbook solves. All in float64.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment
from palimpsest.errors import EditError


@dataclass(frozen=True, eq=False)
class Price:
    """A, on the whole space or on the subspace that `basis` spans (a change outside it costs everything).

    Attributes:
        matrix: A in the coordinates of the basis, symmetric and positive definite, float64.
        basis: orthonormal columns, or None for the whole space.
    """

    matrix: Float[Tensor, "m m"]
    basis: Float[Tensor, "d m"] | None = None

    @cached_property
    def _factor(self) -> Float[Tensor, "m m"]:
        factor, info = torch.linalg.cholesky_ex(self.matrix)
        if int(info) or not bool(torch.isfinite(factor).all()):
            raise EditError(
                f"The price of a change is singular ({self.matrix.shape[0]} wide); "
                f"measure the second moments on more text, or raise the ridge or the weight of the moments."
            )
        return factor

    def solve(self, x: Float[Tensor, "d n"]) -> Float[Tensor, "d n"]:
        """A^-1 x."""
        inside = x if self.basis is None else self.basis.T @ x
        solved = torch.cholesky_solve(inside, self._factor)
        return solved if self.basis is None else self.basis @ solved

    def plus(self, gram: Float[Tensor, "d d"] | None) -> "Price":
        """A + gram."""
        if gram is None:
            return self
        gram = gram.to(self.matrix)
        inside = gram if self.basis is None else self.basis.T @ gram @ self.basis
        return Price(self.matrix + inside, self.basis)

    def times(self, factor: float) -> "Price":
        """factor * A."""
        return Price(factor * self.matrix, self.basis)


@dataclass(frozen=True, eq=False)
class Update:
    """dW = U V, and k^T A^-1 k of each key: how cheap it is to write there."""

    u: Float[Tensor, "out rank"]
    v: Float[Tensor, "rank d"]
    whitened: Float[Tensor, "n"] | None = None


def write(price: Price, keys: Float[Tensor, "n d"], residuals: Float[Tensor, "n out"], softness: float) -> Update:
    """dW as n factors: the first form.

    Args:
        price: A.
        keys: K.
        residuals: R, the wanted change of the value at each key.
        softness: s; 0 meets every constraint, which takes independent keys, n <= d of them.

    Raises:
        EditError: keys depend on each other and s is 0.
    """
    k = keys.to(price.matrix)
    solved = price.solve(k.T)
    inner = k @ solved
    whitened = inner.diagonal().clone()
    inner = inner + softness * torch.eye(len(k), dtype=inner.dtype, device=inner.device)
    factor, info = torch.linalg.cholesky_ex(inner)
    if int(info) or float(factor.diagonal().min()) ** 2 < 1e-14 * float(whitened.max()):
        raise EditError(
            f"The {len(k)} keys depend on each other, so no change of the weight meets every constraint; "
            f"give a softness above 0, or leave out facts that share a key."
        )
    v = torch.cholesky_solve(solved.T, factor)
    return Update(residuals.to(v).T.float(), v.float(), whitened)


def write_sums(price: Price, gram: Float[Tensor, "d d"], cross: Float[Tensor, "out d"], softness: float) -> Update:
    """dW from gram = K^T K and cross = R^T K: the second form, for more keys than the width.

    Raises:
        EditError: s is 0, which more than d keys cannot meet.
    """
    if softness <= 0:
        raise EditError(
            f"More facts than the {gram.shape[0]} dimensions of a key cannot all be met exactly; "
            f"give a softness above 0, or edit in batches (batch=...)."
        )
    whole = price.times(softness).plus(gram)
    change = whole.solve(cross.to(whole.matrix).T).T.float()
    return Update(torch.eye(len(change), device=change.device), change)


def rank_one(
    moment: SecondMoment,
    direction: Float[Tensor, "d_key"],
    key: Float[Tensor, "d_key"],
    residual: Float[Tensor, "d"],
) -> tuple[Float[Tensor, "d 1"], Float[Tensor, "1 d_key"]]:
    """Factors (U, V) of the rank-one dW with dW key = residual that acts along C^-1 direction: ROME as published.

    Args:
        moment: C.
        direction: the key that is whitened; the published code takes the mean over contexts here ...
        key: ... and the bare prompt's key here, where the constraint holds. With both the same, dW is the minimiser above.
        residual: v* - W key (without the bias, which cancels).

    Returns:
        U of shape (d, 1) and V of shape (1, d_key), in float32; solved in float64.
    """
    whitened = moment.solve(direction.cpu())
    u = residual.cpu().double() / (whitened @ key.cpu().double())
    # balance the factors, so that neither loses digits when stored in float32
    scale = (whitened.norm() / u.norm().clamp(min=1e-300)).sqrt()
    return (u * scale).float()[:, None], (whitened / scale).float()[None, :]
