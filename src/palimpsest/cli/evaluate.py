"""`palimpsest evaluate MODEL FACTS --suite A+B --method M --out DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palimpsest.cli.common import (
    device_option,
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
    read_text,
    seed_option,
    set_option,
    show,
    table,
    text_option,
)

if TYPE_CHECKING:  # the library is imported when the command runs, so that --help is quick
    from palimpsest.evaluate.scores import Scores
    from palimpsest.facts import Case, CaseFile
    from palimpsest.model import Model


def numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"write numbers of edits as 1,10,100, got {value!r}") from None


@click.command("evaluate")
@model_argument
@device_option
@facts_argument
@out_option
@click.option("--suite", default="counterfact", show_default=True, help="One suite, or several as a+b.")
@click.option("--method", help="Edit with this method.")
@click.option(
    "--mode",
    type=click.Choice(["each", "batch", "sequence"]),
    default="each",
    show_default=True,
    help="Edit each case by itself, all in one batch, or one after the other.",
)
@click.option("--at", callback=numbers, help="Sequence: measure after so many edits, such as 1,10,100.")
@click.option("--together", type=click.IntRange(min=1), default=1, show_default=True, help="Sequence: cases a step.")
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
@click.option("--schema", help="Read FACTS by this schema instead of the one found.")
@click.option("--cache", type=click.Path(file_okay=False), help="Folder that keeps the unedited model's answers.")
@preset_option
@layers_option
@limit_option
@seed_option
@text_option
@set_option
@click.option("--shard", help="i/n: this process's share.")
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str | None,
    suite: str,
    method: str | None,
    mode: str,
    at: tuple[int, ...],
    together: int,
    edit_file: str | None,
    dose: float,
    gate: str,
    schema: str | None,
    cache: str | None,
    preset: str | None,
    layers: tuple[int, ...] | None,
    limit: int | None,
    seed: int | None,
    text: str | None,
    settings: dict[str, Any],
    shard: str | None,
    as_json: bool,
) -> None:
    """Measure FACTS on MODEL before and after editing. The same command resumes an interrupted run."""
    from palimpsest.facts import read_cases

    most = limit if gate == "all" else None
    file = _passages(facts, most) if facts.endswith(".txt") else read_cases(facts, schema=schema, limit=most)
    for problem in file.problems:
        click.echo(f"palimpsest: {problem}", err=True)
    from palimpsest.edit import Edit
    from palimpsest.evaluate import evaluate, suite_of
    from palimpsest.evaluate.distributed import device_of_environment, is_first
    from palimpsest.evaluate.fitting import advice, require_fitting
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    chosen_suite = suite_of(suite)
    require_fitting(file.cases, chosen_suite, file.schema)
    if hint := advice(file.schema, chosen_suite):  # it can be measured so, and most of what its records ask is left out
        click.echo(f"palimpsest: {facts} can be measured by {chosen_suite.name} in part; {hint}.", err=True)
    if out:
        check_writable(Path(out))
    edit = Edit.load(edit_file) if edit_file else None
    plain = read_text(text) if text else None
    loaded = load(model, device=device or device_of_environment())
    chosen = _passing(loaded, file.cases, gate, limit)
    scores = evaluate(
        loaded,
        chosen,
        edit=edit,
        method=method,
        mode=mode,
        suite=chosen_suite,
        dose=dose,
        at=at,
        together=together,
        out=out,
        shard=shard,
        cache=cache,
        progress=progress_bar(),
        **given(preset=preset, seed=seed, layers=layers, text=plain),
        **settings,
    )
    if not is_first():  # of several processes the first tells of all cases
        return
    for record in scores.failed:
        click.echo(f"palimpsest: {record['id']}: {record['error']}", err=True)
    show(as_json, scores.summary(), lambda: _text(scores, len(chosen)))
    exit_code(file, len(scores.failed))


def _passages(path: str, limit: int | None) -> "CaseFile":
    """A plain text as cases to read (`--suite text`)."""
    from palimpsest.evaluate.suites.text import passages
    from palimpsest.facts import CaseFile

    return CaseFile(passages(read_text(path))[:limit], (), path, "text")


def _passing(model: "Model", cases: "Sequence[Case]", gate: str, limit: int | None) -> "list[Case]":
    """The first cases all of whose facts pass the gate."""
    from palimpsest.locate import passing

    if gate == "all":
        return list(cases)
    single = all(len(case.facts) == 1 for case in cases)  # then it need not ask beyond the limit
    facts = [fact for case in cases for fact in case.facts]
    passed = set(passing(model, facts, gate, limit=limit if single else None, progress=progress_bar()))
    return [case for case in cases if set(case.facts) <= passed][:limit]


def _text(scores: "Scores", asked: int) -> str:
    parts = [table(scores.table()), f"n = {len(scores.measured)} of {asked} cases."]
    if len(scores.check_points) > 1:
        parts.insert(1, table(scores.retention_table()))
    return "\n\n".join(parts)
