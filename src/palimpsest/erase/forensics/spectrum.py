"""What a rank-one write leaves in the spectrum of a down-projection.

A closed-form editor adds Lambda r^T to W (Meng et al. 2022, equation 2: r = C^-1 k / k^T C^-1 k). Two things give it away:

    gap        log sigma_1 / sigma_2 of M^-1/2 W, where M is the mean of W_j W_j^T over the other layers. What every layer
               writes strongly is no news; after M^-1/2 the trained part is a bulk, and a large write stands out of it
               (as in the detection of a spike in a random matrix, Benaych-Georges and Nadakuditi 2012)
    evenness   (3 - kurtosis of a_i) / sqrt(24 / d) over the d coordinates of a_i = M^1/2 q_i, with q_i the left singular vectors
               of M^-1/2 W: output directions again, the outlying ones first. Lambda was found
               by some twenty steps of Adam, which moves every coordinate by about as much; a trained direction is
               Gaussian or has heavy tails. For Gaussian coordinates this is about standard normal

The second says what the search of the value was like, not that a write was made: an editor without Adam does not leave it.
Both are read from the weights alone; no text is run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

LEADING = 10  # singular pairs whose evenness is looked at; the first ones, where a write large enough to answer stands
NEAR = 4  # layers on either side that M leaves out: methods that spread an edit write one direction into neighbours


@dataclass(frozen=True)
class Reading:
    """What one weight shows.

    Attributes:
        gap: log sigma_1 / sigma_2 after the outputs are whitened by the other layers.
        evenness: the largest among the leading left singular vectors, in standard deviations of a Gaussian vector's.
        even_rank: which singular value (from 1) that one belongs to.
    """

    gap: float
    evenness: float
    even_rank: int


def gram(weight: Float[Tensor, "out in"]) -> Float[Tensor, "out out"]:
    """W W^T with a trace of `out`, so that every layer counts alike; float32 or better."""
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    product = exact @ exact.T
    return product * (len(product) / product.trace())


def others(grams: Sequence[Float[Tensor, "out out"]], index: int) -> Float[Tensor, "out out"]:
    """M of one layer: the mean Gram matrix of the layers further than `NEAR` away, of all others where there are few."""
    far = [g for i, g in enumerate(grams) if abs(i - index) > NEAR]
    some = far if len(far) >= NEAR else [g for i, g in enumerate(grams) if i != index]
    return torch.stack(some).mean(0) if some else torch.eye(len(grams[index])).to(grams[index])


def read(own: Float[Tensor, "out out"], mean: Float[Tensor, "out out"], leading: int = LEADING) -> Reading:
    """Gap and evenness from the Gram matrix of one weight and the mean of the others'."""
    values, vectors = torch.linalg.eigh(mean)
    roots = values.clamp(min=float(values[-1]) * 1e-6).sqrt()
    whiten = (vectors / roots) @ vectors.T
    squares, left = torch.linalg.eigh(whiten @ own @ whiten)
    gap = 0.5 * float((squares[-1] / squares[-2].clamp(min=1e-30)).log())
    even = evenness((vectors * roots) @ vectors.T @ left.flip(1)[:, :leading])
    return Reading(gap, float(even.max()), int(even.argmax()) + 1)


def evenness(directions: Float[Tensor, "d n"]) -> Float[Tensor, "n"]:
    """(3 - kurtosis) / sqrt(24 / d) of each column; about standard normal for Gaussian coordinates."""
    centred = directions - directions.mean(0)
    kurtosis = (centred**4).mean(0) / (centred**2).mean(0).clamp(min=1e-30) ** 2
    return (3 - kurtosis) / (24 / len(directions)) ** 0.5
