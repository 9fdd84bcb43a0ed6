"""Mean and covariance of states as they come, without labels: of every token an eraser will act on.

With n states so far of mean m and a batch of b states of mean m', the sums of products of deviations add up as

    S <- S + S' + (n b / (n + b)) (m' - m)(m' - m)^T,     m <- m + (b / (n + b)) (m' - m)

(Welford 1962; for batches Chan, Golub and LeVeque 1983), in float64.
"""

import torch
from jaxtyping import Float
from torch import Tensor


class Spread:
    """Mean and covariance of a stream of states `width` wide."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self._sum = torch.zeros(width, width, dtype=torch.float64)

    @property
    def covariance(self) -> Float[Tensor, "width width"]:
        """Divided by n."""
        return (self._sum + self._sum.T) / (2 * max(self.count, 1))

    def update(self, states: Float[Tensor, "rows width"]) -> None:
        """Add a batch of states that are finite."""
        if not len(states):
            return
        x = states.detach().to("cpu", torch.float64)
        batch = Spread(x.shape[1])
        batch.count, batch.mean = len(x), x.mean(0)
        centred = x - batch.mean
        batch._sum = centred.T @ centred
        self.add(batch)

    def add(self, other: "Spread") -> None:
        """Add what another one has seen."""
        if not other.count:
            return
        n, b = self.count, other.count
        apart = other.mean - self.mean
        self._sum += other._sum + n * b / (n + b) * torch.outer(apart, apart)
        self.mean = self.mean + b / (n + b) * apart
        self.count = n + b
