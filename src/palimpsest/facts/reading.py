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
from palimpsest.facts import blimp, counterfact, counterfact_flat, jsonl, known_1000
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import STANDARD_INPUT, Problem, Record, decode, read_bytes, read_records
from palimpsest.facts.schema import FieldError, Schema

# In the order in which they are tried; our own comes last because its fields have the plainest names.
SCHEMAS: tuple[Schema, ...] = (
    counterfact.SCHEMA,
    counterfact_flat.SCHEMA,
    known_1000.SCHEMA,
    blimp.SCHEMA,
    jsonl.SCHEMA,
)

# Sets of facts that come with the package, and the file of each in `facts/data/`.
SHIPPED: Mapping[str, str] = {"shipped": "shipped.jsonl", "reasoning": "reasoning.jsonl"}

# Well-known sets that are recognised in order to be refused by name: any one of the groups of fields gives them away.
_RECOGNISED: Mapping[str, tuple[frozenset[str], ...]] = {
    "zsRE": (frozenset({"src", "alt"}), frozenset({"src", "pred", "rephrase"})),
    "MQuAKE": (frozenset({"requested_rewrite", "single_hops"}), frozenset({"requested_rewrite", "new_answer"})),
    "KnowEdit": (frozenset({"prompt", "portability"}), frozenset({"prompt", "target_new", "locality"})),
    "RippleEdits": (frozenset({"example_type", "edit"}), frozenset({"edit", "Relation_Specificity"})),
    "ParaRel": (frozenset({"sub_label", "obj_label"}), frozenset({"pattern", "lemma"})),
}

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
            a file of that name in the current folder is written "./shipped").
        schema: "counterfact", "counterfact_flat", "known_1000", "blimp" or "jsonl"; found from the fields of the first
            records when None.
        limit: stop after this many facts.

    Raises:
        RecordError: there is no such file, it is not UTF-8, it is empty, its schema is not known, or no record is good.
        SettingError: `schema` names no schema, or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise SettingError(f"The limit must be at least 1, got {limit}; leave it out to read every fact.")
    reader = None if schema is None else _schema_called(schema)
    file, data = _load(source)

    items = read_records(decode(data, file), file)
    first = _up_to_records(items, _LOOKED_AT)
    if reader is None:
        reader = _detect(file, first)

    facts: list[Fact] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}  # id -> line of its first use
    for item in itertools.chain(first, items):
        if limit is not None and len(facts) == limit:
            break
        if isinstance(item, Problem):
            problems.append(item)
            continue
        try:
            fact = reader.to_fact(item.value, item.position)
        except (FieldError, FactError) as error:
            field = error.field if isinstance(error, FieldError) else None
            problems.append(Problem(file, item.line, field, f"{str(error).rstrip('.')}; this record was left out"))
            continue
        if fact.id in seen:
            unused = _unused(fact.id, seen)
            if item.value.get("id") == fact.id:
                message = (
                    f"the fact on line {seen[fact.id]} has the id {fact.id!r} too; this one is now called {unused!r}"
                )
                problems.append(Problem(file, item.line, "id", message))
            fact = dataclasses.replace(fact, id=unused)
        seen[fact.id] = item.line
        facts.append(fact)

    if not facts:
        raise _no_facts(file, problems)
    return FactFile(tuple(facts), tuple(problems), str(source), reader.name)


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


def _up_to_records(items: Iterator[Record | Problem], count: int) -> list[Record | Problem]:
    """The next items, up to and with the `count`-th record."""
    taken: list[Record | Problem] = []
    records = 0
    for item in items:
        taken.append(item)
        records += isinstance(item, Record)
        if records == count:
            break
    return taken


def _detect(file: str, items: Sequence[Record | Problem]) -> Schema:
    """The schema of the first record that has one."""
    records = [item for item in items if isinstance(item, Record)]
    if not records:
        raise _no_facts(file, [item for item in items if isinstance(item, Problem)])
    known = ", ".join(schema.name for schema in SCHEMAS)
    for record in records:
        for benchmark, groups in _RECOGNISED.items():
            if any(group <= set(record.value) for group in groups):
                raise RecordError(
                    f"{file} cannot be read: this looks like {benchmark}, which read_facts does not support; "
                    f"the schemas it knows are {known}."
                )
        for schema in SCHEMAS:
            if schema.matches(record.value):
                return schema
    fields = sorted(records[0].value)
    shown = ", ".join(fields[:12]) + (", ..." if len(fields) > 12 else "") or "none"
    raise RecordError(
        f"{file} has a schema that is not known: the fields of the record on line {records[0].line} are {shown}; "
        f"the schemas known are {known}."
    )


def _schema_called(name: str) -> Schema:
    for schema in SCHEMAS:
        if schema.name == name:
            return schema
    raise SettingError(f"There is no schema {name!r}.{did_you_mean(name, [schema.name for schema in SCHEMAS])}")


def _unused(taken: str, seen: Mapping[str, Any]) -> str:
    return next(name for number in itertools.count(2) if (name := f"{taken}-{number}") not in seen)


def _no_facts(file: str, problems: Sequence[Problem]) -> RecordError:
    if not problems:
        return RecordError(f"{file} holds no record; expected a list of records, or one record a line.")
    count = "the only problem" if len(problems) == 1 else f"the first of {len(problems)} problems"
    return RecordError(f"No fact could be read; {count} is: {problems[0]}.")
