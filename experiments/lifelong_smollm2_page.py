"""docs/lifelong-on-smollm2.md from results/lifelong/; `python experiments/lifelong_smollm2.py page` runs it."""

import json
from pathlib import Path
from typing import Any

from pages import cell, table  # beside this file
from palimpsest.runs import atomic_write

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "results" / "lifelong", ROOT / "docs" / "lifelong-on-smollm2.md"
PERSISTENCE = "persistence-"

INTRO = """Made by

    python experiments/edit_methods.py part sequence NAME
    python experiments/lifelong_smollm2.py run && python experiments/lifelong_smollm2.py persist && python experiments/lifelong_smollm2.py page

Records of counterfact_flat.json, one after the other (ROME) or, between the check points, twenty by twenty (MEMIT and AlphaEdit). At each check point every fact edited so far is measured again, on the model as edited then: never right after its own edit. The rows of
one table are therefore about more and more facts, and the unedited row about all of them. Collapsed: other text has become 2 nats a token worse ([editing
methods](edit-methods-on-smollm2.md)). Text nll: nats a token of held-out text. Norm growth: Frobenius norm of the edited weight over that of the unedited one, the
largest of the layers. Brackets: 95 % intervals that resample relations and, within them, subjects."""


def curve(found: dict[str, Any]) -> str:
    """A row a check point: everything edited so far."""
    plain = found["rows"][-1]["unedited"]  # of all the facts that any row is about
    rows = [["0", *(cell(plain[m], 2) for m in ("es", "ps", "ns")), f"{found['unedited_text_nll']:.2f}", "1.00"]]
    rows += [
        [
            str(row["edits"]),
            *(cell(row["all"][m], 2) for m in ("es", "ps", "ns")),
            f"{row['text_nll']:.2f}" + (" (collapsed)" if row["collapsed"] else ""),
            f"{max(row['weight_norm_growth'].values()):.2f}",
        ]
        for row in found["rows"]
    ]
    return table(["edits", "ES", "PS", "NS", "text nll", "norm growth"], rows)


def cohorts(found: dict[str, Any]) -> str:
    """ES and PS of the facts of each stretch, at each check point."""
    last = found["rows"][-1]["cohorts"]
    header = ["facts", *(f"after {row['edits']}" for row in found["rows"])]
    rows = []
    for metric in ("es", "ps"):
        for i, stretch in enumerate(last):
            cells = [
                cell(row["cohorts"][i]["post"][metric], 2) if i < len(row["cohorts"]) else "" for row in found["rows"]
            ]
            rows.append([f"{metric.upper()} of {stretch['first']}-{stretch['last']}", *cells])
    return table(header, rows)


def lasting(found: dict[str, Any]) -> str:
    """ES, PS and NS after so many steps, beside the control."""
    rows = [
        [
            str(row["steps"]),
            *(cell(row["edited"][m], 2) for m in ("es", "ps", "ns")),
            *(cell(row["beyond"][m], 2) if row["steps"] else "" for m in ("es", "ps", "ns")),
        ]
        for row in found["steps"]
    ]
    header = ["steps", "ES", "PS", "NS", *(f"{m}, change beyond the control's" for m in ("ES", "PS", "NS"))]
    return table(header, rows)


def write() -> None:
    """The page, from what is there."""
    files = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    parts = [
        f"## {name}\n\n{curve(found)}\n\nWhen they were written:\n\n{cohorts(found)}"
        for name, found in files.items()
        if not name.startswith(PERSISTENCE)
    ]
    kept = [
        f"### {name.removeprefix(PERSISTENCE)}\n\n{lasting(found)}"
        for name, found in files.items()
        if name.startswith(PERSISTENCE)
    ]
    if kept:
        parts.append(
            "## After ordinary training\n\nThe model edited 100 times and the unedited one, both trained on the shipped English text (AdamW, learning rate 1e-5, 128 tokens "
            "a step), the first 50 facts measured.\n\n" + "\n\n".join(kept)
        )
    atomic_write(PAGE, "# What lasts of many edits\n\n" + INTRO + "\n\n" + "\n\n".join(parts) + "\n")
