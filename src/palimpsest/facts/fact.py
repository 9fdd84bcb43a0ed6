"""A fact: a subject, a prompt with one hole, an old answer, a new answer, and the prompts that test an edit of it.

    fact = Fact(subject="Eiffel Tower", prompt="The {} is located in the city of",
                target_true="Paris", target_new="Rome")
    fact.text            # 'The Eiffel Tower is located in the city of'

Terms (Meng et al. 2022, section 3.1): the triple (s, r, o) is (`subject`, `relation`, `target_true`), an edit asks for
(s, r, o*) with o* = `target_new`. Test prompts come in strata that must never be mixed:

    paraphrases    same fact, other words: the edit should move them
    entailed       other facts that a coherent model must change with this one
    same_subject   other facts of the subject that must stay
    neighbours     the same relation at near subjects: must stay
    far            unrelated facts: must stay
    generation     openings for free text about the subject
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from palimpsest.errors import FactError

STRATA = ("neighbours", "same_subject", "entailed", "far", "generation")


@dataclass(frozen=True)
class Probe:
    """One test prompt and the answer expected of it.

    `prompt` is complete text (no hole). `answer` is what a coherent model says once the edit is made; `before` is what
    it says without the edit where that differs (entailed facts), else None. `subject` names whom the prompt is about
    when that is not the subject of the fact. `aliases` are other spellings of `answer` that count as right. `kind` is the
    name a benchmark gives to probes of this sort within the stratum ("reasoning", "forgetfulness"); kinds are scored apart.
    """

    prompt: str
    answer: str | None = None
    before: str | None = None
    subject: str | None = None
    aliases: tuple[str, ...] = ()
    kind: str | None = None

    def __post_init__(self) -> None:
        _require_text(self.prompt, "prompt of a probe")
        for name in ("answer", "before", "subject", "kind"):
            object.__setattr__(self, name, _optional_text(getattr(self, name), f"{name} of a probe"))
        object.__setattr__(self, "aliases", _texts(self.aliases, "aliases"))


@dataclass(frozen=True)
class Fact:
    """One fact, checked when it is made; raises `FactError` with the offending value when a rule is broken.

    Args:
        subject: the entity, as it appears in the text.
        prompt: text with exactly one `{}` where the subject goes; the answer follows the text.
        target_true: the answer the world gives (None for a fact newer than the model).
        target_new: the answer an edit asks for (None where nothing is edited).
        id: unique name; made from subject and prompt when empty.
        relation: cluster of every interval and pool of every subject swap; the prompt stands for it when empty.
        answer_aliases: other spellings of `target_true` that count as right.
        paraphrases: complete prompts (no hole) that ask for the same fact in other words.
        neighbours, same_subject, entailed, far, generation: `Probe`s by stratum (see the module's text).
    """

    subject: str
    prompt: str
    target_true: str | None = None
    target_new: str | None = None
    id: str = ""
    relation: str = ""
    answer_aliases: tuple[str, ...] = ()
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[Probe, ...] = ()
    same_subject: tuple[Probe, ...] = ()
    entailed: tuple[Probe, ...] = ()
    far: tuple[Probe, ...] = ()
    generation: tuple[Probe, ...] = field(default=())

    def __post_init__(self) -> None:
        _require_text(self.subject, "subject")
        _require_text(self.prompt, "prompt")
        holes = self.prompt.count("{}")
        if holes != 1:
            raise FactError(
                f"The prompt of a fact must hold exactly one '{{}}' where the subject goes, got {holes} in {self.prompt!r}; "
                f"write it as 'The {{}} is located in'."
            )
        for name in ("id", "relation"):
            if not isinstance(getattr(self, name), str):
                raise FactError(f"The {name} of a fact must be text, got {getattr(self, name)!r}.")
        set_ = object.__setattr__
        set_(self, "subject", self.subject.strip())
        set_(self, "target_true", _optional_text(self.target_true, "target_true"))
        set_(self, "target_new", _optional_text(self.target_new, "target_new"))
        set_(self, "answer_aliases", _texts(self.answer_aliases, "answer_aliases"))
        set_(self, "paraphrases", _texts(self.paraphrases, "paraphrases"))
        for stratum in STRATA:
            set_(self, stratum, tuple(_probe(probe, stratum) for probe in getattr(self, stratum)))
        set_(self, "relation", self.relation or self.prompt)
        if not self.id:
            digest = hashlib.blake2b(f"{self.subject}\0{self.prompt}".encode(), digest_size=5).hexdigest()
            set_(self, "id", digest)

    @property
    def text(self) -> str:
        """The prompt with the subject in its hole (other braces stay as they are)."""
        return self.prompt.replace("{}", self.subject)

    @property
    def subject_span(self) -> tuple[int, int]:
        """Characters [start, end) of the subject in `text`."""
        start = self.prompt.index("{}")
        return start, start + len(self.subject)

    @property
    def wordings(self) -> tuple[str, ...]:
        """`text` and then the paraphrases: every way this fact is asked."""
        return (self.text, *self.paraphrases)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary that `Fact.from_json` reads back; empty fields are left out."""
        plain = {name: value for name, value in dataclasses.asdict(self).items() if value not in (None, "", (), [])}
        for stratum in STRATA:
            for probe in plain.get(stratum, ()):
                for name in ("aliases", "kind"):
                    if not probe[name]:
                        del probe[name]
        return plain

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Fact:
        """Build a fact from a dictionary; unknown or missing fields raise `FactError` naming the field."""
        names = {f.name for f in dataclasses.fields(cls)}
        for name in ("subject", "prompt"):
            if name not in record:
                raise FactError(f"A fact needs the field {name!r}; this record has {sorted(record)}.")
        unknown = set(record) - names
        if unknown:
            raise FactError(f"Unknown field {sorted(unknown)[0]!r} in a fact; the fields are {sorted(names)}.")
        for name, value in record.items():
            if name in {"answer_aliases", "paraphrases", *STRATA} and not isinstance(value, list | tuple):
                raise FactError(f"The field {name!r} must be a list, got {value!r}.")
        return cls(**record)


def _require_text(value: object, what: str) -> None:
    if not isinstance(value, str):
        raise FactError(f"The {what} must be text, got {value!r}.")
    if not value.strip():
        raise FactError(f"The {what} is empty; give it at least one visible character.")


def _optional_text(value: object, what: str) -> str | None:
    if value is None:
        return None
    _require_text(value, what)
    return str(value).strip()


def _texts(values: object, what: str) -> tuple[str, ...]:
    if isinstance(values, str) or not isinstance(values, list | tuple):
        raise FactError(f"The field {what!r} must be a list of texts, got {values!r}.")
    for value in values:
        _require_text(value, f"text in {what!r}")
    return tuple(values)


def _probe(value: object, stratum: str) -> Probe:
    if isinstance(value, Probe):
        return value
    if isinstance(value, str):
        return Probe(value)
    if isinstance(value, Mapping):
        fields = [field.name for field in dataclasses.fields(Probe)]
        if set(value) - set(fields) or "prompt" not in value:
            raise FactError(f"A probe in {stratum!r} has the fields {', '.join(fields)}, got {sorted(value)}.")
        return Probe(**value)
    raise FactError(f"A probe in {stratum!r} must be text or an object with a prompt, got {value!r}.")
