"""`palimpsest edit MODEL FACTS --method M --out DIR`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
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
    set_option,
    show,
    table,
    text_option,
)

if TYPE_CHECKING:
    from palimpsest.erase.propagate import Plan
    from palimpsest.facts import Fact
    from palimpsest.model import Model

SHOWN = 20  # facts listed one by one; more are summed up


@click.command("edit")
@model_argument
@device_option
@click.argument("source", metavar="FACTS")
@out_option
@click.option("--method", default="rome", show_default=True, help="The editing method.")
@preset_option
@layers_option
@limit_option
@seed_option
@text_option
@click.option("--moments", type=click.Path(), help="A file of second moments (palimpsest moments) instead of --text.")
@set_option
@click.option(
    "--propagate",
    "rules_path",
    type=click.Path(dir_okay=False),
    help="A file of rules: write what the facts entail too.",
)
@click.option("--plan", "only_plan", is_flag=True, help="With --propagate: say what would be written, and stop.")
@json_option
def command(
    model: str,
    device: str | None,
    source: str,
    out: str | None,
    method: str,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    moments: str | None,
    settings: dict[str, Any],
    rules_path: str | None,
    only_plan: bool,
    as_json: bool,
) -> None:
    """Write FACTS into MODEL as DIR/edit.safetensors. The model itself is not changed.

    The same command goes on with an edit that was interrupted. With --propagate the plan is shown first: what follows from the
    facts by the rules, and what the model says of it now; --plan stops there. A fact that cannot be written (it has no answer to
    write, or the model cannot read it) is named and left out, the others are written, and the command ends with 1.
    """
    if only_plan and rules_path is None:
        raise click.UsageError("--plan shows what rules entail, so it needs --propagate RULES.json")
    if out is None and not only_plan:
        raise click.UsageError("an edit needs a folder to be written to; give --out DIR")
    file = read(source, limit)
    from palimpsest.edit import editor
    from palimpsest.edit.closed_form import ClosedForm
    from palimpsest.edit.defaults import RULE
    from palimpsest.edit.moments import load_moments
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    loaded, planned = None, None
    if rules_path is not None:
        from palimpsest.erase.propagate import derive, plan, read_rules

        rules = read_rules(rules_path)
        # what is wrong with rules and facts is said before a model is loaded
        derive([fact for fact in file.facts if fact.target_new is not None], rules)
        if out is not None and not only_plan:
            check_writable(Path(out))  # before the model is asked
        loaded = load(model, device=device)
        facts, unable = _sorted_out(loaded, file.facts)
        planned = plan(loaded, facts, rules, progress=progress_bar())
        if only_plan:
            show(as_json, planned.to_json() | _left_out(unable), lambda: _planned(planned))
            exit_code(file, len(unable), "written")
            return
        click.echo(_planned(planned), err=True)
    folder = check_writable(Path(str(out)))
    plain = read_text(text) if text else None
    measured = load_moments(Path(moments)) if moments else None
    loaded = loaded or load(model, device=device)
    chosen = given(preset=preset, seed=seed, text=plain, moments=measured) | settings
    values = folder / ".palimpsest-values"
    prepared = editor(loaded, method, layers=layers, resume=values, progress=progress_bar(), **chosen)
    if planned is None:
        facts, unable = _sorted_out(loaded, file.facts, getattr(prepared, "needs_answer", True))
    if str(prepared.card.get("layers_from", "")).startswith(RULE):
        click.echo(f"palimpsest: layers {prepared.card['layers']} are by {RULE}", err=True)
    if isinstance(prepared, ClosedForm) and prepared.settings.same_key == "merge":
        for group in prepared.shared_keys(facts):
            named = " and ".join(group)
            click.echo(f"palimpsest: {named} share a key, so one value is sought for them together", err=True)
    carried = None
    if planned is None:
        made = prepared.edit(facts)
    else:
        from palimpsest.erase.propagate import propagate

        carried = propagate(loaded, planned, method=prepared)
        made = carried.edit
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
    data |= _left_out(unable)
    said = [*_text(notes, rounding)]
    if carried is not None:
        data["propagated"] = carried.to_json()
        said.append(str(carried.guard))
    show(as_json, data, lambda: "\n\n".join([*said, f"{made!r} is in {path}."]))
    exit_code(file, len(unable), "written")


def _sorted_out(
    model: "Model", facts: Sequence["Fact"], answers: bool = True
) -> tuple[list["Fact"], list[tuple["Fact", str]]]:
    """The facts that can be in an edit, each other one named on standard error."""
    from palimpsest.edit.requests import sorted_out

    able, unable = sorted_out(model, facts, answers=answers)
    for fact, why in unable:
        click.echo(f"palimpsest: the fact {fact.id} is left out. {why}", err=True)
    return able, unable


def _left_out(unable: Sequence[tuple["Fact", str]]) -> dict[str, Any]:
    """What is said of facts that were left out."""
    return {"left_out": [{"fact": fact.id, "why": why} for fact, why in unable]}


def _planned(plan: "Plan") -> str:
    """A plan as a table, and what is worth knowing about it."""
    parts = [table(plan.rows(), columns=("what", "statement", "instead of", "now", "action", "by", "from"))]
    unsure = [f"{hop.relation}({hop.subject})" for hop in plan.hops if not hop.taken]
    if unsure:
        more = f" and {len(unsure) - SHOWN} more" if len(unsure) > SHOWN else ""
        parts.append(f"The model is not sure of {', '.join(unsure[:SHOWN])}{more}; nothing was concluded from these.")
    if plan.outside:
        named = ", ".join(fact.id for fact in plan.outside[:SHOWN])
        parts.append(
            f"No more follows from {named}: their relations are not in the rules, or another fact says the same."
        )
    return "\n\n".join(parts)


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
