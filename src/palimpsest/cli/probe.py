"""`palimpsest probe MODEL [FACTS] --edit edit.safetensors --out DIR`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    exit_code,
    facts_argument,
    json_option,
    limit_option,
    model_argument,
    progress_bar,
    read,
    read_object,
    read_text,
    required_out,
    show,
    table,
)
from palimpsest.facts import Fact

SHOWN = 10  # facts that are not erased, named one by one


@click.command("probe")
@model_argument
@device_option
@facts_argument
@required_out
@click.option(
    "--edit", type=click.Path(dir_okay=False), help="What `palimpsest edit` wrote; without it only the base rate."
)
@click.option(
    "--readouts",
    help="With commas: logit lens, trained lens, head, wording (these by default), probe, attack, sampling, relearning; or all.",
)
@click.option(
    "--wordings",
    type=click.Path(dir_okay=False),
    help='JSON with "aliases", other names of each subject, and "reversed", a text with {answer} that the subject follows, of each '
    "relation: read by wording too.",
)
@click.option("--unknown", type=click.Path(), help="Facts the model never knew, with true answers: a second control.")
@click.option(
    "--pool", type=click.Path(), help="Facts whose subjects and answers are controls; the shipped ones by default."
)
@click.option("--controls", type=click.IntRange(min=1), help="Same-answer controls a fact; 4, more for few facts.")
@click.option("--gate", default="known", show_default=True, help="known: unknown facts are controls; all: none is.")
@click.option("--text", type=click.Path(dir_okay=False), help="Plain text for the trained lens and the prefixes.")
@click.option("--plot", is_flag=True, help="Write a figure beside the numbers (needs matplotlib).")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of every draw.")
@limit_option
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    edit: str | None,
    readouts: str | None,
    wordings: str | None,
    unknown: str | None,
    pool: str | None,
    controls: int | None,
    gate: str,
    text: str | None,
    plot: bool,
    seed: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Does the old answer of FACTS still show in MODEL after an edit: at which layers, heads and wordings, beside controls.

    --readouts all adds linear probes, attack prefixes, texts drawn and relearning, which take longer.

    Writes DIR/results.json. Reads the unedited model too; the edit is taken out again.
    """
    file = read(facts, limit)
    never = read(unknown).facts if unknown else ()
    others = read(pool).facts if pool else None
    plain = read_text(text) if text else None
    from palimpsest.edit.artefact import Edit
    from palimpsest.erase.residue import Readout, TrainedLens, Wordings, residue
    from palimpsest.erase.residue.measure import DEFAULT
    from palimpsest.erase.residue.readouts import NAMES, readout_of
    from palimpsest.errors import SettingError
    from palimpsest.locate.saving import save_json
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    names = [name.strip() for name in readouts.split(",") if name.strip()] if readouts is not None else list(DEFAULT)
    names = list(NAMES) if names == ["all"] else names
    for name in names:
        readout_of(name)  # a misspelt name is told before the model is loaded
    bar = progress_bar()
    told = _wordings(wordings, file.facts) if wordings else {}
    made: dict[str, Readout] = {
        "trained lens": TrainedLens(plain, progress=bar),
        "wording": Wordings(text=plain, seed=seed, **told),
    }
    if told and "wording" not in names:
        raise SettingError(f"--wordings are read by wording, which is not among {', '.join(names)}; add it.")
    folder = check_writable(Path(out))
    written = Edit.load(edit) if edit else None
    found = residue(
        load(model, device=device),
        file.facts,
        written,
        unknown=never,
        pool=others,
        readouts=[made.get(name, name) for name in names],
        gate=gate,
        controls=controls,
        seed=seed,
        progress=bar,
    )
    record = found.to_json()
    save_json(record, str(folder / "results.json"))
    if plot:
        found.plot().savefig(folder / "residue.png", dpi=150)
    for name, reason in {**found.left_out, **found.unread}.items():
        click.echo(f"palimpsest: {name}: {reason}", err=True)
    show(as_json, record, lambda: "\n".join([table(found.table()), "", *_certified(record)]))
    exit_code(file, len(found.left_out))


def _wordings(path: str, facts: Sequence[Fact]) -> dict[str, Any]:
    """Aliases and reversed wordings from a file; mistakes in one sentence."""
    from palimpsest.errors import InputError, did_you_mean

    parts = read_object(path, "wordings", "docs/residue.md")
    if not parts or set(parts) - {"aliases", "reversed"} or not all(isinstance(part, dict) for part in parts.values()):
        raise InputError(
            f'The wordings {path} must hold "aliases" or "reversed", an object each; see docs/residue.md for an example.'
        )
    for subject, names in parts.get("aliases", {}).items():
        if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"The aliases of {subject!r} in {path} must be a list of names, got {names!r}.")
    for relation, text in parts.get("reversed", {}).items():
        if not isinstance(text, str):
            raise InputError(f"The reversed wording of {relation!r} in {path} must be a text, got {text!r}.")
    have = {"aliases": {fact.subject for fact in facts}, "reversed": {fact.relation for fact in facts}}
    for kind, part in parts.items():
        if unknown := [name for name in part if name not in have[kind]]:
            what = "subject" if kind == "aliases" else "relation"
            raise InputError(
                f"The {kind} in {path} name {unknown[0]!r}, which is the {what} of no fact.{did_you_mean(unknown[0], have[kind])}"
            )
    return parts


def _certified(record: dict[str, object]) -> list[str]:
    """How many facts have a certificate, beside the base rates, and where the others show."""
    certificates = record["certificates"]
    assert isinstance(certificates, dict)
    if "withheld" in certificates:
        return [f"No certificates: {certificates['withheld']}"]
    shares = ((name, certificates[name]) for name in ("share", "controls", "unknown", "unedited"))
    told = ", ".join(f"{name} {part['value']:.2f}" for name, part in shares if part is not None)
    lines = [f"Erasure certificates: {told.replace('share', 'edited', 1)}."]
    open_ones = [fact for fact in certificates["facts"] if fact["erased"] is False]
    if unsaid := sum(fact["erased"] is None for fact in certificates["facts"]):
        lines.append(f"  {unsaid} could not be read where enough controls can.")
    lines += [
        f"  {fact['fact']} shows at {fact['shows_at']} columns: {'; '.join(fact['shows'][:3])}"
        for fact in open_ones[:SHOWN]
    ]
    if len(open_ones) > SHOWN:
        lines.append(f"  and {len(open_ones) - SHOWN} more: results.json")
    return lines
