"""One file of second moments that grows layer by layer: what is in it is not measured again, what was interrupted goes on."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from palimpsest.edit.moments.collect import collect_moments, token_budget
from palimpsest.edit.moments.files import load_moments, save_moments
from palimpsest.edit.moments.moment import SecondMoment
from palimpsest.edit.moments.provenance import provenance_of
from palimpsest.errors import SettingError, WeightError
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
    replace: bool = False,
    progress: Progress | None = None,
) -> dict[int, SecondMoment]:
    """Second moments of `layers`, from `path` where it holds them and measured into it where it does not.

    Args:
        model, layers, text, tokens, progress: as for `collect_moments`.
        path: the file; other layers of this model that are in it stay there.
        source: a name for the text, for the provenance.
        replace: measure again what the file holds of these layers from another text or budget.

    Raises:
        SettingError: the file holds some of these layers, from another text or budget, and `replace` is not said.
        WeightError: the file holds second moments of another model.
        EditError: the file is damaged.
        OutputError: the folder cannot be written.
    """
    folder = check_writable(path.parent)
    budget = token_budget(model, layers, tokens)
    held = _held(model, path)
    cards = provenance_of(model, layers, text, budget)
    other = {layer: _differing(cards[layer], held[layer].provenance) for layer in layers if layer in held}
    _refuse_to_lose({layer: names for layer, names in other.items() if names and not replace}, path)
    missing = [layer for layer in layers if other.get(layer, ["all"])]
    if missing:
        remove_leftovers(folder, PARTIAL)
        measured = collect_moments(model, missing, text, tokens=budget, progress=progress, resume=folder / PARTIAL)
        new = {
            layer: dataclasses.replace(
                moment, provenance={**moment.provenance, "source": source} if source else moment.provenance
            )
            for layer, moment in measured.items()
        }
        held = _write(held, new, path)
    return {layer: held[layer] for layer in layers}


def put_in_file(model: Model, moments: Mapping[int, SecondMoment], path: Path, *, replace: bool = False) -> None:
    """Add second moments that were measured elsewhere to a file.

    Raises:
        SettingError: the file holds other ones of these layers, and `replace` is not said.
        WeightError: they do not fit `model`.
    """
    for layer, moment in moments.items():
        moment.check_made_for(model, layer)
    check_writable(path.parent)
    held = _held(model, path)
    other = {
        layer: _differing(moment.provenance, held[layer].provenance) or ["numbers"]
        for layer, moment in moments.items()
        if layer in held
        and not (moment.provenance == held[layer].provenance and moment.matrix.equal(held[layer].matrix))
    }
    _refuse_to_lose({} if replace else other, path)
    _write(held, moments, path)


def _differing(card: Mapping[str, str], held: Mapping[str, str]) -> list[str]:
    """Names of what `card` says otherwise than what is held."""
    return [name for name, value in card.items() if held.get(name) != value]


def _refuse_to_lose(other: Mapping[int, Sequence[str]], path: Path) -> None:
    for layer, names in other.items():
        raise SettingError(
            f"{path} holds the second moment of layer {layer} already, with other {' and '.join(names)}; name another place "
            f"(--out) for this one, or replace that one (--replace)."
        )


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
