"""ParaRel: one relation in many wordings, and the facts of LAMA to put into them (Elazar et al. 2021; Petroni et al. 2019).

    patterns/P17.jsonl    {"pattern": "[X] is located in [Y] .", "lemma": ...}           [X] the subject, [Y] the answer
    facts/P17.jsonl       {"sub_label": "Eibenstock", "obj_label": "Germany", "uuid": "..."}

    the first pattern that can be used    becomes   `prompt`: "{} is located in"
    the other ones                        become    `paraphrases`
    sub_label, obj_label                  become    `subject`, `target_true`; there is no `target_new`
    the name of the file                  becomes   `relation`: "P17"
    it and the position                   become    `id`: "pararel/P17/record-3"

A model that writes from left to right can use the patterns that end in the answer ([Y], perhaps with a full stop), about
two thirds; the others were made for models that fill a gap. The folder that holds `patterns` and `facts` is read whole,
in the order of the files' names; one file of `facts` is read with the file of the same name in `patterns` beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from palimpsest.errors import RecordError
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import Problem, Record, decode, read_bytes, read_records, short
from palimpsest.facts.schema import FieldError, required_text, texts

PATTERNS, FACTS = "patterns", "facts"


class ParaRel:
    """A fact of LAMA with the patterns of its relation, which `file_records` puts beside it."""

    name = "pararel"
    title = "ParaRel"

    def matches(self, record: Mapping[str, Any]) -> bool:
        return any(fields <= set(record) for fields in ({"sub_label", "obj_label"}, {"pattern", "lemma"}))

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        if PATTERNS not in record:
            raise FieldError(
                PATTERNS,
                "the patterns of its relation are missing; name ParaRel's folder, or a file in its folder 'facts' that has a "
                "namesake in the folder 'patterns' beside it",
            )
        wordings = [wording for pattern in texts(record, PATTERNS) if (wording := left_to_right(pattern)) is not None]
        relation = required_text(record, "relation")
        if not wordings:
            raise FieldError(PATTERNS, f"no pattern of {relation} ends in its answer, [Y]")
        subject = required_text(record, "sub_label").strip()
        return Fact(
            subject=subject,
            prompt=wordings[0],
            target_true=required_text(record, "obj_label"),
            id=f"{self.name}/{relation}/record-{position}",
            relation=relation,
            paraphrases=tuple(wording.replace("{}", subject) for wording in wordings[1:]),
        )


def left_to_right(pattern: str) -> str | None:
    """The pattern as a prompt that its answer ends, or None where it cannot be one.

    >>> left_to_right("The capital of [X] is [Y] ."), left_to_right("[Y] is the capital of [X].")
    ('The capital of {} is', None)
    """
    text = pattern.strip().removesuffix(".").rstrip()
    if text.count("[X]") != 1 or text.count("[Y]") != 1 or not text.endswith("[Y]"):
        return None
    text = text.removesuffix("[Y]").rstrip()
    return None if "{}" in text else text.replace("[X]", "{}")


def is_folder(path: Path) -> bool:
    """Whether a path is a folder that holds `patterns` and `facts`."""
    try:
        return (path / PATTERNS).is_dir() and (path / FACTS).is_dir()
    except OSError:
        return False


def patterns_of(path: Path) -> Path | None:
    """The file of patterns that belongs to a file in a folder `facts`, or None where there is none."""
    patterns = path.parent.parent / PATTERNS / path.name
    return patterns if path.absolute().parent.name == FACTS and patterns.is_file() else None


def folder_records(folder: Path) -> Iterator[tuple[str, Record | Problem]]:
    """The facts of every relation that has patterns, each with the name of its file."""
    files = sorted(path for path in (folder / FACTS).iterdir() if patterns_of(path) is not None)
    if not files:
        raise RecordError(
            f"{folder} holds no relation with both facts and patterns; expected facts/P17.jsonl and the like."
        )
    for file in files:
        yield from file_records(file)


def file_records(path: Path) -> Iterator[tuple[str, Record | Problem]]:
    """The records of one file of facts, each with `relation` and `patterns` added to its fields."""
    beside = patterns_of(path)
    if beside is None:
        raise RecordError(f"There are no patterns for {path}; expected them in {path.parent.parent / PATTERNS}.")
    patterns = list(_patterns(beside))
    for item in read_records(decode(read_bytes(str(path)), str(path)), str(path)):
        if isinstance(item, Record):
            item = replace(item, value={**item.value, "relation": path.stem, PATTERNS: patterns})
        yield str(path), item


def _patterns(path: Path) -> Iterator[str]:
    for item in read_records(decode(read_bytes(str(path)), str(path)), str(path)):
        if isinstance(item, Problem):
            raise RecordError(f"The patterns of ParaRel cannot be read: {item}.")
        pattern = item.value.get("pattern")
        if not isinstance(pattern, str):
            raise RecordError(f"{path}, line {item.line}: expected the text of a pattern, got {short(pattern)}.")
        yield pattern


SCHEMA = ParaRel()
