"""What an audit ends in, as plain data: `Status`, one `CriterionResult` each, a `ReadingReport` each reading, an `AuditReport`.

    report.readings[0].criteria["I1"].status        # Status.WEAK
    report.readings[0].verdict.tier                 # "Proposed"
    report.to_json()["readings"][0]["next"]         # the experiment that would change the verdict

Nothing is computed here and nothing is drawn here: `scoring.score` fills these classes, and pages read what `to_json` gives. Every
`to_json` has the fields of its class under their own names, statuses as words, NaN as None.

The statuses and their grammar are those of the audit's rules (`scoring`). They are ordered by what they leave of a claim: FAIL, a
test that was made and lost, is below NOT_TESTED, so that no test can be lost without loss. Only PASS and PARTIAL *establish* a
criterion, so that not testing is never better than testing and failing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from palimpsest.runs import atomic_write
from palimpsest.runs.json_text import plain
from palimpsest.statistics import Estimate

SCHEMA = "palimpsest-audit/1"
PAGE = "palimpsest.report.audit_page"  # by name, because pages know audits and audits know no pages
LENSES = ("Construct", "Measurement", "Internal", "External", "Interpretive")  # in order of dependence
# the word of the framework's later version for each status, printed beside ours
LATER_WORD = {
    "PASS": "Confirmed",
    "PARTIAL": "Partially confirmed",
    "WEAK": "Inconclusive",
    "FAIL": "Disconfirmed",
    "NOT_TESTED": "Untested",
    "NA": "N/A",
}


class Status(StrEnum):
    """How a criterion stands."""

    PASS = "PASS"
    PARTIAL = "PARTIAL"
    WEAK = "WEAK"
    FAIL = "FAIL"
    NOT_TESTED = "NOT_TESTED"
    NA = "NA"

    @property
    def rank(self) -> int:
        """Larger is better for the claim; NA, which no rule ever gives, would cap nothing."""
        return {"FAIL": 0, "NOT_TESTED": 1, "WEAK": 2, "PARTIAL": 3, "PASS": 4, "NA": 5}[self.value]

    @property
    def establishes(self) -> bool:
        """Whether the criterion counts as met where a rung or a tag needs it."""
        return self in (Status.PASS, Status.PARTIAL)


def worst(*statuses: Status) -> Status:
    """The lowest of several statuses; PASS of none."""
    return min(statuses, key=lambda status: status.rank, default=Status.PASS)


class Plain:
    """A frozen dataclass that is written as its fields."""

    def to_json(self) -> dict[str, Any]:
        """Plain data with the fields under their own names."""
        return {part.name: plain(getattr(self, part.name)) for part in fields(self)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class EndpointResult(Plain):
    """One record of evidence held against a floor and a bar.

    Attributes:
        endpoint, evidence: its name and the record's id; None where nothing was measured.
        status: by the grammar, after Holm, controls and level have had their say.
        floor, bar: larger is better, above the bar passes.
        estimate: what was measured.
        p_adjusted: after Holm over all endpoints the reading's rules name; None where no test was made.
        wide: whether the interval is wider than the band from floor to bar.
        n_needed: records for an interval as narrow as that band, where `wide` and neither passed nor failed.
        reason: one sentence.
    """

    endpoint: str
    evidence: str | None
    status: Status
    floor: float
    bar: float
    estimate: Estimate | None
    p_adjusted: float | None
    wide: bool
    n_needed: int | None
    reason: str


@dataclass(frozen=True)
class CriterionResult(Plain):
    """How one criterion stands.

    Attributes:
        criterion: its id, such as "I1".
        name, lens, question: from the criteria file, for the reader.
        extension: whether it stands outside the 27.
        procedural: whether it is computed from the claim and other criteria, not from an experiment.
        status: see `Status`.
        narrow: passed where it was measured, while robustness (E5) did not pass: "Pass (narrow)".
        underpowered: more records could decide it; `n_needed` says how many.
        reason: one sentence.
        evidence: ids of the records that counted.
        endpoints: each record against its floor and bar.
        upgrade: what would raise it, in one sentence; "" where nothing can.
        later_word: the word of the framework's later version.
        published: what the published case study says of the same claim: {"status": ..., "reason": ...} or {}.
    """

    criterion: str
    name: str
    lens: str
    question: str
    extension: bool
    procedural: bool
    status: Status
    narrow: bool = False
    underpowered: bool = False
    n_needed: int | None = None
    reason: str = ""
    evidence: tuple[str, ...] = ()
    endpoints: tuple[EndpointResult, ...] = ()
    upgrade: str = ""
    later_word: str = ""
    published: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LensResult(Plain):
    """One lens: its best and its worst criterion, what most of its criteria reach, and that after the lenses it rests on.

    Attributes:
        lens: one of `LENSES`.
        strongest, weakest: ids of criteria.
        own: the lower median of its criteria.
        status: `own`, capped by the lenses before it.
        capped_by: the lens that capped it, or "".
    """

    lens: str
    strongest: str
    weakest: str
    own: Status
    status: Status
    capped_by: str


@dataclass(frozen=True)
class Rung(Plain):
    """One rung of the verdict ladder: `blocked_by` are sentences, none where it is reached by itself."""

    name: str
    reached: bool
    blocked_by: tuple[str, ...]


@dataclass(frozen=True)
class Verdict(Plain):
    """Where a reading stands.

    Attributes:
        tier: the highest rung below which nothing is blocked, or "Not assessed".
        lateral: "", "Underdetermined" or "Disconfirmed"; stands above the tier.
        lateral_reason: one sentence.
        ladder: all rungs, lowest first.
        blocked_by: what blocks the next rung, sentences.
        declared_tag, licensed_tag: the level the reading claims and the highest its evidence carries.
        primary_gap: the criterion that holds the reading back most, with its status, one sentence.
    """

    tier: str
    lateral: str
    lateral_reason: str
    ladder: tuple[Rung, ...]
    blocked_by: tuple[str, ...]
    declared_tag: str
    licensed_tag: str
    primary_gap: str


@dataclass(frozen=True)
class Wording(Plain):
    """The claim's sentence and what of it is licensed.

    Attributes:
        claimed, licensed: both sentences.
        pieces: (kind, text) in order, kind "kept", "struck" or "added"; claimed is kept + struck, licensed is kept + added.
        unlicensed: the verbs that the licensed tag does not carry.
        reason: one sentence.
    """

    claimed: str
    licensed: str
    pieces: tuple[tuple[str, str], ...]
    unlicensed: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class PredictionResult(Plain):
    """What became of one frozen prediction: "confirmed", "supported", "undecided", "contradicted" or "not tested"."""

    id: str
    text: str
    criterion: str
    endpoint: str
    floor: float
    bar: float
    rivals: tuple[str, ...]
    outcome: str
    evidence: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class NextExperiment(Plain):
    """The experiment that would change the verdict: what to run, on how many, for which criterion; `sentence` says it all."""

    criterion: str
    endpoint: str
    experiment: str
    n: int | None
    sentence: str


@dataclass(frozen=True)
class ReadingReport(Plain):
    """One reading of the claim, scored.

    Attributes:
        reading, text, tag: the reading's id, sentence and level tag.
        rules: the name of the rules it was scored by.
        rules_sha256: of the rules' content.
        weights: fingerprint of the model.
        criteria: id to result, in the order of the criteria file.
        lenses: in order of dependence.
        predictions: in the order of the claim.
        verdict, wording, next: see there; `next` is None where nothing is left to do.
        counts: of the 27: how many measured, of each status, underpowered.
    """

    reading: str
    text: str
    tag: str
    rules: str
    rules_sha256: str
    weights: str
    criteria: Mapping[str, CriterionResult]
    lenses: tuple[LensResult, ...]
    predictions: tuple[PredictionResult, ...]
    verdict: Verdict
    wording: Wording
    next: NextExperiment | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class AuditReport(Plain):
    """Everything a page shows.

    Attributes:
        claim, claim_sha256: `Claim.to_json` and its SHA-256, recorded before any evidence.
        model, weights: the model's name and fingerprint.
        setting: `Setting.to_json`.
        gates: gate to "" (or "passed") where it passed, or the sentence that says why not.
        readings: one report each.
        evidence: `Evidence.to_json` each; "id" is what results point to.
        artefacts: name to plain data: "network", "dissociation", "dose", "mtmm", "levels", "graph", "storage", ...
        nulls: `NullAudit.to_json`, or {} where none was run.
        plan: what was planned: experiments, facts, expected minutes.
        left_out: sentences: what the plan left out and what was not measured, each with its cost.
        versions: name to version, of the library and of what it runs on.
        command: the command line that makes this report again.
        facts: id to {"subject", "relation", "prompt", ...} for the tables; may be empty.
    """

    claim: Mapping[str, Any]
    claim_sha256: str
    model: str
    weights: str
    setting: Mapping[str, Any]
    gates: Mapping[str, str]
    readings: Sequence[ReadingReport]
    evidence: Sequence[Mapping[str, Any]]
    artefacts: Mapping[str, Any] = field(default_factory=dict)
    nulls: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    left_out: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    command: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    schema: str = SCHEMA

    def summary(self) -> str:
        """Each reading in a few lines: how far it gets, what blocks it, and what would change that."""
        lines = []
        for one in self.readings:
            verdict = one.verdict
            above = f", {verdict.lateral.lower()}" if verdict.lateral else ""
            lines += [f"{one.reading}: {verdict.tier}{above}", f"  licensed: {one.wording.licensed}"]
            lines += [f"  blocked: {reason}" for reason in verdict.blocked_by[:2]]
            lines += [f"  next: {one.next.sentence}"] if one.next else []
            counted = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in one.counts.items() if count)
            lines += [f"  criteria: {counted}", ""]
        return "\n".join(lines).rstrip()

    def to_html(self, path: str | PathLike[str]) -> None:
        """Write the page, whole or not at all; raises `OutputError` when the place cannot be written."""
        page = import_module(PAGE).audit_page(self.to_json())
        atomic_write(Path(path), page)
