"""Whether the effect at the place holds for every relation and for every way to measure it (criterion I4).

    y_r = sum over facts of r of e / sum of TE,        v_r = s^2 n_r / (sum of TE)^2

    s^2 = sum over all facts of (e - y_r TE)^2 / (N - k)

y_r is the effect at the place in relation r as a share of the total effect, v_r its variance as a ratio (Cochran 1977,
section 6.4) with one residual variance for all k relations, because a relation of three facts cannot tell its own. They meet in
a random-effects mean (`palimpsest.statistics.meta`). The *prediction* interval is the estimate's interval: it says where a
relation not yet measured would lie; that of the mean stands in the data. Where every relation has one fact only, s^2 cannot be had:
all spread then counts as one between relations, which makes the interval rather too wide than too narrow.

    sign-agreement     share of relations whose y_r lies on the mean's side of 0
    ablation-spread    0.05 - SD over lesion methods of N(place) / TE

An effect that depends on what a site is replaced by is in part an effect of the replacement. Zero is never counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.audit.evidence import Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.reads_rows import ReadsRows
from palimpsest.audit.experiments.roles import SHARE, Effects, effects_of, left_out
from palimpsest.audit.setting import Setting
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, of_means
from palimpsest.statistics.meta import RandomEffects, random_effects

METHODS = ("interchange", "mean", "resample")  # lesions that leave the model on what it could meet
SURE = (
    1e-9  # variance of a relation, as a share of that between them, where its own is not known: all spread is between
)
SPREAD = 0.05  # SD over methods at which they say different things


class Consistency(ReadsRows):
    """A second look at the rows of tracing and of lesions; see the module's text."""

    name = "consistency"
    criteria = ("I4",)
    needs = ("tracing", "lesion")

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Evidence from the traces, and from the lesions where two methods or more were measured."""
        place = setting.place
        effects = effects_of(rows.get("tracing", ()), facts, place.position, kind=place.module)
        if not len(effects):
            return []
        evidence = self._over_relations(setting, effects)
        if spread := self._over_methods(setting, facts, rows.get("lesion", ()), effects):
            evidence.append(spread)
        return evidence

    def _over_relations(self, setting: Setting, effects: Effects) -> list[Evidence]:
        centre = setting.place.centre
        here = by_relation(effects, effects.at(centre))
        met = together(here)
        data: dict[str, Any] = {"relations": {name: vars(one) for name, one in here.items()}}
        shared: dict[str, Any] = {
            "criteria": ("I4",),
            "family": "causal",
            "mode": "interventional",
            "depends_on": ("tracing/restoration",),
        }
        if met is None:
            why = f"all {len(effects)} facts are of one relation, and a prediction needs three; give facts of more relations"
            return [
                Evidence(self.name, "consistency", estimate=Estimate.unknown(why, len(effects)), data=data, **shared)
            ]
        alone = not any(group.n > 1 for group in here.values())
        data |= {
            "mean": _counted(met.mean, effects).to_json(),
            "tau2": met.tau2,
            "i2": None if alone else met.i2,
            "q": None if alone else met.q,
            "sign_agreement": sign_agreement(here, met.mean.value),
        }
        if len(effects.layers) > 1:
            gap = together(by_relation(effects, effects.at(centre) - effects.elsewhere(centre)))
            data["against_other_layers"] = None if gap is None else _counted(gap.prediction, effects).to_json()
        note = (
            f"Random-effects mean over {len(here)} relations of the share restored, with its prediction interval."
            f"{' Each has one fact, so that all spread counts as one between relations.' if alone else ''}"
            f"{left_out(effects.withheld)}"
        )
        return [
            Evidence(
                self.name, "consistency", estimate=_counted(met.prediction, effects), note=note, data=data, **shared
            ),
            self._signs(here, met, shared),
        ]

    def _signs(self, here: Mapping[str, Group], met: RandomEffects, shared: Mapping[str, Any]) -> Evidence:
        """A count over these relations: it ends where it stands, and how sure each sign is stands in the relations' intervals."""
        agreed = sign_agreement(here, met.mean.value)
        turned = [name for name, one in here.items() if one.value * met.mean.value <= 0]
        return Evidence(
            self.name,
            "sign-agreement",
            estimate=Estimate.exact(
                agreed, len(here), len(here), method="count of relations", unit="share of the relations"
            ),
            note=f"{len(turned)} of {len(here)} relations lie on the other side of nothing than their mean.",
            data={"turned": turned},
            **shared,
        )

    def _over_methods(
        self, setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row], traced: Effects
    ) -> Evidence | None:
        place, seed = setting.place, setting.seed
        totals = dict(zip(traced.names, traced.totals.tolist(), strict=True))
        methods = {
            name: effects_of(rows, facts, place.position, kind=name, totals=totals)
            for name in METHODS
            if any(row.get(name) for row in rows)
        }
        shared = [name for name in traced.names if all(name in one.names for one in methods.values())]
        if len(methods) < 2 or not shared:
            return None
        of_shared = {name: one.of(shared) for name, one in methods.items()}
        table = np.column_stack([*(one.at(place.centre) for one in of_shared.values()), traced.of(shared).totals])
        return Evidence(
            experiment=self.name,
            endpoint="ablation-spread",
            criteria=("I4",),
            family="causal",
            mode="interventional",
            estimate=of_means(
                table,
                traced.of(shared).clusters,
                spare_spread,
                name=f"{SPREAD} - SD over {', '.join(methods)} of the share",
                unit=f"{SPREAD} - SD of the {SHARE}",
                seed=seed,
            ),
            depends_on=("tracing/restoration", *(f"lesion/lesion-{name}" for name in methods)),
            note=f"{len(shared)} facts with all of {', '.join(methods)}; the total effect is that of noise on the subject.",
            data={
                "shares": {
                    name: one.share(one.at(place.centre), seed=seed).to_json() for name, one in of_shared.items()
                }
            },
        )


@dataclass(frozen=True)
class Group:
    """One relation: its share, the variance of that, and how many facts it has."""

    value: float
    variance: float
    n: int


def by_relation(effects: Effects, values: Float[np.ndarray, " facts"]) -> dict[str, Group]:
    """Share and variance of each relation; the variance is NaN where no relation has a second fact."""
    names = sorted({relation for relation, _ in effects.clusters})
    of_fact = np.array([names.index(relation) for relation, _ in effects.clusters])
    sums, totals, counts = (
        np.bincount(of_fact, weights=column, minlength=len(names))
        for column in (values, effects.totals, np.ones(len(values)))
    )
    shares, spare = sums / totals, len(values) - len(names)
    residual = float(((values - shares[of_fact] * effects.totals) ** 2).sum())
    pooled = residual / spare if spare else float("nan")
    variances = pooled * counts / totals**2
    return {name: Group(float(shares[r]), float(variances[r]), int(counts[r])) for r, name in enumerate(names)}


def together(groups: Mapping[str, Group]) -> RandomEffects | None:
    """The random-effects mean; None for a single relation. Without variances of their own all spread is one between relations."""
    if len(groups) < 2:
        return None
    values, variances = ([getattr(group, name) for group in groups.values()] for name in ("value", "variance"))
    if not all(variance > 0 for variance in variances):
        variances = [SURE * float(np.var(values) or 1.0)] * len(values)
    return random_effects(values, variances, unit=SHARE)


def sign_agreement(groups: Mapping[str, Group], mean: float) -> float:
    """Share of relations on the mean's side of zero."""
    return float(np.mean([group.value * mean > 0 for group in groups.values()]))


def spare_spread(means: Float[np.ndarray, " columns"]) -> float:
    """0.05 - SD over methods of the share, from the means of (effect of method 1, effect of method 2, ..., TE)."""
    return SPREAD - float((means[:-1] / means[-1]).std(ddof=1)) if means[-1] > 0 else float("nan")


def _counted(estimate: Estimate, effects: Effects) -> Estimate:
    """With the number of facts in n, and that of relations in clusters."""
    return Estimate(**{**vars(estimate), "n": len(effects)})


EXPERIMENT = Consistency
