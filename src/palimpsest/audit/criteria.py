"""The criteria, in our words: 27 of the framework's scheme and five extensions, read from `data/criteria.json`.

    shipped_criteria()["I1"].question     # "Is recall worse without the place, by more than one way of taking it away?"
    crosswalk()["I3"]                     # "I4 (part)", its id in the framework's version with 36 criteria

Ids and names are those of *Mechanistic Validity* (Tower 2026; the version with 27 criteria), so that a report can be laid beside
the framework's own case studies; questions are ours. `published` is what its case study of knowledge neurons and ROME says, in
our paraphrase. The extensions come from its later version; they are shown and never counted among the 27.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from palimpsest.audit.claim import parsed
from palimpsest.audit.report_data import LENSES
from palimpsest.errors import RecordError, did_you_mean


@dataclass(frozen=True)
class Criterion:
    """A criterion.

    Attributes:
        id, name, lens, question: what it asks.
        extension: outside the 27.
        later: its id in the framework's version with 36 criteria, or what became of it; our mapping, the framework has none.
        published: {"status", "reason"} of the published case study, or {}.
    """

    id: str
    name: str
    lens: str
    question: str
    extension: bool
    later: str
    published: Mapping[str, str]


def shipped_criteria() -> dict[str, Criterion]:
    """All criteria that come with the package, in the order of their file."""
    text = resources.files("palimpsest.audit").joinpath("data/criteria.json").read_text("utf-8")
    where = "criteria.json"
    return {name: criterion_of(name, one, where) for name, one in parsed(text, where)["criteria"].items()}


def crosswalk() -> dict[str, str]:
    """Id in the scheme with 27 criteria to that in the scheme with 36, or what became of it."""
    return {name: one.later for name, one in shipped_criteria().items() if not one.extension}


def criterion_of(name: str, record: Mapping[str, Any], where: str) -> Criterion:
    """A criterion from its JSON; one that a user's rules bring is an extension unless they say otherwise.

    Raises:
        RecordError: it lacks its name, lens or question, or the lens is unknown.
    """
    for needed in ("name", "lens", "question"):
        if needed not in record:
            raise RecordError(f"{where} defines the criterion {name!r} without its {needed}; say it in a few words.")
    require_known("lens", (record["lens"],), LENSES, f"{where}: criterion {name!r}")
    return Criterion(
        id=name,
        name=record["name"],
        lens=record["lens"],
        question=record["question"],
        extension=record.get("extension", True),
        later=record.get("later", ""),
        published=record.get("published", {}),
    )


def require_known(what: str, names: Iterable[str], known: Any, where: str) -> None:
    """Whether every name is among the known ones.

    Raises:
        RecordError: one is not; it says where, and what was probably meant.
    """
    for name in names:
        if name not in known:
            raise RecordError(f"{where} names the {what} {name!r}.{did_you_mean(name, known)}")
