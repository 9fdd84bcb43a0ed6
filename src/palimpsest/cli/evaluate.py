"""`palimpsest evaluate MODEL FACTS --suite S --method M --out DIR`."""

from pathlib import Path

import click

from palimpsest.cli.common import (
    exit_code,
    facts_argument,
    given,
    json_option,
    layers_option,
    limit_option,
    model_argument,
    out_option,
    preset_option,
    progress_bar,
    read,
    read_text,
    seed_option,
    show,
    table,
    text_option,
)


@click.command("evaluate")
@model_argument
@facts_argument
@out_option
@click.option("--suite", default="counterfact", show_default=True)
@click.option("--method", help="Edit each fact by itself with this method.")
@click.option("--edit", "edit_file", help="Or measure this edit file.")
@click.option("--dose", type=float, default=1.0, show_default=True, help="Dose of the edit.")
@click.option(
    "--only",
    "gate",
    type=click.Choice(["all", "known", "eligible"]),
    default="all",
    show_default=True,
    help="Keep facts that pass a gate on the unedited model (before --limit).",
)
@preset_option
@layers_option
@limit_option
@seed_option
@text_option
@click.option("--shard", help="i/n: this process's share.")
@json_option
def command(
    model: str,
    facts: str,
    out: str | None,
    suite: str,
    method: str | None,
    edit_file: str | None,
    dose: float,
    gate: str,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    shard: str | None,
    as_json: bool,
) -> None:
    """Measure FACTS on MODEL before and after editing. The same command resumes an interrupted run."""
    file = read(facts, limit if gate == "all" else None)
    from palimpsest.edit import Edit
    from palimpsest.evaluate import evaluate
    from palimpsest.locate import passing
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    if out:
        check_writable(Path(out))
    edit = Edit.load(edit_file) if edit_file else None
    loaded, bar = load(model), progress_bar()
    chosen = passing(loaded, file.facts, gate, limit=limit, progress=bar)
    plain = read_text(text) if text else None
    settings = given(preset=preset, seed=seed, layers=layers, text=plain)
    scores = evaluate(
        loaded,
        chosen,
        edit=edit,
        method=method,
        suite=suite,
        dose=dose,
        out=out,
        shard=shard,
        progress=bar,
        **settings,
    )
    for record in scores.failed:
        click.echo(f"palimpsest: {record['id']}: {record['error']}", err=True)
    show(
        as_json,
        scores.summary(),
        lambda: f"{table(scores.table())}\n\nn = {len(scores.measured)} of {len(chosen)} facts.",
    )
    exit_code(file, len(scores.failed))
