"""Every name of the library that the indented snippets of the docs use can be imported as they write it."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import palimpsest

PAGES = sorted((Path(__file__).parents[1] / "docs").glob("*.md"))
USED = re.compile(r"\b(?:palimpsest|pal)((?:\.[A-Za-z_]\w*)+)\s*\(")
IMPORTED = re.compile(r"^\s*from (palimpsest[\w.]*) import ([\w, ]+)")


def names(text: str) -> Iterator[tuple[str, str]]:
    """The room and the name of each `palimpsest.X(` and `from palimpsest.room import X` in indented lines."""
    for line in text.splitlines():
        if not line.startswith("    "):
            continue
        for found in USED.findall(line):
            yield "", found.removeprefix(".")
        if imported := IMPORTED.match(line):
            yield from ((imported[1], name.strip()) for name in imported[2].split(","))


def resolve(room: str, name: str) -> object:
    """What Python finds: `palimpsest.a.b` by attributes, `from room import name` by importing the room."""
    value: object = import_module(room) if room else palimpsest
    for step in name.split("."):
        value = getattr(value, step)
    return value


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_names_in_the_snippets_of_a_page_are_there(page: Path) -> None:
    for room, name in names(page.read_text("utf-8")):
        assert resolve(room, name) is not None


def test_a_name_that_does_not_work_is_found() -> None:
    text = (
        "    palimpsest.edit.collect_moments(model)\n    from palimpsest.edit import edit, nothing\npalimpsest.none(\n"
    )
    assert list(names(text)) == [
        ("", "edit.collect_moments"),
        ("palimpsest.edit", "edit"),
        ("palimpsest.edit", "nothing"),
    ]
    assert resolve("palimpsest.edit", "edit") is palimpsest.edit
    for room, name in [("", "edit.collect_moments"), ("palimpsest.edit", "nothing")]:
        with pytest.raises(AttributeError):
            resolve(room, name)


def test_the_snippets_name_something() -> None:
    assert sum(len(list(names(page.read_text("utf-8")))) for page in PAGES) > 20
