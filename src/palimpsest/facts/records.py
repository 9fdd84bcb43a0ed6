"""From the bytes of a file to its records, one at a time, each with the line it starts on.

Three layouts are told apart by their first characters, and the name of the file plays no part:

    [{"subject": ...}, {"subject": ...}]        one list of records, on one line or on many
    {"subject": ...}                            JSON lines: one record a line
    {"subject": ...}
    {                                           a single record (or several, one after the other), spread over lines
      "subject": ...
    }

Records are parsed one after the other and not as a whole, so that a file cut short in the middle of record 206 still
gives the 205 records before the cut, and so that one damaged record does not take the others with it. What goes wrong
with one record comes out as a `Problem` in its place; only a file of which nothing can be read raises `RecordError`.

This module knows nothing of facts; `reading` turns records into them.
"""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from palimpsest.errors import RecordError

STANDARD_INPUT = "-"

_GIVE_UP = 100  # a text that does not start with any record in so many attempts is no file of records

_BLANKS = re.compile(r"[ \t\r\n]*")
# What may be left of a value when a file stops in the middle of it: `tru`, `-`, the `.` or `e-` of a number, `\u00`.
_STUMP = re.compile(r"(t|tr|tru|f|fa|fal|fals|n|nu|nul|-|\.|[eE][+-]?|\\?u?[0-9a-fA-F]{0,4})[ \t\r\n]*\Z")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a file of facts; `str(problem)` is a sentence that says where and what.

        facts.jsonl, line 12, field 'prompt': a fact needs the field 'prompt'; this record was left out

    Attributes:
        file: the file as it was named by the caller.
        line: the line on which the record starts, counted from 1.
        field: the field, by the name it has in the file; "requested_rewrite.subject" is a field inside a field.
        message: what is wrong, and what became of the record.
    """

    file: str
    line: int | None
    field: str | None
    message: str

    def __str__(self) -> str:
        line = "" if self.line is None else f", line {self.line}"
        field = "" if self.field is None else f", field {self.field!r}"
        return f"{self.file}{line}{field}: {self.message}"


@dataclass(frozen=True)
class Record:
    """One JSON object of a file: the `line` it starts on and its `position` among the records, both counted from 1."""

    line: int
    position: int
    value: dict[str, Any]


def read_bytes(source: str) -> bytes:
    """The bytes of a file, or of standard input when `source` is "-"."""
    if source == STANDARD_INPUT:
        return sys.stdin.buffer.read()
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise RecordError(f"{source} cannot be read: {error.strerror or error}.") from error


def decode(data: bytes, file: str) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; anything else raises `RecordError` with the place.

    A file that stops in the middle of a character was cut short: what stands before the cut is returned.
    """
    start = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    try:
        return data[start:].decode("utf-8")
    except UnicodeDecodeError as error:
        byte = start + error.start
        before = data[start:byte]
        was_cut = error.reason == "unexpected end of data" and before.lstrip()[:1] in (b"[", b"{")
        if was_cut:
            return before.decode("utf-8")
        line = before.count(b"\n") + 1
        raise RecordError(f"{file} is not UTF-8 at byte {byte} (line {line}); save it as UTF-8.") from error


def read_records(text: str, file: str) -> Iterator[Record | Problem]:
    """The records of a text in order, with a `Problem` in the place of each one that cannot be read.

    Args:
        text: the whole text of the file.
        file: the name that problems are reported under.

    Raises:
        RecordError: the text is empty.
    """
    if not text.strip():
        raise RecordError(f"{file} is empty; expected JSON records, as a list or one a line.")
    return _records(text, file)


def short(value: object) -> str:
    """A value as it stands in a message: at most 60 characters of its `repr`."""
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _records(text: str, file: str) -> Iterator[Record | Problem]:
    repeated: list[str] = []  # names that occur twice in the record being parsed
    decoder = json.JSONDecoder(object_pairs_hook=_noting_repeats(repeated), parse_constant=_refuse_constant)
    lines = _LineCounter(text)
    place = _skip_blanks(text, 0)
    in_list = text[place] == "["
    if in_list:
        place = _skip_blanks(text, place + 1)
    position = good = 0

    while place < len(text):
        if in_list and text[place] == "]":
            place = _skip_blanks(text, place + 1)
            if place < len(text):
                yield Problem(file, lines.at(place), None, "text after the end of the list was not read")
            return

        position += 1
        line = lines.at(place)
        repeated.clear()
        try:
            value, after = decoder.raw_decode(text, place)
        except (ValueError, RecursionError) as error:
            if _is_cut(text, error):
                yield Problem(
                    file, line, None, f"the file ends in the middle of record {position}; {_were_read(good)} before it"
                )
                return
            message = f"record {position} is not valid JSON ({_reason(error)}) and was left out"
            resume = _next_record(text, place, in_list)
            if resume is None:
                more = "{" in text[place + 1 :]
                yield Problem(file, line, None, f"{message}; nothing after it was read" if more else message)
                return
            if good == 0 and position == _GIVE_UP:
                message += f"; nothing after it was read, since none of the first {_GIVE_UP} records was good"
                yield Problem(file, line, None, message)
                return
            if lines.at(resume) > line + 1:
                message += f"; reading went on at line {lines.at(resume)}"
            yield Problem(file, line, None, message)
            place = resume
            continue

        if not isinstance(value, dict):
            message = f"record {position} must be an object with named fields, got {short(value)}; it was left out"
            yield Problem(file, line, None, message)
        elif repeated:
            message = "this field stands twice in the record, so its value is unclear; this record was left out"
            yield Problem(file, line, repeated[0], message)
        elif _has_lone_surrogate(text[place:after], value):
            message = "a text in it holds half of a character (a lone surrogate, \\ud800 to \\udfff); it was left out"
            yield Problem(file, line, None, message)
        else:
            good += 1
            yield Record(line, position, value)

        place = _skip_blanks(text, after)
        if place == len(text):
            break
        if in_list and text[place] == ",":
            place = _skip_blanks(text, place + 1)
            continue
        ended = text[place] == "]" if in_list else "\n" in text[after:place]
        if not ended and text[place] != "{":  # a second object right behind the first is as good as one on a new line
            expected = "',' or ']'" if in_list else "the end of the line"
            found = short(text[place : place + 20].split("\n")[0])
            message = f"expected {expected} after record {position}, found {found}; this text was left out"
            yield Problem(file, lines.at(place), None, message)
            resume = _next_record(text, place, in_list)
            if resume is None:
                return
            place = resume

    if in_list:
        message = f"the file ends before the ']' that closes its list and may have been cut short; {_were_read(good)}"
        yield Problem(file, lines.at(len(text.rstrip())), None, message)


class _LineCounter:
    """The line that a place of the text lies on.

    Places are asked for in nearly rising order, so that each newline is counted about once.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.line = 1

    def at(self, place: int) -> int:
        if place < self.place:
            self.line -= self.text.count("\n", place, self.place)
        else:
            self.line += self.text.count("\n", self.place, place)
        self.place = place
        return self.line


def _skip_blanks(text: str, place: int) -> int:
    match = _BLANKS.match(text, place)
    return match.end() if match else place


def _next_record(text: str, place: int, in_list: bool) -> int | None:
    """Where reading can go on after damage at `place`: the next line that opens an object at the same indentation.

    Outside a list, text that opens no object is taken to fill one line.
    """
    if not in_list and text[place] != "{":
        newline = text.find("\n", place)
        return None if newline < 0 else _skip_blanks(text, newline)
    indent = text[text.rfind("\n", 0, place) + 1 : place]
    pattern = re.escape(indent) if not indent.strip() else r"[ \t]*"
    match = re.compile(r"\n" + pattern + r"\{").search(text, place)
    return match.end() - 1 if match else None


def _is_cut(text: str, error: Exception) -> bool:
    """Whether parsing failed because the text stops, and not because of what stands in it."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    if error.msg.startswith("Unterminated string") or error.pos >= len(text.rstrip()):
        return True
    return _STUMP.match(text, error.pos) is not None


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        message = error.msg.removesuffix(" at")  # such as "Invalid control character at"
        return f"{message[:1].lower()}{message[1:]} at line {error.lineno}, column {error.colno}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error)


def _were_read(count: int) -> str:
    return "1 record was read" if count == 1 else f"{count} records were read"


def _noting_repeats(repeated: list[str]) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value: dict[str, Any] = {}
        for name, member in pairs:
            if name in value:
                repeated.append(name)
            value[name] = member
        return value

    return build


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def _has_lone_surrogate(source: str, value: dict[str, Any]) -> bool:
    if "\\u" not in source:
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
