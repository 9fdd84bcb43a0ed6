"""One file of second moments that grows layer by layer: what is in it is not measured again, what was interrupted goes on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from palimpsest.edit.moments.collect import collect_moments, token_budget
from palimpsest.edit.moments.files import load_moments, save_moments
from palimpsest.edit.moments.moment import SecondMoment
from palimpsest.edit.moments.provenance import provenance_of
from palimpsest.errors import WeightError
from palimpsest.model import Model
from palimpsest.runs import Progress, check_writable
from palimpsest.runs.atomic import remove_leftovers

PARTIAL = "moments.partial"


def moments_in_file(
    model: Model,
    layers: Sequence[int],
    text: str,
    path: Path,
    *,
    tokens: int | None = None,
    source: str = "",
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """Second moments of `layers`, from `path` where it holds them and measured into it where it does not.

    Args:
        model, layers, text, tokens, progress: as for `collect_moments`.
        path: the file; other layers of this model that are in it stay there.
        source: a name for the text, for the provenance.

    Raises:
        WeightError: the file holds second moments of another model.
        EditError: the file is damaged.
        OutputError: the folder cannot be written.
    """
    folder = check_writable(path.parent)
    budget = token_budget(model, layers, tokens)
    held = _held(model, path)
    cards = provenance_of(model, layers, text, budget)
    missing = [
        layer for layer in layers if layer not in held or not cards[layer].items() <= held[layer].provenance.items()
    ]
    if missing:
        remove_leftovers(folder, PARTIAL)
        measured = collect_moments(model, missing, text, tokens=budget, progress=progress, resume=folder / PARTIAL)
        new = {
            layer: replace(moment, provenance={**moment.provenance, "source": source} if source else moment.provenance)
            for layer, moment in measured.items()
        }
        held = _write(held, new, path)
    return {layer: held[layer] for layer in layers}


def put_in_file(model: Model, moments: Mapping[int, SecondMoment], path: Path) -> None:
    """Add second moments that were measured elsewhere to a file; raises `WeightError` when they do not fit `model`."""
    for layer, moment in moments.items():
        moment.check_made_for(model, layer)
    check_writable(path.parent)
    _write(_held(model, path), moments, path)


def _held(model: Model, path: Path) -> dict[int, SecondMoment]:
    held = load_moments(path) if path.is_file() else {}
    for layer, moment in held.items():
        try:
            moment.check_made_for(model, layer)
        except WeightError as error:
            raise WeightError(f"{path} cannot take this model's second moments, name another place: {error}") from None
    return held


def _write(held: Mapping[int, SecondMoment], new: Mapping[int, SecondMoment], path: Path) -> dict[int, SecondMoment]:
    together = dict(sorted({**held, **new}.items()))
    remove_leftovers(path.parent, path.name)
    save_moments(together, path)
    return together
