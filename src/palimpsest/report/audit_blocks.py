"""What a panel of the audit page is made of: figures, matrices, tables and sentences, each plain data for the template.

    Panel("dose", "Dose and response", "What is written, scaled ...", blocks=[figure(svg, "Success by dose"), words("TI 2.1")])

A panel without blocks says that it was not measured, and why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from palimpsest.report.audit_charts import spark
from palimpsest.report.audit_records import Plain, Records, bare, estimate_of, in_words, interval, written
from palimpsest.report.svg import number


@dataclass(frozen=True)
class Panel:
    """A section of the page; `reason` stands where there are no blocks."""

    anchor: str
    title: str
    lead: str
    blocks: Sequence[Mapping[str, Any]] = field(default=())
    reason: str = ""


def figure(drawn: Markup, caption: str) -> dict[str, Any]:
    """A drawing with its words; none where the drawing is empty."""
    return {"kind": "figure", "drawn": drawn, "caption": caption}


def words(sentence: str, href: str = "", *, linked: str = "") -> dict[str, Any]:
    """A sentence, whose end may lead to a record."""
    return {"kind": "words", "text": sentence, "href": href, "linked": linked}


def heading(text: str) -> dict[str, Any]:
    """A heading inside a panel."""
    return {"kind": "heading", "text": text}


def grid(label: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table that sorts."""
    return {"kind": "grid", "label": label, "columns": columns, "rows": rows}


def matrix(
    label: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]
) -> dict[str, Any]:
    """A matrix of `cell`s."""
    return {"kind": "matrix", "label": label, "columns": columns, "rows": rows}


def stack(label: str, parts: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Shares of a whole as one bar, named with their percentages below."""
    total = sum(share for _, share in parts) or 1.0
    shown = [(name, 100 * share / total) for name, share in parts]
    return {"kind": "stack", "label": label, "parts": shown}


def cell(
    text: object = "",
    *,
    under: str = "",
    href: str = "",
    kind: str = "",
    share: float | None = None,
    drawn: Markup | str = "",
    title: str = "",
) -> dict[str, Any]:
    """One cell of a matrix; `share` from -1 to 1 is how strongly it is tinted."""
    tint = None if share is None else max(-1.0, min(1.0, share))
    return {"text": text, "under": under, "href": href, "class": kind, "share": tint, "spark": drawn, "title": title}


def estimate_cell(record: object, largest: float, *, href: str = "", mark: str = "", kind: str = "") -> dict[str, Any]:
    """An estimate in a matrix: value, interval under it, and a spark on a scale all cells share."""
    found = estimate_of(record)
    if found is None or number(found.value) is None:
        return cell("—", title="not measured", kind=kind)
    share = found.value / largest if largest > 0 else 0.0
    return cell(
        f"{bare(record)}{mark}",
        under=interval(record).partition(",")[0],
        href=href,
        kind=kind,
        share=share,
        drawn=spark(found.low, found.value, found.high, largest),
        title=str(found),
    )


def largest_of(estimates: Iterable[object]) -> float:
    """The largest finite magnitude, for a scale that is shared."""
    known = [estimate_of(record) for record in estimates]
    return max(
        (abs(found.value) for found in known if found is not None and number(found.value) is not None), default=0.0
    )


def record_words(records: Records, endpoint: str, name: str) -> list[dict[str, Any]]:
    """One sentence for each record of an endpoint: what it came out as, with n, linked."""
    return [
        words(
            f"{name}{f' ({about})' if (about := record.get('about')) else ''}: ",
            records.href(record.get("id")),
            linked=in_words(record.get("estimate")),
        )
        for record in records.of(endpoint)
        if estimate_of(record.get("estimate")) is not None
    ]


def data_of(records: Records, endpoint: str) -> Plain:
    """The data an endpoint's first record keeps; {} where there is none."""
    found = (records.first(endpoint) or {}).get("data")
    return found if isinstance(found, Mapping) else {}


def sortable(record: object, href: str = "") -> dict[str, Any]:
    """An estimate in a table."""
    found = estimate_of(record)
    if found is None:
        return {"text": "not measured", "sort": ""}
    return {
        "text": written(record),
        "sort": "" if number(found.value) is None else found.value,
        "href": href,
        "class": "n",
    }
