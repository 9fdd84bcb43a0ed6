"""How an effect grows with the dose of an edit: W + d (v* - W k*) (C^-1 k*)^T / (k*^T C^-1 k*), with d from 0 to 3.

One edit is made at dose 1 and never searched again; 17 doses of it are read on every stratum. Borrowed from pharmacology:

    ED50    the least dose at which the new answer has half of all probability         efficacy
    TD20    the least dose at which a stratum that must stay has lost a fifth of it    toxicity
    TI      TD20 / ED50, the therapeutic index: room between working and harming

each fact by itself, between two doses on a straight line; then the median over facts, where a dose that is not reached by 3 is
censored and not left out (Kaplan and Meier 1958). Toxicity of a stratum at dose d is

    T(d) = 1 - sum_i min(p_i(d), p_i(0)) / sum_i p_i(0)

over its prompts i, so that prompts the model knew count most and a gain never pays for a loss. A graded response rises steadily to
its peak (Spearman), along a Hill curve up to there, and stays: what an edit loses beyond the peak is its decline

    delta = p(d*) - p(2 d*)        d* the dose of the peak; read at the largest dose where 2 d* lies beyond it

Selectivity compares changes of log-odds at dose 1 (`edit_reading`): |change of the target| / mean |change of a stratum's prompt|.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from palimpsest.audit.bench import Bench
from palimpsest.audit.evidence import Control, Evidence
from palimpsest.audit.experiment import Row, Rows
from palimpsest.audit.experiments.edit_reading import (
    MOST,
    SEARCH_PASSES,
    STAY,
    STRATA,
    TARGET,
    Strata,
    random_value,
    read_at,
)
from palimpsest.audit.experiments.over_facts import clusters_of_rows, column
from palimpsest.audit.setting import Setting
from palimpsest.errors import SettingError
from palimpsest.facts import Fact
from palimpsest.statistics import (
    Estimate,
    cluster_bootstrap,
    clustered_proportion,
    of_records,
    ratio_estimate,
    sign_flip_p,
)
from palimpsest.statistics.bell import dose_fit
from palimpsest.statistics.hill import HillFit, hill_fit
from palimpsest.statistics.isotonic import isotonic_fit
from palimpsest.statistics.survival import kaplan_meier_quantile

DOSES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
RANDOM_DOSES = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)  # of the control: its curve is flat or noise, and each dose costs a pass
WHOLE = 1.0
WORST_OF = ("same_subject", "neighbours")
NAMES = {"same_subject": "selectivity-same-subject", "neighbours": "selectivity-near"}
FITS, DECLINE = 0.8, 0.05  # a Hill fit counts from this R^2; the decline that is tolerated
UNREACHED = (math.inf, False)


class Doses:
    """17 doses of the rank-one edit at the place, on every stratum."""

    name = "dose"
    criteria: tuple[str, ...] = ("E2", "E3", "I3")
    needs: tuple[str, ...] = ()

    def units(self, setting: Setting) -> Sequence[str]:
        """One a confirmation fact."""
        return setting.facts_for(self.name)

    def seconds(self, bench: Bench) -> float:
        """A value search, then a reading of up to 26 prompts of some 16 tokens, in batches, at each dose."""
        reading = (1 + MOST * (len(STRATA) - 1)) / 20
        return bench.seconds_a_pass * (SEARCH_PASSES + reading * (1 + len(DOSES) + len(RANDOM_DOSES)))

    def measure(self, bench: Bench, unit: str) -> Row:
        """Curves of the edit and of its control over doses; the edit is made at the place's centre, and the row says which."""
        fact, model, layer = bench[unit], bench.model, bench.setting.place.centre
        strata = Strata.of(model, fact)
        base = strata.read(model)
        edit = bench.edit_at([fact], layer)
        random = random_value(model, edit, seed=bench.setting.seed)
        return {
            "layer": layer,
            "norm": edit.norm,
            "doses": list(DOSES),
            "strata": read_at(model, strata, edit, DOSES, base),
            "random_doses": list(RANDOM_DOSES),
            "random": read_at(model, strata, random, RANDOM_DOSES, base),
        }

    def conclude(self, setting: Setting, facts: Mapping[str, Fact], rows: Rows) -> Sequence[Evidence]:
        """Graded response, therapeutic index and selectivity, with the curves they are read from."""
        own = [row for row in rows.get(self.name, ()) if row["layer"] == setting.place.centre]
        if not own:
            return []
        found = [*self._graded(facts, own), *self._selective(facts, own)]
        index = self._index(facts, own)
        return found if index is None else [*found, index]

    def _graded(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        clusters = clusters_of_rows(rows, facts)
        rise = np.array([_rise(row["doses"], row["strata"][TARGET]["log_odds"]) for row in rows])
        chance = np.array([_rise(row["random_doses"], row["random"][TARGET]["log_odds"]) for row in rows])
        fits = [_fit(row) for row in rows]
        fitted = np.array([fit is not None and fit.r2 >= FITS for fit in fits], dtype=float)
        declines, cut = zip(*(decline(row["doses"], row["strata"][TARGET]["p"]) for row in rows), strict=True)
        shared: dict[str, Any] = {"family": "behavioural", "mode": "interventional"}
        n_cut = sum(cut)
        return [
            Evidence(
                self.name,
                "graded",
                ("E2",),
                estimate=cluster_bootstrap(rise, clusters, unit="Spearman's rho"),
                controls=(
                    Control(
                        "N3",
                        cluster_bootstrap(chance, clusters, unit="Spearman's rho"),
                        "a random value of equal norm, fewer doses; a small change is graded in any direction, so compare "
                        "how far the curves rise",
                    ),
                ),
                p=sign_flip_p(rise, clusters, alternative="greater"),
                note="Dose against the log-odds of the new answer up to their peak; a peak before the third dose counts as 0.",
                data={"curves": curves(facts, rows, "strata"), "random": curves(facts, rows, "random")},
                **shared,
            ),
            Evidence(
                self.name,
                "graded-fit",
                ("E2",),
                estimate=clustered_proportion(
                    fitted, clusters, unit=f"share of facts with a Hill R2 of {FITS} or more"
                ),
                note="Hill's curve of p(new answer) up to its peak; the data say for whom a bell fits all doses better.",
                data={
                    "hill": [{"id": row["id"], **_plain_fit(fit)} for row, fit in zip(rows, fits, strict=True)],
                    "isotonic r2": [round(isotonic_fit(row["doses"], _p_new(row)).r2, 4) for row in rows],
                    "bell": [row["id"] for row in rows if not isinstance(dose_fit(row["doses"], _p_new(row)), HillFit)],
                },
                **shared,
            ),
            Evidence(
                self.name,
                "graded-decline",
                ("E2",),
                estimate=cluster_bootstrap(np.array(declines), clusters).below(
                    DECLINE,
                    f"{DECLINE} less the decline of p(new answer) from its peak to twice that dose",
                ),
                note=f"For {n_cut} of {len(rows)} facts twice the peak's dose lies beyond the largest, where it was read."
                if n_cut
                else "",
                **shared,
            ),
        ]

    def _selective(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> list[Evidence]:
        found: list[Evidence] = []
        for stratum, endpoint in NAMES.items():
            having = [row for row in rows if stratum in row["strata"]]
            if not having:
                continue
            random = _selectivity(having, "random", stratum, facts)
            found.append(
                Evidence(
                    self.name,
                    endpoint,
                    ("I3",),
                    "behavioural",
                    "interventional",
                    _selectivity(having, "strata", stratum, facts),
                    controls=(Control("N3", random, "a random value of equal norm moves both alike"),),
                    note="Changes of log-odds at dose 1." + _lacking(rows, having, stratum),
                    data={
                        "by stratum": {
                            name: _selectivity(some, "strata", name, facts).to_json()
                            for name in STRATA
                            if name != TARGET and (some := [row for row in rows if name in row["strata"]])
                        }
                    },
                )
            )
        return found

    def _index(self, facts: Mapping[str, Fact], rows: Sequence[Row]) -> Evidence | None:
        by_stratum = {name: some for name in STAY if (some := [row for row in rows if name in row["strata"]])}
        indices = {name: therapeutic_index(facts, some, name) for name, some in by_stratum.items()}
        counted = [name for name in WORST_OF if name in indices]
        if not counted:
            return None
        worst = min(counted, key=lambda name: indices[name].value)
        clusters = clusters_of_rows(rows, facts)
        effective = [_ed(row, 0.5) for row in rows]
        toxic = {name: [_td(row, name, 0.2) for row in some] for name, some in by_stratum.items()}
        data = {
            "worst": worst,
            "index": {name: one.to_json() for name, one in indices.items()},
            "ED50": _median(effective, clusters).to_json(),
            "TD20": {
                name: _median(toxic[name], clusters_of_rows(some, facts)).to_json() for name, some in by_stratum.items()
            },
            "certain safety factor": {
                name: therapeutic_index(facts, some, name, effect=0.95, harm=0.05).to_json()
                for name, some in by_stratum.items()
            },
            "P(TI > 1)": {
                name: clustered_proportion(
                    [_ed(row, 0.5)[1] and _td(row, name, 0.2)[0] > _ed(row, 0.5)[0] for row in some],
                    clusters_of_rows(some, facts),
                ).to_json()
                for name, some in by_stratum.items()
            },
            "doses": [
                {
                    "id": row["id"],
                    "ED50": _ed(row, 0.5)[0],
                    **{f"TD20 {name}": _td(row, name, 0.2)[0] for name in STAY if name in row["strata"]},
                }
                for row in rows
            ],
        }
        never = sum(not reached for _, reached in effective)
        return Evidence(
            self.name,
            "therapeutic-index",
            ("E3",),
            "behavioural",
            "interventional",
            indices[worst],
            controls=(
                Control(
                    "N3",
                    therapeutic_index(facts, by_stratum[worst], worst, name="random"),
                    "a random value of equal norm; 0 where it never reaches half effect",
                ),
            ),
            note=f"TD20 / ED50, worst of same subject and near ({worst}); {never} of {len(rows)} facts never reach half effect."
            + _lacking(rows, by_stratum[worst], worst),
            data=data,
        )


def reached_at(doses: Sequence[float], values: Sequence[float], level: float) -> tuple[float, bool]:
    """The least dose at which values reach a level, on a straight line between two doses; (inf, False) where they never do.

    >>> reached_at([0, 1, 2], [0.0, 0.4, 0.8], 0.6)
    (1.5, True)
    """
    for i, value in enumerate(values):
        if value >= level:
            if i == 0:
                return float(doses[0]), True
            part = (level - values[i - 1]) / (value - values[i - 1])
            return float(doses[i - 1] + part * (doses[i] - doses[i - 1])), True
    return UNREACHED


def decline(doses: Sequence[float], values: Sequence[float]) -> tuple[float, bool]:
    """Value at the peak less the value at twice its dose, and whether that lay beyond the largest dose.

    >>> decline([0, 1, 2], [0.0, 0.9, 0.4])
    (0.5, False)
    """
    peak = int(np.argmax(values))
    twice = 2 * doses[peak]
    return float(values[peak] - np.interp(twice, doses, values)), bool(twice > doses[-1])


def therapeutic_index(
    facts: Mapping[str, Fact],
    rows: Sequence[Row],
    stratum: str,
    *,
    effect: float = 0.5,
    harm: float = 0.2,
    name: str = "strata",
) -> Estimate:
    """Median toxic over median effective dose, facts resampled together.

    A toxic dose that half of the facts never reach is put at the largest dose measured: the index is then *at least* that.
    An effective dose that half of them never reach gives an index of 0: what does not work has no room to work in.
    """
    effective = np.array([_ed(row, effect, name)[0] for row in rows])
    toxic = np.array([_td(row, stratum, harm, name)[0] for row in rows])
    largest = max(rows[0]["doses"])
    smallest = min(dose for dose in rows[0]["doses"] if dose > 0)

    def index(drawn: np.ndarray) -> float:
        works, harms = middle(effective[drawn]), middle(toxic[drawn])
        return 0.0 if math.isinf(works) else min(harms, largest) / max(works, smallest / 10)

    censored = int(np.isinf(toxic).sum())
    said = f"ratio of medians, {censored} of {len(rows)} toxic doses above {largest:g}"
    unit = "toxic dose over effective dose"
    return of_records(index, len(rows), clusters_of_rows(rows, facts), unit=unit, name=said)


def middle(doses: np.ndarray) -> float:
    """Kaplan and Meier's median where whatever is censored is so at the largest dose: the first by which half have reached it."""
    return float(np.sort(doses)[math.ceil(len(doses) / 2) - 1])


def curves(facts: Mapping[str, Fact], rows: Sequence[Row], name: str) -> dict[str, Any]:
    """Means over facts at each dose with their intervals, by stratum: plain data for figures."""
    found: dict[str, Any] = {"doses": list(rows[0]["doses" if name == "strata" else "random_doses"])}
    for stratum in STRATA:
        some = [row for row in rows if stratum in row[name]]
        if some:
            found[stratum] = {
                what: _band([row[name][stratum][what] for row in some], clusters_of_rows(some, facts))
                for what in ("log_odds", "p", "right")
            }
    return found


def _band(values: Sequence[Sequence[float]], clusters: Sequence[tuple[str, str]]) -> dict[str, list[float]]:
    table = np.array(values, dtype=float)
    line = [cluster_bootstrap(table[:, i], clusters, resamples=500) for i in range(table.shape[1])]
    return {end: [float(f"{getattr(one, end):.5g}") for one in line] for end in ("value", "low", "high")}


def _p_new(row: Row, name: str = "strata") -> list[float]:
    return list(row[name][TARGET]["p"])


def _ed(row: Row, level: float, name: str = "strata") -> tuple[float, bool]:
    return reached_at(row["doses" if name == "strata" else "random_doses"], _p_new(row, name), level)


def _td(row: Row, stratum: str, level: float, name: str = "strata") -> tuple[float, bool]:
    doses = row["doses" if name == "strata" else "random_doses"]
    return reached_at(doses, [1 - kept for kept in row[name][stratum]["kept"]], level)


def _median(times: Sequence[tuple[float, bool]], clusters: Sequence[tuple[str, str]]) -> Estimate:
    watched = [time if reached else DOSES[-1] for time, reached in times]
    return kaplan_meier_quantile(watched, [reached for _, reached in times], 0.5, clusters, unit="dose")


def _rise(doses: Sequence[float], log_odds: Sequence[float]) -> float:
    """Spearman's correlation of dose and log-odds up to their peak; 0 where the peak comes before the third dose."""
    upto = int(np.argmax(log_odds)) + 1
    return 0.0 if upto < 3 else float(stats.spearmanr(doses[:upto], log_odds[:upto]).statistic)


def _fit(row: Row) -> HillFit | None:
    """Hill's curve up to the peak; None where the peak comes before the fifth dose, which leaves nothing to fit."""
    upto = int(np.argmax(_p_new(row))) + 1
    return hill_fit(row["doses"][:upto], _p_new(row)[:upto]) if upto >= 5 else None


def _plain_fit(fit: HillFit | None) -> dict[str, float]:
    names = ("bottom", "top", "ed50", "slope", "r2")
    return {} if fit is None else {name: float(f"{getattr(fit, name):.5g}") for name in names}


def _selectivity(rows: Sequence[Row], name: str, stratum: str, facts: Mapping[str, Fact]) -> Estimate:
    doses = rows[0]["doses" if name == "strata" else "random_doses"]
    if WHOLE not in doses:
        raise SettingError(f"Selectivity is read at dose {WHOLE:g}, got the doses {doses}; measure it too.")
    at = doses.index(WHOLE)
    target = column(rows, lambda row: row[name][TARGET]["moved"][at])
    beside = column(rows, lambda row: row[name][stratum]["moved"][at])
    unit = "change of the target over change of the stratum"
    clusters = clusters_of_rows(rows, facts)
    if not beside.any():
        relations = len({relation for relation, _ in clusters})
        return Estimate.exact(math.inf, len(rows), relations, method="nothing beside moved", unit=unit)
    return ratio_estimate(target, beside, clusters, unit=unit)


def _lacking(rows: Sequence[Row], having: Sequence[Row], stratum: str) -> str:
    count = len(rows) - len(having)
    return f" {count} of {len(rows)} facts have no prompt of the stratum {stratum}." if count else ""


EXPERIMENT = Doses
