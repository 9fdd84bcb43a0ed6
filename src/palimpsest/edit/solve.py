"""Closed forms: the smallest change of a linear map that meets a constraint.

    minimise  |dW C^(1/2)|_F   subject to   (W + dW) k = v*            (C the second moment of ordinary keys)
    gives     dW = (v* - W k) (C^-1 k)^T / (k^T C^-1 k)                (Meng et al. 2022, equation 2 and appendix A)

so W moves least where ordinary text has its keys. `tests/oracles` holds the brute-force constrained least squares.
"""

from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment


def rank_one(
    moment: SecondMoment,
    direction: Float[Tensor, "d_key"],
    key: Float[Tensor, "d_key"],
    residual: Float[Tensor, "d"],
) -> tuple[Float[Tensor, "d 1"], Float[Tensor, "1 d_key"]]:
    """Factors (U, V) of the rank-one dW with dW key = residual that acts along C^-1 direction.

    Args:
        moment: C.
        direction: the key that is whitened; ROME as published takes the mean over contexts here ...
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
