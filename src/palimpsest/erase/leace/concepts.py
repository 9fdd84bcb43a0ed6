"""What is to be erased: texts, each with a label and the token whose state carries it.

    Concept("number", (Labelled("Raymond sells this sketch", "singular", group="sketch"),
                       Labelled("Raymond sells these sketches", "plural", group="sketch"), ...))

A concept comes from three places:

    read_concept("labels.json")            a list of {"text", "label"} and, where wanted, {"at", "group"}
    relation_concept(facts, "language")    the facts of one relation: the label is the answer, at the last token of the subject
    number_concept(facts)                  BLiMP's agreement of determiner and noun: the label is the number, at the noun

`at` is the word (or words) of the text whose last token is read, the last such place; without it the last token of the text is.
Texts of one `group` are never parted by `split`, so that a probe is tested on nouns, subjects or topics it has not met.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from palimpsest.errors import InputError, RecordError, did_you_mean
from palimpsest.facts import Fact, other_number
from palimpsest.model import Model

TOKENS = ("subject_last", "last")
SINGULAR = ("this", "that")
FIELDS = ("text", "label", "at", "group")


@dataclass(frozen=True)
class Labelled:
    """One text with its label.

    Attributes:
        text: what the model reads.
        label: its class.
        end: characters [0, end) of the text are read, and the state is that of the last of their tokens; the whole text when None.
        group: texts of one group stay together when a concept is split; the text itself when empty.
    """

    text: str
    label: str
    end: int | None = None
    group: str = ""

    def __post_init__(self) -> None:
        for name in ("text", "label"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise InputError(f"The {name} of a labelled text must be text with a visible character, got {value!r}.")
        if self.end is not None and not 0 < self.end <= len(self.text):
            raise InputError(
                f"A labelled text is read up to character 1 to {len(self.text)}, got {self.end} of {self.text!r}."
            )

    def ids(self, model: Model) -> tuple[int, ...]:
        """Tokens up to and with the one that is read; attention is causal, so what follows does not count."""
        encoded = model.encode(self.text)
        end = len(self.text) if self.end is None else self.end
        return encoded.ids[: encoded.tokens_of(end - 1, end)[-1] + 1]


@dataclass(frozen=True)
class Concept:
    """A name and labelled texts of at least two classes.

    Raises:
        InputError: there is only one class, or no text.
    """

    name: str
    texts: tuple[Labelled, ...]

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            found = f"only {self.classes[0]!r}, {len(self.texts)} times" if self.texts else "no text"
            raise InputError(
                f"The concept {self.name!r} needs at least two classes to be erased, got {found}; add another class."
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Its labels, sorted."""
        return tuple(sorted({text.label for text in self.texts}))

    @property
    def sizes(self) -> dict[str, int]:
        """How many texts each class has."""
        counted = Counter(text.label for text in self.texts)
        return {label: counted[label] for label in self.classes}

    def split(self, share: float = 0.5, *, seed: int = 0) -> tuple["Concept", "Concept"]:
        """Two concepts without a group in common, the first with about `share` of the groups.

        Raises:
            InputError: a part would have one class only.
        """
        groups = sorted({text.group or text.text for text in self.texts})
        order = np.random.default_rng(seed).permutation(len(groups))
        first = {groups[i] for i in order[: round(share * len(groups))]}
        parts = [tuple(t for t in self.texts if ((t.group or t.text) in first) == inside) for inside in (True, False)]
        return Concept(self.name, parts[0]), Concept(self.name, parts[1])

    def permuted(self, *, seed: int = 0) -> "Concept":
        """The control: the same texts, with the labels dealt out anew."""
        order = np.random.default_rng(seed).permutation(len(self.texts))
        dealt = (replace(text, label=self.texts[i].label) for text, i in zip(self.texts, order, strict=True))
        return Concept(f"{self.name}, permuted", tuple(dealt))


def relation_concept(facts: Sequence[Fact], relation: str, token: str = "subject_last", *, least: int = 2) -> Concept:
    """The answers of one relation as classes, in every wording that names the subject.

    Args:
        facts: any; those of other relations are left out.
        relation: name of the relation.
        token: "subject_last" or "last" of the text.
        least: answers of fewer subjects are left out, since a class of one subject is that subject.

    Raises:
        InputError: there is no such relation ("did you mean"), or fewer than two answers are left.
    """
    if token not in TOKENS:
        raise InputError(f"A relation is read at {' or '.join(TOKENS)}, got {token!r}.{did_you_mean(token, TOKENS)}")
    own = [fact for fact in facts if fact.relation == relation and fact.target_true is not None]
    if not own:
        names = sorted({fact.relation for fact in facts})
        raise InputError(f"No fact with a target_true has the relation {relation!r}.{did_you_mean(relation, names)}")
    subjects = Counter(answer for answer, _ in {(str(fact.target_true), fact.subject) for fact in own})
    kept = [fact for fact in own if subjects[str(fact.target_true)] >= least]
    texts = []
    for fact in kept:
        for text in fact.wordings:
            begin = text.rfind(fact.subject)
            if token == "subject_last" and begin < 0:
                continue
            end = begin + len(fact.subject) if token == "subject_last" else None
            texts.append(Labelled(text, str(fact.target_true), end, fact.subject))
    if len({text.label for text in texts}) < 2:
        raise InputError(
            f"The relation {relation!r} has {len({t.label for t in texts})} answers of {least} subjects or more, of "
            f"{len(own)} facts; a concept needs two."
        )
    return Concept(f"relation:{relation}", tuple(texts))


def number_concept(facts: Sequence[Fact]) -> Concept:
    """Singular and plural, at the noun, from facts of the schema "blimp" (`palimpsest.facts.blimp`).

    Every pair gives two grammatical texts, one of each number: "Raymond is selling this sketch" and, with the determiner
    swapped, "Raymond is selling these sketches". Each noun is a group, in both its forms.

    Raises:
        InputError: no fact is of that kind.
    """
    texts = []
    for fact in facts:
        if not fact.id.startswith("blimp/") or fact.target_true is None or fact.target_new is None:
            continue
        swapped = fact.prompt.replace("{}", other_number(fact.subject))
        forms = (f"{fact.text} {fact.target_true}", f"{swapped} {fact.target_new}")
        labels = ("singular", "plural") if fact.subject.lower() in SINGULAR else ("plural", "singular")
        noun = "/".join(sorted((fact.target_true.lower(), fact.target_new.lower())))
        texts += [Labelled(text, label, group=noun) for text, label in zip(forms, labels, strict=True)]
    if not texts:
        raise InputError(
            "None of the facts is of BLiMP's agreement of determiner and noun; read determiner_noun_agreement_1.jsonl."
        )
    return Concept("blimp-number", tuple(texts))


def read_concept(path: str | PathLike[str]) -> Concept:
    """A file of labelled texts: a JSON list of objects with "text", "label" and, where wanted, "at" and "group".

    Raises:
        RecordError: it cannot be read, or an entry is malformed; the message says which.
        InputError: there is only one class.
    """
    path = Path(path)
    entries = json_list(path, "labelled texts")
    texts = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, dict) or not {"text", "label"} <= set(entry):
            raise RecordError(f'{where}: expected an object with "text" and "label", got {entry!r}.')
        if unknown := sorted(set(entry) - set(FIELDS)):
            raise RecordError(
                f"{where}: a labelled text has no field {unknown[0]!r}.{did_you_mean(unknown[0], FIELDS)}"
            )
        try:
            texts.append(_labelled(entry))
        except InputError as error:
            raise RecordError(f"{where}: {error}") from None
    return Concept(path.stem, tuple(texts))


def _labelled(entry: dict[str, Any]) -> Labelled:
    text, at = entry["text"], entry.get("at")
    if not isinstance(text, str):
        raise InputError(f'"text" must be text, got {text!r}.')
    end = None
    if at is not None:
        begin = text.rfind(at) if isinstance(at, str) and at else -1
        if begin < 0:
            raise InputError(f'"at" must be a part of the text {text!r}, got {at!r}.')
        end = begin + len(at)
    return Labelled(text, str(entry["label"]), end, str(entry.get("group", "")))


def json_list(path: Path, what: str) -> list[Any]:
    """The list a JSON file holds; raises `RecordError` when it cannot be read or holds something else."""
    try:
        entries = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise RecordError(f"The file of {what} {path} cannot be read ({error.strerror}); name a JSON file.") from None
    except ValueError as error:
        raise RecordError(f"The file of {what} {path} is no JSON ({error}).") from None
    if not isinstance(entries, list):
        raise RecordError(f"The file of {what} {path} must hold a JSON list, got {type(entries).__name__}.")
    return entries
