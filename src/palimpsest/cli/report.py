"""`palimpsest report DIR`."""

from pathlib import Path

import click

REPORT, PAGE = "report.json", "report.html"


@click.command("report")
@click.argument("folder", metavar="DIR", type=click.Path())
def command(folder: str) -> None:
    """Make the page DIR/report.html from DIR/report.json, which palimpsest audit wrote: one file, for any browser, offline."""
    from palimpsest.report.audit_page import audit_page, read_report
    from palimpsest.runs import atomic_write

    page = Path(folder) / PAGE
    atomic_write(page, audit_page(read_report(Path(folder) / REPORT)))
    click.echo(f"{page}: open it in any browser, or print it.")
