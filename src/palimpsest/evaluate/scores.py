"""`Scores`: what an evaluation found, record by record and as estimates with intervals, before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from palimpsest.errors import InputError
from palimpsest.evaluate.counterfact import HIGHER_IS_BETTER, METRICS
from palimpsest.statistics import Estimate, cluster_bootstrap, harmonic_mean_estimate, paired_difference

Record = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Scores:
    """The metrics of a suite on the unedited model ("pre") and, where there was an edit, on the edited one ("post").

    Attributes:
        records: one dictionary a fact: id, relation, subject, eligible, pre, post, edit (what the method noted), or error.
        settings: model, suite, method and its settings.
    """

    records: tuple[Record, ...]
    settings: Mapping[str, Any]

    @property
    def measured(self) -> list[Record]:
        """Records without an error."""
        return [record for record in self.records if "error" not in record]

    @property
    def failed(self) -> list[Record]:
        """Records with one: they are shown, not dropped."""
        return [record for record in self.records if "error" in record]

    def estimate(self, metric: str, when: str = "post") -> Estimate | None:
        """One metric over all measured facts, or None where no fact has it.

        The interval is a bootstrap that resamples relations, then subjects within them, with their facts.
        """
        if metric == "s":
            return self._harmonic(when)
        having = [record for record in self.measured if record.get(when) and record[when].get(metric) is not None]
        if not having:
            return None
        return cluster_bootstrap([record[when][metric] for record in having], _clusters(having))

    def difference(self, metric: str) -> Estimate | None:
        """Post minus pre of one metric, paired by fact."""
        having = [r for r in self.measured if r.get("post") and r["post"].get(metric) is not None]
        if not having:
            return None
        after, before = ([r[when][metric] for r in having] for when in ("post", "pre"))
        return paired_difference(after, before, _clusters(having))

    def summary(self) -> dict[str, Any]:
        """Every estimate as plain data: {"pre": {metric: ...}, "post": ..., "difference": ...}, counts, directions."""
        edited = any(record.get("post") for record in self.measured)
        result: dict[str, Any] = {
            "settings": dict(self.settings),
            "n": len(self.measured),
            "failed": len(self.failed),
            "eligible": sum(bool(record["eligible"]) for record in self.measured),
            "higher_is_better": HIGHER_IS_BETTER,
        }
        for when in ("pre", "post") if edited else ("pre",):
            result[when] = {m: _json(self.estimate(m, when)) for m in (*METRICS, "s")}
        if edited:
            result["difference"] = {m: _json(self.difference(m)) for m in METRICS}
        return result

    def table(self) -> list[dict[str, str]]:
        """Rows for people: metric, before, after, difference, each with its interval."""
        rows = []
        for metric in (*METRICS, "s"):
            before, after = self.estimate(metric, "pre"), self.estimate(metric, "post")
            if before is None and after is None:
                continue
            difference = self.difference(metric) if metric != "s" else None
            cells = (before, after, difference)
            rows.append(
                {"metric": metric.upper()}
                | {
                    name: "" if cell is None else str(cell).split(" (")[0]
                    for name, cell in zip(("before", "after", "difference"), cells, strict=True)
                }
            )
        return rows

    def to_pandas(self) -> Any:
        """One row a fact and a moment (pre, post); needs pandas."""
        try:
            import pandas as pd
        except ImportError:
            raise InputError("to_pandas needs pandas; run: pip install pandas") from None
        base = ("id", "relation", "subject", "eligible")
        return pd.DataFrame(
            [{**{k: r[k] for k in base}, "when": w, **r[w]} for r in self.measured for w in ("pre", "post") if r.get(w)]
        )

    def _harmonic(self, when: str) -> Estimate | None:
        parts = ("es", "ps", "ns")
        having = [r for r in self.measured if r.get(when) and all(r[when].get(m) is not None for m in parts)]
        if not having:
            return None
        return harmonic_mean_estimate([[r[when][m] for r in having] for m in parts], _clusters(having))


def _clusters(records: Sequence[Record]) -> list[tuple[str, str]]:
    return [(record["relation"], record["subject"]) for record in records]


def _json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else estimate.to_json()
