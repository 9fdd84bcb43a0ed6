"""`Convergence`: whether methods that share nothing name the same layers.

    rho = mean over pairs of methods of different families of Spearman(profile_i, profile_j)

    family          methods
    interventional  restoration after noise, interchange lesion, mean lesion
    gradient        gradient x difference of values
    observational   rise of the logit lens
    weights         read-out of the value, success of a rank-one edit by layer

A profile is the mean over facts at each measured layer, at the place's position. Pairs inside a family agree because they do
the same thing, and pairs in which one method is given the other's output agree because they must; neither counts. Here no
method is given another's output: edits are made at every layer alike, not where tracing points. Profiles are smooth, so that
two of them can agree by chance: the null turns every family's profiles round by a random number of layers and keeps their shape
(circular shifts).

With `profiles` at hand the same is asked of other traits (two families of relations, agreement of number, copying) for the
multitrait-multimethod matrix (Campbell and Fiske 1959), which `artefacts.mtmm` judges.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Rows
from palimpsest.audit.experiments.over_facts import clusters_of
from palimpsest.audit.experiments.profiles import CHEAP, windowed
from palimpsest.audit.experiments.readout import layer_profile
from palimpsest.audit.experiments.reads_rows import ReadsRows
from palimpsest.audit.experiments.roles import ROLES, cells
from palimpsest.audit.experiments.tasks import AGREEMENT, COPYING, FACTS
from palimpsest.audit.setting import Setting
from palimpsest.facts import Fact
from palimpsest.statistics import Estimate, of_means, spearman
from palimpsest.statistics.circular import circular_shift_p

FAMILY = {
    "trace": "interventional",
    "interchange": "interventional",
    "mean": "interventional",
    "gradient": "gradient",
    "lens": "observational",
    "readout": "weights",
    "edit": "weights",
}
TOP = 3
SHIFTS = 999
LEAST = 4  # facts that all methods share, and items of a trait


@dataclass(frozen=True, eq=False)
class Table:
    """What one method says about facts.

    Attributes:
        names: ids.
        scores: by fact and measured layer.
    """

    names: tuple[str, ...]
    scores: Float[np.ndarray, "facts layers"]


class Convergence(ReadsRows):
    """C5, from the rows of others; see the module's text."""

    name = "convergence"
    criteria = ("C5",)
    needs = ("tracing", "lesion", "readout", "profiles", "edit-layers", "tasks")

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """`convergence` and `convergence-jaccard`, where methods of two families share enough facts and layers."""
        tables = method_tables(setting, rows)
        names = sorted(set.intersection(*(set(table.names) for table in tables.values()))) if tables else []
        methods = [name for name in FAMILY if name in tables]
        if len({FAMILY[name] for name in methods}) < 2 or len(names) < LEAST or len(setting.layers) < 4:
            return []
        stacked = np.concatenate([tables[method].scores[_rows_of(tables[method], names)] for method in methods], axis=1)
        clusters = clusters_of(names, facts)
        found = agreement_of(stacked, methods, clusters, len(setting.layers), seed=setting.seed)
        matrix = traits(setting, facts, rows, tables)
        missing = [name for name in FAMILY if name not in methods]
        note = f"{len(methods)} methods of {len({FAMILY[name] for name in methods})} families on {len(names)} facts"
        note += f"; without {', '.join(missing)}" if missing else ""
        profiles = stacked.mean(axis=0).reshape(len(methods), -1)
        jaccard = of_means(
            stacked,
            clusters,
            lambda means: mean_jaccard(means.reshape(len(methods), -1), methods),
            name=f"mean Jaccard of the top {TOP} layers over pairs of families",
            seed=setting.seed,
        )
        shared = {
            "layers": list(setting.layers),
            "profiles": {name: line.tolist() for name, line in zip(methods, profiles, strict=True)},
            "families": {name: FAMILY[name] for name in methods},
        }
        return [
            Evidence(
                "convergence",
                "convergence",
                ("C5",),
                "measurement",
                "interventional",
                found.estimate,
                (Control("N1", found.chance, "profiles turned round by random numbers of layers", True),),
                p=found.p,
                note=note,
                data={**shared, "pairs": pairs_of(profiles, methods), "mtmm": matrix},
            ),
            Evidence(
                "convergence",
                "convergence-jaccard",
                (),
                "measurement",
                "interventional",
                jaccard,
                note=note,
                data={**shared, "chance": chance_jaccard(len(setting.layers))},
            ),
        ]


@dataclass(frozen=True)
class Agreement:
    """Mean correlation between families, with what turned profiles give and how rarely they give as much."""

    estimate: Estimate
    chance: Estimate
    p: float


def agreement_of(
    stacked: Float[np.ndarray, "facts columns"],
    methods: Sequence[str],
    clusters: Sequence[tuple[str, str]],
    n_layers: int,
    *,
    seed: int = 0,
) -> Agreement:
    """Mean Spearman over pairs of methods of different families; `stacked` has the layers of one method after another."""
    estimate = of_means(
        stacked,
        clusters,
        lambda means: mean_rho(means.reshape(-1, n_layers), methods),
        name="mean Spearman over pairs of families",
        unit="rho",
        seed=seed,
    )
    profiles = stacked.mean(axis=0).reshape(-1, n_layers)
    draw, families = np.random.default_rng(seed), sorted({FAMILY[name] for name in methods})
    turned = []
    for _ in range(SHIFTS):
        by = dict(zip(families, draw.integers(0, n_layers, len(families)), strict=True))
        moved = np.stack([np.roll(line, by[FAMILY[name]]) for name, line in zip(methods, profiles, strict=True)])
        turned.append(mean_rho(moved, methods))
    null = np.array(turned)
    low, value, high = np.quantile(null, [0.025, 0.5, 0.975])
    chance = Estimate(
        value,
        low,
        high,
        SHIFTS,
        SHIFTS,
        method="median and middle 95 % of random circular shifts by family",
        unit="rho",
    )
    return Agreement(estimate, chance, float((1 + (null >= estimate.value - 1e-12).sum()) / (1 + SHIFTS)))


def mean_rho(profiles: Float[np.ndarray, "methods layers"], methods: Sequence[str]) -> float:
    """Mean of Spearman's rho over pairs of different families; a profile that does not vary agrees with none (0)."""
    ranks = stats.rankdata(profiles, axis=1)
    centred = ranks - ranks.mean(axis=1, keepdims=True)
    size = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, size, out=np.zeros_like(centred), where=size > 0)
    rho = unit @ unit.T
    return float(np.mean([rho[i, j] for i, j in cross_family(methods)]))


def mean_jaccard(profiles: Float[np.ndarray, "methods layers"], methods: Sequence[str]) -> float:
    """Mean of |A and B| / |A or B| over pairs of different families, A and B the layers of the `TOP` largest values."""
    top = [set(np.argsort(-line, kind="stable")[:TOP].tolist()) for line in profiles]
    return float(np.mean([len(top[i] & top[j]) / len(top[i] | top[j]) for i, j in cross_family(methods)]))


def chance_jaccard(n_layers: int) -> float:
    """The mean of Jaccard's index for two random sets of `TOP` of the layers."""
    size = min(TOP, n_layers)
    shared = stats.hypergeom(n_layers, size, size)
    return float(sum(shared.pmf(k) * k / (2 * size - k) for k in range(size + 1)))


def cross_family(methods: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of methods that belong to different families."""
    return [(i, j) for i, j in combinations(range(len(methods)), 2) if FAMILY[methods[i]] != FAMILY[methods[j]]]


def pairs_of(profiles: Float[np.ndarray, "methods layers"], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Every pair with its correlation, its own circular-shift p, and whether it counts."""
    counted, result = set(cross_family(methods)), []
    for i, j in combinations(range(len(methods)), 2):
        found = circular_shift_p(profiles[i], profiles[j])
        rho = None if np.isnan(found.rho) else found.rho
        result.append({"methods": [methods[i], methods[j]], "rho": rho, "p": found.p, "counted": (i, j) in counted})
    return result


def method_tables(setting: Setting, rows: Rows) -> dict[str, Table]:
    """Every method whose rows are there, at the place's position and the setting's layers."""
    place, layers = setting.place, list(setting.layers)
    found: dict[str, Table] = {}

    def add(name: str, values: Mapping[str, Any]) -> None:
        kept = {fact: line for fact, line in values.items() if np.isfinite(np.array(line, dtype=np.float64)).all()}
        if kept:
            found[name] = Table(tuple(kept), np.array(list(kept.values()), dtype=np.float64))

    def mapped(row: Mapping[str, Any] | None) -> Any:
        if not row or not set(layers) <= set(row["layers"]):
            return [np.nan] * len(layers)
        return cells(row, place.position).mean(axis=1)[[list(row["layers"]).index(layer) for layer in layers]]

    add("trace", {row["id"]: mapped(row.get(place.module)) for row in rows.get("tracing", ())})
    for by in ("interchange", "mean"):
        add(by, {row["id"]: mapped(row.get(by)) for row in rows.get("lesion", ())})
    for method in CHEAP:
        held = {row["id"]: row["tasks"].get(FACTS) for row in rows.get("profiles", ())}
        lines = {name: of[method][place.position] for name, of in held.items() if of}
        add(method, {name: windowed(line, place.module, place.window, layers) for name, line in lines.items()})
    names, table = layer_profile(rows.get("readout", ()), place, setting.n_layers)
    if names:
        add("readout", dict(zip(names, table[:, layers], strict=True)))
    # where only some of the layers were edited, this method has no profile over all of them and stays out
    edits = [row for row in rows.get("edit-layers", ()) if list(row["layers"]) == layers]
    add("edit", {row["id"]: np.subtract(row["p_new"], row["p_old"]) for row in edits})
    return found


def traits(setting: Setting, facts: Mapping[str, Fact], rows: Rows, tables: Mapping[str, Table]) -> dict[str, Any]:
    """Profiles by trait and method for the multitrait-multimethod matrix."""
    methods = [name for name in ("trace", "interchange", "gradient", "lens") if name in tables]
    relations = sorted({facts[row].relation for table in tables.values() for row in table.names})
    halves = {"facts A": relations[::2], "facts B": relations[1::2]}
    items: dict[str, dict[str, np.ndarray]] = {trait: {} for trait in (*halves, AGREEMENT, COPYING)}
    for method in methods:
        for trait, names in halves.items():
            keep = [i for i, name in enumerate(tables[method].names) if facts[name].relation in names]
            items[trait][method] = tables[method].scores[keep]
    for task in (AGREEMENT, COPYING):
        for method, lines in _task_lines(setting, rows, task).items():
            if method in methods:
                items[task][method] = np.array(lines, dtype=np.float64).reshape(len(lines), -1)
    kept = {
        trait: {method: lines for method, lines in of.items() if len(lines) >= LEAST} for trait, of in items.items()
    }
    kept = {trait: of for trait, of in kept.items() if of}
    return {
        "traits": list(kept),
        "methods": methods,
        "layers": list(setting.layers),
        "relations": halves,
        "profiles": {t: {m: lines.mean(axis=0).tolist() for m, lines in of.items()} for t, of in kept.items()},
        "items": {t: {m: len(lines) for m, lines in of.items()} for t, of in kept.items()},
        "reliability": {t: {m: split_half(lines) for m, lines in of.items()} for t, of in kept.items()},
        "circular": [],
    }


def split_half(lines: Float[np.ndarray, "items layers"]) -> float | None:
    """Spearman of the mean profiles of every second item and of the others, stepped up to all (Spearman and Brown 1910)."""
    halves = [lines[part::2].mean(axis=0) for part in (0, 1)]
    rho = spearman(*halves)
    return None if np.isnan(rho) or rho <= -1 else float(2 * rho / (1 + rho)) if rho > 0 else float(rho)


def _task_lines(setting: Setting, rows: Rows, task: str) -> dict[str, list[Any]]:
    """What each method says about the items of a control task."""
    place, layers = setting.place, list(setting.layers)
    found: dict[str, list[Any]] = {"trace": [], "interchange": [], **{method: [] for method in CHEAP}}
    for row in rows.get("profiles", ()):
        item = row["tasks"].get(task)
        if not item:
            continue
        for method in CHEAP:
            found[method].append(windowed(item[method][place.position], place.module, place.window, layers))
        if list(item["trace"]["layers"]) == layers:
            found["trace"].append(cells(item["trace"], place.position).mean(axis=1))
    for row in rows.get("tasks", ()):
        item = row["tasks"].get(task)
        if item and list(row["layers"]) == layers:
            found["interchange"].append(np.array(item[ROLES[place.position]], dtype=np.float64))
    return {method: lines for method, lines in found.items() if lines}


def _rows_of(table: Table, names: Sequence[str]) -> list[int]:
    return [table.names.index(name) for name in names]


__all__ = ["FAMILY", "Convergence", "agreement_of", "chance_jaccard", "mean_jaccard", "mean_rho", "split_half"]


EXPERIMENT = Convergence
