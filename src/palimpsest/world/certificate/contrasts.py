"""Two questions that finding a layer does not answer: storage or processing, and which fact is where.

Storage against entity. An attribute organism has new facts in layer l, an alias organism a new name for a known entity in the
same layer: there the entity is processed, and no attribute is stored. Two statistics of the mean profile m, fixed before anything
was measured, larger for storage if the reading sees storage:

    peak     max_l m(l)
    share    m(p) / sum_l |m(l)|        of the planted layer p; 0 where the profile is 0 everywhere

and the AUROC of each, attribute organisms against alias organisms at the layers that both kinds have. It is near 1/2 where a
reading cannot tell; below 1/2, it tells them apart the wrong way round. p is the share of all ways to call as many of these
organisms "storage" whose AUROC is at least as far from 1/2: with few organisms it cannot be small, and an interval from resampled
organisms that separate perfectly has no width, so read p beside it.

Double dissociation. A crossed organism has relation A in layer i and relation B in layer j, for the same subjects:

    DD = (s_A(i) - s_A(j)) - (s_B(i) - s_B(j))

is positive where a reading sees each relation in its own layer, and 0 where it sees the layers and not whose they are (the
logic is Shallice's, 1988, chapter 10). Its interval resamples subjects, with all their facts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.errors import InputError
from palimpsest.statistics import Estimate
from palimpsest.statistics.hierarchy import arrange
from palimpsest.statistics.ranking import auroc
from palimpsest.world.certificate.instrument import Evidence, Reading
from palimpsest.world.certificate.resample import drawn_organisms, interval, profile

STATISTICS = ("peak", "share")
RELABELLINGS = 9999
FEW = 500  # resamples of an AUROC


@dataclass(frozen=True)
class Discrimination:
    """Whether one reading tells planted attributes from planted names.

    Attributes:
        reading: which.
        statistic: "peak" or "share".
        auroc: attribute against alias organisms; `clusters` counts both.
        p: of the AUROC, two-sided, by relabelling.
        storage, entity: names of the organisms of each kind.
        layers: those both kinds have.
    """

    reading: Reading
    statistic: str
    auroc: Estimate
    p: float
    storage: tuple[str, ...]
    entity: tuple[str, ...]
    layers: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "reading": [self.reading.name, self.reading.module, self.reading.position],
            "statistic": self.statistic,
            "auroc": self.auroc.to_json(),
            "p": self.p,
            "storage": list(self.storage),
            "entity": list(self.entity),
            "layers": list(self.layers),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Discrimination":
        """From what `to_json` gave."""
        return cls(
            Reading(*stored["reading"]),
            stored["statistic"],
            Estimate.from_json(stored["auroc"]),
            stored["p"],
            *(tuple(stored[name]) for name in ("storage", "entity", "layers")),
        )


def discriminations(
    attributes: Sequence[Evidence], aliases: Sequence[Evidence], *, resamples: int = FEW, seed: int = 0
) -> list[Discrimination]:
    """Both statistics of one reading, on the bases, relations and planted layers that both kinds have.

    Raises:
        InputError: no layer of a base has organisms of both kinds that can be scored.
    """
    bases = {one.base for one in attributes} & {one.base for one in aliases}
    asked = _relations(attributes) & _relations(aliases)  # or the two would differ in what is asked
    stored, named = (
        [one for one in (e.of_relations(asked).readable() for e in some if e.base in bases) if one.facts]
        for some in (attributes, aliases)
    )
    shared = sorted(_layers(stored) & _layers(named))
    stored, named = ([one for one in some if one.planted in shared] for some in (stored, named))
    if not stored or not named:
        raise InputError(
            "Attribute and alias organisms that can be scored have no planted layer in common; plant more."
        )
    generator = np.random.default_rng(seed)
    (first, mine), (second, theirs) = (drawn_organisms(some, resamples, generator) for some in (stored, named))
    found = []
    for statistic in STATISTICS:
        values = [_statistic(statistic, np.stack([profile(one) for one in some]), some) for some in (stored, named)]
        drawn = [
            [
                _statistic(statistic, means, [some[i] for i in which])
                for which, means in zip(places, profiles, strict=True)
            ]
            for some, places, profiles in ((stored, first, mine), (named, second, theirs))
        ]
        areas = np.array([_area(one, other) for one, other in zip(*drawn, strict=True)])
        found.append(
            Discrimination(
                stored[0].reading,
                statistic,
                interval(_area(*values), areas, [*stored, *named], f"AUROC of {statistic}", seed),
                relabelled_p(np.concatenate(values), len(stored), seed),
                tuple(one.organism for one in stored),
                tuple(one.organism for one in named),
                tuple(shared),
            )
        )
    return found


def _relations(some: Sequence[Evidence]) -> set[str]:
    return {relation for one in some for _, relation, _ in one.facts}


def relabelled_p(values: Float[np.ndarray, " organisms"], first: int, seed: int = 0) -> float:
    """Share of the ways to call `first` of the values positive whose AUROC is as far from 1/2 as that of the first ones.

    All ways where there are at most `RELABELLINGS`, else as many drawn, the one there is counted among them.
    """
    count = len(values)
    distance = abs(_area(values[:first], values[first:]) - 0.5) - 1e-12
    if comb(count, first) <= RELABELLINGS:
        ways = [list(way) for way in combinations(range(count), first)]
        return float(np.mean([_far(values, way) >= distance for way in ways]))
    generator = np.random.default_rng(seed)
    drawn = [_far(values, generator.permutation(count)[:first].tolist()) >= distance for _ in range(RELABELLINGS)]
    return float((1 + sum(drawn)) / (1 + RELABELLINGS))


@dataclass(frozen=True)
class Dissociation:
    """Whether one reading sees each relation of a crossed organism in its own layer.

    Attributes:
        reading, organism: which.
        relations: A and B.
        layers: i and j.
        contrast: DD, in the unit of the scores; `clusters` counts subjects.
        size: DD over the standard deviation of a fact's s(i) - s(j) within its relation; without a unit.
    """

    reading: Reading
    organism: str
    relations: tuple[str, str]
    layers: tuple[int, int]
    contrast: Estimate
    size: float

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "reading": [self.reading.name, self.reading.module, self.reading.position],
            "organism": self.organism,
            "relations": list(self.relations),
            "layers": list(self.layers),
            "contrast": self.contrast.to_json(),
            "size": None if np.isnan(self.size) else self.size,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Dissociation":
        """From what `to_json` gave."""
        (a, b), (i, j) = stored["relations"], stored["layers"]
        size = float("nan") if stored["size"] is None else stored["size"]
        return cls(
            Reading(*stored["reading"]),
            stored["organism"],
            (a, b),
            (i, j),
            Estimate.from_json(stored["contrast"]),
            size,
        )


def dissociation(evidence: Evidence, *, resamples: int = 2000, seed: int = 0) -> Dissociation:
    """The double dissociation of one crossed organism.

    Raises:
        InputError: it has not two relations in two layers, or no fact of one of them can be scored.
    """
    readable = evidence.readable()
    names = sorted({relation for _, relation, _ in readable.facts})
    layers = [readable.layer_of(name) for name in names]
    if len(names) != 2 or None in layers or layers[0] == layers[1]:
        raise InputError(
            f"A double dissociation needs facts of two relations in a layer each, got {dict(zip(names, layers, strict=True))} "
            f"in {evidence.organism!r}; give a crossed organism."
        )
    i, j = (int(layer) for layer in layers if layer is not None)
    difference = readable.scores[:, i] - readable.scores[:, j]
    of_a = np.array([float(relation == names[0]) for _, relation, _ in readable.facts])
    columns = np.stack([difference * of_a, of_a, difference * (1 - of_a), 1 - of_a], axis=1)
    tree = arrange(columns, [subject for _, _, subject in readable.facts])
    drawn = tree.resampled_sums(tree.rows, resamples, seed)
    with np.errstate(invalid="ignore", divide="ignore"):
        resampled = drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3]
    value = float(difference[of_a == 1].mean() - difference[of_a == 0].mean())
    found = interval(value, resampled, [readable], "double dissociation", seed)
    spread = float(np.sqrt(np.mean([difference[of_a == which].var() for which in (0, 1)])))
    method = found.method.replace("organisms and of subjects inside", "subjects")
    contrast = Estimate(found.value, found.low, found.high, found.n, tree.clusters, found.level, method)
    return Dissociation(
        evidence.reading,
        evidence.organism,
        (names[0], names[1]),
        (i, j),
        contrast,
        value / spread if spread > 0 else float("nan"),
    )


def _layers(evidence: Sequence[Evidence]) -> set[int]:
    return {one.planted for one in evidence if one.planted is not None}


def _statistic(
    name: str, means: Float[np.ndarray, "organisms layers"], evidence: Sequence[Evidence]
) -> Float[np.ndarray, " organisms"]:
    if name == "peak":
        return means.max(axis=1)
    planted = np.array([one.planted for one in evidence], dtype=np.int64)
    whole = np.abs(means).sum(axis=1)
    return means[np.arange(len(means)), planted] / np.where(whole > 0, whole, 1.0)


def _area(positive: np.ndarray, negative: np.ndarray) -> float:
    return auroc(np.concatenate([positive, negative]), [1] * len(positive) + [0] * len(negative))


def _far(values: Float[np.ndarray, " organisms"], chosen: Sequence[int]) -> float:
    right = np.zeros(len(values))
    right[list(chosen)] = 1
    return abs(auroc(values, right) - 0.5)
