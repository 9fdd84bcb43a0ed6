"""How much of what a corruption takes the claimed place gives back, and how reliably (criteria I2, E4, M1).

    restoration          NIE(place) / TE, a ratio of totals over facts (Meng et al. 2022, section 2; Pearl 2001)
    restoration-state    the same where states are restored
    magnitude            the same, to be read with Cohen's d against null N1
    reliability          ICC(2,k) over k noise draws of NIE at the place, in logits (Shrout and Fleiss 1979, case 2)
    reliability-width    0.20 - width of the 95 % interval of `restoration`

Facts are traced at all layers of the setting, at the last subject token and at the last token, with `samples` noise draws kept
apart. A restoration says that the place suffices in a corrupted context, not that it is needed, nor that anything is stored
there. Null N1 is the median over all other measured layers, fact by fact: where it is large the place is nothing special, so an
N1 above 0.05 of the total effect is a control that failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import clusters_of_rows
from palimpsest.audit.experiments.placed import placed
from palimpsest.audit.experiments.roles import (
    Effects,
    cells,
    effects_of,
    left_out,
    rounded,
    seconds_of_maps,
    traced,
    tracer,
)
from palimpsest.audit.setting import POSITIONS, Setting
from palimpsest.facts import Fact
from palimpsest.statistics import (
    Estimate,
    cluster_bootstrap,
    icc_2_1,
    icc_2_k,
    raters_needed,
)

WIDTH = 0.20  # of an interval, at which it says too little
HALVINGS = 200  # random halves of the facts whose profiles are compared
WANTED = 0.9  # reliability for which the number of noise draws is stated


class Tracing:
    """Causal traces of module outputs and of states; see the module's text."""

    name = "tracing"
    criteria = ("I2", "E4", "M1")
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """Two maps of one fact, three where the place is an attention module."""
        return seconds_of_maps(bench, bench.setting.samples, len(kinds_of(bench.setting)))

    def measure(self, bench: Bench, unit: str) -> Row:
        """Log-probabilities of answer and foil by kind, role, layer and noise draw."""
        fact = bench[unit]
        return {
            kind: traced(tracer(bench, kind, bench.setting.samples), bench.model, fact)
            for kind in kinds_of(bench.setting)
        }

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Evidence of the kinds that the rows hold; unknown, with the reason, where no total effect can be divided by."""
        place, found = setting.place, rows[self.name]
        evidence: list[Evidence] = []
        for endpoint, kind in (("restoration", place.module), ("restoration-state", "state")):
            measured = [row for row in found if row.get(kind)]
            if not measured:
                continue
            effects = effects_of(measured, facts, place.position, kind=kind)
            evidence.append(self._restoration(endpoint, kind, setting, facts, measured, effects))
            if endpoint == "restoration":
                evidence += [self._magnitude(setting, evidence[0], effects), self._width(evidence[0])]
                evidence.append(self._reliability(setting, facts, measured))
        return evidence

    def _restoration(
        self,
        endpoint: str,
        kind: str,
        setting: Setting,
        facts: Mapping[str, Fact],
        rows: Sequence[Row],
        effects: Effects,
    ) -> Evidence:
        place, seed = setting.place, setting.seed
        against = placed(effects, setting, over="median") if len(effects) and len(effects.layers) > 1 else None
        return Evidence(
            experiment=self.name,
            endpoint=endpoint,
            criteria=("I2",),
            family="causal",
            mode="interventional",
            estimate=effects.share(effects.at(place.centre), seed=seed),
            controls=(against.control,) if against else (),
            contrast=against.contrast if against else None,
            p=against.p if against else None,
            note=f"Clean {kind} put back into runs with noise on the subject, at the {place.position}; shares of the logit "
            f"difference.{left_out(effects.withheld)}",
            data={
                "kind": kind,
                "profiles": {role: effects_of(rows, facts, role, kind=kind).profile(seed=seed) for role in POSITIONS},
                "probability": self._by_probability(kind, setting, facts, rows),
                "facts": dict(zip(effects.names, rounded(effects.at(place.centre) / effects.totals), strict=True)),
                "withheld": dict(effects.withheld),
                "unknown": [row["id"] for row in rows if row.get(kind) and not row[kind]["known"]],
            },
        )

    def _by_probability(
        self, kind: str, setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]
    ) -> dict[str, Any]:
        """The same estimate by the published score, p of the answer."""
        effects = effects_of(rows, facts, setting.place.position, kind=kind, score="probability")
        return effects.share(effects.at(setting.place.centre), seed=setting.seed).to_json()

    def _magnitude(self, setting: Setting, restoration: Evidence, effects: Effects) -> Evidence:
        centre, seed = setting.place.centre, setting.seed
        data: dict[str, Any] = {"cohens_d": None, "sites_sd": None}
        controls = restoration.controls
        if len(effects.layers) > 1 and len(effects) > 1:
            size = cluster_bootstrap(
                effects.at(centre) - effects.elsewhere(centre),
                effects.clusters,
                statistic=standardised,
                seed=seed,
                unit="SD",
            )
            data = {"cohens_d": size.to_json(), "sites_sd": _sites_sd(effects, centre)}
            controls = tuple(
                Control(one.kind, one.estimate, f"{one.note}; Cohen's d of the place {size}", bool(size.value >= 1))
                for one in controls
            )
        return Evidence(
            experiment=self.name,
            endpoint="magnitude",
            criteria=("E4",),
            family="causal",
            mode="interventional",
            estimate=restoration.estimate,
            controls=controls,
            contrast=restoration.contrast,
            p=restoration.p,
            note="The share restored; its control is sane where the place stands one SD of paired differences or more "
            "above the other layers.",
            data=data,
        )

    def _width(self, restoration: Evidence) -> Evidence:
        width = restoration.estimate.width
        return Evidence(
            experiment=self.name,
            endpoint="reliability-width",
            criteria=("M1",),
            family="measurement",
            mode="observational",
            estimate=Estimate.exact(
                WIDTH - width,
                restoration.estimate.n,
                restoration.estimate.clusters,
                method=f"{WIDTH} - width of the interval of restoration; a width has no interval of its own",
                unit=f"{WIDTH} - width",
            ),
            data={"width": width},
        )

    def _reliability(self, setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row]) -> Evidence:
        place, seed = setting.place, setting.seed
        clusters = clusters_of_rows(rows, facts)
        layers = list(rows[0][place.module]["layers"])
        draws = np.stack([cells(row[place.module], place.position) for row in rows])  # facts, layers, samples
        here = draws[:, layers.index(place.centre)]
        data: dict[str, Any] = {"draws": here.shape[1]}
        estimate = Estimate.unknown(f"ICC needs two facts and two noise draws, got {here.shape}", len(rows))
        if min(here.shape) > 1:
            single, estimate = icc_2_1(here, clusters, seed=seed), icc_2_k(here, clusters, seed=seed)
            halves = [draws[:, :, part::2].mean(axis=2).argmax(axis=1) for part in (0, 1)]
            data |= {
                "icc_1": single.to_json(),
                "draws_for_0.9": raters_needed(single.value, WANTED) if 0 < single.value <= 1 else None,
                "peak_agreement_of_draw_halves": float((halves[0] == halves[1]).mean()),
                "peak_kappa_of_draw_halves": kappa(*halves),
                "peak_agreement_of_fact_halves": peak_agreement(draws.mean(axis=2), clusters, seed=seed),
            }
        return Evidence(
            experiment=self.name,
            endpoint="reliability",
            criteria=("M1",),
            family="measurement",
            mode="observational",
            estimate=estimate,
            note=f"{here.shape[1]} noise draws as raters of {len(rows)} facts; effects in logits, no fact left out.",
            data=data,
        )


def kinds_of(setting: Setting) -> tuple[str, ...]:
    """What is traced: module outputs and states, and the place's module where it is neither."""
    return ("mlp", "state") if setting.place.module != "attn" else ("mlp", "state", "attn")


def standardised(differences: Float[np.ndarray, " n"]) -> float:
    """Cohen's d of paired differences, mean / SD; NaN where they have no spread (Cohen 1988, section 2.3.5)."""
    spread = float(differences.std(ddof=1)) if differences.size > 1 else 0.0
    return float(differences.mean()) / spread if spread > 0 else float("nan")


def kappa(one: Int[np.ndarray, " n"], other: Int[np.ndarray, " n"]) -> float | None:
    """Agreement of two ratings beyond chance; None where chance alone agrees (Cohen 1960).

        kappa = (p_o - p_e) / (1 - p_e),    p_e = sum_c p(one = c) p(other = c)

    >>> kappa(np.array([1, 1, 2, 2]), np.array([1, 1, 2, 1]))
    0.5
    """
    expected = sum(float((one == c).mean() * (other == c).mean()) for c in np.union1d(one, other))
    return (float((one == other).mean()) - expected) / (1 - expected) if expected < 1 else None


def peak_agreement(
    effects: Float[np.ndarray, "facts layers"], clusters: Sequence[tuple[str, str]], *, seed: int = 0
) -> float | None:
    """Share of random halvings of the subjects in which both halves' mean profiles peak at the same layer."""
    subjects = sorted(set(clusters))
    if len(subjects) < 2:
        return None
    of_fact = np.array([subjects.index(cluster) for cluster in clusters])
    draw, same = np.random.default_rng(seed), 0
    for _ in range(HALVINGS):
        half = np.isin(of_fact, draw.permutation(len(subjects))[: len(subjects) // 2])
        same += int(effects[half].mean(axis=0).argmax() == effects[~half].mean(axis=0).argmax())
    return same / HALVINGS


def _sites_sd(effects: Effects, centre: int) -> float | None:
    """How many SDs of the other layers' mean effects the place stands above their mean; None without spread."""
    means = effects.effects.mean(axis=0)
    others = np.delete(means, effects.layers.index(centre))
    spread = float(others.std(ddof=1)) if others.size > 1 else 0.0
    return float(means[effects.layers.index(centre)] - others.mean()) / spread if spread > 0 else None


EXPERIMENT = Tracing
