"""Rules are data: which endpoints serve which criterion, with floors and bars, and what the verdict ladder needs.

    {"criteria": {"I1": {"parts": [{"need": 2, "of": [
        {"endpoint": "lesion-mean", "floor": 0.05, "bar": 0.10, "requires": ["N1"]}, ...]}]}}}

Two presets ship, because the framework states its numbers in two places that do not agree: `mv27-formal` (its formal
specification, with proposals of ours where it gives no number) and `mv27-criterion` (its criterion pages), which `extends` the
first and lists only what differs. One's own file does the same, and may bring criteria and endpoints of its own: a criterion is
added by one file.

A criterion's status is that of its worst part; a part's is that of its `need`-th best endpoint; an endpoint's that of its worst
record. What is missing:

* a part without enough endpoints makes the criterion NOT_TESTED, unless another part has FAILED already;
* an `optional` part without them caps the criterion at PARTIAL (where every part is optional, one must be there);
* a `cap` part never lowers further than PARTIAL, and does so when it is missing or below PASS.

`tags` restricts a part to readings of these tags: what counts as magnitude or as robustness is something else for a place than
for an edit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from palimpsest.audit.claim import TAGS, canonical_sha256, parsed, read_text
from palimpsest.audit.criteria import Criterion, criterion_of, require_known, shipped_criteria
from palimpsest.audit.evidence import NULLS
from palimpsest.errors import RecordError, did_you_mean

SCHEMA = "palimpsest-rules/1"
PROCEDURES = ("predictions", "declared", "licensed", "narrative", "rivals", "scope", "split")
NULL_KINDS = ("layers", "untrained", "facts")


@dataclass(frozen=True)
class Endpoint:
    """An endpoint as the rules know it: who measures it, what it is, and under which null claims it must not pass."""

    name: str
    experiment: str
    text: str
    nulls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One endpoint in a part: floor and bar, the nulls it must bring (`requires`) and those without which it is capped."""

    endpoint: str
    floor: float
    bar: float
    requires: tuple[str, ...] = ()
    cap_without: tuple[str, ...] = ()
    partial_on: str = ""  # name in the evidence's data of the estimate that is held against the floor
    countable: bool = True  # whether more records narrow its interval
    fail_below: float | None = None  # where it fails, if that is lower than the floor

    @property
    def fails(self) -> float:
        """What lies below this for sure has failed."""
        return self.floor if self.fail_below is None else self.fail_below


@dataclass(frozen=True)
class Part:
    """One thing a criterion needs: `need` of these endpoints, or a procedure of `scoring`."""

    of: tuple[Bar, ...] = ()
    need: int = 1
    optional: bool = False
    cap: bool = False
    tags: tuple[str, ...] = ()
    procedure: str = ""
    over: tuple[str, ...] = ()  # criteria that a procedure looks at

    def applies(self, tag: str) -> bool:
        """Whether readings of this tag need it; one without a tag needs everything that is not restricted."""
        return not self.tags or tag in self.tags


@dataclass(frozen=True)
class Tag:
    """A level at which a claim may speak, and the criteria that license it."""

    name: str
    requires: tuple[str, ...]


@dataclass(frozen=True)
class Verb:
    """A phrase that claims something: the tag and the criteria it needs, and what to say instead, by the tag that is licensed."""

    phrase: str
    tag: str
    needs: tuple[str, ...]
    instead: Mapping[str, str]


@dataclass(frozen=True)
class RungRule:
    """A rung of the verdict ladder: criteria established, predictions made and confirmed, and whether every lens must stand."""

    name: str
    requires: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()
    predictions: int = 0
    confirmed: int = 0
    experiments: int = 0
    every_lens: bool = False
    measured: int = 0


@dataclass(frozen=True)
class Rules:
    """A preset or one's own; see the module's text. `sha256` is of its content after what it extends."""

    name: str
    about: str
    significance: float
    criteria: Mapping[str, Criterion]
    endpoints: Mapping[str, Endpoint]
    parts: Mapping[str, tuple[Part, ...]]
    tags: Mapping[str, Tag]
    rungs: tuple[RungRule, ...]
    verbs: Mapping[str, Verb]
    sha256: str

    def parts_for(self, criterion: str, tag: str) -> tuple[Part, ...]:
        """The parts of a criterion that readings of a tag need."""
        return tuple(part for part in self.parts.get(criterion, ()) if part.applies(tag))

    def procedural(self, criterion: str) -> bool:
        """Whether a criterion is computed from the claim and other criteria, and at most capped by an experiment."""
        parts = self.parts.get(criterion, ())
        return any(part.procedure for part in parts) and all(part.procedure or part.optional for part in parts)

    def matched(self, criterion: str, tag: str, kind: str) -> bool:
        """Whether a null claim of a kind must fail the criterion: one part it cannot do without has only matched endpoints."""
        return any(
            part.of and not part.cap and all(kind in self.endpoints[one.endpoint].nulls for one in part.of)
            for part in self.parts_for(criterion, tag)
        )


def shipped_rules() -> list[str]:
    """Names of the presets."""
    folder = resources.files("palimpsest.audit").joinpath("data/rules")
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_rules(name_or_path: str | Path = "mv27-formal") -> Rules:
    """A preset by its name, or one's own rules by their path.

    Raises:
        SettingError: there is no preset of this name.
        RecordError: the file cannot be read, or names an endpoint, criterion, lens, null or tag that is unknown.
    """
    record, where = _merged(name_or_path, ()), str(name_or_path)
    endpoints = {
        name: Endpoint(name, one["experiment"], one["text"], tuple(one.get("nulls", ())))
        for name, one in record["endpoints"].items()
    }
    for endpoint in endpoints.values():
        require_known("null", endpoint.nulls, NULL_KINDS, f"{where}: endpoint {endpoint.name!r}")
    criteria = shipped_criteria()
    for name, rule in record["criteria"].items():
        if "name" in rule:
            criteria[name] = criterion_of(name, rule, where)
        elif name not in criteria:
            raise RecordError(
                f"{where} has rules for the criterion {name!r}, which nothing defines; give it a name, a lens and a question."
                f"{did_you_mean(name, criteria)}"
            )
    parts = {
        name: tuple(_part(part, endpoints, f"{where}: {name}") for part in rule["parts"])
        for name, rule in record["criteria"].items()
    }
    tags = {name: Tag(name, tuple(one["requires"])) for name, one in record["tags"].items()}
    rungs = tuple(
        RungRule(**{**one, "requires": tuple(one.get("requires", ())), "passed": tuple(one.get("passed", ()))})
        for one in record["rungs"]
    )
    for tag in tags.values():
        require_known("criterion", tag.requires, criteria, f"{where}: tag {tag.name!r}")
    for rung in rungs:
        require_known("criterion", (*rung.requires, *rung.passed), criteria, f"{where}: rung {rung.name!r}")
    return Rules(
        name=record["name"],
        about=record.get("about", ""),
        significance=record["significance"],
        criteria=criteria,
        endpoints=endpoints,
        parts=parts,
        tags=tags,
        rungs=rungs,
        verbs={
            phrase: Verb(phrase, one["tag"], tuple(one.get("needs", ())), one["else"])
            for phrase, one in record["verbs"].items()
        },
        sha256=canonical_sha256(record),
    )


def _merged(name_or_path: str | Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """The file's JSON on top of what it extends: criteria, endpoints, tags and verbs are replaced one by one."""
    text, where = read_text(name_or_path, "rules", shipped_rules())
    record = parsed(text, where)
    if record.get("schema") != SCHEMA:
        raise RecordError(f"{where} has the schema {record.get('schema')!r}, and this version reads {SCHEMA!r}.")
    base = record.get("extends")
    if base is None:
        for name in ("name", "significance", "criteria", "endpoints", "tags", "rungs", "verbs"):
            if name not in record:
                raise RecordError(f'{where} lacks {name!r}; give it, or start with "extends": "mv27-formal".')
        return record
    if base in seen:
        raise RecordError(f"{where} extends {base!r}, which extends it; rules end at a file that extends nothing.")
    below = _merged(base, (*seen, str(name_or_path)))
    merged = {**below, **record}
    for name in ("criteria", "endpoints", "tags", "verbs"):
        merged[name] = {**below[name], **record.get(name, {})}
    return merged


def _part(record: Mapping[str, Any], endpoints: Mapping[str, Endpoint], where: str) -> Part:
    bars = tuple(
        Bar(**{**one, "requires": tuple(one.get("requires", ())), "cap_without": tuple(one.get("cap_without", ()))})
        for one in record.get("of", ())
    )
    require_known("endpoint", tuple(one.endpoint for one in bars), endpoints, where)
    for one in bars:
        require_known("null", (*one.requires, *one.cap_without), NULLS, f"{where}, {one.endpoint}")
        if one.floor > one.bar:
            raise RecordError(
                f"{where}, {one.endpoint}, has its floor {one.floor} above its bar {one.bar}; larger is better."
            )
        if one.fails > one.floor:
            raise RecordError(
                f"{where}, {one.endpoint}, fails below {one.fails}, which is above its floor {one.floor}; larger is better."
            )
    part = Part(**{**record, "of": bars, "tags": tuple(record.get("tags", ())), "over": tuple(record.get("over", ()))})
    require_known("tag", part.tags, TAGS, where)
    require_known("procedure", (part.procedure,) if part.procedure else (), PROCEDURES, where)
    if bool(bars) == bool(part.procedure) or (bars and not 1 <= part.need <= len(bars)):
        raise RecordError(f"{where} has a part that is neither a procedure nor {part.need} of {len(bars)} endpoints.")
    return part
