"""Two runs of one suite on the same records: which is better, by how much, and could it be chance.

    comparison = palimpsest.evaluate.compare("rome/", "memit/")      # folders that evaluate(..., out=...) wrote
    comparison.table()

For each metric, over the records that both runs measured,

    D = mean of (a_i - b_i)      paired, so that what makes a record hard for both cancels
    interval                     bootstrap over relations, then subjects
    p                            signs of whole relations flipped; then Holm's adjustment over the rows of the table
    n needed                     records for which a difference of 0.05 would be found with probability 0.8

A harmonic mean (CounterFact's S) is no mean over records: its D has an interval and no p; its parts have theirs. Records that
only one run has, or that failed in one, are counted and named: an editor that fails on the hard records must not win by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isclose, isfinite
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.errors import InputError, SettingError
from palimpsest.evaluate.scores import Scores
from palimpsest.runs import Plan, atomic_write
from palimpsest.runs.json_text import to_document
from palimpsest.statistics import Estimate, holm, n_needed, paired_difference, sign_flip_p
from palimpsest.statistics.harmonic import harmonic_difference

Record = dict[str, Any]
SAME = 1e-3  # two unedited measurements of one record by one model agree to this, relatively


@dataclass(frozen=True, eq=False)
class Measured:
    """One run as it is compared: its name (the folder, or the method) and its scores."""

    name: str
    scores: Scores

    @cached_property
    def good(self) -> dict[str | int, Record]:
        """Id to record, without those that failed."""
        return {record["id"]: record for record in self.scores.measured}

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of the records that failed."""
        return tuple(str(record["id"]) for record in self.scores.failed)

    @cached_property
    def when(self) -> str:
        """The numbers that count: "post", or "pre" of a run that made no edit."""
        return "post" if any(record.get("post") for record in self.good.values()) else "pre"

    def value(self, item: str | int, metric: str) -> float | None:
        """One metric of one record, on the edited model where there is one."""
        found = (self.good[item].get(self.when) or {}).get(metric)
        return None if found is None else float(found)


@dataclass(frozen=True)
class Contrast:
    """One metric of two runs.

    Attributes:
        metric: its name.
        higher_is_better: its direction.
        a, b: means over the pairs, of a harmonic mean the harmonic means.
        difference: a - b; its `n` counts the pairs.
        p: of the sign flips; None for a harmonic mean.
        adjusted: by Holm over the comparison.
        needed: records for which `Comparison.smallest` would be found; None where no difference varies, or for a harmonic mean.
        left_out: records where only one run has a number.
    """

    metric: str
    higher_is_better: bool | None
    a: float
    b: float
    difference: Estimate
    p: float | None = None
    adjusted: float | None = None
    needed: int | None = None
    left_out: int = 0

    def to_json(self) -> Record:
        """Every field as plain data."""
        return {**self.__dict__, "difference": self.difference.to_json()}


@dataclass(frozen=True)
class Comparison:
    """What two runs differ in.

    Attributes:
        a, b: names of the runs.
        contrasts: one a metric.
        n: records that both measured.
        relations: how many clusters they form; below six, no sign flip reaches p = 0.05.
        only_a, only_b: ids that the other run does not have at all.
        failed_a, failed_b: ids that failed.
        settings: what differs between their plans, as {name: (a, b)}.
        smallest: the difference `needed` is for.
        level: of the verdicts.
    """

    a: str
    b: str
    contrasts: tuple[Contrast, ...]
    n: int
    relations: int
    only_a: tuple[str, ...] = ()
    only_b: tuple[str, ...] = ()
    failed_a: tuple[str, ...] = ()
    failed_b: tuple[str, ...] = ()
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    smallest: float = 0.05
    level: float = 0.05

    def __getitem__(self, metric: str) -> Contrast:
        for contrast in self.contrasts:
            if contrast.metric == metric:
                return contrast
        raise SettingError(f"The runs share no metric {metric!r}, only {', '.join(c.metric for c in self.contrasts)}.")

    def better(self, metric: str) -> str | None:
        """Which side is, "a" or "b", where the adjusted p is at most `level` and the metric has a direction; else None."""
        contrast = self[metric]
        if contrast.adjusted is None or contrast.adjusted > self.level or contrast.higher_is_better is None:
            return None
        return "a" if (contrast.difference.value > 0) == contrast.higher_is_better else "b"

    def table(self) -> list[dict[str, str]]:
        """Rows for people: both means, the difference with its interval, p, p after Holm, pairs and n needed."""
        rows = []
        for c in self.contrasts:
            arrow = {True: " (up)", False: " (down)", None: ""}[c.higher_is_better]
            rows.append(
                {
                    "metric": f"{c.metric}{arrow}",
                    "A": f"{c.a:.3f}",
                    "B": f"{c.b:.3f}",
                    "A - B": str(c.difference).split(" (")[0],
                    "p": _p(c.p),
                    "p (Holm)": _p(c.adjusted),
                    "pairs": str(c.difference.n),
                    f"n for {self.smallest:g}": "" if c.needed is None else str(c.needed),
                    "better": {"a": "A", "b": "B", None: ""}[self.better(c.metric)],
                }
            )
        return rows

    def notes(self) -> list[str]:
        """Sentences that belong under the table."""
        said = [f"A is {self.a}, B is {self.b}; {self.n} records of {self.relations} relations are in both."]
        for ids, what in (
            (self.only_a, "only in A"),
            (self.only_b, "only in B"),
            (self.failed_a, "failed in A"),
            (self.failed_b, "failed in B"),
        ):
            if ids:
                said.append(f"{len(ids)} {what} and not compared: {_listed(ids)}.")
        if 1 < self.relations < 6:
            said.append(
                f"With {self.relations} relations no p can be below {2 / 2**self.relations:g}; read the intervals, or evaluate "
                f"more relations."
            )
        if self.relations == 1:
            said.append("There is one relation, so intervals and p are over its subjects and hold for it alone.")
        said += [f"{name} differs: {a!r:.60} in A, {b!r:.60} in B." for name, (a, b) in self.settings.items()]
        return said

    def to_json(self) -> Record:
        """Everything, as `results.json` keeps it."""
        return {
            **self.__dict__,
            "contrasts": {c.metric: c.to_json() | {"better": self.better(c.metric)} for c in self.contrasts},
            "settings": {name: {"a": a, "b": b} for name, (a, b) in self.settings.items()},
        }

    def save(self, path: str | PathLike[str]) -> None:
        """Write `to_json` to a file, whole or not at all; raises `OutputError` when the place cannot be written."""
        atomic_write(Path(path), to_document(self.to_json(), "the comparison"))


def compare(
    a: str | PathLike[str] | Scores,
    b: str | PathLike[str] | Scores,
    *,
    difference: float = 0.05,
    level: float = 0.05,
    permutations: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Paired differences a - b of every metric of the suite.

    Args:
        a, b: folders that `evaluate` wrote, or its results.
        difference: what `Contrast.needed` is for, in the unit of each metric.
        level: at which "better" is said, after Holm.
        permutations, seed: of the sign flips and the bootstrap.

    Raises:
        InputError: the runs share no record, or records of one id are different facts.
        SettingError: they are of different suites.
        RecordError: a folder holds no finished run.
    """
    one, other = _measured(a, "a"), _measured(b, "b")
    suites = [run.scores.settings.get("suite") for run in (one, other)]
    if suites[0] != suites[1]:
        raise SettingError(
            f"{one.name} was measured by the suite {suites[0]!r} and {other.name} by {suites[1]!r}; compare runs of one suite."
        )
    shared = [item for item in one.good if item in other.good]
    _refuse_other_facts(one, other, shared)
    clusters = [_cluster(one.good[item]) for item in shared]
    relations = len({relation for relation, _ in clusters})
    found = [
        _harmonic(one, other, shared, name, seed)
        if metric.harmonic_of
        else _contrast(one, other, shared, name, difference, permutations, seed)
        for name, metric in one.scores.metrics.items()
    ]
    contrasts = [contrast for contrast in found if contrast is not None]
    if not contrasts:
        raise InputError(f"{one.name} and {other.name} have no metric of the same record; compare runs of one suite.")
    tested = [i for i, contrast in enumerate(contrasts) if contrast.p is not None]
    for i, adjusted in zip(tested, holm([contrasts[i].p for i in tested]), strict=True):
        contrasts[i] = Contrast(**{**contrasts[i].__dict__, "adjusted": adjusted})
    known = [{record["id"] for record in run.scores.records} for run in (one, other)]
    return Comparison(
        one.name,
        other.name,
        tuple(contrasts),
        len(shared),
        relations,
        only_a=tuple(str(item) for item in one.good if item not in known[1]),
        only_b=tuple(str(item) for item in other.good if item not in known[0]),
        failed_a=one.failed,
        failed_b=other.failed,
        settings=dict(_differing(one.scores.settings, other.scores.settings)),
        smallest=difference,
        level=level,
    )


def _measured(source: str | PathLike[str] | Scores, side: str) -> Measured:
    """A run of either kind in one form."""
    if isinstance(source, Scores):
        return Measured(f"{side} ({source.settings.get('method') or 'no edit'})", source)
    if "suite" not in Plan.read(Path(source)).settings:
        raise InputError(f"{source} holds a run that names no suite; compare folders that evaluate wrote.")
    return Measured(str(source), Scores.load(source))


def _refuse_other_facts(one: Measured, other: Measured, shared: Sequence[str | int]) -> None:
    """Raise `InputError` where nothing is shared, or one id names two facts."""
    if not shared:
        raise InputError(
            f"{one.name} ({len(one.good)} records) and {other.name} ({len(other.good)} records) share no measured record; "
            f"compare runs over the same facts."
        )
    weights, files = ([run.scores.settings.get(name) for run in (one, other)] for name in ("weights", "facts"))
    same_model = weights[0] is not None and weights[0] == weights[1]
    same_file = (
        files[0] is not None and files[0] == files[1]
    )  # then a text that rounding made another one is no other fact
    for item in shared:
        left, right = one.good[item], other.good[item]
        same = _cluster(left) == _cluster(right)
        if same and same_model and not same_file:
            before, after = left.get("pre") or {}, right.get("pre") or {}
            same = all(_close(before[m], after[m]) for m in before.keys() & after.keys())
        if not same:
            raise InputError(
                f"{one.name} and {other.name} were run on different facts: the record {item!r} is not the same in both; "
                f"compare runs over the same file."
            )


def _close(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return a is b
    return float(a) == float(b) or isclose(float(a), float(b), rel_tol=SAME, abs_tol=SAME)


def _contrast(
    one: Measured,
    other: Measured,
    shared: Sequence[str | int],
    metric: str,
    smallest: float,
    permutations: int,
    seed: int,
) -> Contrast | None:
    """A metric that is a mean over records; None where no record has it in both."""
    pairs, left_out = _pairs(one, other, shared, [metric])
    if not pairs:
        return None
    left, right = ([_number(run.value(item, metric)) for item in pairs] for run in (one, other))
    clusters = [_cluster(one.good[item]) for item in pairs]
    gaps = [x - y for x, y in zip(left, right, strict=True)]
    return Contrast(
        metric,
        one.scores.metrics[metric].higher_is_better,
        sum(left) / len(left),
        sum(right) / len(right),
        paired_difference(left, right, clusters, seed=seed),
        p=sign_flip_p(
            gaps,
            clusters,
            permutations=permutations,
            seed=seed,
            flip="outer" if len({relation for relation, _ in clusters}) > 1 else "inner",
        ),
        needed=n_needed(gaps, smallest, clusters=clusters) if max(gaps) > min(gaps) else None,
        left_out=left_out,
    )


def _harmonic(one: Measured, other: Measured, shared: Sequence[str | int], metric: str, seed: int) -> Contrast | None:
    """A metric that is the harmonic mean of the means of others, over the records that have all of them."""
    parts = one.scores.metrics[metric].harmonic_of
    pairs, left_out = _pairs(one, other, shared, parts)
    if not pairs:
        return None
    sides = [[[_number(run.value(item, part)) for item in pairs] for part in parts] for run in (one, other)]
    means = [[sum(column) / len(column) for column in columns] for columns in sides]
    a, b = (len(own) / sum(1 / mean for mean in own) if min(own) > 0 else 0.0 for own in means)
    clusters = [_cluster(one.good[item]) for item in pairs]
    difference = harmonic_difference(sides[0], sides[1], clusters, seed=seed)
    return Contrast(metric, one.scores.metrics[metric].higher_is_better, a, b, difference, left_out=left_out)


def _pairs(
    one: Measured, other: Measured, shared: Sequence[str | int], metrics: Sequence[str]
) -> tuple[list[str | int], int]:
    """The records with a finite number for every metric in both runs, and how many have them in one run only."""
    kept, left_out = [], 0
    for item in shared:
        has = [
            all((v := run.value(item, metric)) is not None and isfinite(v) for metric in metrics)
            for run in (one, other)
        ]
        if all(has):
            kept.append(item)
        left_out += has[0] != has[1]
    return kept, left_out


def _number(value: float | None) -> float:
    assert value is not None  # `_pairs` kept only records that have it
    return value


def _cluster(record: Mapping[str, Any]) -> tuple[str, str]:
    """(relation, subject), or the id twice where a case has none."""
    own = str(record["id"])
    return str(record.get("relation") or own), str(record.get("subject") or own)


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, tuple[Any, Any]]]:
    return [(name, (a.get(name), b.get(name))) for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]


def _listed(ids: Sequence[str], most: int = 5) -> str:
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")


def _p(p: float | None) -> str:
    if p is None:
        return ""
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"
