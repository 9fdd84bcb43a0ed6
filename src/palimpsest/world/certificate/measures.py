"""How well a reading finds the planted layer, over organisms that have one.

With m_o the mean score of organism o's facts at each of L layers and p_o the planted layer:

    reported    argmax_l m_o(l); layers that tie share the claim
    hit         share of organisms whose reported layer is p_o              chance 1 / L
    near        share within one layer of it                                chance mean_o |{l : |l - p_o| <= 1}| / L
    slope       of the reported layer on p_o, least squares                 1 follows it, 0 is blind to it
    AUROC       planted cells against all others, cells scored by           chance 1/2
    AUPRC       their rank within the organism                              chance 1 / L
    fact hit    as hit, for the map of every fact by itself                 chance 1 / L

Ranks within an organism (0 the lowest layer, 1 the highest, ties share) take away what organisms differ in as a whole. A reading
that always says the same layer is right wherever that layer was planted: the `constant` beside hit and near is the best that
such a reading can do on these organisms, and what a hit rate has to beat. The slope of such a reading is 0.

A rate or an area of 1 or 0 has an interval no narrower than the rule of three over organisms gives. A slope that is 1 in every
resample has one of no width: read the hits beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from palimpsest.errors import InputError
from palimpsest.statistics import Estimate, cluster_bootstrap
from palimpsest.statistics.ranking import auprc, auroc
from palimpsest.world.certificate.instrument import Evidence, Reading
from palimpsest.world.certificate.resample import drawn_organisms, interval, profile, share

MEASURES = ("auroc", "auprc", "hit", "near", "slope", "fact_hit")
RANKED = 500  # resamples of AUROC and AUPRC, which sort every time


@dataclass(frozen=True, eq=False)
class Finding:
    """How well one reading finds the planted layer in organisms of one kind.

    Attributes:
        reading, kind: which reading, which kind of organisms.
        organisms: their names.
        planted: p_o.
        reported: the layer reported for each, or the mean of those that tie.
        profiles: m_o.
        auroc, auprc, hit, near, slope, fact_hit: see the module's text; `n` counts facts, `clusters` organisms.
        chance: of each measure.
        constant: the best hit and near of a reading that always names the same layer.
        unreadable: organisms, and how many facts of the others, that could not be scored.
    """

    reading: Reading
    kind: str
    organisms: tuple[str, ...]
    planted: tuple[int, ...]
    reported: tuple[float, ...]
    profiles: Float[np.ndarray, "organisms layers"]
    auroc: Estimate
    auprc: Estimate
    hit: Estimate
    near: Estimate
    slope: Estimate
    fact_hit: Estimate
    chance: Mapping[str, float]
    constant: Mapping[str, float]
    unreadable: Mapping[str, int]

    @property
    def measures(self) -> list[Estimate]:
        """In the order of `MEASURES`."""
        return [getattr(self, name) for name in MEASURES]

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "reading": [self.reading.name, self.reading.module, self.reading.position],
            "kind": self.kind,
            "organisms": list(self.organisms),
            "planted": list(self.planted),
            "reported": list(self.reported),
            "profiles": self.profiles.tolist(),
            **{name: getattr(self, name).to_json() for name in MEASURES},
            "chance": dict(self.chance),
            "constant": dict(self.constant),
            "unreadable": dict(self.unreadable),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Finding":
        """From what `to_json` gave."""
        return cls(
            Reading(*stored["reading"]),
            stored["kind"],
            tuple(stored["organisms"]),
            tuple(stored["planted"]),
            tuple(stored["reported"]),
            np.array(stored["profiles"], dtype=np.float64),
            **{name: Estimate.from_json(stored[name]) for name in MEASURES},
            chance=stored["chance"],
            constant=stored["constant"],
            unreadable=stored["unreadable"],
        )


def finding(evidence: Sequence[Evidence], *, resamples: int = 2000, seed: int = 0) -> Finding:
    """Measure one reading on organisms of one kind.

    Raises:
        InputError: fewer than two organisms can be scored, or one has no single planted layer.
    """
    readable = [one.readable() for one in evidence]
    kept = [one for one in readable if one.facts]
    lost = {one.organism: len(one.facts) - len(left.facts) for one, left in zip(evidence, readable, strict=True)}
    planted = np.array([_planted(one) for one in kept])
    if len(kept) < 2:
        name = evidence[0].reading.label if evidence else "no reading"
        raise InputError(f"A finding needs two organisms that can be scored, got {len(kept)} for {name}; give more.")
    means = np.stack([profile(one) for one in kept])
    which, drawn = drawn_organisms(kept, resamples, np.random.default_rng(seed))
    layers = means.shape[1]

    def estimate(name: str, value: float, resampled: np.ndarray) -> Estimate:
        return interval(value, resampled, kept, name, seed)

    value, resampled = _located(means[None], planted[None]), _located(drawn, planted[which])
    ranked, few = _ranks(means[None]), _ranks(drawn[:RANKED])
    areas = {
        name: estimate(
            name,
            area_of(ranked[0], planted),
            np.array([area_of(r, planted[w]) for r, w in zip(few, which, strict=False)]),
        )
        for name, area_of in (("AUROC", _auroc), ("AUPRC", _auprc))
    }
    within = np.abs(np.arange(layers)[None] - planted[:, None]) <= 1
    exact = np.arange(layers)[None] == planted[:, None]
    return Finding(
        kept[0].reading,
        kept[0].kind,
        tuple(one.organism for one in kept),
        tuple(int(layer) for layer in planted),
        tuple(float(layer) for layer in _reported(_largest(means))),
        means,
        share(areas["AUROC"]),
        share(areas["AUPRC"]),
        share(estimate("hit rate", float(value["hit"][0]), resampled["hit"])),
        share(estimate("hit rate within one layer", float(value["near"][0]), resampled["near"])),
        estimate("slope of reported on planted layer", float(value["slope"][0]), resampled["slope"]),
        _fact_hits(kept, planted, seed),
        {
            "auroc": 0.5,
            "auprc": 1 / layers,
            "hit": 1 / layers,
            "near": float(within.mean()),
            "slope": 0.0,
            "fact_hit": 1 / layers,
        },
        _constant(exact, within, planted),
        {name: count for name, count in lost.items() if count},
    )


def _constant(
    exact: Bool[np.ndarray, "organisms layers"], within: Bool[np.ndarray, "organisms layers"], planted: np.ndarray
) -> dict[str, float]:
    """The best that one and the same map for every organism can reach: it ranks layers by how often they were planted."""
    ranks = _ranks(np.tile(exact.mean(axis=0), (1, len(planted), 1)))[0]
    return {
        "auroc": _auroc(ranks, planted),
        "auprc": _auprc(ranks, planted),
        "hit": float(exact.mean(axis=0).max()),
        "near": float(within.mean(axis=0).max()),
    }


def _planted(evidence: Evidence) -> int:
    if evidence.planted is None:
        raise InputError(
            f"The organism {evidence.organism!r} has no single planted layer but {dict(evidence.places)}; leave it out here."
        )
    return evidence.planted


def _largest(means: Float[np.ndarray, "*some layers"]) -> Float[np.ndarray, "*some layers"]:
    """Each layer's part of the claim: 1 for the largest, 1 / n for each of n that tie."""
    top = means == means.max(axis=-1, keepdims=True)
    return top / top.sum(axis=-1, keepdims=True)


def _reported(claims: Float[np.ndarray, "*some layers"]) -> Float[np.ndarray, "*some"]:
    return claims @ np.arange(claims.shape[-1], dtype=np.float64)


def _located(
    means: Float[np.ndarray, "resamples organisms layers"], planted: np.ndarray
) -> dict[str, Float[np.ndarray, " resamples"]]:
    """Hit, near and slope of each resample."""
    claims, layers = _largest(means), np.arange(means.shape[-1])
    distance = np.abs(layers - planted[..., None])
    x, y = planted - planted.mean(axis=1, keepdims=True), _reported(claims)
    spread = (x**2).sum(axis=1)
    slope = (x * y).sum(axis=1) / np.where(spread > 0, spread, np.nan)
    return {
        "hit": (claims * (distance == 0)).sum(axis=-1).mean(axis=1),
        "near": (claims * (distance <= 1)).sum(axis=-1).mean(axis=1),
        "slope": slope,
    }


def _ranks(means: Float[np.ndarray, "resamples organisms layers"]) -> Float[np.ndarray, "resamples organisms layers"]:
    """Ranks within each organism, from 0 to 1."""
    return (stats.rankdata(means, axis=-1) - 1) / max(1, means.shape[-1] - 1)


def _cells(planted: np.ndarray, layers: int) -> Bool[np.ndarray, " cells"]:
    return (np.arange(layers) == planted[:, None]).ravel()


def _auroc(ranks: Float[np.ndarray, "organisms layers"], planted: np.ndarray) -> float:
    return auroc(ranks.ravel(), _cells(planted, ranks.shape[1]))


def _auprc(ranks: Float[np.ndarray, "organisms layers"], planted: np.ndarray) -> float:
    return auprc(ranks.ravel(), _cells(planted, ranks.shape[1]))


def _fact_hits(evidence: Sequence[Evidence], planted: np.ndarray, seed: int) -> Estimate:
    hits, clusters = list[float](), list[tuple[str, str]]()
    for one, layer in zip(evidence, planted, strict=True):
        hits += _largest(one.scores)[:, layer].tolist()
        clusters += [(one.organism, subject) for _, _, subject in one.facts]
    return cluster_bootstrap(hits, clusters, seed=seed)
