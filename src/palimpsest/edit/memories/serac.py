"""SERAC (Mitchell, Lin, Bosselut, Manning and Finn 2022): a memory of facts, a scope classifier, a counterfactual model.

    z* = argmax over stored facts z of p(x in scope of z)
    f'(x) = h(z*, x)  where p(x in scope of z*) > 1/2,   f(x)  elsewhere

    edit = palimpsest.edit(model, facts, method="serac", examples=other_facts)

What is kept of the paper, and what is not: the scope is its embedding classifier, trained on `examples` (`memories.scope`). The
counterfactual model h is not trained: it is the edited model itself, reading the fact before the prompt as in-context editing does.
The published h is a second and smaller language model, trained to do so, whose answers are its own and not the edited model's. So
this method differs from "in-context" in one thing alone: when it takes a prompt for its own.

The encoder stays as it is: all-MiniLM-L6-v2 where it is installed, one that is given, or the model's own states ("keys").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from palimpsest.edit.artefact import Edit
from palimpsest.edit.memories.in_context import InContext, InContextSettings
from palimpsest.edit.memories.retrieve import Encoder
from palimpsest.edit.memories.scope import Scope, fitted
from palimpsest.edit.memories.scoped import Scoped
from palimpsest.edit.memories.texts import Texts
from palimpsest.errors import SettingError
from palimpsest.facts import Fact, read_facts
from palimpsest.model import Model
from palimpsest.runs import Progress

EXAMPLES = 96  # of the shipped facts, where none are given: every so many


@dataclass(frozen=True)
class SeracSettings(InContextSettings):
    """Every setting of SERAC: those of the in-context editor, without "bm25", which makes no vector a scope could be learned on."""

    title: ClassVar[str] = "SERAC"
    retrievers: ClassVar[tuple[str, ...]] = ("auto", "keys", "encoder")


class Serac(InContext):
    """SERAC on one model.

    Args:
        examples: facts with paraphrases and neighbours that the scope is learned of, none of which may be edited; 96 shipped ones
            but those that are edited when None. Not read where `memory` is given: a scope is learned once.
        model, preset, memory, demonstrations, encoder, progress, settings: as for `InContext`.

    Raises:
        InputError: the examples are of fewer than 8 subjects, or have no paraphrase.
        SettingError, ModelError, EditError, WeightError: as for `InContext`.
    """

    name = "serac"
    presets: ClassVar[Mapping[str, InContextSettings]] = {"fixed": SeracSettings()}
    thresholds: ClassVar[Mapping[str, float]] = {"keys": 0.5, "encoder": 0.5}
    without_encoder: ClassVar[str] = "keys"
    kind: ClassVar[type[Texts]] = Scoped

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        memory: Edit | None = None,
        examples: Sequence[Fact] | None = None,
        demonstrations: Sequence[Fact] = (),
        encoder: Encoder | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(
            model,
            preset=preset,
            memory=memory,
            demonstrations=demonstrations,
            encoder=encoder,
            progress=progress,
            **settings,
        )
        self.examples = None if examples is None else tuple(examples)
        self._scopes: dict[frozenset[str], Scope] = {}  # by the subjects that were left out
        self._learned: Scope | None = None  # the last that was used

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force, and how the scope does on subjects that it was not learned of."""
        given = None if self.examples is None else [fact.id for fact in self.examples]
        return {**super().card, "examples": given, "scope": None if self._learned is None else self._learned.report}

    def _further(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """The scope: the memory's own, or one learned of examples that are not edited."""
        if isinstance(self.texts, Scoped):
            return {"matrix": self.texts.matrix}
        self._learned = self.scope(facts)
        return {"matrix": self._learned.matrix}

    def scope(self, facts: Sequence[Fact]) -> Scope:
        """The scope for an edit of `facts`, learned once for as long as it leaves out the same examples.

        Raises:
            SettingError: a fact is one of the examples that were given.
        """
        edited = {fact.subject for fact in facts}
        if self.examples is None:
            shipped = read_facts("shipped").facts
            examples = shipped[:: max(1, len(shipped) // EXAMPLES)][:EXAMPLES]
        else:
            examples = self.examples
            texts = {fact.text for fact in facts}
            if both := next((fact for fact in examples if fact.text in texts), None):
                raise SettingError(f"The fact {both.id} is edited and an example too; take it out of the examples.")
        left_out = frozenset(fact.subject for fact in examples) & edited
        if left_out not in self._scopes:
            kept = [fact for fact in examples if fact.subject not in left_out]
            self._scopes[left_out] = fitted(self._rows, kept)
        return self._scopes[left_out]
