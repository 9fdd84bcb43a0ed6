"""SERAC (Mitchell, Lin, Bosselut, Manning and Finn 2022): a memory of facts, a scope classifier, a counterfactual model.

    z* = argmax over stored facts z of p(x in scope of z)
    f'(x) = h(z*, x)  where p(x in scope of z*) >= 1/2,   f(x)  elsewhere

    edit = palimpsest.edit(model, facts, method="serac", examples=other_facts)

What is kept of the paper, and what is not: the scope is its embedding classifier, learned of `examples` (`memories.scope`). The
counterfactual model h is not trained: it is the edited model itself, reading the fact before the prompt as in-context editing does.
The published h is a language model of its own, trained to do so, whose answers are not the edited model's. So this method differs
from "in-context" in one thing alone: when it takes a prompt for its own.

The encoder stays as it is: all-MiniLM-L6-v2 where it is installed, one that is given, or the model's own states ("keys").
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from palimpsest.edit.memories.examples import examples_or_shipped, refuse_edited
from palimpsest.edit.memories.in_context import InContext, InContextSettings
from palimpsest.edit.memories.scope import THRESHOLD, Scope, fitted
from palimpsest.edit.memories.scoped import Scoped
from palimpsest.edit.memories.texts import Texts
from palimpsest.facts import Fact
from palimpsest.model import Model


@dataclass(frozen=True)
class SeracSettings(InContextSettings):
    """Every setting of SERAC: those of the in-context editor, without "bm25", which makes no vector a scope could be learned on."""

    title: ClassVar[str] = "SERAC"
    retrievers: ClassVar[tuple[str, ...]] = ("auto", "keys", "encoder")


class Serac(InContext):
    """SERAC on one model.

    Args:
        examples: facts with paraphrases and neighbours that the scope is learned of, once, when the first fact is written; 96
            shipped ones when None. Of given ones none may be edited; of shipped ones `edit.notes["examples_edited"]` names those
            whose subject is. Not read where `memory` is given, whose scope and notes a grown memory keeps.
        model, given: as for `InContext`: preset, memory, demonstrations, encoder, progress and the settings.

    `edit.notes["scope"]` says how the scope does on examples that it was not learned of.

    Raises:
        SettingError, ModelError, EditError, WeightError: as for `InContext`.
    """

    name = "serac"
    presets: ClassVar[Mapping[str, InContextSettings]] = {"fixed": SeracSettings()}
    thresholds: ClassVar[Mapping[str, float]] = {"keys": THRESHOLD, "encoder": THRESHOLD}
    without_encoder: ClassVar[str] = "keys"
    kind: ClassVar[type[Texts]] = Scoped

    def __init__(self, model: Model, *, examples: Sequence[Fact] | None = None, **given: Any) -> None:
        super().__init__(model, **given)
        self.given_examples = None if examples is None else tuple(examples)

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force."""
        given = None if self.given_examples is None else [fact.id for fact in self.given_examples]
        return {**super().card, "examples": given}

    @cached_property
    def examples(self) -> tuple[Fact, ...]:
        """Those given, or some of the shipped facts."""
        return examples_or_shipped(self.given_examples)

    @cached_property
    def scope(self) -> Scope:
        """The scope, learned of the examples; raises `InputError` where they are too few."""
        return fitted(self._rows, self.examples)

    def _further(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """The scope: the memory's own, or one learned of the examples; raises `SettingError` where one of those given is edited."""
        if isinstance(self.texts, Scoped):
            return {"matrix": self.texts.matrix}
        refuse_edited(self.given_examples, facts)
        return {"matrix": self.scope.matrix}

    def _notes(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """How the scope does, and which facts are about a subject that it was learned of."""
        if self.memory is not None:
            return dict(self.memory.notes)
        known = {fact.subject for fact in self.examples}
        return {
            "scope": self.scope.report,
            "examples_edited": [fact.id for fact in facts if fact.subject in known],
        }
