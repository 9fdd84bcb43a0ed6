"""`palimpsest audit MODEL [FACTS] --claim rome-2022 --size standard --out DIR`."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    json_option,
    model_argument,
    out_option,
    progress_bar,
    read,
    show,
    table,
)

if TYPE_CHECKING:
    from palimpsest.audit.planning import AuditPlan


@click.command("audit")
@model_argument
@device_option
@click.argument("facts", required=False)
@out_option
@click.option("--claim", default="rome-2022", show_default=True, help="A claim that ships, or a claim file.")
@click.option(
    "--size", default="standard", show_default=True, help="smoke (minutes on a small model), standard, or full."
)
@click.option("--rules", default="mv27-formal", show_default=True, help="mv27-formal, mv27-criterion, or a rules file.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="For all of it; the plan is cut to fit.")
@click.option("--only", help="Experiments to run beside tracing, with commas; the rest is not tested.")
@click.option("--dry-run", is_flag=True, help="Tell the plan (experiments, facts, minutes) and measure nothing.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw.")
@json_option
def command(
    model: str,
    device: str | None,
    facts: str | None,
    out: str | None,
    claim: str,
    size: str,
    rules: str,
    minutes: float | None,
    only: str | None,
    dry_run: bool,
    seed: int,
    as_json: bool,
) -> None:
    """What may be claimed of MODEL: measure 27 criteria of validity, each with its null, and write DIR/report.html.

    FACTS have true and new answers; the shipped ones when none are given, or the made world's for a model of it. The same
    command takes an interrupted audit up again.
    """
    if out is None and not dry_run:
        raise click.UsageError(
            "say where the audit is kept, with --out DIR; --dry-run tells the plan and keeps nothing."
        )
    file = read(facts) if facts else None
    names = [name.strip() for name in only.split(",") if name.strip()] if only is not None else None
    from palimpsest.audit.audit import audit, plan_audit
    from palimpsest.model import load

    loaded = load(model, device=device)
    given = list(file) if file is not None else None
    if dry_run:
        planned = plan_audit(loaded, given, claim=claim, size=size, rules=rules, minutes=minutes, only=names, seed=seed)
        show(as_json, planned.to_json(), lambda: _told(planned))
        return
    assert out is not None  # asked above
    report = audit(
        loaded,
        given,
        claim=claim,
        size=size,
        out=out,
        rules=rules,
        minutes=minutes,
        only=names,
        seed=seed,
        command=shlex.join(["palimpsest", *sys.argv[1:]]),
        progress=progress_bar(),
    )
    record = report.to_json()
    report.to_html(Path(out) / "report.html")
    show(as_json, record, report.summary)
    if file is not None:
        exit_code(file)


def _told(plan: "AuditPlan") -> str:
    """The plan as a table, and what it leaves out."""
    rows = [
        {"experiment": step.experiment, "units": step.units, "of": step.asked, "minutes": round(step.minutes, 1)}
        for step in plan.steps
    ]
    besides = f"{plan.besides:.1f} of them for choosing facts and place and for the untrained model"
    return "\n".join([table(rows), "", f"about {plan.estimated:.1f} minutes, {besides}", *plan.left_out()])
