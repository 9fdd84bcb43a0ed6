"""A set of organisms: made one after the other into a folder, resumed after a kill, and told in one table.

    DIR/plan.json, samples.jsonl, timings.jsonl      the run (`palimpsest.runs`); a line an organism with its acceptance
    DIR/results.json                                 the table, when all are made
    DIR/mlp-3-world/                                 one organism each

A failed organism stays in the folder and in the table, with the tests it failed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from palimpsest.edit.artefact import versions
from palimpsest.errors import EditError, SettingError, did_you_mean
from palimpsest.model import Model
from palimpsest.runs import Plan, Progress, Run
from palimpsest.world.organisms.kinds import Design, grow
from palimpsest.world.organisms.organism import CARD, Organism, place_name
from palimpsest.world.world import World


def make_organisms(
    bases: Mapping[str, Model],
    designs: Sequence[Design],
    out: Path | str,
    world: World,
    *,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Make every organism that is not there yet.

    Args:
        bases: name -> model.
        designs: what to make; see `planned`.
        out: folder; a run with the same designs is taken up where it stopped.
        world: the one the bases were trained on.
        progress: called with (organisms done, organisms, name).

    Returns:
        The table: one row an organism, as `row_of` gives it.

    Raises:
        SettingError: a design names a base that is not given, or the folder holds a run of other designs.
        OutputError: the folder cannot be written.
    """
    by_name = {design.name: design for design in designs}
    for design in designs:
        if design.base not in bases:
            raise SettingError(f"{design.name} needs the base {design.base!r}.{did_you_mean(design.base, bases)}")
    settings = {
        "designs": [asdict(design) for design in designs],
        "bases": {name: model.fingerprint() for name, model in bases.items()},
        "world": world.seed,
        "versions": versions(),
    }
    folder = Path(out)

    def make(name: Any) -> dict[str, Any]:
        design = by_name[str(name)]
        organism = grow(bases[design.base], design, world)
        organism.save(folder / design.name)
        return row_of(organism)

    with Run(folder, Plan([design.name for design in designs], settings)) as run:
        rows = run.map(make, progress)
        accepted = sum(bool(row.get("accepted")) for row in rows)
        run.finish({"organisms": rows, "accepted": accepted, "made": len(rows), "settings": settings})
    return rows


def load_organisms(folder: Path | str) -> list[Organism]:
    """Every organism in a folder, by name; failed ones too.

    Raises:
        EditError: there is none, or one is damaged.
    """
    found = sorted(path.parent for path in Path(folder).glob(f"*/{CARD}"))
    if not found:
        raise EditError(f"There are no organisms in {folder}; name a folder that `palimpsest world organisms` wrote.")
    return [Organism.load(path) for path in found]


def row_of(organism: Organism) -> dict[str, Any]:
    """What the table says of an organism: what it is, its measurements, and by how much each graft drops recall."""
    found = organism.acceptance
    places = sorted({place for some in organism.places.values() for place in some})
    whole = found.grafts["none"]
    return {
        "name": organism.name,
        "kind": organism.kind,
        "model": organism.base,
        "places": {relation: [place_name(place) for place in some] for relation, some in organism.places.items()},
        "facts": len(organism.facts),
        "steps": organism.edit.notes.get("steps"),
        "drops": {place_name(place): round(whole - found.grafts[place_name(place)], 4) for place in places},
        **found.to_json(),
    }
