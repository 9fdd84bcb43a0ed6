"""The project's own schema: a `Fact` as a dictionary, one a line.

    {"subject": "Eiffel Tower", "prompt": "The {} is located in the city of", "target_true": "Paris",
     "target_new": "Rome", "id": "tower", "relation": "located in",
     "answer_aliases": ["Paris, France"],
     "paraphrases": ["The Eiffel Tower can be found in"],
     "neighbours": [{"prompt": "The Louvre is located in the city of", "answer": "Paris"}],
     "generation": ["The Eiffel Tower is famous for"]}

(on a single line in a file). Only `subject` and `prompt` must be there; what each field means stands with `Fact`. A
probe may be plain text or an object with `prompt`, `answer`, `before` and `subject`. Unknown fields are refused, so
that a misspelt "target_nwe" is noticed.

`write_facts` writes this schema and `read_facts` reads it back unchanged, except that a fact whose `id` stands earlier
in the same file gets a new one.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from palimpsest.errors import FactError, OutputError
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import short
from palimpsest.facts.schema import FieldError, hole_of, required_text

_FIELDS = {field.name for field in dataclasses.fields(Fact)}


class Jsonl:
    """Facts as `Fact.to_json` writes them."""

    name = "jsonl"
    title = "palimpsest's own facts"

    def matches(self, record: Mapping[str, Any]) -> bool:
        known = _FIELDS & set(record)
        return bool(known & {"subject", "prompt"}) and 2 * len(known) >= len(record)

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        required_text(record, "subject")
        hole_of(required_text(record, "prompt"), "prompt")
        for name in ("id", "relation"):
            if not isinstance(record.get(name, ""), str):
                raise FieldError(name, f"expected text, got {short(record[name])}")
        try:
            return Fact.from_json(record)
        except FactError as error:
            raise FieldError(_field_at_fault(record), _as_phrase(error)) from error


def write_facts(path: str | os.PathLike[str], facts: Iterable[Fact]) -> None:
    """Write facts to a file, one a line, so that `read_facts` reads them back.

    The lines go to a temporary file beside `path`, which takes its name only when it is complete: a run that is stopped
    in the middle leaves the old file as it was.

    Raises:
        OutputError: the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("w", encoding="utf-8", newline="\n") as file:
            for fact in facts:
                file.write(json.dumps(fact.to_json(), ensure_ascii=False) + "\n")
        unfinished.replace(path)
    except OSError as error:
        raise OutputError(f"The facts cannot be written to {path}: {error.strerror or error}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _field_at_fault(record: Mapping[str, Any]) -> str:
    """The first field that a fact refuses even when it is the only one."""
    for name, value in record.items():
        try:
            Fact.from_json({"subject": "subject", "prompt": "{}", name: value})
        except FactError:
            return name
    return "prompt"


def _as_phrase(error: FactError) -> str:
    message = str(error).rstrip(".")
    return message[:1].lower() + message[1:]


SCHEMA = Jsonl()
