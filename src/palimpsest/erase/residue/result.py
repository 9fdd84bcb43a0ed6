"""`Residue`: what was read of some facts before and after an edit, and what it says against its controls.

    found.auc()                         the residue AUC after the edit, all columns together
    found.auc(when="before")            the same where nothing was edited: how readable the facts were
    found.auc(readouts=["probe"])       one readout alone, such as one that no editor optimised
    found.certificates()                which facts are erased, and where the others show

Numbers of one call are standardised by one group of controls (`standard`); "same answer" is the usual one, and "never known"
asks whether the old answer shows more than a true answer that was never written does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from palimpsest.erase.residue.certificate import Certificate, Certificates, quantile_rank
from palimpsest.erase.residue.lens import MEASURES
from palimpsest.erase.residue.pair import EDITED, NEVER_KNOWN, SAME_ANSWER, Pair
from palimpsest.erase.residue.readout import Column
from palimpsest.erase.residue.standard import Table, folds_of, maxima
from palimpsest.errors import InputError, SettingError, did_you_mean
from palimpsest.facts import Fact
from palimpsest.locate.saving import save_json
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate, cluster_bootstrap, proportion
from palimpsest.statistics.ranking import auroc, compared_estimate

WHEN = ("before", "after")
CONTROLS = (SAME_ANSWER, NEVER_KNOWN)
CONTROL_READOUT = (
    "control"  # the last word of a readout that measures a control task: it is no place where an answer shows
)
READS = (
    "The residue AUC is the chance that an edited fact's old answer, at the column where it shows most, shows more than a "
    "control's does at its own: 0.5 is no more than where nothing was written, 1 is always more, and below 0.5 it was pushed "
    "further down than that. Lower is not better below 0.5."
)


@dataclass(frozen=True, eq=False)
class Residue:
    """Scores of every pair at every column, before and after.

    Attributes:
        pairs: what was asked.
        columns: where.
        before, after: larger is more readable; NaN where a pair has no such column.
        standing: per lens, of the edited facts: before and after, rank and probability of the old and the new answer by layer.
        left_out: id of a fact to the sentence that says why it was not asked.
        unread: name of a readout to the sentence that says why this model cannot be read by it.
        settings: how it was made.
    """

    pairs: tuple[Pair, ...]
    columns: tuple[Column, ...]
    before: Float[np.ndarray, "pairs columns"]
    after: Float[np.ndarray, "pairs columns"]
    standing: Mapping[str, Float[np.ndarray, "when facts layers answers measures"]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The edited facts that were read, in order."""
        return tuple(pair.fact for pair in self.pairs if pair.group == EDITED)

    @property
    def readouts(self) -> tuple[str, ...]:
        """Names of the readouts, control tasks among them."""
        return tuple(dict.fromkeys(column.readout for column in self.columns))

    def group(self, name: str) -> Bool[np.ndarray, "pairs"]:
        """Which pairs stand in a group."""
        return np.array([pair.group == name for pair in self.pairs])

    def scores(self, when: str = "after") -> Float[np.ndarray, "pairs columns"]:
        """Before or after."""
        if when not in WHEN:
            raise SettingError(f"Scores are of {' or '.join(WHEN)} the edit, got {when!r}.{did_you_mean(when, WHEN)}")
        return self.before if when == "before" else self.after

    def z(self, control: str = SAME_ANSWER, when: str = "after") -> Float[np.ndarray, "pairs columns"]:
        """Scores in standard deviations of a group of controls of other folds (`standard.Table`)."""
        return self._table(control, when).z()

    def maximum(
        self, control: str = SAME_ANSWER, when: str = "after", readouts: Sequence[str] | None = None
    ) -> Float[np.ndarray, "pairs"]:
        """The largest z of each pair over all columns, or those of some readouts."""
        return maxima(self.z(control, when)[:, self._among(readouts)])

    def auc(
        self,
        control: str = SAME_ANSWER,
        *,
        when: str = "after",
        readouts: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Estimate:
        """The residue AUC.

        Args:
            control: "same answer" or "never known".
            when: "after" the edit, or "before".
            readouts: only these; all but control tasks when None.
            seed: of the bootstrap, which draws relations and then edited subjects, each with its controls.

        Raises:
            InputError: there are too few such controls, or nothing was read.
            SettingError: no such group, time or readout.
        """
        compared = self._won(control, when, readouts)
        if np.isnan(compared).all():
            what = "any readout" if readouts is None else " or ".join(map(repr, readouts))
            raise InputError(
                f"No fact and control could both be read by {what}, so nothing can be compared; give more facts of their relations."
            )
        rows = [*np.flatnonzero(self.group(EDITED)), *np.flatnonzero(self._controls(control))]
        clusters, largest = self._clusters, self.maximum(control, when, readouts)
        return compared_estimate(compared, [clusters[i] for i in rows], np.nan_to_num(largest[rows]), seed=seed)

    def column_auc(self, control: str = SAME_ANSWER, when: str = "after") -> Float[np.ndarray, "columns"]:
        """The AUC of each column by itself, without an interval: for maps. The largest of them is not the residue AUC."""
        scores, controls = self.scores(when), self._controls(control)
        found = np.full(len(self.columns), np.nan)
        for j in range(len(self.columns)):
            rows = (controls | self.group(EDITED)) & ~np.isnan(scores[:, j])
            if rows.any():
                found[j] = auroc(scores[rows, j], self.group(EDITED)[rows])
        return found

    def shares(
        self, control: str = SAME_ANSWER, *, when: str = "after", readouts: Sequence[str] | None = None
    ) -> Float[np.ndarray, "facts"]:
        """For each edited fact the share of controls that show less; the mean is the AUC, and methods are paired on it."""
        compared = self._won(control, when, readouts)
        read = ~np.isnan(compared)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(read, compared, 0.0).sum(1) / read.sum(1))

    def certificates(
        self,
        control: str = SAME_ANSWER,
        *,
        level: float = 0.95,
        readouts: Sequence[str] | None = None,
        when: str = "after",
        seed: int = 0,
    ) -> Certificates:
        """Which facts are erased, where the others show, and how many certificates there are without an edit.

        Args:
            control: the group that sets the standard.
            level: of the controls' quantile.
            readouts: the columns that count; all but control tasks when None.
            when: "after", or "before" for the facts as they were.
            seed: of the bootstraps.

        Raises:
            InputError: there are too few controls for a threshold.
        """
        groups = {name: np.flatnonzero(self.group(name)) for name in (EDITED, control, NEVER_KNOWN)}
        shown = {name: self._shown(control, when, rows, readouts, level) for name, rows in groups.items() if len(rows)}
        before = self._shown(control, "before", groups[EDITED], readouts, level)
        said = {name: np.where(of > 0, ~where.any(axis=1), np.nan) for name, (where, _, of) in shown.items()}
        where, reached, of = shown[EDITED]
        z = self.z(control, when)
        facts = []
        for i, row in enumerate(groups[EDITED]):
            read = ~np.isnan(reached[i])
            most = sorted(np.flatnonzero(where[i]), key=lambda j: (reached[i, j], -z[row, j]))
            facts.append(
                Certificate(
                    self.pairs[row].of,
                    None if np.isnan(said[EDITED][i]) else bool(said[EDITED][i]),
                    int(read.sum()),
                    int(reached[i, read].min()) if read.any() else 0,
                    int(of[i]),
                    tuple(self.columns[j] for j in most),
                )
            )
        return Certificates(
            tuple(facts),
            self._share(said[EDITED], groups[EDITED], seed),
            self._share(said[control], groups[control], seed),
            self._share(said[NEVER_KNOWN], groups[NEVER_KNOWN], seed) if len(groups[NEVER_KNOWN]) else None,
            self._share(np.where(before[2] > 0, ~before[0].any(axis=1), np.nan), groups[EDITED], seed),
        )

    def table(self) -> list[dict[str, str]]:
        """Rows for people: the residue AUC over all columns and of each readout, before and after, against each group."""
        rows = []
        for name in ("all", *self.readouts):
            row = {"readout": name}
            for control in CONTROLS:
                for when in WHEN:
                    row[f"{when}, {control}"] = self._told(control, when, None if name == "all" else (name,))
            rows.append(row)
        return rows

    def to_json(self) -> dict[str, Any]:
        """The residue AUC of everything and of each readout, certificates, medians by layer, and a line a fact."""
        named: dict[str, tuple[str, ...] | None] = {"all": None, **{name: (name,) for name in self.readouts}}
        groups = {name: int(self.group(name).sum()) for name in (EDITED, *CONTROLS)}
        record: dict[str, Any] = {
            "settings": dict(self.settings),
            "n": groups,
            "reads": READS,
            "auc": {
                control: {
                    name: {when: self._json(control, when, some) for when in WHEN} for name, some in named.items()
                }
                for control in CONTROLS
            },
            "columns": [str(column) for column in self.columns],
            "column_auc": {when: self.column_auc(when=when) for when in WHEN},
            "certificates": self._certificates_json(),
            "standing": {name: self._medians(values) for name, values in self.standing.items()},
            "facts": [fact.id for fact in self.facts],
            "shares": {name: self._shares_json(some) for name, some in named.items()},
            "left_out": dict(self.left_out),
            "unread": dict(self.unread),
        }
        return dict(plain(record))

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all."""
        save_json(self.to_json(), str(path))

    def plot(self) -> Any:
        """A matplotlib figure: the AUC of the lenses over layers, of each other readout's columns, before and after."""
        from palimpsest.erase.residue.plot import plot_residue

        return plot_residue(self.to_json())

    @property
    def _folds(self) -> Int[np.ndarray, "pairs"]:
        return folds_of(self.pairs, int(self.settings.get("seed", 0)))

    @property
    def _clusters(self) -> list[tuple[str, str]]:
        """(relation, subject that was edited) of every pair: controls go with their fact."""
        owner = {pair.of: pair.fact.subject for pair in self.pairs if pair.group != SAME_ANSWER}
        return [(pair.fact.relation, owner.get(pair.of, pair.of)) for pair in self.pairs]

    def _controls(self, control: str) -> Bool[np.ndarray, "pairs"]:
        if control not in CONTROLS:
            raise SettingError(f"There are no controls {control!r}.{did_you_mean(control, CONTROLS)}")
        found = self.group(control)
        if not found.any():
            raise InputError(
                f"No pair of the group {control!r} was read; give facts that the model never knew (unknown)."
            )
        return found

    def _among(self, readouts: Sequence[str] | None) -> Bool[np.ndarray, "columns"]:
        for name in readouts or ():
            if name not in self.readouts:
                raise SettingError(f"Nothing was read by {name!r}.{did_you_mean(name, self.readouts)}")
        if readouts is None:
            return np.array([not column.readout.endswith(CONTROL_READOUT) for column in self.columns])
        return np.array([column.readout in readouts for column in self.columns])

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Table]:
        return {}

    def _table(self, control: str, when: str) -> Table:
        if (control, when) not in self._tables:
            self._tables[control, when] = Table(self.scores(when), self._controls(control), self._folds)
        return self._tables[control, when]

    def _won(self, control: str, when: str, readouts: Sequence[str] | None) -> Float[np.ndarray, "facts controls"]:
        """Which edited fact shows more than which control."""
        return self._table(control, when).won(np.flatnonzero(self.group(EDITED)), self._among(readouts))

    def _shown(
        self, control: str, when: str, rows: Int[np.ndarray, "some"], readouts: Sequence[str] | None, level: float
    ) -> tuple[Bool[np.ndarray, "some columns"], Float[np.ndarray, "some columns"], Int[np.ndarray, "some"]]:
        """Where each pair shows, how many controls show as much there, and of how many; of none where they are too few."""
        reached, of = self._table(control, when).reached(rows, self._among(readouts))
        quantile_rank(int(max(of, default=0)), level)  # raises where the controls are too few for anybody
        least = np.full(len(rows), -1)
        for i, count in enumerate(of):
            try:
                least[i] = count - quantile_rank(int(count), level)
            except InputError:
                reached[i] = np.nan
        return reached <= least[:, None], reached, np.where(least >= 0, of, 0)

    def _some_clusters(self, rows: Int[np.ndarray, "some"]) -> list[tuple[str, str]]:
        clusters = self._clusters
        return [clusters[i] for i in rows]

    def _share(self, said: Float[np.ndarray, "some"], rows: Int[np.ndarray, "some"], seed: int) -> Estimate:
        """Share with a certificate; where all or none have one, the interval counts subjects."""
        read = ~np.isnan(said)
        passed, clusters = said[read], self._some_clusters(rows[read])
        if len(passed) and passed.min() == passed.max():
            count = len(set(clusters))
            return proportion(count * int(passed[0]), count)
        return cluster_bootstrap(passed, clusters, seed=seed)

    def _told(self, control: str, when: str, readouts: Sequence[str] | None) -> str:
        try:
            return str(self.auc(control, when=when, readouts=readouts)).split(" (")[0]
        except InputError:
            return ""

    def _json(self, control: str, when: str, readouts: Sequence[str] | None) -> dict[str, Any] | None:
        try:
            return self.auc(control, when=when, readouts=readouts).to_json()
        except InputError:
            return None

    def _shares_json(self, readouts: Sequence[str] | None) -> dict[str, Any] | None:
        try:
            return {when: self.shares(when=when, readouts=readouts) for when in WHEN}
        except InputError:
            return None

    def _certificates_json(self) -> dict[str, Any]:
        try:
            return self.certificates().to_json()
        except InputError as error:
            return {"withheld": str(error)}

    def _medians(self, values: Float[np.ndarray, "when facts layers answers measures"]) -> dict[str, Any]:
        """Median over facts by layer, NaN where no fact has that answer."""
        told: dict[str, Any] = {}
        for a, answer in enumerate(("old", "new")):
            having = values[:, ~np.isnan(values[0, :, 0, a, 0])]
            for m, measure in enumerate(MEASURES):
                for w, when in enumerate(WHEN):
                    own = having[w, :, :, a, m]
                    told[f"{measure} of the {answer} answer, {when}"] = np.median(own, axis=0) if len(own) else None
        return told
