"""The moments of states and a concept, batch after batch, and the eraser they give.

    fitter = LeaceFitter(width=576, classes=("plural", "singular"))
    for states, labels in batches:
        fitter.update(states, labels)
    eraser = fitter.eraser()

Moments are kept as `palimpsest.erase.leace.spread` says, in float64: sums of x x^T would lose what matters where the mean is large
against the spread, as it is in residual streams. Two fitters merge by the same line, in any order.

**States without a label.** An eraser acts on every token, and most tokens have no label; the first one of a text often has a norm
far above that of the others. What is least for labelled states may be much for those. `surround(states)` adds states that the
eraser will act on: where there are any, mu and Sigma_xx are theirs and Sigma_xz is that of the labelled ones. r still takes that
whole covariance out (W^+ P W Sigma_xz = Sigma_xz whatever the scale W), and is now the least change of what it acts on.

**Fewer states than dimensions.** A covariance of n <= d states is singular: the eraser is still exact on those states, but what
it takes for the shape of the rest is noise. `shrinkage="auto"`, the default, then takes

    (1 - rho) S + rho (tr S / d) I,     rho = min(1, (tr S^2 + tr^2 S) / ((n + 1) (tr S^2 - tr^2 S / d)))

with S the covariance (oracle approximating shrinkage: Chen, Wiesel, Eldar and Hero 2010, equation 23 for large d), and warns;
"oas" always does, "none" never does. The covariance with the concept is zero after erasing either way: only what counts as the
least change depends on the estimate.
"""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.erase.leace.eraser import Eraser, closed_form
from palimpsest.erase.leace.spread import Spread
from palimpsest.errors import InputError, SettingError, did_you_mean

SHRINKAGES = ("auto", "oas", "none")


class LeaceFitter:
    """Mean, Sigma_xx and Sigma_xz of a stream of labelled states.

    Args:
        width: d, how wide a state is.
        classes: the labels there may be.
        place: where the states are from, for messages.

    Raises:
        InputError: there are no two classes.
    """

    def __init__(self, width: int, classes: Sequence[str], *, place: str = "the states") -> None:
        self.classes, self.place = tuple(dict.fromkeys(classes)), place
        self.around = Spread(width)
        self.labelled = Spread(width)
        self.counts = torch.zeros(len(self.classes), dtype=torch.float64)
        self._xz = torch.zeros(width, len(self.classes), dtype=torch.float64)
        if len(self.classes) < 2:
            raise InputError(
                f"A concept needs at least two classes to be erased, got {list(self.classes)}; add another."
            )

    @property
    def width(self) -> int:
        """How wide a state is."""
        return len(self.labelled.mean)

    @property
    def count(self) -> int:
        """How many labelled states were seen."""
        return self.labelled.count

    @property
    def mean(self) -> Float[Tensor, "width"]:
        """Of the labelled states."""
        return self.labelled.mean

    @property
    def acted_on(self) -> Spread:
        """The states whose change is kept least: those around, or the labelled ones where none were added."""
        return self.around if self.around.count else self.labelled

    def update(self, states: Float[Tensor, "rows width"], labels: Sequence[str]) -> None:
        """Add a batch; nothing of it is kept but its moments.

        Raises:
            InputError: a state is not finite, is of another width, or has a label that is no class; nothing is added then.
        """
        if states.shape[1] != self.width or len(states) != len(labels):
            raise InputError(
                f"Expected states of shape ({len(labels)}, {self.width}), one a label, got {tuple(states.shape)} at {self.place}."
            )
        if not len(labels):
            return
        self._refuse_not_finite(states, labels)
        z = self._one_hot(labels)
        batch = LeaceFitter(self.width, self.classes, place=self.place)
        batch.labelled.update(states)
        batch.counts = z.sum(0)
        x = states.detach().to("cpu", torch.float64)
        batch._xz = (x - x.mean(0)).T @ (z - z.mean(0))
        self._add(batch)

    def surround(self, states: Float[Tensor, "rows width"]) -> None:
        """Add states without labels that the eraser will act on; labelled ones count only when they are given here too.

        Raises:
            InputError: a state is not finite; nothing is added then.
        """
        self._refuse_not_finite(states, None)
        self.around.update(states)

    def _refuse_not_finite(self, states: Float[Tensor, "rows width"], labels: Sequence[str] | None) -> None:
        bad = (~torch.isfinite(states)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            which = f"state {row}" if labels is None else f"state {row} (of label {labels[row]!r})"
            raise InputError(
                f"{self.place} hold {float(states[row, column])} in {which}, entry {column}, and {len(bad)} such numbers in all; "
                f"load the model in a wider type, or leave that text out."
            )

    def merged(self, other: "LeaceFitter") -> "LeaceFitter":
        """A fitter that has seen what both have.

        Raises:
            InputError: they are of different widths or classes.
        """
        if (self.width, self.classes) != (other.width, other.classes):
            raise InputError(
                f"Only moments of one width and one concept can be merged, got {self.width} and {other.width}, "
                f"{list(self.classes)} and {list(other.classes)}."
            )
        both = LeaceFitter(self.width, self.classes, place=self.place)
        both._add(self)
        both._add(other)
        return both

    def eraser(self, shrinkage: str = "auto") -> Eraser:
        """The eraser of what was seen so far.

        Args:
            shrinkage: "auto", "oas" or "none", see the module's text.

        Raises:
            InputError: no state was seen, or all were of one class.
            SettingError: an unknown shrinkage.
        """
        if shrinkage not in SHRINKAGES:
            raise SettingError(f"There is no shrinkage {shrinkage!r}.{did_you_mean(shrinkage, SHRINKAGES)}")
        present = [name for name, n in zip(self.classes, self.counts.tolist(), strict=True) if n]
        if len(present) < 2:
            raise InputError(
                f"A concept needs states of at least two classes to be erased, got {self.count} of {present or 'none'}; "
                f"add states of another of {list(self.classes)}."
            )
        sigma, seen = self.acted_on.covariance, self.acted_on.count
        if shrinkage == "oas" or (shrinkage == "auto" and seen <= self.width):
            rho = oas(sigma, seen)
            sigma = (1 - rho) * sigma + rho * sigma.trace() / self.width * torch.eye(self.width, dtype=sigma.dtype)
            if shrinkage == "auto":
                warnings.warn(
                    f"{seen} states are no more than the {self.width} dimensions of {self.place}, so their covariance "
                    f"is shrunken by {rho:.2f} toward a sphere; give more texts.",
                    UserWarning,
                    stacklevel=2,
                )
        shares = self.counts / self.count
        return closed_form(self.acted_on.mean, sigma, self.sigma_xz, float((1 - (shares**2).sum()).sqrt()))

    @property
    def sigma_xx(self) -> Float[Tensor, "width width"]:
        """Covariance of the labelled states, divided by n."""
        return self.labelled.covariance

    @property
    def sigma_xz(self) -> Float[Tensor, "width classes"]:
        """Covariance of states and classes, divided by n."""
        return self._xz / max(self.count, 1)

    def _one_hot(self, labels: Sequence[str]) -> Float[Tensor, "rows classes"]:
        place_of = {name: i for i, name in enumerate(self.classes)}
        if unknown := [label for label in labels if label not in place_of]:
            raise InputError(f"{unknown[0]!r} is no class of this concept.{did_you_mean(unknown[0], self.classes)}")
        z = torch.zeros(len(labels), len(self.classes), dtype=torch.float64)
        z[torch.arange(len(labels)), [place_of[label] for label in labels]] = 1
        return z

    def _add(self, other: "LeaceFitter") -> None:
        self.around.add(other.around)
        if not other.count:
            return
        n, b = self.count, other.count
        shares_apart = other.counts / b - self.counts / max(n, 1)
        self._xz += other._xz + n * b / (n + b) * torch.outer(other.mean - self.mean, shares_apart)
        self.labelled.add(other.labelled)
        self.counts = self.counts + other.counts


def oas(sigma: Float[Tensor, "width width"], count: int) -> float:
    """rho, how far a covariance of `count` states is shrunken toward a sphere: see the module's text."""
    squares, trace = float((sigma**2).sum()), float(sigma.trace())
    spread = squares - trace**2 / len(sigma)
    return 1.0 if spread <= 0 else min(1.0, (squares + trace**2) / ((count + 1) * spread))
