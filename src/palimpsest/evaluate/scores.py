"""`Scores`: what an evaluation found, record by record and as estimates with intervals, before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.evaluate.suite import Metric, suite_of
from palimpsest.runs import load_results, load_samples
from palimpsest.statistics import Estimate, cluster_bootstrap, harmonic_mean_estimate, paired_difference

Record = dict[str, Any]
Numbers = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Scores:
    """The metrics of a suite on the unedited model ("pre") and, where there was an edit, on the edited one ("post").

    Attributes:
        records: one dictionary a case: id, relation, subject, pre, post, and where they are: eligible (the old answer was the
            likelier one), edit (what the method noted), at (number of edits -> metrics after so many of a sequence), or error.
        settings: model, suite, method and its settings.
        metrics: what the numbers are, by name; those of the suite in `settings` (CounterFact where none is) unless given.
    """

    records: tuple[Record, ...]
    settings: Mapping[str, Any]
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    _rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.metrics:
            object.__setattr__(self, "metrics", suite_of(str(self.settings.get("suite", "counterfact"))).metrics)

    @classmethod
    def load(cls, folder: str | PathLike[str]) -> "Scores":
        """What a finished run left in its folder; raises `RecordError` where there is none."""
        results = load_results(Path(folder))
        settings = results.get("settings", {})
        told = results.get("metrics", {})  # runs of the first version do not say what their numbers are
        metrics = {name: Metric(**{**one, "harmonic_of": tuple(one["harmonic_of"])}) for name, one in told.items()}
        return cls(tuple(load_samples(Path(folder))), settings, metrics)

    @property
    def measured(self) -> list[Record]:
        """Records without an error."""
        return [record for record in self.records if "error" not in record]

    @property
    def failed(self) -> list[Record]:
        """Records with one: they are shown, not dropped."""
        return [record for record in self.records if "error" in record]

    def estimate(self, metric: str, when: str = "post") -> Estimate | None:
        """One metric over all measured cases that have a number for it, or None where none has.

        The interval is a bootstrap that resamples relations, then subjects within them, with their facts.
        """
        return self._estimate(metric, [(record, record[when]) for record in self.measured if record.get(when)])

    def difference(self, metric: str) -> Estimate | None:
        """Post minus pre of one metric, paired by case; None for what needs both (it is a difference already)."""
        self._known(metric)
        having = [
            r
            for r in self.measured
            if r.get("post") and _is_number(r["post"].get(metric)) and _is_number(r["pre"].get(metric))
        ]
        if not having:
            return None
        after, before = ([r[when][metric] for r in having] for when in ("post", "pre"))
        return paired_difference(after, before, _clusters(having))

    @property
    def check_points(self) -> list[int]:
        """After how many edits of a sequence everything was measured."""
        return sorted({int(edits) for record in self.measured for edits in record.get("at", {})})

    def retention(self, metric: str) -> list[dict[str, Any]]:
        """The retention curve: at each check point, the metric over all cases edited so far, on the model as edited then.

        Each row has "edits", "estimate", and "newest": the cases written since the check point before, which tells what
        later edits undid from what was never written.
        """
        self._known(metric)
        if metric not in self._rows:  # many resamples, and both summary and table want them
            self._rows[metric] = self._retention(metric)
        return [dict(row) for row in self._rows[metric]]

    def _retention(self, metric: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        before: set[str] = set()
        for edits in self.check_points:
            having = [(r, r["at"][str(edits)]) for r in self.measured if str(edits) in r.get("at", {})]
            newest = [(r, numbers) for r, numbers in having if r["id"] not in before]
            before |= {r["id"] for r, _ in having}
            rows.append(
                {
                    "edits": edits,
                    "estimate": self._estimate(metric, having),
                    "newest": self._estimate(metric, newest),
                }
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """Every estimate as plain data: {"pre": {metric: ...}, "post": ..., "difference": ...}, counts, meanings."""
        edited = any(record.get("post") for record in self.measured)
        result: dict[str, Any] = {
            "settings": dict(self.settings),
            "n": len(self.measured),
            "failed": len(self.failed),
        }
        if any("eligible" in record for record in self.measured):
            result["eligible"] = sum(bool(record.get("eligible")) for record in self.measured)
        result["higher_is_better"] = {name: metric.higher_is_better for name, metric in self.metrics.items()}
        result["metrics"] = {
            name: {**asdict(metric), "harmonic_of": list(metric.harmonic_of)} for name, metric in self.metrics.items()
        }
        for when in ("pre", "post") if edited else ("pre",):
            result[when] = {m: _json(self.estimate(m, when)) for m in self.metrics}
        if edited:
            result["difference"] = {m: _json(self.difference(m)) for m in self._plain}
        if infinite := self._infinite():
            result["infinite"] = infinite
        if self.check_points:
            result["retention"] = {
                m: [
                    {"edits": row["edits"], "estimate": _json(row["estimate"]), "newest": _json(row["newest"])}
                    for row in self.retention(m)
                ]
                for m in self.metrics
            }
        return result

    def table(self) -> list[dict[str, str]]:
        """Rows for people: metric, before, after, difference, each with its interval."""
        rows = []
        for metric in self.metrics:
            cells = (
                self.estimate(metric, "pre"),
                self.estimate(metric, "post"),
                self.difference(metric) if metric in self._plain else None,
            )
            if any(cell is not None for cell in cells):
                named = zip(("before", "after", "difference"), cells, strict=True)
                rows.append({"metric": _label(metric)} | {name: _shown(cell) for name, cell in named})
        return rows

    def retention_table(self) -> list[dict[str, str]]:
        """Rows for people: one a check point, a column a metric."""
        curves = {metric: self.retention(metric) for metric in self.metrics}
        return [
            {"edits": str(edits)} | {_label(m): _shown(rows[i]["estimate"]) for m, rows in curves.items()}
            for i, edits in enumerate(self.check_points)
        ]

    def to_pandas(self) -> Any:
        """One row a case and a moment (pre, post, or the number of edits of a check point); needs pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_pandas needs pandas; run: pip install pandas") from None
        rows = []
        for record in self.measured:
            base = {k: record[k] for k in ("id", "relation", "subject", "eligible") if k in record}
            moments = {w: record[w] for w in ("pre", "post") if record.get(w)} | record.get("at", {})
            rows += [{**base, "when": when, **numbers} for when, numbers in moments.items()]
        return pd.DataFrame(rows)

    @property
    def _plain(self) -> list[str]:
        """The metrics that single cases have."""
        return [name for name, metric in self.metrics.items() if not metric.harmonic_of]

    def _infinite(self) -> dict[str, dict[str, int]]:
        """By moment and metric, how many cases are in no estimate because their number is infinite, as of a broken model."""
        found: dict[str, dict[str, int]] = {}
        for when in ("pre", "post"):
            told = [record[when] for record in self.measured if record.get(when)]
            counts = {
                m: sum(n.get(m) is not None and abs(float(n[m])) == float("inf") for n in told) for m in self._plain
            }
            if any(counts.values()):
                found[when] = {metric: count for metric, count in counts.items() if count}
        return found

    def _known(self, metric: str) -> Metric:
        if metric not in self.metrics:
            raise SettingError(f"There is no metric {metric!r} in these scores.{did_you_mean(metric, self.metrics)}")
        return self.metrics[metric]

    def _estimate(self, metric: str, pairs: Sequence[tuple[Record, Numbers]]) -> Estimate | None:
        """A metric over records with their numbers."""
        parts = self._known(metric).harmonic_of or (metric,)
        having = [(r, numbers) for r, numbers in pairs if all(_is_number(numbers.get(part)) for part in parts)]
        if not having:
            return None
        clusters = _clusters([record for record, _ in having])
        columns = [[numbers[part] for _, numbers in having] for part in parts]
        if self.metrics[metric].harmonic_of:
            return harmonic_mean_estimate(columns, clusters)
        return cluster_bootstrap(columns[0], clusters, unit=self.metrics[metric].unit)


def _is_number(value: Any) -> bool:
    """Whether a metric has a value that can be averaged; files hold infinity as text and NaN as None."""
    return value is not None and isfinite(float(value))


def _clusters(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record["relation"], record["subject"]) for record in records]


def _label(metric: str) -> str:
    """ES, as papers write it; longer names as they are."""
    return metric.upper() if len(metric) <= 2 else metric


def _shown(estimate: Estimate | None) -> str:
    return "" if estimate is None else str(estimate).split(" (")[0]


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_json()
