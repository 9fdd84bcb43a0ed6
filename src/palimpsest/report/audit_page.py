"""The page of an audit: verdicts first, then everything they rest on. One self-contained HTML file, no network.

    atomic_write("audit/report.html", audit_page(json.loads(Path("audit/report.json").read_text())))

The page is made from `AuditReport.to_json` and from nothing else: whoever has report.json can make it again. It decides nothing.
What an audit did not measure is shown as not measured, with the reason the audit gave. Every string in it is escaped, so that a
subject such as "<script>" stays text; its own script, which sorts tables, is the only one that may run (a content security policy
names its hash and forbids every address), and without it the page loses no word.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from markupsafe import Markup

from palimpsest.errors import RecordError
from palimpsest.report.audit_forest import forest
from palimpsest.report.audit_panels import panels
from palimpsest.report.audit_provenance import REFERENCES, gates, methods, null_tables, plan_table, provenance
from palimpsest.report.audit_records import Plain, Records
from palimpsest.report.audit_view import (
    STATUSES,
    criteria_table,
    forest_rows,
    headlines,
    judged_and_measured,
    reading_card,
    status_of,
)
from palimpsest.report.rendered import rendered
from palimpsest.runs.json_text import plain

SCHEMA = "palimpsest-audit/"
CONTENTS = (
    ("forest", "All evidence"),
    ("criteria", "Criteria"),
    ("ladders", "What blocks"),
    ("judged", "Judged against measured"),
)
CONTENTS_END = (
    ("nulls", "Null audit"),
    ("gates", "Gates and what was left out"),
    ("reproduce", "To make this again"),
    ("evidence", "Evidence records"),
    ("references", "References"),
)


def audit_page(report: Mapping[str, Any]) -> str:
    """The page as text, from what `AuditReport.to_json` gives.

    Raises:
        RecordError: this is not the report of an audit.
    """
    _require_audit(report)
    records = Records(report.get("evidence") or ())
    readings = [reading_card(one) for one in report.get("readings") or ()]
    shown = panels(report, records)
    script = _template("audit.js")
    claim, setting = report.get("claim") or {}, report.get("setting") or {}
    outcomes = gates(report)
    return rendered(
        "audit.html.j2",
        style=Markup(_template("audit.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        data=_data(report),
        model=str(report.get("model", "")),
        size=str(setting.get("size", "")),
        facts_used=_facts_used(setting),
        rules=next((str(one.get("rules", "")) for one in report.get("readings") or ()), ""),
        claim={
            "name": claim.get("name", ""),
            "text": claim.get("text") or claim.get("name") or "A claim without words",
            "source": claim.get("source", ""),
            "document": json.dumps(plain(claim), indent=1, ensure_ascii=False),
        },
        gates_failed=[one for one in outcomes if not one["passed"]],
        readings=readings,
        legend=_legend(),
        headlines=headlines(report, records),
        next=_next(readings),
        contents=[*CONTENTS, *((panel.anchor, panel.title) for panel in shown), *CONTENTS_END],
        forest=forest("evidence by criterion, each on its rule's scale", forest_rows(report, records)),
        criteria=criteria_table(report, records),
        judged=judged_and_measured(report, records),
        panels=shown,
        nulls=null_tables(report.get("nulls") or {}),
        gates=[[one["name"], one["says"]] for one in outcomes],
        left_out=[str(sentence) for sentence in report.get("left_out") or ()],
        plan=plan_table(report.get("plan") or {}),
        command=str(report.get("command", "")),
        provenance=provenance(report),
        methods=methods(report),
        setting=json.dumps(plain(setting), indent=1, ensure_ascii=False),
        evidence=records.table(),
        references=REFERENCES,
    )


def _require_audit(report: Mapping[str, Any]) -> None:
    schema = report.get("schema")
    if "readings" not in report or "evidence" not in report or not str(schema or SCHEMA).startswith(SCHEMA):
        raise RecordError(
            f"This is not the report of an audit (schema {schema!r}, fields {', '.join(map(str, report)) or 'none'}); "
            "give the report.json that palimpsest audit wrote."
        )


def _template(name: str) -> str:
    return (resources.files("palimpsest.report") / "templates" / name).read_text(encoding="utf-8")


def _data(report: Plain) -> Markup:
    """Evidence and facts for the button that saves them; no character in it can end the element it stands in."""
    text = json.dumps(plain({key: report.get(key) for key in ("evidence", "facts")}), ensure_ascii=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _facts_used(setting: Plain) -> str:
    discovery, confirmation = (len(setting.get(name) or ()) for name in ("discovery", "confirmation"))
    return f"{confirmation} facts report, {discovery} chose" if confirmation else ""


def _legend() -> list[dict[str, str]]:
    """Every status, and the hatching."""
    return [
        *(status_of({"status": name}) for name in STATUSES),
        {**status_of({"status": "NA"}), "class": "underpowered", "icon": "▨", "word": "hatched: underpowered"},
    ]


def _next(readings: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The next experiments, those of several readings once."""
    by_sentence: dict[str, list[str]] = {}
    for reading in readings:
        if reading["next"] and reading["next"].get("sentence"):
            by_sentence.setdefault(str(reading["next"]["sentence"]), []).append(reading["id"])
    return [{"readings": ", ".join(names), "sentence": sentence} for sentence, names in by_sentence.items()]


def read_report(path: Path) -> dict[str, Any]:
    """The report of an audit, as its file holds it.

    Raises:
        RecordError: there is no such file, or it is not the report of an audit.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(
            f"{path} cannot be read: {error.strerror or error}; name the --out folder of palimpsest audit, after it has finished."
        ) from None
    except ValueError as error:
        raise RecordError(f"{path} is not JSON ({error}); run palimpsest audit again with the same --out.") from None
    if not isinstance(found, dict):
        raise RecordError(
            f"{path} holds a {type(found).__name__}, not a report; run palimpsest audit again with the same --out."
        )
    _require_audit(found)
    return found
