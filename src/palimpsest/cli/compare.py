"""`palimpsest compare A B`."""

from pathlib import Path

import click

from palimpsest.cli.common import json_option, out_option, show, table


@click.command("compare")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option(
    "--difference",
    type=float,
    default=0.05,
    show_default=True,
    help="The difference that 'n needed' is worked out for.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the bootstrap and the sign flips.")
@out_option
@json_option
def command(a: str, b: str, difference: float, seed: int, out: str | None, as_json: bool) -> None:
    """Compare two runs of evaluate, A and B (their --out folders), on the records that both measured."""
    from palimpsest.evaluate.compare import compare
    from palimpsest.runs import check_writable

    if out:
        check_writable(Path(out))
    comparison = compare(a, b, difference=difference, seed=seed)
    if out:
        comparison.save(Path(out) / "comparison.json")
    show(as_json, comparison.to_json(), lambda: "\n".join([table(comparison.table()), "", *comparison.notes()]))
