"""`palimpsest trace MODEL [FACTS] --out DIR`."""

import hashlib
import json
from pathlib import Path

import click

from palimpsest.cli.common import (
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


@click.command("trace")
@model_argument
@facts_argument
@required_out
@limit_option
@preset_option
@seed_option
@click.option("--samples", type=click.IntRange(min=1), help="Noise samples (10).")
@click.option(
    "--noise-level", type=float, help="Standard deviation of the noise; 3 times the spread of the embeddings."
)
@json_option
def command(
    model: str,
    facts: str,
    out: str,
    limit: int | None,
    preset: str | None,
    seed: int | None,
    samples: int | None,
    noise_level: float | None,
    as_json: bool,
) -> None:
    """Trace each of FACTS on MODEL: which states, put back, bring the answer back. Resumes an interrupted run."""
    import numpy as np

    file = read(facts, limit)
    from palimpsest.locate import trace
    from palimpsest.model import load
    from palimpsest.runs import Plan, Run, check_writable

    check_writable(Path(out))
    settings = given(preset=preset, seed=seed, samples=samples, noise_level=noise_level)
    by_id = {fact.id: fact for fact in file.facts}
    rows, failed = [], 0
    loaded, bar = load(model), progress_bar()
    content = hashlib.sha256(json.dumps([fact.to_json() for fact in file.facts], sort_keys=True).encode()).hexdigest()
    plan = {"model": model, "weights": loaded.fingerprint(), "facts": content, "trace": settings}
    with Run(Path(out), Plan(list(by_id), plan)) as run:

        def one(name: str | int) -> dict[str, object]:
            spread_of = file.facts if len(by_id) > 1 else None
            inner = bar if len(by_id) == 1 else None
            return trace(loaded, by_id[str(name)], spread_of=spread_of, progress=inner, **settings).to_json()

        for record in run.map(one, bar if len(by_id) > 1 else None):
            if "error" in record:
                failed += 1
                click.echo(f"palimpsest: {record['id']}: {record['error']}", err=True)
                continue
            effect = np.array(record["effect"])
            token, layer = np.unravel_index(effect.argmax(), effect.shape)
            rows.append(
                {
                    "fact": record["id"],
                    "clean": record["clean"],
                    "corrupted": record["corrupted"],
                    "largest effect": float(effect.max()),
                    "at token": record["tokens"][token].strip(),
                    "layer": int(layer),
                }
            )
        run.finish({"n": len(rows), "facts": rows})
    show(as_json, rows, lambda: table(rows) + f"\n\nEverything is in {out}.")
    exit_code(file, failed)
