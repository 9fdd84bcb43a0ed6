"""`palimpsest doctor MODEL`."""

import dataclasses

import click

from palimpsest.cli.common import json_option, model_argument, show, table


@click.command("doctor")
@model_argument
@json_option
def command(model: str, as_json: bool) -> None:
    """Check that every site of MODEL means what its name says, and that partial runs are exact. Exit 1 when not."""
    from palimpsest.errors import AnatomyError
    from palimpsest.model import examine, load

    try:
        found = examine(load(model, check=False))
    except AnatomyError as error:  # a site was not found at all
        click.echo(f"{model}: failed: {error}")
        raise click.exceptions.Exit(1) from None

    def text() -> str:
        parts = [{"part": name, "path": path, "module": kind} for name, path, kind in found.parts]
        checks = [
            {
                "check": c.name,
                "property": c.meaning,
                "deviation": f"{c.deviation:.1e}",
                "allowed": f"{c.allowed:.0e}",
                "": ("holds" if c.passed else "FAILS") + (f" ({c.where})" if c.where and not c.passed else ""),
            }
            for c in found.checks
        ]
        head = f"{found.architecture}: {found.layers} layers, width {found.width}"
        return "\n\n".join([head, table(parts), table(checks), found.verdict])

    show(as_json, {**dataclasses.asdict(found), "healthy": found.healthy, "verdict": found.verdict}, text)
    if not found.healthy:
        raise click.exceptions.Exit(1)
