"""`palimpsest demo`."""

import click

from palimpsest.cli.common import progress_bar, table


@click.command("demo")
@click.option("--out", default="demo", show_default=True, help="Folder for report.html.")
def command(out: str) -> None:
    """Check smollm2, trace three facts, edit them, measure, undo, prove the undo, and write a report."""
    from palimpsest.demo import run_demo

    result = run_demo(out, say=lambda text: click.echo(text, err=True), progress=progress_bar())
    rows = [
        {
            "prompt": f"{t.fact.text} ...",
            "old": t.fact.target_true,
            "new": t.fact.target_new,
            "total effect": t.total_effect,
            "darkest state": f"{t.tokens[t.peak[0]].strip()!r} layer {t.peak[1]}",
        }
        for t in result.traces
    ]
    click.echo(f"{result.verdict}\n\n{table(rows)}\n\n{table(result.scores.table())}\n")
    click.echo("undo: every weight is bit for bit what it was" if result.undone else "undo: WEIGHTS DIFFER")
    click.echo(f"report: {result.page}")
    if not result.undone:
        raise click.exceptions.Exit(1)
