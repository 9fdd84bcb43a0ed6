"""Reading facts from any supported file: `read_facts`.

    facts = read_facts("counterfact.json")
    len(facts), facts[0].subject         # it is a sequence of facts
    facts.schema                         # 'counterfact', found from the names of the fields
    for problem in facts.problems:       # what was left out, and why
        print(problem)                   # counterfact.json, line 12, field 'requested_rewrite.subject': ...

A bad record never stops the good ones. Only when not a single fact can be had does `read_facts` raise, with the first
problem as the reason.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, overload

from palimpsest.errors import FactError, RecordError, SettingError, did_you_mean
from palimpsest.facts import (
    blimp,
    blimp_pairs,
    counterfact,
    counterfact_flat,
    jsonl,
    knowedit,
    known_1000,
    mquake,
    pararel,
    ripple,
    zsre,
)
from palimpsest.facts.case import Case
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import STANDARD_INPUT, Problem, Record, decode, read_bytes, read_records
from palimpsest.facts.schema import CaseSchema, FieldError, Schema

# In the order in which they are tried; our own comes last because its fields have the plainest names.
SCHEMAS: tuple[Schema, ...] = (
    counterfact.SCHEMA,
    zsre.SCHEMA,
    knowedit.SCHEMA,
    counterfact_flat.SCHEMA,
    known_1000.SCHEMA,
    blimp.SCHEMA,
    pararel.SCHEMA,
    jsonl.SCHEMA,
)

# Those whose records edit or ask for several facts at once, or for none; `read_cases` reads them.
CASE_SCHEMAS: tuple[CaseSchema, ...] = (mquake.SCHEMA, ripple.SCHEMA, blimp_pairs.SCHEMA)

# Sets of facts that come with the package, and the file of each in `facts/data/`.
SHIPPED: Mapping[str, str] = {"shipped": "shipped.jsonl", "reasoning": "reasoning.jsonl"}

_LOOKED_AT = 20  # records from which the schema is found


@dataclass(frozen=True, repr=False)
class FactFile(Sequence[Fact]):
    """The facts of one file, as a sequence, with what was left out and why.

    Attributes:
        facts: the good records, in the order of the file; their `id`s all differ.
        problems: one `Problem` for each thing that was wrong.
        source: the file as it was named.
        schema: the name of the schema it was read by.
    """

    facts: tuple[Fact, ...]
    problems: tuple[Problem, ...]
    source: str
    schema: str

    def __len__(self) -> int:
        return len(self.facts)

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts)

    @overload
    def __getitem__(self, index: int) -> Fact: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Fact, ...]: ...
    def __getitem__(self, index: int | slice) -> Fact | tuple[Fact, ...]:
        return self.facts[index]

    def __repr__(self) -> str:
        return f"<FactFile {self.source!r}: {len(self.facts)} facts, {len(self.problems)} problems, {self.schema}>"


def read_facts(source: str | os.PathLike[str], *, schema: str | None = None, limit: int | None = None) -> FactFile:
    """Read the facts of a file.

    Args:
        source: a path, "-" for standard input, or the name of a set that comes with the package ("shipped" or "reasoning";
            a file of that name in the current folder is written "./shipped"). ParaRel is its folder with `patterns` and
            `facts` in it, or one file of `facts`.
        schema: "counterfact", "zsre", "knowedit", "counterfact_flat", "known_1000", "blimp", "pararel" or "jsonl"; found from
            the fields of the first records when None.
        limit: stop after this many facts.

    Raises:
        RecordError: there is no such file, it is not UTF-8, it is empty, its schema is not known, it holds cases (which
            `read_cases` reads), or no record is good.
        SettingError: `schema` names no schema, or `limit` is below 1.
    """
    found, problems, name = read_source(source, SCHEMAS, schema, limit)
    return FactFile(tuple(fact for fact in found if isinstance(fact, Fact)), problems, str(source), name)


def read_source(
    source: str | os.PathLike[str],
    schemas: Sequence[Schema | CaseSchema],
    schema: str | None,
    limit: int | None,
) -> tuple[list[Fact | Case], tuple[Problem, ...], str]:
    """What the good records of a source hold, what is wrong with the others, and the name of their schema, one of `schemas`."""
    if limit is not None and limit < 1:
        raise SettingError(f"The limit must be at least 1, got {limit}; leave it out to read every fact.")
    reader = None if schema is None else _schema_called(schema, schemas)
    file, parts = _records_of(source)
    first = _up_to_records(parts, _LOOKED_AT)
    if reader is None:
        reader = _detect(file, [item for _, item in first], schemas)

    found: list[Fact | Case] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}  # id -> line of its first use
    for file_of_item, item in itertools.chain(first, parts):
        if limit is not None and len(found) == limit:
            break
        if isinstance(item, Problem):
            problems.append(item)
            continue
        try:
            made = _made(reader, item)
        except (FieldError, FactError) as error:
            field = error.field if isinstance(error, FieldError) else None
            message = f"{str(error).rstrip('.')}; this record was left out"
            problems.append(Problem(file_of_item, item.line, field, message))
            continue
        if made.id in seen:
            unused = _unused(made.id, seen)
            if item.value.get("id") == made.id:
                message = (
                    f"the fact on line {seen[made.id]} has the id {made.id!r} too; this one is now called {unused!r}"
                )
                problems.append(Problem(file_of_item, item.line, "id", message))
            made = dataclasses.replace(made, id=unused)
        seen[made.id] = item.line
        found.append(made)

    if not found:
        raise _no_facts(file, problems, _also(reader, first))
    return found, tuple(problems), reader.name


def _made(reader: Schema | CaseSchema, record: Record) -> Fact | Case:
    if isinstance(reader, CaseSchema):
        return reader.to_case(record.value, record.position)
    return reader.to_fact(record.value, record.position)


def _records_of(source: str | os.PathLike[str]) -> tuple[str, Iterator[tuple[str, Record | Problem]]]:
    """The name a source goes by in messages, and its records, each with the name of the file it is in."""
    if isinstance(source, str) and source in {STANDARD_INPUT, *SHIPPED}:
        file, data = _load(source)
    elif pararel.is_folder(Path(source)):
        return str(source), pararel.folder_records(Path(source))
    else:
        file, data = _load(source)
        if pararel.patterns_of(Path(source)) is not None:
            return file, pararel.file_records(Path(source))
    return file, ((file, item) for item in read_records(decode(data, file), file))


def _load(source: str | os.PathLike[str]) -> tuple[str, bytes]:
    """The name a source goes by in messages, and its bytes."""
    if source == STANDARD_INPUT:
        return "standard input", read_bytes(STANDARD_INPUT)
    if isinstance(source, str) and source in SHIPPED:
        return source, _shipped(source)
    path = Path(source)
    try:
        is_folder, exists, has_folder = path.is_dir(), path.exists(), path.parent.is_dir()
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise RecordError(f"{str(path)[:200]} cannot be read: {error.strerror or error}.") from error
    if is_folder:
        inside = ", ".join(_readable(_files(path)))
        raise RecordError(f"{path} is a folder; name a file of facts in it{f', such as {inside}' if inside else ''}.")
    if not has_folder:
        raise RecordError(f"There is no file {path}, and no folder {path.parent} either.")
    if not exists:
        raise RecordError(f"There is no file {path}.{_nearest(path.name, path.parent)}")
    return str(path), read_bytes(str(path))


def _shipped(name: str) -> bytes:
    try:
        return (resources.files("palimpsest.facts") / "data" / SHIPPED[name]).read_bytes()
    except OSError as error:
        raise RecordError(
            f"The set {name!r} that comes with palimpsest (facts/data/{SHIPPED[name]}) is missing from this "
            f"installation; install the package again."
        ) from error


def _nearest(name: str, folder: Path) -> str:
    """What else `name` may have meant: a file of the folder or a shipped set; a full folder is not listed whole."""
    files = _files(folder)
    close = difflib.get_close_matches(name, [*files, *SHIPPED], n=3)
    return did_you_mean(name, close or [*_readable(files), *SHIPPED])


def _files(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    except OSError:
        return []


def _readable(files: Sequence[str]) -> list[str]:
    return [file for file in files if file.endswith((".json", ".jsonl"))][:8]


def _up_to_records(items: Iterator[tuple[str, Record | Problem]], count: int) -> list[tuple[str, Record | Problem]]:
    """The next items, up to and with the `count`-th record."""
    taken: list[tuple[str, Record | Problem]] = []
    records = 0
    for file, item in items:
        taken.append((file, item))
        records += isinstance(item, Record)
        if records == count:
            break
    return taken


def _detect(
    file: str, items: Sequence[Record | Problem], schemas: Sequence[Schema | CaseSchema]
) -> Schema | CaseSchema:
    """The schema of the first record that has one."""
    records = [item for item in items if isinstance(item, Record)]
    if not records:
        raise _no_facts(file, [item for item in items if isinstance(item, Problem)])
    for record in records:
        found = _matching(record.value, schemas)
        if found is not None:
            return found
        found = _matching(record.value, CASE_SCHEMAS)
        if found is not None:
            raise RecordError(
                f"{file} cannot be read as single facts: this looks like {found.title}, whose records edit or ask for several "
                f"at once; read it with read_cases."
            )
    fields = sorted(records[0].value)
    shown = ", ".join(fields[:12]) + (", ..." if len(fields) > 12 else "") or "none"
    raise RecordError(
        f"{file} has a schema that is not known: the fields of the record on line {records[0].line} are {shown}; "
        f"the schemas known are {', '.join(schema.name for schema in schemas)}."
    )


def _matching(record: Mapping[str, Any], schemas: Sequence[Schema | CaseSchema]) -> Schema | CaseSchema | None:
    return next((schema for schema in schemas if schema.matches(record)), None)


def _also(reader: Schema | CaseSchema, items: Sequence[tuple[str, Record | Problem]]) -> str:
    """What the records of a file look like where that is not the schema they were read by."""
    records = [item.value for _, item in items if isinstance(item, Record)]
    looks = _matching(records[0], (*SCHEMAS, *CASE_SCHEMAS)) if records else None
    if looks is None or looks is reader:
        return ""
    return f" This looks like {looks.title}; read it with schema={looks.name!r}."


def _schema_called(name: str, schemas: Sequence[Schema | CaseSchema]) -> Schema | CaseSchema:
    for schema in schemas:
        if schema.name == name:
            return schema
    for schema in CASE_SCHEMAS:
        if schema.name == name:
            raise SettingError(f"The schema {name!r} ({schema.title}) holds cases and no single facts; use read_cases.")
    raise SettingError(f"There is no schema {name!r}.{did_you_mean(name, [schema.name for schema in schemas])}")


def _unused(taken: str, seen: Mapping[str, Any]) -> str:
    return next(name for number in itertools.count(2) if (name := f"{taken}-{number}") not in seen)


def _no_facts(file: str, problems: Sequence[Problem], hint: str = "") -> RecordError:
    if not problems:
        return RecordError(f"{file} holds no record; expected a list of records, or one record a line.")
    count = "the only problem" if len(problems) == 1 else f"the first of {len(problems)} problems"
    return RecordError(f"No fact could be read; {count} is: {problems[0]}.{hint}")
