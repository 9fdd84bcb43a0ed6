"""`palimpsest edit MODEL FACTS --method M --out DIR`."""

from pathlib import Path

import click

from palimpsest.cli.common import (
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
    show,
    table,
    text_option,
)


@click.command("edit")
@model_argument
@click.argument("facts")
@required_out
@click.option("--method", default="rome", show_default=True, help="The editing method.")
@preset_option
@layers_option
@limit_option
@seed_option
@text_option
@json_option
def command(
    model: str,
    facts: str,
    out: str,
    method: str,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    as_json: bool,
) -> None:
    """Write FACTS into MODEL as DIR/edit.safetensors. The model itself is not changed."""
    file = read(facts, limit)
    from palimpsest.edit import editor
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    folder = check_writable(Path(out))
    plain = read_text(text) if text else None
    loaded = load(model)
    settings = given(preset=preset, seed=seed, text=plain)
    made = editor(loaded, method, layers=layers, progress=progress_bar(), **settings).edit(file.facts)
    path = folder / "edit.safetensors"
    made.save(path)
    notes = [dict(note) for note in made.notes.get("facts", [])]
    show(as_json, {"file": str(path), "notes": notes}, lambda: f"{table(notes)}\n\n{made!r} is in {path}.")
    exit_code(file)
