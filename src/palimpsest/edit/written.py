"""Updates that are in a model while more of them are computed, and out of it afterwards.

    with Written(model, paths) as written:
        written.add(update)          W = W_0 + the sum of all updates so far
    written.updates                  the sums, one a weight

When the block is left, the model is as it was.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from palimpsest.edit.artefact import total
from palimpsest.edit.payload import Dense, LowRank
from palimpsest.model import Model
from palimpsest.model.model import hash_tensor


class Written:
    """Updates that are in the model for the length of a block: weights are what they were plus the sum so far."""

    def __init__(self, model: Model, paths: Iterable[str]) -> None:
        self.model = model
        self._before = {path: model.parameter(path).detach().clone() for path in paths}
        self._sums: dict[str, LowRank | Dense] = {}
        self._unwritten: str | None = None

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *_: object) -> None:
        self._restore(self._before)

    @property
    def updates(self) -> list[LowRank | Dense]:
        """The sum of the updates, one a weight."""
        return list(self._sums.values())

    def add(self, update: LowRank) -> None:
        """Write one more."""
        parts = [self._sums[update.path], update] if update.path in self._sums else [update]
        (self._sums[update.path],) = total(parts)
        self._restore({update.path: self._before[update.path]})
        weight = self.model.parameter(update.path)
        with torch.no_grad():
            weight.copy_(self._sums[update.path].new_weight(self.model, 1.0))

    def state(self) -> str:
        """What identifies the weights of the model as they are now; the whole model is hashed once."""
        if self._unwritten is None:
            self._unwritten = self.model.fingerprint()
        written = [hash_tensor(self.model.parameter(path)) for path in sorted(self._sums)]
        return "+".join([self._unwritten, *written])

    def _restore(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for path, before in weights.items():
                self.model.parameter(path).copy_(before)
