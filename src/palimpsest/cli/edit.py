"""`palimpsest edit MODEL FACTS --method M --out DIR`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    given,
    json_option,
    layers_option,
    limit_option,
    model_argument,
    preset_option,
    progress_bar,
    read,
    read_text,
    required_out,
    seed_option,
    set_option,
    show,
    table,
    text_option,
)

SHOWN = 20  # facts listed one by one; more are summed up


@click.command("edit")
@model_argument
@device_option
@click.argument("facts")
@required_out
@click.option("--method", default="rome", show_default=True, help="The editing method.")
@preset_option
@layers_option
@limit_option
@seed_option
@text_option
@click.option("--moments", type=click.Path(), help="A file of second moments (palimpsest moments) instead of --text.")
@set_option
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    method: str,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    moments: str | None,
    settings: dict[str, Any],
    as_json: bool,
) -> None:
    """Write FACTS into MODEL as DIR/edit.safetensors. The model itself is not changed.

    The same command goes on with an edit that was interrupted.
    """
    file = read(facts, limit)
    from palimpsest.edit import editor
    from palimpsest.edit.closed_form import ClosedForm
    from palimpsest.edit.defaults import RULE
    from palimpsest.edit.moments import load_moments
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    folder = check_writable(Path(out))
    plain = read_text(text) if text else None
    measured = load_moments(Path(moments)) if moments else None
    loaded = load(model, device=device)
    chosen = given(preset=preset, seed=seed, text=plain, moments=measured) | settings
    values = folder / ".palimpsest-values"
    prepared = editor(loaded, method, layers=layers, resume=values, progress=progress_bar(), **chosen)
    if str(prepared.card.get("layers_from", "")).startswith(RULE):
        click.echo(f"palimpsest: layers {prepared.card['layers']} are by {RULE}", err=True)
    if isinstance(prepared, ClosedForm) and prepared.settings.same_key == "merge":
        for group in prepared.shared_keys(file.facts):
            named = " and ".join(group)
            click.echo(f"palimpsest: {named} share a key, so one value is sought for them together", err=True)
    made = prepared.edit(file.facts)
    path = folder / "edit.safetensors"
    made.save(path)
    shutil.rmtree(values, ignore_errors=True)
    notes = [dict(note) for note in made.notes.get("facts", [])]
    rounding = [
        {"weight": loss.path, "lost in rounding": loss.relative_error, "entries unmoved": loss.unchanged}
        for loss in made.rounding(loaded).values()
        if loss.dtype in ("bfloat16", "float16")
    ]
    data = {"file": str(path), "notes": notes, "shared_keys": made.notes.get("shared_keys", []), "rounding": rounding}
    show(as_json, data, lambda: "\n\n".join([*_text(notes, rounding), f"{made!r} is in {path}."]))
    exit_code(file)


def _text(notes: Sequence[Mapping[str, Any]], rounding: Sequence[Mapping[str, Any]]) -> list[str]:
    parts = [table(notes[:SHOWN])] if notes else []
    if len(notes) > SHOWN:
        parts.append(f"... and {len(notes) - SHOWN} more (all are in the file's notes).")
    if no_ops := [str(note["fact"]) for note in notes if note.get("no_op")]:
        named = ", ".join(no_ops[:SHOWN])
        parts.append(f"{len(no_ops)} facts the model answers so already; nothing is written for them: {named}.")
    if rounding:
        parts.append(table(rounding))
    return parts
