"""`palimpsest erase MODEL [FACTS] --concept C --out DIR`."""

from pathlib import Path
from typing import Any

import click

from palimpsest.cli.common import (
    device_option,
    given,
    json_option,
    layers_option,
    limit_option,
    model_argument,
    progress_bar,
    read,
    required_out,
    seed_option,
    show,
    table,
)

RELATION, NUMBER, UNWANTED = "relation:", "blimp-number", "unwanted"


@click.command("erase")
@model_argument
@device_option
@click.argument("facts", default="shipped")
@required_out
@click.option(
    "--concept",
    required=True,
    help="relation:NAME or blimp-number of FACTS; a JSON file of labelled texts, or of associations that must go; or unwanted, "
    "the associations that ship.",
)
@layers_option
@click.option("--kind", help="Where in a layer: resid_out, resid_in, attn_out, mlp_out or value.  [default: resid_out]")
@click.option("--token", help="Of a relation: subject_last or last.  [default: subject_last]")
@click.option("--least", help="Whose change is kept least: all tokens or the read ones.  [default: all]")
@click.option("--shrinkage", help="Of the covariance: auto, oas or none.  [default: auto]")
@click.option("--control", help="A control of equal rank instead: random or permuted.")
@click.option("--fold", is_flag=True, default=None, help="Into the weights instead of hooks, where that is exact.")
@click.option(
    "--drop-constant", is_flag=True, default=None, help="Fold into a map without a bias; moves the mean of the states."
)
@limit_option
@seed_option
@json_option
def command(
    model: str,
    device: str | None,
    facts: str,
    out: str,
    concept: str,
    layers: tuple[int, ...] | None,
    kind: str | None,
    token: str | None,
    least: str | None,
    shrinkage: str | None,
    control: str | None,
    fold: bool | None,
    drop_constant: bool | None,
    limit: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Erase a concept, or associations that must go, from MODEL as DIR/edit.safetensors. The model itself is not changed.

    Without --layers a concept is erased from the whole residual stream, layer after layer.
    """
    from palimpsest.erase.leace import erase_concept
    from palimpsest.model import load
    from palimpsest.runs import check_writable

    asked = _asked(concept, facts, limit, token)
    options = given(
        kind=kind, least=least, shrinkage=shrinkage, control=control, fold=fold, drop_constant=drop_constant, seed=seed
    )
    if isinstance(asked, tuple):
        _refuse(options, concept)
    folder = check_writable(Path(out))
    loaded = load(model, device=device)
    path = folder / "edit.safetensors"
    if isinstance(asked, tuple):
        from palimpsest.erase.unwanted import elicit, remove

        made = remove(loaded, asked, layers=layers, progress=progress_bar())
        made.save(path)
        tried = elicit(loaded, asked, made)
        data: dict[str, Any] = {
            "file": str(path),
            "associations": made.notes["associations"],
            "steps": made.notes["steps"],
            "elicitation": tried.to_json(),
        }
        parts = [table(made.notes["associations"]), table(tried.table())]
    else:
        made = erase_concept(loaded, asked, layers=layers, progress=progress_bar(), **options)
        made.save(path)
        data = {"file": str(path), "concept": asked.name, "classes": asked.sizes, "sites": made.notes["sites"]}
        parts = [table([{"class": name, "texts": n} for name, n in asked.sizes.items()]), table(made.notes["sites"])]
    show(as_json, data, lambda: "\n\n".join([*parts, f"{made!r} is in {path}."]))


def _asked(concept: str, facts: str, limit: int | None, token: str | None) -> Any:
    """The concept, or the associations as a tuple."""
    from palimpsest.erase.leace import number_concept, read_concept, relation_concept
    from palimpsest.erase.leace.concepts import json_list
    from palimpsest.erase.unwanted import read_associations, shipped_associations
    from palimpsest.errors import SettingError, did_you_mean

    if token is not None and not concept.startswith(RELATION):
        raise SettingError(f"--token is about a relation, and the concept is {concept!r}; leave it out.")
    if concept == UNWANTED:
        return shipped_associations()[:limit]
    if concept == NUMBER:
        return number_concept(read(facts, limit).facts)
    if concept.startswith(RELATION):
        return relation_concept(read(facts, limit).facts, concept.removeprefix(RELATION), **given(token=token))
    path = Path(concept)
    if not path.exists() and not path.suffix:
        raise SettingError(
            f"There is no concept {concept!r}.{did_you_mean(concept, [f'{RELATION}NAME', NUMBER, UNWANTED, 'FILE.json'])}"
        )
    if facts != "shipped":
        raise SettingError(
            f"The concept {concept} is a file of its own and no FACTS are read, got {facts!r}; leave them out."
        )
    entries = json_list(path, "labelled texts or associations")
    if entries and isinstance(entries[0], dict) and "completion" in entries[0]:
        return read_associations(path)[:limit]
    if limit is not None:
        raise SettingError(
            "--limit is of facts or associations, not of labelled texts; leave it out, or shorten the file."
        )
    return read_concept(path)


def _refuse(options: dict[str, Any], concept: str) -> None:
    from palimpsest.errors import SettingError

    if options:
        name = next(iter(options)).replace("_", "-")
        raise SettingError(f"--{name} is about erasing a concept, and {concept} holds associations; leave it out.")
