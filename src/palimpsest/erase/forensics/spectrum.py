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

Both can be read of a run of adjacent layers together, from the mean of their W_l W_l^T: an editor that spreads one value over
layers (MEMIT, Meng et al. 2023, section 4.3) writes nearly the same direction into each, so that it adds up where the
layers' own directions do not. Which of the run's layers hold it, the direction's energy in each says.
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
        outlying, even: M^-1/2 q of the first direction and of the most even one; see `energy`.
    """

    gap: float
    evenness: float
    even_rank: int
    outlying: Float[Tensor, "out"]
    even: Float[Tensor, "out"]


def energy(direction: Float[Tensor, "out"], own: Float[Tensor, "out out"]) -> float:
    """q^T M^-1/2 G M^-1/2 q: how much of a layer's whitened output lies along q, given M^-1/2 q."""
    return float(direction @ own @ direction)


def gram(weight: Float[Tensor, "out in"]) -> Float[Tensor, "out out"]:
    """W W^T with a trace of `out`, so that every layer counts alike; float32 or better."""
    exact = weight.to(torch.promote_types(weight.dtype, torch.float32))
    product = exact @ exact.T
    return product * (len(product) / product.trace())


def others(grams: Sequence[Float[Tensor, "out out"]], first: int, last: int | None = None) -> Float[Tensor, "out out"]:
    """M of a layer, or a run: the mean Gram matrix of the layers further than `NEAR` away, of all others where there are few."""
    last = first if last is None else last
    far = [g for i, g in enumerate(grams) if not first - NEAR <= i <= last + NEAR]
    some = far if len(far) >= NEAR else [g for i, g in enumerate(grams) if not first <= i <= last]
    return torch.stack(some).mean(0) if some else torch.eye(len(grams[first])).to(grams[first])


def read(own: Float[Tensor, "out out"], mean: Float[Tensor, "out out"], leading: int = LEADING) -> Reading:
    """Gap and evenness from the Gram matrix of one weight, or the mean of those of a run, and the mean of the others'."""
    values, vectors = torch.linalg.eigh(mean)
    roots = values.clamp(min=float(values[-1]) * 1e-6).sqrt()
    whiten = (vectors / roots) @ vectors.T
    squares, left = torch.linalg.eigh(whiten @ own @ whiten)
    gap = 0.5 * float((squares[-1] / squares[-2].clamp(min=1e-30)).log())
    even = evenness((vectors * roots) @ vectors.T @ left.flip(1)[:, :leading])
    rank = int(even.argmax()) + 1
    return Reading(gap, float(even.max()), rank, whiten @ left[:, -1], whiten @ left[:, -rank])


def evenness(directions: Float[Tensor, "d n"]) -> Float[Tensor, "n"]:
    """(3 - kurtosis) / sqrt(24 / d) of each column; about standard normal for Gaussian coordinates."""
    centred = directions - directions.mean(0)
    kurtosis = (centred**4).mean(0) / (centred**2).mean(0).clamp(min=1e-30) ** 2
    return (3 - kurtosis) / (24 / len(directions)) ** 0.5
