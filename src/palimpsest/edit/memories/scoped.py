"""SERAC's memory (Mitchell et al. 2022) as the payload of an edit: facts as text, found by a scope that was learned.

A prompt x belongs to the fact z for which p(x in scope of z) is largest, where that is at or above the threshold (1/2):
then the counterfactual model answers, which reads the fact and the prompt. Else the model is as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
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
    matrix: Float[Tensor, "_ _"] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.matrix.shape != (self.keys.shape[1], self.keys.shape[1]):
            raise EditError(
                f"A scope over vectors of {self.keys.shape[1]} numbers has a matrix of that many rows and columns, got "
                f"{tuple(self.matrix.shape)}; give the encoder that the memory was made with."
            )

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
        """Grown by the facts of another with the same scope; raises `EditError` where it is another's, or as `Texts` does."""
        grown = super().plus(other)
        if isinstance(other, Scoped) and not torch.allclose(self.matrix, other.matrix, rtol=1e-3, atol=1e-4):
            raise EditError(
                "Memories whose scopes were learned apart cannot be added; grow one with memory=..., or make one of all facts."
            )
        return grown
