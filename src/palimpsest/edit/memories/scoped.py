"""SERAC's memory (Mitchell et al. 2022) as the payload of an edit: facts as text, found by a scope that was learned.

A prompt x belongs to the fact z for which p(x in scope of z) is largest, where that is above the threshold (1/2 in the paper):
then the counterfactual model answers, which reads the fact and the prompt. Else the model is as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.memories.retrieve import rows_of
from palimpsest.edit.memories.scope import likeness
from palimpsest.edit.memories.texts import Texts
from palimpsest.edit.payload import Routed
from palimpsest.errors import EditError
from palimpsest.model import Model, Site


@dataclass(frozen=True, eq=False)
class Scoped(Texts):
    """`Texts`, with a learned scope in the place of a cosine.

    Attributes:
        matrix: M of the scope.
    """

    kind: ClassVar[str] = "scoped texts"
    names: ClassVar[tuple[str, ...]] = ("keys", "matrix")
    matrix: Float[Tensor, "width width"] = field(kw_only=True)

    def tensors(self) -> dict[str, Tensor]:
        """Name to tensor, for the edit file."""
        return {**super().tensors(), "matrix": self.matrix}

    @classmethod
    def restored(cls, site: Site, tensors: Mapping[str, Tensor], says: Mapping[str, Any]) -> "Scoped":
        """From what an edit file holds."""
        return cls(**vars(Texts.restored(site, tensors, says)), matrix=tensors["matrix"])

    def scores(self, model: Model, prompt: str) -> list[float]:
        """p(`prompt` in scope of each fact)."""
        asked = rows_of(model, self.retriever, [prompt], self._encoder)
        keys = self.keys.to(asked)
        return [float(p) for p in likeness(self.matrix.to(asked), keys, asked.expand_as(keys))]

    def plus(self, other: Routed) -> "Texts":
        """Grown by the facts of another with the same scope; raises `EditError` where it is another's."""
        if not isinstance(other, Scoped) or not self.matrix.equal(other.matrix):
            raise EditError(
                "Memories whose scopes were learned apart cannot be added; grow one with memory=..., or make one of all facts."
            )
        return super().plus(other)
