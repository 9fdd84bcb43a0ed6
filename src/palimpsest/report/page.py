"""The report of one path through the house: found, edited, measured, undone. One self-contained HTML file, no network."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.evaluate import Scores
from palimpsest.locate import Trace
from palimpsest.model import Diagnosis
from palimpsest.report.heatmap import heatmap
from palimpsest.report.rendered import rendered
from palimpsest.runs import atomic_write


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        diagnosis: of the model.
        traces: one a fact.
        scores: before and after, one edit per fact.
        undo: what was proved of the undo: {"before": hash, "after": hash}.
        settings: of the whole run, shown and kept in the page.
    """

    diagnosis: Diagnosis
    traces: Sequence[Trace]
    scores: Scores
    undo: Mapping[str, str]
    settings: Mapping[str, Any]

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write the page, whole or not at all; raises `OutputError` when the place cannot be written."""
        atomic_write(Path(path), self.html())

    def html(self) -> str:
        """The page as text. Every string in it is escaped."""
        return rendered(
            "report.html.j2",
            diagnosis=self.diagnosis,
            maps=[(trace, heatmap(trace)) for trace in self.traces],
            rows=self.scores.table(),
            n=len(self.scores.measured),
            facts=[_fact_row(record, self.traces) for record in self.scores.measured],
            failed=self.scores.failed,
            undone=self.undo["before"] == self.undo["after"],
            undo=self.undo,
            settings=json.dumps(dict(self.settings), indent=2, ensure_ascii=False, default=str),
        )


def _fact_row(record: Mapping[str, Any], traces: Sequence[Trace]) -> dict[str, Any]:
    fact = next(trace.fact for trace in traces if trace.fact.id == record["id"])
    probabilities = {
        f"{answer}_{when}": exp(-record[when][f"nll_{answer}"])
        for answer in ("true", "new")
        for when in ("pre", "post")
    }
    return {"text": fact.text, "old": fact.target_true, "new": fact.target_new, **probabilities}
