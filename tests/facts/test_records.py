"""From bytes to records: layouts, encodings, files cut short and damage in the middle."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palimpsest.errors import RecordError
from palimpsest.facts.records import Problem, Record, decode, read_records

THREE: list[dict[str, Any]] = [
    {
        "subject": 'Zoë "x" \\',
        "number": -12.5e3,
        "small": 1e-30,
        "flags": [True, False, None],
        "inner": {"k": "é😀\u2028"},
    },
    {"subject": "two", "list": [1, {"z": "q"}]},
    {"subject": "end"},
]


def split(text: str) -> tuple[list[Record], list[Problem]]:
    items = list(read_records(text, "f.json"))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def written(indent: int | None, ascii_only: bool, lines: bool) -> str:
    if lines:
        return "\n".join(json.dumps(record, indent=indent, ensure_ascii=ascii_only) for record in THREE)
    return json.dumps(THREE, indent=indent, ensure_ascii=ascii_only)


layouts = pytest.mark.parametrize(
    ("indent", "ascii_only", "lines"),
    [(i, a, n) for i in (None, 0, 1, 2) for a in (True, False) for n in (True, False)],
)


@layouts
def test_every_layout_gives_the_same_records(indent: int | None, ascii_only: bool, lines: bool) -> None:
    good, bad = split(written(indent, ascii_only, lines))
    assert [record.value for record in good] == THREE
    assert [record.position for record in good] == [1, 2, 3]
    assert bad == []


@layouts
def test_a_file_cut_anywhere_yields_the_records_before_the_cut(
    indent: int | None, ascii_only: bool, lines: bool
) -> None:
    data = written(indent, ascii_only, lines).encode()
    for length in range(1, len(data)):
        good, bad = split(decode(data[:length], "f.json"))
        assert [record.value for record in good] == THREE[: len(good)]
        if lines and not bad:
            continue  # cut between two lines: nothing shows it
        (problem,) = bad
        if "in the middle" in problem.message:
            assert f"the middle of record {len(good) + 1};" in problem.message
        else:
            assert "before the ']' that closes its list" in problem.message


@given(st.binary(max_size=80))
def test_no_bytes_raise_anything_but_a_record_error(data: bytes) -> None:
    with contextlib.suppress(RecordError):
        list(read_records(decode(data, "f"), "f"))


@given(st.text(alphabet='{}[]",:\\u0d8 \n1-.etrun', max_size=60))
def test_no_text_raises_anything_but_a_record_error(text: str) -> None:
    with contextlib.suppress(RecordError):
        list(read_records(text, "f"))


def test_lines_are_where_records_start() -> None:
    good, _ = split('\n\n[\n {"a": 1},\n {"a":\n  2},\n {"a": 3}]')
    assert [record.line for record in good] == [4, 5, 7]
    good, _ = split('{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [record.line for record in good] == [1, 3]


def test_the_cut_is_reported_with_line_and_count() -> None:
    good, (problem,) = split('{"a": 1}\n{"a": 2}\n{"a": "thr')
    assert len(good) == 2
    assert str(problem) == ("f.json, line 3: the file ends in the middle of record 3; 2 records were read before it")


def test_a_list_that_is_never_closed() -> None:
    good, (problem,) = split('[{"a": 1},\n{"a": 2},\n')
    assert len(good) == 2
    assert problem.line == 2
    assert "ends before the ']'" in problem.message


def test_an_empty_list_has_neither_records_nor_problems() -> None:
    assert split("[]") == ([], [])


@pytest.mark.parametrize("text", ["", " \n\t\n", "\ufeff"])
def test_an_empty_file_raises(text: str) -> None:
    with pytest.raises(RecordError, match=r"f\.json is empty"):
        split(decode(text.encode(), "f.json"))


def test_a_byte_order_mark_is_accepted() -> None:
    good, bad = split(decode(b'\xef\xbb\xbf{"a": "\xc3\xa9"}', "f.json"))
    assert good[0].value == {"a": "é"}
    assert bad == []


def test_bytes_that_are_not_utf8_are_named_by_place() -> None:
    data = b'{"a": "x"}\n{"a": "' + b'caf\xe9"}\n'
    with pytest.raises(RecordError, match=r"f\.json is not UTF-8 at byte 21 \(line 2\)"):
        decode(data, "f.json")
    with pytest.raises(RecordError, match=r"at byte 24 \(line 2\)"):
        decode(b"\xef\xbb\xbf" + data, "f.json")


def test_utf16_is_refused() -> None:
    with pytest.raises(RecordError, match=r"is not UTF-8 at byte 0 \(line 1\)"):
        decode('[{"a": 1}]'.encode("utf-16"), "f.json")


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}\n{"a": oops}\n{"a": 3}\n',
        '{"a": 1}\n{"a": "no end\n{"a": 3}\n',
        '{"a": 1}\n{"a": [1, 2\n{"a": 3}\n',
        '{"a": 1}\nno record at all\n{"a": 3}\n',
        '{"a": 1}\n{"a": NaN}\n{"a": 3}\n',
        '{"a": 1}\n[1, 2]\n{"a": 3}\n',
        '{"a": 1}\n"text"\n{"a": 3}\n',
        '{"a": 1}\n{"a": 2, "a": 3}\n{"a": 3}\n',
        '{"a": 1}\n{"a": {"b": 2, "b": 3}}\n{"a": 3}\n',
        '{"a": 1}\n{"a": "\\ud83d"}\n{"a": 3}\n',
        '{"a": 1}\n{"a": ' + "9" * 5000 + '}\n{"a": 3}\n',
        '{"a": 1}\n{"a": ' + "[" * 100_000 + "]" * 100_000 + '}\n{"a": 3}\n',
        '[\n {"a": 1},\n {"a": {"b" 2}},\n {"a": 3}\n]',
        '[\n {\n  "a": 1\n },\n {\n  "a":: {\n   "b": 2\n  }\n },\n {\n  "a": 3\n }\n]',
        '[{"a": 1},\n{"a": }, \n{"a": 3}]',
        '[{"a": 1}, 7, {"a": 3}]',
    ],
)
def test_one_bad_record_leaves_the_others(text: str) -> None:
    good, (problem,) = split(text)
    assert [record.value for record in good] == [{"a": 1}, {"a": 3}]
    assert good[1].position == 3
    assert good[0].line <= (problem.line or 0) <= good[1].line


def test_damage_says_where_reading_went_on() -> None:
    text = '{"a": 1}\n{"a":: {\n "b": 2\n}}\n{"a": 3}'
    good, (problem,) = split(text)
    assert len(good) == 2
    assert problem.line == 2
    assert "record 2 is not valid JSON" in problem.message
    assert "reading went on at line 5" in problem.message


def test_damage_on_one_line_ends_the_reading_and_says_so() -> None:
    good, (problem,) = split('[{"a": 1}, {"a":: 2}, {"a": 3}]')
    assert len(good) == 1
    assert "nothing after it was read" in problem.message


def test_a_text_without_records_is_given_up() -> None:
    good, bad = split("This is a letter.\n" * 5000)
    assert (len(good), len(bad)) == (0, 100)
    assert "none of the first 100 records was good" in bad[-1].message


def test_repeated_names_are_given_as_the_field() -> None:
    _, (problem,) = split('{"a": {"b": 2, "b": 3}}')
    assert (problem.line, problem.field) == (1, "b")
    assert "stands twice" in problem.message


def test_text_between_records_is_reported_and_they_stay() -> None:
    good, (problem,) = split('{"a": 1}, \n{"a": 2}')
    assert len(good) == 2
    assert "expected the end of the line after record 1" in problem.message
    good, (problem,) = split('[{"a": 1} x\n{"a": 2}]')
    assert len(good) == 2
    assert "expected ',' or ']' after record 1" in problem.message
    good, (problem,) = split('[{"a": 1}]\n{"a": 2}')
    assert len(good) == 1
    assert "after the end of the list" in problem.message


def test_what_a_problem_says() -> None:
    assert str(Problem("f", 3, "a.b", "it is wrong")) == "f, line 3, field 'a.b': it is wrong"
    assert str(Problem("f", 3, None, "it is wrong")) == "f, line 3: it is wrong"
    assert str(Problem("f", None, None, "it is wrong")) == "f: it is wrong"
