"""The plain English text that comes with the package, for second moments and perplexity."""

from __future__ import annotations

from importlib import resources

from palimpsest.errors import RecordError


def shipped_text() -> str:
    """The shipped text, a few paragraphs to a page, as one string.

    Raises:
        RecordError: the file is missing from this installation.
    """
    file = resources.files("palimpsest.facts") / "data" / "plain-english.txt"
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise RecordError(
            "The text that comes with palimpsest (facts/data/plain-english.txt) is missing from this installation; "
            "install the package again."
        ) from error
