"""Confounds: does the profile over layers, and the effect at the place, depend on how the question was put?

    corruption    noise of 1, 3 (the reference) and 10 spreads, another subject, the mean subject; the relation as a control
    window        1, 3 and 5 layers
    score         logit difference (the reference), probability, log-probability

One is changed at a time. A layer profile is the sum over facts of indirect effects at the place's position, layer by layer.

    profile-agreement    the lowest Spearman correlation of a variant's profile with the reference's, over variants
    peak-shift           0.10 - the largest |peak of a variant - peak of the reference| / (L - 1)
    swap-survives        (effect at the place - median of the other layers) / total effect, where another subject is swapped in

The last asks what Zhang and Nanda (2024, section 3) found: peaks that noise shows in MLPs are much weaker where the subject is
replaced by another one, so that part of them is what the noise does. Corrupting the relation instead of the subject (null N5) is no
variant, for it takes away something else; it stands beside as a control.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.audit.bench import NOISE_SPREADS, Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.over_facts import cluster_by_name
from palimpsest.audit.experiments.placed import SANE, placed, too_small
from palimpsest.audit.experiments.roles import (
    ROLES,
    SCORE,
    Effects,
    cells,
    left_out,
    narrow,
    rounded,
    seconds_of_maps,
    total,
    traced,
)
from palimpsest.audit.setting import LAST, SUBJECT, Setting
from palimpsest.errors import FactError, InputError
from palimpsest.facts import Fact
from palimpsest.locate.tracing.maps import SCORES
from palimpsest.locate.tracing.trace import Tracer
from palimpsest.statistics.means import of_means

REFERENCE, RELATION, SWAP = "reference", "relation", "swap"
SPREADS = (1, 10)  # beside the reference's NOISE_SPREADS
WINDOWS = (1, 3, 5)
SAMPLES = 5  # at most: profiles are compared, not facts
SHIFT = 0.10  # of the depth: a shift of the peak that counts as none


class Confounds:
    """See the module's text."""

    name = "confounds"
    criteria = ("I5",)
    needs = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """One map a variant."""
        return seconds_of_maps(bench, min(SAMPLES, bench.setting.samples), len(variants(bench.setting)))

    def measure(self, bench: Bench, unit: str) -> Row:
        """By variant: effects at both roles by layer, the total effect, and why they are not divided by it."""
        fact, setting = bench[unit], bench.setting
        found: dict[str, Any] = {}
        without: dict[str, str] = {}
        for name, (corruption, spreads, window) in variants(setting).items():
            made = Tracer.of(
                bench.model,
                bench.pool,
                kind=setting.place.module,
                window=window,
                corruption=corruption,
                samples=min(SAMPLES, setting.samples),
                noise_level=bench.noise_level * spreads / NOISE_SPREADS,
                score=SCORE,
                layers=setting.layers,
                seed=setting.seed,
            )
            try:
                one = traced(narrow(made), bench.model, fact)
            except FactError as error:
                if name == REFERENCE:
                    raise
                without[name] = str(error)
                continue
            found[name] = _variant(one, SCORE, swap=corruption == SWAP)
            if name == REFERENCE:
                found |= {score: _variant(one, score) for score in SCORES if score != SCORE}
        return {"layers": list(setting.layers), "variants": found, "without": without}

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Agreement of profiles, shift of peaks, and what a swap of the subject leaves."""
        mine = rows[self.name]
        names = [name for name in dict.fromkeys(name for row in mine for name in row["variants"]) if name != RELATION]
        found = _profiles(setting, facts, mine, names) if len(names) > 1 and len(setting.layers) > 2 else []
        swapped = table_of(mine, facts, setting, SWAP)
        return (
            [*found, _survives(setting, swapped, table_of(mine, facts, setting, RELATION))] if len(swapped) else found
        )


def variants(setting: Setting) -> dict[str, tuple[str, float, int]]:
    """Corruption, spreads of noise and window of every variant that is traced, the reference first."""
    own = 1 if setting.place.module == "state" else setting.place.window
    found = {REFERENCE: ("noise", float(NOISE_SPREADS), own)}
    found |= {f"noise of {spreads} spreads": ("noise", float(spreads), own) for spreads in SPREADS}
    found |= {name: (name, float(NOISE_SPREADS), own) for name in (SWAP, "mean", RELATION)}
    if setting.place.module != "state":
        found |= {f"window {w}": ("noise", float(NOISE_SPREADS), w) for w in WINDOWS if w != own}
    return found


def table_of(rows: Sequence[Row], facts: Mapping[str, Fact], setting: Setting, name: str) -> Effects:
    """Effects of one variant at the place's position, of the facts whose total effect can be divided by."""
    held = {row["id"]: row["variants"][name] for row in rows if name in row["variants"]}
    withheld = {unit: one["withheld"] for unit, one in held.items() if one["withheld"]}
    role = ROLES[setting.place.position]
    return Effects.of_lines(
        {unit: one[role] for unit, one in held.items()},
        {unit: one["total"] for unit, one in held.items()},
        cluster_by_name(held, facts),
        rows[0]["layers"] if rows else (),
        withheld,
    )


def spearman(one: Float[np.ndarray, "n"], other: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation; 0 where one of them is flat and so says nothing."""
    return float(correlations(np.stack([one, other])[None])[0])


def correlations(pairs: Float[np.ndarray, "pairs 2 n"]) -> Float[np.ndarray, "pairs"]:
    """Spearman's rank correlation of every pair."""
    ranks = stats.rankdata(pairs, axis=2)
    ranks -= ranks.mean(axis=2, keepdims=True)
    spread = np.sqrt((ranks**2).sum(axis=2).prod(axis=1))
    return np.asarray((ranks[:, 0] * ranks[:, 1]).sum(axis=1) / np.where(spread > 0, spread, 1.0))


def _variant(found: Mapping[str, Any], score: str, *, swap: bool = False) -> dict[str, Any]:
    """One map by one score, mean over samples; log p is withheld where p is."""
    why = found["withheld"]
    return {
        "total": rounded(total(found, score)),
        "withheld": too_small(total(found, score)) if swap else why.get(score, why["probability"]),
        **{ROLES[role]: rounded(cells(found, role, score).mean(axis=1)) for role in (SUBJECT, LAST)},
    }


def _profiles(setting: Setting, facts: Mapping[str, Fact], rows: Sequence[Row], names: Sequence[str]) -> list[Evidence]:
    """A fact counts for a variant where its total effect can be divided by, in the variant and in the reference."""
    tables = {name: table_of(rows, facts, setting, name) for name in names}
    units, clusters = tables[REFERENCE].names, tables[REFERENCE].clusters
    if not units:
        raise InputError("No fact has a total effect that can be divided by, so there is no profile to compare with.")
    layers = np.array(setting.layers)
    others = [name for name in names if name != REFERENCE and set(tables[name].names) & set(units)]
    effects = {name: _aligned(tables[name], units) for name in (REFERENCE, *others)}
    # both profiles of a pair, side by side; a fact that a variant does not have counts in neither
    there = {name: ~np.isnan(effects[name][:, :1]) for name in others}
    sides = [np.where(there[name], effects[which], 0.0) for name in others for which in (REFERENCE, name)]

    def agreement(means: np.ndarray) -> float:
        return float(correlations(means.reshape(len(others), 2, len(layers))).min())

    def shift(means: np.ndarray) -> float:
        peaks = layers[means.reshape(len(others), 2, len(layers)).argmax(axis=2)]
        return SHIFT - float(np.abs(peaks[:, 1] - peaks[:, 0]).max()) / (setting.n_layers - 1)

    table = np.concatenate(sides, axis=1)
    summed = table.sum(axis=0).reshape(len(others), 2, len(layers))
    shown: dict[str, Any] = {
        name: {
            "spearman": spearman(*pair),
            "peak": int(layers[pair[1].argmax()]),
            "profile": rounded(pair[1] / tables[name].of([u for u in units if u in tables[name].names]).totals.sum()),
            "n": int((~np.isnan(effects[name][:, 0])).sum()),
        }
        for name, pair in zip(others, summed, strict=True)
    }
    reference = effects[REFERENCE].sum(axis=0) / tables[REFERENCE].totals.sum()
    shown[REFERENCE] = {"peak": int(layers[reference.argmax()]), "profile": rounded(reference), "n": len(units)}
    lowest = min(others, key=lambda name: float(shown[name]["spearman"]))
    data = {
        "layers": list(setting.layers),
        "variants": shown,
        "covariates": _covariates(setting, facts, tables[REFERENCE]),
    }
    common: dict[str, Any] = {
        "experiment": Confounds.name,
        "criteria": ("I5",),
        "family": "causal",
        "mode": "interventional",
        "data": data,
    }
    missing = left_out(tables[REFERENCE].withheld)
    return [
        Evidence(
            endpoint="profile-agreement",
            estimate=of_means(
                table,
                clusters,
                agreement,
                name="lowest Spearman over variants",
                unit="Spearman's rho",
                seed=setting.seed,
            ),
            note=f"Lowest of {len(others)} variants: {lowest}.{missing}",
            **common,
        ),
        Evidence(
            endpoint="peak-shift",
            estimate=of_means(
                table,
                clusters,
                shift,
                name="largest shift of the peak over variants, oriented",
                unit=f"{SHIFT:.2f} - share of the depth",
                seed=setting.seed,
            ),
            note=f"{SHIFT:.2f} minus the largest shift of the peak, so that larger is better.{missing}",
            **common,
        ),
    ]


def _aligned(table: Effects, units: Sequence[str]) -> Float[np.ndarray, "facts layers"]:
    """Effects in the order of `units`, NaN for facts that are not there."""
    row = {unit: table.effects[i] for i, unit in enumerate(table.names)}
    nothing = np.full(len(table.layers), np.nan)
    return np.array([row.get(unit, nothing) for unit in units])


def _covariates(setting: Setting, facts: Mapping[str, Fact], table: Effects) -> dict[str, float]:
    """Spearman over facts of the share at the place with what else facts differ in; 0 where they do not."""
    shares = table.at(setting.place.centre) / table.totals
    measured = {
        "words of the subject": [len(facts[unit].subject.split()) for unit in table.names],
        "letters of the subject": [len(facts[unit].subject) for unit in table.names],
        "letters of the prompt": [len(facts[unit].text) for unit in table.names],
        "total effect": table.totals.tolist(),
    }
    return {name: round(spearman(shares, np.array(values, dtype=float)), 3) for name, values in measured.items()}


def _survives(setting: Setting, table: Effects, relation: Effects) -> Evidence:
    found = placed(table, setting, over="median", sane=None)
    controls = [found.control]
    if len(relation):
        null = relation.share(
            relation.at(setting.place.centre) - relation.elsewhere(setting.place.centre), seed=setting.seed
        )
        controls.append(Control("N5", null, "the same, with the relation corrupted", null.value < SANE))
    return Evidence(
        experiment=Confounds.name,
        endpoint="swap-survives",
        criteria=("I5",),
        family="causal",
        mode="interventional",
        estimate=found.contrast,
        controls=tuple(controls),
        contrast=found.contrast,
        p=found.p,
        note=f"Restoration at the place less that of the other layers, under another subject.{left_out(table.withheld)}",
        data={"profile": table.profile(seed=setting.seed), "at the place": found.estimate.to_json()},
    )


EXPERIMENT = Confounds
