"""`palimpsest moments MODEL --layers L --out DIR`."""

from pathlib import Path

import click

from palimpsest.cli.common import (
    json_option,
    layers_option,
    model_argument,
    progress_bar,
    read_text,
    required_out,
    show,
    table,
    text_option,
)


@click.command("moments")
@model_argument
@required_out
@layers_option
@text_option
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens to read; ten times the key width.")
@json_option
def command(
    model: str, out: str, layers: tuple[int, ...] | None, text: str | None, tokens: int | None, as_json: bool
) -> None:
    """Second moments of the keys of some layers of MODEL, all in one pass, one file a layer in DIR."""
    from palimpsest.edit import collect_moments
    from palimpsest.edit.defaults import default_layer
    from palimpsest.edit.moments import save_moment
    from palimpsest.facts import shipped_text
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    folder = check_writable(Path(out))
    plain = read_text(text) if text else shipped_text()
    loaded = load(model)
    wanted = (default_layer(loaded),) if layers is None else layers
    rows = []
    for layer, moment in collect_moments(loaded, wanted, plain, tokens=tokens, progress=progress_bar()).items():
        path = folder / f"layer-{layer}.safetensors"
        save_moment(moment, path)
        rows.append({"layer": layer, "tokens": moment.count, "condition": f"{moment.condition:.2e}", "file": str(path)})
    show(as_json, rows, lambda: table(rows))
