"""`palimpsest trace MODEL [FACTS] --out DIR`."""

from pathlib import Path

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
@device_option
@facts_argument
@required_out
@limit_option
@preset_option
@seed_option
@layers_option
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["state", "mlp", "attn"]),
    help="What is restored (state); may be given several times.",
)
@click.option("--window", type=int, help="Layers of MLP or attention outputs restored together (10).")
@click.option(
    "--severed", type=click.Choice(["mlp", "attn"]), help="Hold later outputs at the token at corrupted values."
)
@click.option("--corruption", help="noise (the default), swap, mean or relation.")
@click.option("--score", help="probability (the default), log-probability or logit-difference.")
@click.option("--donor", help="clean (the default), or shuffled-subject: the control.")
@click.option("--gate", help="A fact is known when its answer comes first (first), or above the foil (foil).")
@click.option(
    "--lesion",
    "by",
    type=click.Choice(["noise", "interchange", "mean", "resample", "zero"]),
    help="Lesion the clean run as well, on the same grid, by this.",
)
@click.option("--samples", type=click.IntRange(min=1), help="Noise samples, or subjects swapped in.")
@click.option(
    "--noise-level", type=float, help="Standard deviation of the noise; 3 times the spread of the embeddings."
)
@click.option("--batch-tokens", type=click.IntRange(min=1), help="Largest number of tokens run at once (memory).")
@click.option("--plot", is_flag=True, help="Write figures beside the numbers (needs matplotlib).")
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    limit: int | None,
    preset: str | None,
    seed: int | None,
    layers: tuple[int, ...] | None,
    kinds: tuple[str, ...],
    window: int | None,
    severed: str | None,
    corruption: str | None,
    score: str | None,
    donor: str | None,
    gate: str | None,
    by: str | None,
    samples: int | None,
    noise_level: float | None,
    batch_tokens: int | None,
    plot: bool,
    as_json: bool,
) -> None:
    """Trace each of FACTS on MODEL: what, put back, brings the answer back. Resumes an interrupted run."""
    file = read(facts, limit)
    import numpy as np

    from palimpsest.locate.tracing.lesion import Lesioner
    from palimpsest.locate.tracing.survey import Mapper, survey
    from palimpsest.locate.tracing.trace import Tracer
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    check_writable(Path(out))
    shared = given(
        seed=seed,
        layers=layers,
        window=window,
        severed=severed,
        score=score,
        gate=gate,
        samples=samples,
        noise_level=noise_level,
        batch_tokens=batch_tokens,
    )
    restored = given(preset=preset, corruption=corruption, donor=donor)
    loaded, pool = load(model, device=device), file.facts if len(file.facts) > 1 else None
    kinds = kinds or ("state",)
    mappers: dict[str, Mapper] = {kind: Tracer.of(loaded, pool, kind=kind, **shared, **restored) for kind in kinds}
    if by:
        mappers |= {f"{kind}, lesion": Lesioner.of(loaded, pool, kind=kind, by=by, **shared) for kind in kinds}
    found = survey(loaded, file.facts, mappers, out=out, progress=progress_bar())
    for item, reason in found.failed.items():
        click.echo(f"palimpsest: {item}: {reason}", err=True)
    rows = []
    for label in found.records:
        for record in found.maps(label):
            effect = np.array(record["effect"])
            token, column = np.unravel_index(int(effect.argmax()), effect.shape)
            rows.append(
                {
                    "fact": record["fact"]["id"],
                    "kind": label,
                    "known": record["known"],
                    "clean": record["clean"],
                    "corrupted": record["corrupted"],
                    "largest effect": float(effect.max()),
                    "at token": record["tokens"][token].strip(),
                    "layer": record["layers"][column],
                }
            )
    if plot:
        _plot(Path(out), found)
    show(as_json, rows, lambda: table(rows) + f"\n\n{_remarks(found)}Everything is in {out}.")
    exit_code(file, len(found.failed))


def _plot(out: Path, found: object) -> None:
    """One figure of the maps of a single fact, or of the averages over several."""
    from palimpsest.errors import InputError
    from palimpsest.locate import Survey
    from palimpsest.locate.tracing.plot import plot_maps, plot_profiles, plot_role_maps

    assert isinstance(found, Survey)
    maps = [record for label in found.records for record in found.maps(label)]
    if len({record["fact"]["id"] for record in maps}) == 1:
        plot_maps(maps).savefig(out / "maps.png", dpi=150)
        return
    try:
        profiles = [found.average(label) for label in found.records]
    except InputError as error:
        click.echo(f"palimpsest: no figure: {error}", err=True)
        return
    plot_role_maps(profiles).savefig(out / "averages.png", dpi=150)
    plot_profiles(profiles).savefig(out / "profiles.png", dpi=150)


def _remarks(found: object) -> str:
    """What must be said beside the table."""
    from palimpsest.locate import Survey

    assert isinstance(found, Survey)
    lines = []
    if found.unknown:
        lines.append(f"{len(found.unknown)} facts are not known to the model (column known); averages leave them out.")
    for item, reason in list(found.withheld.items())[:5]:
        lines.append(f"{item}: effects are not divided by the total effect, because {reason}.")
    return "".join(f"{line}\n" for line in lines)
