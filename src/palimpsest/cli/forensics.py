"""`palimpsest forensics MODEL [--base BASE] [--candidates FILE] --out DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import device_option, json_option, model_argument, read_object, required_out, show, table


@click.command("forensics")
@model_argument
@device_option
@click.option("--base", help="The model it was made from: adds what differs, and an edit file that takes it back.")
@click.option(
    "--candidates",
    type=click.Path(dir_okay=False),
    help='JSON with "subjects", a list of names: which of them MODEL was edited about. With --base, and a list of "objects" too: '
    "what the change is about.",
)
@click.option(
    "--moments",
    type=click.Path(),
    help="Second moments of all layers, measured on MODEL (palimpsest moments): weaker edits are found; for candidates they are "
    "measured where none are given.",
)
@required_out
@json_option
def command(
    model: str,
    device: str | None,
    base: str | None,
    candidates: str | None,
    moments: str | None,
    out: str,
    as_json: bool,
) -> None:
    """What was done to MODEL: which layers look edited; of candidates, about whom; with the base, what differs."""
    kinds = ("subjects",) if base is None else ("subjects", "objects")
    names = _candidates(candidates, kinds) if candidates is not None else None

    from palimpsest.edit.moments import load_moments
    from palimpsest.erase.forensics import decode, difference, line_up, scan
    from palimpsest.erase.forensics.decode import check_candidates
    from palimpsest.erase.forensics.line_up import check_line_up
    from palimpsest.errors import EditError
    from palimpsest.model import load
    from palimpsest.runs.atomic import atomic_write, check_writable
    from palimpsest.runs.json_text import to_document

    if names is not None and base is None:
        check_line_up(names["subjects"])
    elif names is not None:
        for kind in kinds:
            check_candidates(kind, names[kind])
    measured = load_moments(Path(moments)) if moments else None
    edited = load(model, device=device)
    data: dict[str, Any] = {
        "scan": scan(edited, moments=measured).to_json(),
        "line_up": None,
        "difference": None,
        "decoded": None,
        "not_decoded": None,
        "undo": None,
    }
    folder = check_writable(out)
    if base is None and names is not None:
        data["line_up"] = line_up(edited, names["subjects"], moments=measured).to_json()
    if base is not None:
        before = load(base, device=device)
        change = difference(edited, before)
        data["difference"] = change.to_json()
        if change.weights:
            path = folder / "edit.safetensors"
            change.reversal(edited, base=before).save(path)
            data["undo"] = str(path)
        if names is not None:
            try:
                data["decoded"] = decode(edited, before, names["subjects"], names["objects"], change=change).to_json()
            except EditError as error:  # what the scan and the difference found is kept
                data["not_decoded"] = str(error)
    atomic_write(folder / "results.json", to_document(data, "the forensics"))
    show(as_json, data, lambda: _text(data, folder))


def _candidates(path: str, kinds: Sequence[str]) -> dict[str, list[str]]:
    """The lists of a candidates file; mistakes in one sentence."""
    from palimpsest.errors import InputError

    lists = read_object(path, "candidates", "docs/forensics.md")
    for kind in kinds:
        names = lists.get(kind)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(
                f'The candidates {path} must hold "{kind}" as a list of names; see docs/forensics.md for an example.'
            )
    return lists


def _text(data: dict[str, Any], folder: Path) -> str:
    scanned = data["scan"]
    columns = ("layer", "run", "gap", "evenness", "score", "flagged")
    flagged = ", ".join(map(str, scanned["flagged"])) or "none"
    blocks = [
        table(scanned["layers"], columns),
        f"Layers that look edited: {flagged}; the most suspect is layer {scanned['suspect']}.",
    ]
    if (lined := data["line_up"]) is not None:
        readings = ("name", "score", "strength", "agreement", "run", "layers")
        said = f"None of {lined['compared']} candidates stands out: it does not look edited about them."
        if lined["flagged"]:
            where, others = ", ".join(map(str, lined["layers"])), len(set(lined["flagged"]) - {lined["subject"]})
            said = (
                f"It looks edited about {lined['subject']}, in layers {where}; {others} other candidates stand out too."
            )
        blocks += [table(lined["candidates"], readings), said]
    if (change := data["difference"]) is not None:
        rows = [{**row, "rank": "" if row["rank"] is None else str(row["rank"])} for row in change["weights"]]
        kept = ("path", "layer", "relative", "spectral", "rank")
        said = f"{len(rows)} of {change['compared']} weights differ from {change['base']}."
        blocks += [table(rows, kept), said] if rows else [said]
    if (decoded := data["decoded"]) is not None:
        blocks += [f"{name}\n{table(rows)}" for name, rows in decoded.items()]
    if data["not_decoded"]:
        blocks.append(data["not_decoded"])
    if data["undo"]:
        blocks.append(f"{data['undo']} takes the change back.")
    return "\n\n".join([*blocks, f"Everything is in {folder / 'results.json'}."])
