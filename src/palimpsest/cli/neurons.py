"""`palimpsest neurons MODEL [FACTS] --out DIR`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    facts_argument,
    given,
    json_option,
    limit_option,
    model_argument,
    preset_option,
    progress_bar,
    read,
    required_out,
    seed_option,
    show,
    table,
)


@click.command("neurons")
@model_argument
@device_option
@facts_argument
@required_out
@limit_option
@preset_option
@seed_option
@click.option("--steps", type=click.IntRange(min=1), help="Points on the path from the baseline (20).")
@click.option("--score", help="What is attributed: probability, log-probability, logit-difference, ...")
@click.option("--gate", default="known", show_default=True, help="Facts of the summary: known, eligible or all.")
@click.option("--random-sets", type=click.IntRange(min=1), default=20, show_default=True, help="Random sets a fact.")
@click.option("--elsewhere", type=click.IntRange(min=0), default=5, show_default=True, help="Unrelated facts a fact.")
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    limit: int | None,
    preset: str | None,
    seed: int | None,
    steps: int | None,
    score: str | None,
    gate: str,
    random_sets: int,
    elsewhere: int,
    as_json: bool,
) -> None:
    """Knowledge neurons of each of FACTS on MODEL, suppressed and amplified beside random ones. Resumes an interrupted run."""
    file = read(facts, limit)
    from palimpsest.locate.neuron.survey import NeuronWork, survey_table
    from palimpsest.model import load
    from palimpsest.runs import Plan, Run, check_writable

    check_writable(Path(out))
    settings: dict[str, Any] = given(preset=preset, steps=steps, score=score)
    loaded = load(model, device=device)
    content = hashlib.sha256(json.dumps([fact.to_json() for fact in file.facts], sort_keys=True).encode()).hexdigest()
    effects: dict[str, Any] = {"random_sets": random_sets, "elsewhere": elsewhere, "seed": seed or 0, "gate": gate}
    work = NeuronWork(loaded, file.facts, settings, **effects)
    plan = {
        "model": model,
        "weights": loaded.fingerprint(),
        "facts": content,
        "neurons": settings,
        "effects": effects,
    }
    with Run(Path(out), Plan(work.items, plan)) as run:
        records = run.map(lambda item: work.do(str(item), run.records), progress_bar())
        result = work.results(records)
        run.finish(result)
    for record in records:
        if "error" in record:
            click.echo(f"palimpsest: {record['id']}: {record['error']}", err=True)
    rows = survey_table(records)
    failed = len({str(record["id"]).split(":", 1)[1] for record in records if "error" in record})

    def text() -> str:
        failing = len(result["not_passed"])
        said = f"{failing} of {len(rows)} facts do not pass the gate {gate!r}: shown above, left out of the summary."
        return f"{table(rows)}\n\n{table(result['table'])}\n\n{said}\nEverything is in {out}."

    show(as_json, result, text)
    exit_code(file, failed)
