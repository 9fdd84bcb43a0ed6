"""`Sweep`: what a sweep of edits over layers and tokens found, cell by cell, with intervals; and the layer it proposes.

A layer that is chosen and reported on the same facts looks better than it is. `Sweep.best_layer` therefore splits the subjects in
two halves: one chooses, the other reports.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Float

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.evaluate.suites.counterfact import HIGHER_IS_BETTER, METRICS
from palimpsest.facts import Fact
from palimpsest.locate.saving import save_json
from palimpsest.statistics import Estimate, cluster_bootstrap, harmonic_mean_estimate, paired_difference
from palimpsest.statistics.harmonic import harmonic_difference

Record = dict[str, Any]
CELL_METRICS = (*METRICS, "rewrite")
PARTS = ("es", "ps", "ns")
READS = (
    "Success at a layer says that this method can write there. It is no evidence that the fact is stored there: edits succeed at "
    "layers that tracing does not point to (Hase et al. 2023)."
)
LEAST_LEFT = 2e-8  # 1 - p is never divided by less, as in the code of Hase et al.


def rewrite_score(before: float, after: float) -> float:
    """(p' - p) / (1 - p): the share of the probability that was missing which an edit brought.

    >>> rewrite_score(0.5, 0.75)
    0.5
    """
    return (after - before) / max(1 - before, LEAST_LEFT)


@dataclass(frozen=True, eq=False)
class Choice:
    """A layer chosen on half of the subjects and reported on the other half.

    Attributes:
        layer, token: what was chosen; the token was given.
        metric: by which: "s" (the harmonic mean of ES, PS and NS), or "rewrite" where facts lack paraphrases or neighbours.
        chosen_on, reported_on: numbers of facts of the halves.
        by_layer: the metric of every layer on the choosing half.
        reported: every metric at the layer on the other half.
        as_good: other layers that the reporting half cannot tell from it (the paired interval of their difference includes 0).
    """

    layer: int
    token: str
    metric: str
    chosen_on: int
    reported_on: int
    by_layer: Mapping[int, float]
    reported: Mapping[str, Estimate]
    as_good: tuple[int, ...]

    def to_json(self) -> Record:
        """As plain data."""
        plain = {name: value for name, value in vars(self).items() if name not in ("reported", "by_layer")}
        return plain | {
            "by_layer": {str(layer): value for layer, value in self.by_layer.items()},
            "reported": {name: estimate.to_json() for name, estimate in self.reported.items()},
            "as_good": list(self.as_good),
        }

    def __str__(self) -> str:
        told = ", ".join(f"{name.upper()} {str(e).split(' (')[0]}" for name, e in self.reported.items())
        others = f"; layers {', '.join(map(str, self.as_good))} cannot be told from it there" if self.as_good else ""
        return (
            f"Layer {self.layer} ({self.token}): chosen by {self.metric.upper()} on half of the subjects "
            f"({self.chosen_on} facts), reported on the other half ({self.reported_on} facts): {told}{others}."
        )


@dataclass(frozen=True, eq=False)
class Sweep:
    """Every edit of a sweep.

    Attributes:
        records: one an item: layer and token (None on the unedited model), and a row a fact with "pre", "post", "absent"
            or "error".
        facts: in order; the last axis of every array.
        layers, tokens: the first two axes.
        settings: model, method and its settings.
    """

    records: tuple[Record, ...]
    facts: tuple[Fact, ...]
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def values(self, metric: str) -> Float[np.ndarray, "layers tokens facts"]:
        """One metric of every edit; NaN where the fact is absent from the cell, failed, or lacks the metric."""
        return self._arrays[_checked(metric)]

    def unedited(self, metric: str) -> Float[np.ndarray, " facts"]:
        """One metric of every fact on the unedited model; the rewrite score is 0 there."""
        found = [self._before.get(fact.id, {}) for fact in self.facts]
        if _checked(metric) == "rewrite":
            return np.array([0.0 if pre else math.nan for pre in found])
        return np.array([_number(pre.get(metric)) for pre in found])

    @property
    def clusters(self) -> list[tuple[str, str]]:
        """(relation, subject) of every fact."""
        return [(fact.relation, fact.subject) for fact in self.facts]

    @property
    def failed(self) -> dict[str, str]:
        """Item (and fact) to the sentence that says why there is no measurement."""
        whole = {record["id"]: record["error"] for record in self.records if "error" in record}
        rows = ((record["id"], row) for record in self.records for row in _rows(record))
        return whole | {f"{item}: {row['fact']}": row["error"] for item, row in rows if "error" in row}

    @property
    def failed_facts(self) -> tuple[str, ...]:
        """Ids of the facts that failed in some cell or on the unedited model, in order."""
        failed = {row["fact"] for record in self.records for row in _rows(record) if "error" in row}
        return tuple(fact.id for fact in self.facts if fact.id in failed)

    def absent(self, layer: int, token: str) -> dict[str, str]:
        """Facts in whose prompts the role is no token of its own, with the reason."""
        own = (record for record in self.records if (record.get("layer"), record.get("token")) == (layer, token))
        return {row["fact"]: row["absent"] for record in own for row in _rows(record) if "absent" in row}

    def estimate(self, metric: str, layer: int, token: str) -> Estimate | None:
        """One metric of a cell, or "s"; None where no fact has it. The interval draws relations, then subjects."""
        l, t = self._place(layer, token)
        return self._estimate(metric, {m: self.values(m)[l, t] for m in CELL_METRICS}, range(len(self.facts)))

    def best_layer(self, token: str = "subject_last", *, metric: str | None = None, seed: int = 0) -> Choice:
        """The best layer on half of the subjects, reported on the other half. Ties go to the higher rewrite score.

        Args:
            token: at which the facts were edited.
            metric: "s" or any metric of a cell; "s" when None, or "rewrite" where a fact lacks paraphrases or neighbours.
            seed: of the split.

        Raises:
            InputError: there are fewer than two subjects with a measurement at every layer, or the reporting half gives no
                interval, or does not show that edits at the layer do more than no edit.
            SettingError: the token was not swept, or the metric is unknown.
        """
        t = self._place(self.layers[0], token)[1]
        arrays = {m: self.values(m)[:, t] for m in CELL_METRICS}
        usable = [i for i in range(len(self.facts)) if not np.isnan(arrays["rewrite"][:, i]).any()]
        if metric is None:
            whole = not any(np.isnan(arrays[m][:, usable]).any() for m in PARTS)
            metric = "s" if whole else "rewrite"
        needed = PARTS if metric == "s" else (_checked(metric),)
        usable = [i for i in usable if not any(np.isnan(arrays[m][:, i]).any() for m in needed)]
        choosing, reporting = self._halves(usable, seed)
        means = [{m: float(arrays[m][l, choosing].mean()) for m in CELL_METRICS} for l in range(len(self.layers))]
        by_layer = [_harmonic(own) if metric == "s" else own[metric] for own in means]
        best = max(range(len(self.layers)), key=lambda l: (by_layer[l], means[l]["rewrite"], -l))
        cell = {m: arrays[m][best] for m in CELL_METRICS}
        reported = {m: self._estimate(m, cell, reporting) for m in ("s", *CELL_METRICS)}
        self._check_reported(self.layers[best], cell, reported[metric], reporting)
        compared = {m: arrays[m] for m in needed}
        as_good = [
            layer
            for l, layer in enumerate(self.layers)
            if l != best
            and not self._gap(
                {m: a[best] for m, a in compared.items()}, {m: a[l] for m, a in compared.items()}, reporting
            ).excludes(0.0)
        ]
        return Choice(
            self.layers[best],
            token,
            metric,
            len(choosing),
            len(reporting),
            dict(zip(self.layers, by_layer, strict=True)),
            {m: estimate for m, estimate in reported.items() if estimate is not None},
            tuple(as_good),
        )

    def table(self, metric: str = "rewrite") -> list[dict[str, str]]:
        """Rows for people: layer, and the metric at each token with its interval; the last row counts the facts measured."""
        rows = [{"layer": str(layer)} | self._told(metric, layer) for layer in self.layers]
        return [*rows, {"layer": "facts"} | {token: self._counted(metric, token) for token in self.tokens}]

    def to_json(self) -> Record:
        """Settings, every cell's estimates and counts, the unedited model, the proposal, and how it is to be read."""
        before = {m: self.unedited(m) for m in METRICS}
        everyone = range(len(self.facts))
        result: Record = {
            "settings": dict(self.settings),
            "layers": list(self.layers),
            "tokens": list(self.tokens),
            "facts": [fact.id for fact in self.facts],
            "higher_is_better": {**HIGHER_IS_BETTER, "rewrite": True},
            "reads": READS,
            "unedited": {m: _json(self._estimate(m, before, everyone)) for m in ("s", *METRICS)},
            "cells": [self._cell_json(layer, token) for layer in self.layers for token in self.tokens],
            "failed": self.failed,
        }
        try:
            result["proposal"] = self.best_layer().to_json() if "subject_last" in self.tokens else None
        except InputError as error:
            result["proposal"] = {"withheld": str(error)}
        return result

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), str(path))

    def plot(self, metrics: Sequence[str] = ("rewrite", "ps", "ns")) -> Any:
        """A matplotlib figure: one panel a metric, one line a token, layers across, with the band of the interval."""
        from palimpsest.evaluate.sweep_plot import plot_cells

        return plot_cells(self.to_json(), metrics)

    def to_pandas(self) -> Any:
        """One row an edit: layer, token, fact, relation, subject and every metric; needs pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_pandas needs pandas; run: pip install pandas") from None
        arrays = {m: self.values(m) for m in CELL_METRICS}
        return pd.DataFrame(
            {"layer": layer, "token": token, "fact": fact.id, "relation": fact.relation, "subject": fact.subject}
            | {m: arrays[m][l, t, i] for m in CELL_METRICS}
            for l, layer in enumerate(self.layers)
            for t, token in enumerate(self.tokens)
            for i, fact in enumerate(self.facts)
            if not np.isnan(arrays["rewrite"][l, t, i])
        )

    @cached_property
    def _before(self) -> dict[str, Record]:
        unedited = (record for record in self.records if record.get("layer") is None)
        return {row["fact"]: row["pre"] for record in unedited for row in _rows(record) if "pre" in row}

    @cached_property
    def _arrays(self) -> dict[str, Float[np.ndarray, "layers tokens facts"]]:
        at = {fact.id: i for i, fact in enumerate(self.facts)}
        shape = len(self.layers), len(self.tokens), len(self.facts)
        arrays = {m: np.full(shape, np.nan) for m in CELL_METRICS}
        for record in self.records:
            if record.get("layer") is None:
                continue
            l, t = self._place(record["layer"], record["token"])
            for row in _rows(record):
                if "post" not in row:
                    continue
                i, post = at[row["fact"]], row["post"]
                for metric in METRICS:
                    arrays[metric][l, t, i] = _number(post[metric])
                if row["fact"] in self._before:
                    before = math.exp(-self._before[row["fact"]]["nll_new"])
                    arrays["rewrite"][l, t, i] = rewrite_score(before, math.exp(-post["nll_new"]))
        return arrays

    def _told(self, metric: str, layer: int) -> dict[str, str]:
        cells = {token: self.estimate(metric, layer, token) for token in self.tokens}
        return {token: "" if cell is None else str(cell).split(" (")[0] for token, cell in cells.items()}

    def _counted(self, metric: str, token: str) -> str:
        """Facts behind the estimates of a token: "12", or "10-12" where layers differ because facts failed at some."""
        cells = [self.estimate(metric, layer, token) for layer in self.layers]
        counts = [0 if cell is None else cell.n for cell in cells]
        return "-".join(map(str, sorted({min(counts), max(counts)})))

    def _place(self, layer: int, token: str) -> tuple[int, int]:
        if layer not in self.layers:
            raise SettingError(f"Layer {layer} was not swept, only {list(self.layers)}; sweep again with it.")
        if token not in self.tokens:
            raise SettingError(f"The token {token!r} was not swept.{did_you_mean(token, self.tokens)}")
        return self.layers.index(layer), self.tokens.index(token)

    def _estimate(self, metric: str, arrays: Mapping[str, np.ndarray], among: Sequence[int]) -> Estimate | None:
        parts = [arrays[m] for m in (PARTS if metric == "s" else (_checked(metric),))]
        having = [i for i in among if not any(np.isnan(part[i]) for part in parts)]
        if not having:
            return None
        clusters = [self.clusters[i] for i in having]
        if metric == "s":
            return harmonic_mean_estimate([part[having] for part in parts], clusters)
        return cluster_bootstrap(parts[0][having], clusters)

    def _gap(self, one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray], among: Sequence[int]) -> Estimate:
        """The paired difference of a metric, or of S where its three parts are given: of what the layer was chosen by."""
        clusters = [self.clusters[i] for i in among]
        left, right = ([values[list(among)] for values in side.values()] for side in (one, other))
        return (
            harmonic_difference(left, right, clusters)
            if len(one) > 1
            else paired_difference(left[0], right[0], clusters)
        )

    def _check_reported(
        self, layer: int, cell: Mapping[str, np.ndarray], reported: Estimate | None, among: Sequence[int]
    ) -> None:
        """Raise `InputError` where the reporting half does not bear a proposal."""
        if reported is None or not reported.is_known:
            raise InputError(
                f"The half of the subjects that reports on layer {layer} has {len(among)} fact and gives no interval; "
                f"sweep over more facts."
            )
        before = {m: self.unedited(m) for m in ("rewrite", *PARTS)}
        gains = [self._gap({"rewrite": cell["rewrite"]}, {"rewrite": before["rewrite"]}, among)]
        if not any(np.isnan(values[m][i]) for values in (cell, before) for m in PARTS for i in among):
            gains.append(self._gap({m: cell[m] for m in PARTS}, {m: before[m] for m in PARTS}, among))
        if not any(gain.low > 0 for gain in gains):
            raise InputError(
                f"Layer {layer}, the best on half of the subjects, does not exceed the unedited model on the other half, "
                f"neither by S nor by the rewrite score; sweep other layers, more facts, or with other settings."
            )

    def _halves(self, usable: Sequence[int], seed: int) -> tuple[list[int], list[int]]:
        """Facts of half of the subjects, and of the others."""
        subjects = sorted({self.facts[i].subject for i in usable})
        if len(subjects) < 2:
            raise InputError(
                f"Choosing a layer on some subjects and reporting it on others needs two subjects measured at every layer, "
                f"got {len(subjects)}; sweep over more facts."
            )
        order = np.random.default_rng(seed).permutation(len(subjects))
        choosing = {subjects[i] for i in order[: len(subjects) // 2]}
        return (
            [i for i in usable if self.facts[i].subject in choosing],
            [i for i in usable if self.facts[i].subject not in choosing],
        )

    def _cell_json(self, layer: int, token: str) -> Record:
        absent = self.absent(layer, token)
        measured = int((~np.isnan(self.values("rewrite")[self._place(layer, token)])).sum())
        cell: Record = {"layer": layer, "token": token, "n": measured, "absent": len(absent)}
        return cell | {m: _json(self.estimate(m, layer, token)) for m in ("s", *CELL_METRICS)}


def _checked(metric: str) -> str:
    if metric not in CELL_METRICS:
        raise SettingError(f"There is no metric {metric!r} of a sweep.{did_you_mean(metric, CELL_METRICS)}")
    return metric


def _rows(record: Record) -> list[Record]:
    return record.get("facts", [])


def _harmonic(means: Mapping[str, float]) -> float:
    parts = [means[m] for m in PARTS]
    return len(parts) / sum(1 / part for part in parts) if min(parts) > 0 else 0.0


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _json(estimate: Estimate | None) -> Record | None:
    return None if estimate is None else estimate.to_json()
