"""`Instrument` and `Evidence`: something that scores layers, and what it said about one organism.

    read(model, base, facts)  ->  for each of its readings an array s of shape (facts, layers)

s_{f,l} says how much layer l has to do with fact f: larger where more. `model` has the organism applied and `base` has not; an
honest instrument looks at `model` alone, and only the positive control (`palimpsest.world.certificate.graft`) looks at both. One
run of an instrument may give several readings, as a causal trace does: the same map read at the subject's last token (S) and
at the prompt's last token (F).
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from palimpsest.errors import SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.reading.profile import nested
from palimpsest.model import Model
from palimpsest.world.organisms.organism import EVERY, Organism, Places

MODULES = ("mlp", "attn", "state", "any")
SUBJECT, LAST, WEIGHTS, NOWHERE = "last subject token", "last token", "weights", "nowhere"
POSITIONS = (SUBJECT, LAST, WEIGHTS, NOWHERE)

Scores: TypeAlias = Float[np.ndarray, "facts layers"]
Read: TypeAlias = Callable[[Model, Model, Sequence[Fact]], Sequence[np.ndarray]]


@dataclass(frozen=True)
class Reading:
    """One way to read an instrument: what the certificate has a row for.

    Attributes:
        name: such as "trace mlp, noise".
        module: the kind of module it looks at: "mlp" or "attn"; "state" for the stream, which both write to; "any" for none.
        position: one of `POSITIONS`.
    """

    name: str
    module: str
    position: str

    def __post_init__(self) -> None:
        for what, value, options in (("module", self.module, MODULES), ("position", self.position, POSITIONS)):
            if value not in options:
                raise SettingError(f"The {what} of a reading is not {value!r}.{did_you_mean(value, options)}")

    @property
    def label(self) -> str:
        """Name and position as one text."""
        return f"{self.name} @ {self.position}"

    def sees(self, places: Places) -> bool:
        """Whether what was planted at `places` is in modules that this reading looks at."""
        modules = {module for found in places.values() for module, _ in found}
        return bool(modules) and (self.module in ("state", "any") or modules == {self.module})


@dataclass(frozen=True)
class Instrument:
    """Something that scores layers.

    Attributes:
        name: unlike that of any other, without a slash.
        readings: what one run of it gives, in this order.
        read: the run; a fact that it cannot score has a row of NaN.
        settings: how it was made, as plain data.
    """

    name: str
    readings: tuple[Reading, ...]
    read: Read
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "/" in self.name or not self.readings:
            raise SettingError(f"An instrument has a name without '/' and at least one reading, got {self.name!r}.")

    def sees(self, places: Places) -> bool:
        """Whether any of its readings does."""
        return any(reading.sees(places) for reading in self.readings)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one reading said about one organism.

    Attributes:
        reading: which.
        organism, kind, base: of the organism.
        places: where the facts of each relation are, "*" for all.
        facts: (id, relation, subject) of each.
        scores: s, NaN in the row of a fact that could not be scored.
    """

    reading: Reading
    organism: str
    kind: str
    base: str
    places: Places
    facts: tuple[tuple[str, str, str], ...]
    scores: Scores

    @classmethod
    def of(cls, reading: Reading, organism: Organism, facts: Sequence[Fact], scores: Scores) -> "Evidence":
        """From what an instrument gave."""
        named = tuple((fact.id, fact.relation, fact.subject) for fact in facts)
        return cls(reading, organism.name, organism.kind, organism.base, organism.places, named, scores)

    @property
    def planted(self) -> int | None:
        """The layer of all its facts; None where there are several, or none."""
        layers = {layer for found in self.places.values() for _, layer in found}
        return layers.pop() if len(layers) == 1 else None

    def layer_of(self, relation: str) -> int | None:
        """The layer of the facts of one relation; None where there are several, or none."""
        layers = {layer for _, layer in self.places.get(relation, self.places.get(EVERY, ()))}
        return layers.pop() if len(layers) == 1 else None

    def readable(self) -> "Evidence":
        """The same with the facts that were scored alone."""
        return self._kept(np.isfinite(self.scores).all(axis=1))

    def of_relations(self, relations: Container[str]) -> "Evidence":
        """The same with the facts of these relations alone."""
        return self._kept(np.array([relation in relations for _, relation, _ in self.facts], dtype=bool))

    def _kept(self, kept: Bool[np.ndarray, " facts"]) -> "Evidence":
        facts = tuple(fact for fact, keep in zip(self.facts, kept, strict=True) if keep)
        return Evidence(self.reading, self.organism, self.kind, self.base, self.places, facts, self.scores[kept])

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "reading": [self.reading.name, self.reading.module, self.reading.position],
            "organism": self.organism,
            "kind": self.kind,
            "base": self.base,
            "places": {relation: [list(place) for place in found] for relation, found in self.places.items()},
            "facts": [list(fact) for fact in self.facts],
            "scores": nested(self.scores),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Evidence":
        """From what `to_json` gave."""
        places = {name: tuple((str(m), int(l)) for m, l in found) for name, found in stored["places"].items()}
        facts = tuple((str(name), str(relation), str(subject)) for name, relation, subject in stored["facts"])
        scores = np.array(stored["scores"], dtype=np.float64).reshape(len(facts), -1)
        return cls(
            Reading(*stored["reading"]), stored["organism"], stored["kind"], stored["base"], places, facts, scores
        )
