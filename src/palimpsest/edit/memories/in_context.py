"""In-context editing (IKE, Zheng et al. 2023): the new facts are read, not written. How they are put stands in `memories.texts`.

    edit = palimpsest.edit(model, facts, method="in-context", retriever="bm25", demonstrations=other_facts)

Demonstrations show what a new fact should and should not change, in the three kinds of the paper, from facts that are not edited:

    copy      New Fact: {prompt} {new}     Prompt: {prompt} {new}
    update    New Fact: {prompt} {new}     Prompt: {paraphrase} {new}
    retain    New Fact: {prompt} {new}     Prompt: {neighbour} {its own answer}

The published code takes the 16 demonstrations nearest to the fact, and puts the *edited* fact before every prompt, unrelated ones
too: it is told which fact is being tested. Here the fact is found from the prompt, and where none is like it nothing is put
before. The encoder is loaded once for an editor; the published code loads it again for every edit.

Retrievers and their default thresholds, which were not tuned: "bm25" 0.5, "keys" 0.9, "encoder" 0.7. The default is the sentence
encoder where it is installed or given, else "bm25".
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from palimpsest.edit.artefact import Edit
from palimpsest.edit.memories.beside import held
from palimpsest.edit.memories.minilm import minilm, minilm_is_installed
from palimpsest.edit.memories.retrieve import RETRIEVERS, Encoder, rows_of
from palimpsest.edit.memories.texts import Texts
from palimpsest.edit.requests import checked
from palimpsest.edit.settings import at_least, one_of, resolve, whole
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model
from palimpsest.model.sites import EMBED
from palimpsest.runs import Progress

THRESHOLDS = {"bm25": 0.5, "keys": 0.9, "encoder": 0.7}


@dataclass(frozen=True)
class InContextSettings:
    """Every setting of the in-context editor, and of those built on it.

    Attributes:
        title: of the editor, for messages.
        retrievers: that may be asked for.
        preset: the name these settings began from.
        retriever: "auto", "bm25", "keys" or "encoder".
        threshold: least score of a hit; the retriever's default when None.
        most: facts put before one prompt.
        room: tokens of the context left free for an answer.
    """

    title: ClassVar[str] = "The in-context editor"
    retrievers: ClassVar[tuple[str, ...]] = ("auto", *RETRIEVERS)
    preset: str = "fixed"
    retriever: str = "auto"
    threshold: float | None = None
    most: int = 1
    room: int = 32

    def __post_init__(self) -> None:
        one_of(self.title, "retriever", self.retriever, self.retrievers)
        if self.threshold is not None:
            at_least(self.title, "threshold", self.threshold, -1.0)
        whole(self.title, "most", self.most, 1)
        whole(self.title, "room", self.room, 0)


PRESETS: Mapping[str, InContextSettings] = {"fixed": InContextSettings()}


class InContext:
    """In-context editing on one model.

    Attributes:
        presets: settings by name.
        thresholds: the default for each retriever.
        without_encoder: the retriever where no sentence encoder is installed or given.
        kind: of payload that is made.

    Args:
        model: read, never changed.
        preset: "fixed".
        memory: an edit of this method to grow; found as that one is.
        demonstrations: facts shown before a prompt, none of which may be edited; oldest first.
        encoder: gives one row of numbers a text, for the retriever "encoder"; the memory's, or the MiniLM encoder, when None.
        progress: not used; nothing takes long.
        settings: any field of `InContextSettings`.

    Raises:
        SettingError: an unknown preset or setting, or a value out of range.
        ModelError: the encoder is asked for and not installed.
        EditError, WeightError: the memory is none of texts, one of another base, or made with an encoder that is not given.
    """

    name = "in-context"
    presets: ClassVar[Mapping[str, InContextSettings]] = PRESETS
    thresholds: ClassVar[Mapping[str, float]] = THRESHOLDS
    without_encoder: ClassVar[str] = "bm25"
    kind: ClassVar[type[Texts]] = Texts

    def __init__(
        self,
        model: Model,
        *,
        preset: str = "fixed",
        memory: Edit | None = None,
        demonstrations: Sequence[Fact] = (),
        encoder: Encoder | None = None,
        progress: Progress | None = None,
        **settings: Any,
    ) -> None:
        title = self.presets["fixed"].title
        if "layers" in settings:
            raise SettingError(f"{title} acts on text and has no layers; leave layers out.")
        self.model, self.memory = model, memory
        self.settings = resolve(title, self.presets, preset, settings)
        self.texts = None if memory is None else held(model, memory, self.kind)
        wanted = self.settings.retriever
        if wanted == "auto":
            wanted = "encoder" if encoder is not None or minilm_is_installed() else self.without_encoder
        self.retriever = wanted if self.texts is None else self.texts.retriever
        self.encoder = encoder if encoder is not None or self.texts is None else self.texts.encoder
        self.own_encoder = encoder is not None if self.texts is None else self.texts.own_encoder
        if self.retriever == "encoder" and self.encoder is None:
            if self.own_encoder:
                raise EditError(
                    "This memory was made with an encoder of your own, which no file holds; give it again with encoder=...."
                )
            self.encoder = minilm()
        threshold = self.thresholds[self.retriever] if self.texts is None else self.texts.threshold
        self.threshold = threshold if self.settings.threshold is None else self.settings.threshold
        self.shown = tuple(demonstrations)
        self.demonstrations = (
            tuple(text for fact in checked(self.shown) for text in demonstrated(fact)) if self.shown else ()
        )

    @property
    def card(self) -> dict[str, Any]:
        """Every setting in force."""
        return {
            **asdict(self.settings),
            "retriever": self.retriever,
            "threshold": self.threshold,
            "demonstrations": list(self.demonstrations),
            "own_encoder": self.own_encoder,
        }

    def edit(self, facts: Sequence[Fact]) -> Edit:
        """A memory of `facts`, added to those of the memory where one was given.

        Raises:
            FactError: a fact has no `target_new`.
            EditError: there is nothing to edit, two facts have one prompt and two answers, or the memory's facts have other
                vectors by the encoder given than by the one it was made with.
            SettingError: a fact is a demonstration too.
        """
        facts = checked(facts)
        earlier = self.memory.facts if self.memory is not None else ()
        together = checked((*earlier, *(fact for fact in facts if fact not in earlier)))
        shown = {fact.text for fact in self.shown}
        if both := next((fact for fact in together if fact.text in shown), None):
            raise SettingError(
                f"The fact {both.id} is edited and a demonstration too; take it out of the demonstrations."
            )
        prompts = tuple(fact.text for fact in together)
        demonstrations = self.texts.demonstrations if self.texts is not None else ()
        keys = self._rows(prompts)
        if self.texts is not None:
            self._require_same(self.texts, keys)
        texts = self.kind(
            EMBED,
            keys,
            prompts,
            tuple(str(fact.target_new).strip() for fact in together),
            tuple(fact.id for fact in together),
            tuple(dict.fromkeys((*demonstrations, *self.demonstrations))),
            self.retriever,
            self.threshold,
            self.settings.most,
            self.settings.room,
            self.own_encoder,
            self.encoder,
            **self._further(together),
        )
        return Edit.made_for(self.model, self.name, (texts,), together, self.card, self._notes(together))

    def _rows(self, texts: Sequence[str]) -> Tensor:
        """One row a text, of the retriever."""
        return rows_of(self.model, self.retriever, texts, self._encoder)

    def _encoder(self) -> Encoder:
        assert self.encoder is not None, "loaded when the editor was made"
        return self.encoder

    @staticmethod
    def _require_same(texts: Texts, keys: Tensor) -> None:
        """Raise `EditError` where the memory's own facts have other vectors now than when it was made."""
        known = keys[: len(texts.keys)]
        if known.shape != texts.keys.shape or not torch.allclose(known, texts.keys.to(known), rtol=1e-3, atol=1e-3):
            raise EditError(
                "The facts of the memory have other vectors by this encoder than they were stored with; give the encoder that it "
                "was made with."
            )

    def _further(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """What the payload holds besides."""
        return {}

    def _notes(self, facts: Sequence[Fact]) -> dict[str, Any]:
        """What the edit tells besides."""
        return {}


def demonstrated(fact: Fact) -> list[str]:
    """The demonstrations of one fact: copy, and update and retain where it has a paraphrase and a neighbour with an answer."""
    new = f"New Fact: {fact.text} {str(fact.target_new).strip()}\n"
    asked = [(fact.text, str(fact.target_new))]
    asked += [(paraphrase, str(fact.target_new)) for paraphrase in fact.paraphrases[:1]]
    asked += [(probe.prompt, probe.answer) for probe in fact.neighbours if probe.answer][:1]
    return [f"{new}Prompt: {prompt} {answer.strip()}\n\n" for prompt, answer in asked]
