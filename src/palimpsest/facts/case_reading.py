"""Reading the cases of any supported file: `read_cases`.

    cases = read_cases("MQuAKE-CF.json")
    cases[0].facts, cases[0].checks      # what is edited together, and what is asked then
    cases.schema                         # 'mquake'

Everything `read_facts` reads is read too, each fact as a case of its own, so an evaluation needs this one function. BLiMP
is read as pairs of sentences; with schema="blimp" it is read as facts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from palimpsest.facts.case import Case
from palimpsest.facts.fact import Fact
from palimpsest.facts.reading import CASE_SCHEMAS, SCHEMAS, read_source
from palimpsest.facts.records import Problem


@dataclass(frozen=True, repr=False)
class CaseFile(Sequence[Case]):
    """The cases of one file, as a sequence, with what was left out and why.

    Attributes:
        cases: the good records, in the order of the file; their `id`s all differ.
        problems: one `Problem` for each thing that was wrong.
        source: the file as it was named.
        schema: the name of the schema it was read by.
    """

    cases: tuple[Case, ...]
    problems: tuple[Problem, ...]
    source: str
    schema: str

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Case, ...]: ...
    def __getitem__(self, index: int | slice) -> Case | tuple[Case, ...]:
        return self.cases[index]

    def __repr__(self) -> str:
        return f"<CaseFile {self.source!r}: {len(self.cases)} cases, {len(self.problems)} problems, {self.schema}>"

    @property
    def facts(self) -> tuple[Fact, ...]:
        """Every fact of every case."""
        return tuple(fact for case in self.cases for fact in case.facts)


def read_cases(source: str | os.PathLike[str], *, schema: str | None = None, limit: int | None = None) -> CaseFile:
    """Read the cases of a file.

    Args:
        source: as of `read_facts`.
        schema: any that `read_facts` knows, "mquake", "ripple" or "blimp_pairs"; found from the first records
            when None.
        limit: stop after this many cases.

    Raises:
        RecordError: there is no such file, it is not UTF-8, it is empty, its schema is not known, or no record is good.
        SettingError: `schema` names no schema, or `limit` is below 1.
    """
    found, problems, name = read_source(source, (*CASE_SCHEMAS, *SCHEMAS), schema, limit)
    return CaseFile(tuple(Case.of(one) for one in found), problems, str(source), name)
