"""What reads an answer out of a model: the protocol of every readout, and the table that each gives.

A readout is fitted once, on the *unedited* model (a lens trained on text, a probe trained on the relation's facts; most need
nothing), and then reads the same pairs in the unedited model and under each edit:

    reader = readout.fit(model, pairs)
    with edit.applied(model):
        table = reader.read(model, pairs)     # scores (pairs, columns), larger = more readable

A column is one place where the answer may show: a wording, a layer, a head, a probe. A readout that an editor optimised against
cannot judge it; `Residue` therefore names the readout of every column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from palimpsest.erase.residue.pair import Pair
from palimpsest.model import Model


@dataclass(frozen=True)
class Column:
    """One place where an answer may show.

    Attributes:
        readout: the name of the readout ("logit lens", "probe").
        path: the way the question was put: "prompt", "paraphrase 1", "reversed", "prefix 2", "attack 1", ...
        layer, head: where it was read; None where that has no meaning.
    """

    readout: str
    path: str
    layer: int | None = None
    head: int | None = None

    def __str__(self) -> str:
        where = "".join(
            f", {name} {number}" for name, number in (("layer", self.layer), ("head", self.head)) if number is not None
        )
        return f"{self.readout}: {self.path}{where}"


@dataclass(frozen=True, eq=False)
class Table:
    """Scores of pairs at columns.

    Attributes:
        columns: the places.
        scores: larger is more readable, one unit throughout a column; NaN where a pair has no such place (too few paraphrases).
    """

    columns: tuple[Column, ...]
    scores: Float[np.ndarray, "pairs columns"]


@runtime_checkable
class Reader(Protocol):
    """A fitted readout."""

    def read(self, model: Model, pairs: Sequence[Pair]) -> Table:
        """Score every pair in the model as it stands now; the columns depend on no pair and on no edit."""
        ...


@runtime_checkable
class Readout(Protocol):
    """Something that reads answers."""

    @property
    def name(self) -> str:
        """What its columns are called after."""
        ...

    def fit(self, model: Model, pairs: Sequence[Pair]) -> Reader:
        """A reader, fitted on the unedited model where it needs fitting; `pairs` are those that will be read."""
        ...
