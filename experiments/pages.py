"""Tables and estimates in Markdown, for the pages that experiments write."""

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *rows])


def cell(estimate: dict[str, Any] | None, digits: int = 3) -> str:
    """value [low, high]; empty where there is none, and without an interval where there is none of that."""
    if estimate is None:
        return ""
    if estimate["low"] is None:
        return f"{estimate['value']:.{digits}f}"
    return f"{estimate['value']:.{digits}f} [{estimate['low']:.{digits}f}, {estimate['high']:.{digits}f}]"
