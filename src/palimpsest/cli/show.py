"""`palimpsest show DIR_OR_FILE [--model MODEL]`."""

import re
from typing import Any

import click

from palimpsest.cli.common import json_option, show, table

FACTS_SHOWN = 20


@click.command("show")
@click.argument("edit")
@click.option(
    "--model", help="The model it was made for: adds what each change is beside its weight, and what rounding costs."
)
@json_option
def command(edit: str, model: str | None, as_json: bool) -> None:
    """What the edit file EDIT (or a folder that holds one) changes: weights, norms per layer, facts, settings, provenance."""
    from palimpsest.edit import Edit
    from palimpsest.edit.file import edit_file

    made, path = Edit.load(edit), edit_file(edit)
    rows = _changes(made, model)
    facts = [
        {"fact": f.id, "prompt": f.text, "old": f.target_true or "", "new": f.target_new or ""} for f in made.facts
    ]
    data = {
        "file": str(path),
        "bytes": path.stat().st_size,
        "method": made.method,
        "norm": made.norm,
        "payloads": rows,
        "layers": _by_layer(rows),
        "facts": facts,
        **_noted(made.notes),
        "notes": dict(made.notes),
        "settings": dict(made.settings),
        "weights": dict(made.weights),
        "versions": dict(made.versions),
    }
    show(as_json, data, lambda: _text(data))


def _changes(made: Any, model: str | None) -> list[dict[str, Any]]:
    """One row for each payload; with a model also the change beside its weight and the cost of rounding."""
    from palimpsest.edit import Dense, Hook, LowRank
    from palimpsest.edit.payload import Acting, Routed

    rows = [
        {
            "changes": str(p.site) if isinstance(p, Acting) else p.path,
            "layer": p.site.layer if isinstance(p, Acting) else _layer(p.path),
            "kind": p.kind if isinstance(p, Routed) else {LowRank: "low rank", Dense: "dense", Hook: "hook"}[type(p)],
            "rank": p.rank if isinstance(p, LowRank) else p.a.shape[1] if isinstance(p, Hook) else None,
            "norm": p.norm,
        }
        for p in made.payloads
    ]
    if model is not None:
        from palimpsest.edit.checkpoint import dtype_of
        from palimpsest.model import load

        rounding = made.rounding(load(model, dtype=dtype_of(made), check=False))
        for row in rows:
            if one := rounding.get(row["changes"]):
                row.update({"beside weight": one.share, "lost": one.relative_error, "unmoved": one.unchanged})
    return rows


def _layer(path: str) -> int | None:
    """The first number among the steps of a path: module lists of decoder layers are numbered."""
    found = re.search(r"\.(\d+)\.", path)
    return int(found.group(1)) if found else None


def _by_layer(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Frobenius norm of everything that changes in a layer."""
    squares: dict[str, float] = {}
    for row in rows:
        name = "outside layers" if row["layer"] is None else str(row["layer"])
        squares[name] = squares.get(name, 0.0) + row["norm"] ** 2
    return {name: square**0.5 for name, square in squares.items()}


def _noted(notes: Any) -> dict[str, Any]:
    """What the method found in its facts: answers the model gave already, and facts that share one key."""
    parts = [part["notes"] for part in notes["parts"]] if "parts" in notes else [notes]
    facts = [note for part in parts for note in part.get("facts", []) if isinstance(note, dict)]
    return {
        "no_ops": [note.get("fact") for note in facts if note.get("no_op")],
        "shared_keys": [group for part in parts for group in part.get("shared_keys", [])],
    }


def _text(data: dict[str, Any]) -> str:
    facts, size = data["facts"], data["bytes"]
    number = f"{len(facts)} fact" + ("" if len(facts) == 1 else "s")
    blocks = [f"{data['method']}, {number}, norm {data['norm']:.4g}, {size / 1e6:.3g} MB in {data['file']}"]
    wide = [{k: _short(v) for k, v in row.items()} for row in data["payloads"]]
    blocks.append(table(wide) or "It changes nothing.")
    if len(data["layers"]) < len(wide):
        blocks.append(table([{"layer": k, "norm": _short(v)} for k, v in data["layers"].items()]))
    if facts:
        blocks.append(table(facts[:FACTS_SHOWN]))
    if len(facts) > FACTS_SHOWN:
        blocks.append(f"... and {len(facts) - FACTS_SHOWN} more facts; --json names all.")
    if data["no_ops"]:
        blocks.append(f"answered so already, nothing written: {', '.join(map(str, data['no_ops']))}")
    blocks += [f"one key for several facts: {', '.join(map(str, group))}" for group in data["shared_keys"]]
    provenance = {k: v for k, v in data["settings"].items() if k not in ("context_texts", "parts")}
    lines = [f"{name}: {value}" for name, value in {**provenance, **data["versions"]}.items()]
    lines += [f"part: {part['method']} {part['settings']}" for part in data["settings"].get("parts", [])]
    lines += [f"made for {path} {digest[:12]}" for path, digest in data["weights"].items()]
    return "\n\n".join([*blocks, "\n".join(lines)])


def _short(value: Any) -> Any:
    """Four digits, for numbers that span many sizes."""
    return f"{value:.4g}" if isinstance(value, float) else value
