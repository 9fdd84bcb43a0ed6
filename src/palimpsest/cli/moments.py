"""`palimpsest moments MODEL --layers L --out DIR`."""

from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
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

FILE = "moments.safetensors"


@click.command("moments")
@model_argument
@device_option
@required_out
@layers_option
@text_option
@click.option("--dataset", metavar="NAME[:CONFIG][:SPLIT][:COLUMN]", help="Text from a dataset instead of a file.")
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens to read; ten times the key width.")
@click.option(
    "--import", "imported", type=click.Path(dir_okay=False), help="Take an .npz of the Bau lab, of one layer."
)
@click.option("--replace", is_flag=True, help="Replace layers that DIR holds from another text or number of tokens.")
@json_option
def command(
    model: str,
    device: str | None,
    out: str,
    layers: tuple[int, ...] | None,
    text: str | None,
    dataset: str | None,
    tokens: int | None,
    imported: str | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Second moments of the keys of some layers of MODEL, all in one pass, as DIR/moments.safetensors.

    Prints how well each can be solved with, and its null space. The same command continues a pass that was interrupted, and
    measures nothing twice.
    """
    if sum(given is not None for given in (text, dataset, imported)) > 1:
        raise click.UsageError("give one of --text, --dataset and --import")
    if imported is not None and (layers is None or len(layers) != 1 or tokens is not None):
        raise click.UsageError("--import takes the statistics of one layer: name it with --layers, without --tokens")
    from palimpsest.edit.defaults import default_layer
    from palimpsest.edit.moments import dataset_text, moments_in_file, put_in_file, read_bau_lab, token_budget
    from palimpsest.facts import shipped_text
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    path = check_writable(Path(out)) / FILE
    plain = read_text(text) if text else shipped_text()
    loaded = load(model, device=device)
    wanted = (default_layer(loaded),) if layers is None else layers
    if imported is not None:
        module = loaded.anatomy.down(wanted[0]).path
        moments = {wanted[0]: read_bau_lab(Path(imported), wanted[0], module=module)}
        put_in_file(loaded, moments, path, replace=replace)
    else:
        source = dataset or (Path(text).name if text else "shipped")
        if dataset is not None:
            plain = dataset_text(dataset, token_budget(loaded, wanted, tokens))
        moments = moments_in_file(
            loaded, wanted, plain, path, tokens=tokens, source=source, replace=replace, progress=progress_bar()
        )
    reports = [{**moment.report(), "layer": layer} for layer, moment in moments.items()]
    show(as_json, {"file": str(path), "layers": reports}, lambda: _page(reports, path))


def _page(reports: list[dict[str, Any]], path: Path) -> str:
    """A line a layer, then what is wrong with some of them."""
    from palimpsest.edit.moments.moment import NULL_SPACES

    rows = [
        {
            "layer": report["layer"],
            "width": report["width"],
            "tokens": report["tokens"],
            "condition": "-" if report["condition"] is None else f"{report['condition']:.2e}",
            **{f"null at {name}": _room((report["null_space"] or {}).get(name)) for name in NULL_SPACES},
        }
        for report in reports
    ]
    notes = [report["problem"] for report in reports if report["problem"]]
    notes += [
        f"Layer {report['layer']}: {room['share']:.0%} of the directions are null at {name}; below 5 % an edit has no room there, "
        f"above 95 % nothing is protected."
        for report in reports
        for name, room in (report["null_space"] or {}).items()
        if not room["safe"]
    ]
    return "\n".join([table(rows), "", *notes, f"Second moments of {len(reports)} layers are in {path}."])


def _room(room: dict[str, Any] | None) -> str:
    return "-" if room is None else f"{room['size']} ({room['share']:.0%})"
