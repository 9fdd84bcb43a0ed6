"""What a schema is, and how one takes a field out of a record.

A schema is the set of names one benchmark gives to the parts of a fact. Each lives in a file of its own (`counterfact`, `zsre`,
`known_1000`, ...) as a tiny object with a `name`, a `title` and two methods. A new one is written by copying the smallest
(`known_1000`) and adding it to the tuple `SCHEMAS` in `reading`, or to `CASE_SCHEMAS` where a record edits or asks for several
facts at once.

The functions below take one field each and check it. What they refuse, they refuse by the name the field has in the
file, so that a person finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from palimpsest.errors import RecordError
from palimpsest.facts.case import Case
from palimpsest.facts.fact import Fact
from palimpsest.facts.records import short


@runtime_checkable
class Schema(Protocol):
    """How the records of one benchmark become facts."""

    name: str
    title: str  # what people call it

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Whether the names of the record's fields are those of this schema (one that is missing does no harm)."""
        ...

    def to_fact(self, record: Mapping[str, Any], position: int) -> Fact:
        """The fact in a record, the `position`-th of its file; `FieldError` or `FactError` where there is none."""
        ...


@runtime_checkable
class CaseSchema(Protocol):
    """How the records of a benchmark that edits or asks for several facts at once become cases."""

    name: str
    title: str

    def matches(self, record: Mapping[str, Any]) -> bool:
        """As of a `Schema`."""
        ...

    def to_case(self, record: Mapping[str, Any], position: int) -> Case:
        """The case in a record; `FieldError` or `FactError` where there is none."""
        ...


class FieldError(RecordError):
    """One field of a record is missing or wrong; `field` is its name in the file."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def find(record: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path such as "target_new.str", or None where a step of it is missing or null."""
    value: Any = record
    walked: list[str] = []
    for step in path.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise FieldError(".".join(walked), f"expected an object with the field {step!r}, got {short(value)}")
        value = value.get(step)
        walked.append(step)
    return value


def required_text(record: Mapping[str, Any], path: str) -> str:
    """The text at a path; missing, blank and anything but text are refused."""
    value = optional_text(record, path)
    if value is None:
        raise FieldError(path, f"a fact needs the field {path!r}")
    return value


def optional_text(record: Mapping[str, Any], path: str) -> str | None:
    """The text at a path, None where there is none; blank text and anything but text are refused."""
    value = find(record, path)
    return None if value is None else _text(value, path)


def texts(record: Mapping[str, Any], path: str) -> tuple[str, ...]:
    """The list of texts at a path; empty where the field is missing."""
    value = find(record, path)
    if value is None:
        return ()
    if not isinstance(value, list):
        raise FieldError(path, f"expected a list of texts, got {short(value)}")
    return tuple(_text(member, path) for member in value)


def objects(record: Mapping[str, Any], path: str) -> list[Mapping[str, Any]]:
    """The list of objects at a path; empty where the field is missing."""
    value = find(record, path)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(member, Mapping) for member in value):
        raise FieldError(path, f"expected a list of objects, got {short(value)}")
    return value


def identifier(record: Mapping[str, Any], path: str, schema: str, position: int) -> str:
    """A unique name such as "counterfact/1234", made from the record's own number or else from its position."""
    number = find(record, path)
    if number is None:
        return f"{schema}/record-{position}"
    if isinstance(number, bool) or not isinstance(number, int | str) or not str(number).strip():
        raise FieldError(path, f"expected a number or a name, got {short(number)}")
    return f"{schema}/{str(number).strip()}"


def hole_of(prompt: str, path: str) -> str:
    """The prompt itself, once it is sure that it holds exactly one `{}`."""
    holes = prompt.count("{}")
    if holes != 1:
        raise FieldError(path, f"expected exactly one '{{}}' where the subject goes, found {holes} in {short(prompt)}")
    return prompt


def make_hole(prompt: str, subject: str, path: str) -> str:
    """The prompt with the first occurrence of the subject replaced by `{}`.

    An occurrence that stands by itself goes before one inside a longer word.

    >>> make_hole("Iranian films are made in Iran by", "Iran", "prompt")
    'Iranian films are made in {} by'
    """
    subject = subject.strip()
    if "{}" in prompt:
        raise FieldError(path, f"expected complete text, found '{{}}' in {short(prompt)}")
    first = start = prompt.find(subject)
    if first < 0:
        raise FieldError(path, f"the subject {short(subject)} does not occur in the prompt {short(prompt)}")
    while start >= 0 and not _stands_alone(prompt, start, start + len(subject)):
        start = prompt.find(subject, start + 1)
    if start < 0:
        start = first
    return f"{prompt[:start]}{{}}{prompt[start + len(subject) :]}"


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no letter or digit touches the characters [start, end)."""
    return not (start > 0 and text[start - 1].isalnum()) and not text[end : end + 1].isalnum()


def _text(value: object, path: str) -> str:
    if not isinstance(value, str):
        raise FieldError(path, f"expected text, got {short(value)}")
    if not value.strip():
        raise FieldError(path, "the text is empty or blank")
    return value
