"""Files of second moments: one safetensors file for any number of layers, to keep and to share.

    tensors        "5", "6", ...: per layer the upper triangle of C, row after row, float64: d (d + 1) / 2 numbers
    __metadata__   {"palimpsest": JSON}, with
                       format     "palimpsest-moments/2"
                       layers     {layer: {"width": d, "count": n, "provenance": {...}}}

C is divided by the number of keys already. The file is written beside its final place and renamed, so that a kill leaves no half
file, and nothing in it is ever executed. Files of one layer in the first format are read as well.
"""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from palimpsest.edit.moments.moment import SecondMoment
from palimpsest.edit.moments.triangle import pack, unpack
from palimpsest.errors import EditError
from palimpsest.runs import atomic_path, check_writable

FORMAT = "palimpsest-moments/2"
FIRST_FORMAT = "palimpsest-moment/1"  # one layer a file: a tensor "matrix" and provenance as metadata


def save_moments(moments: Mapping[int, SecondMoment], path: str | PathLike[str]) -> None:
    """One file for all layers, whole or not at all.

    Raises:
        EditError: there is no layer to save.
        OutputError: the place cannot be written.
    """
    if not moments:
        raise EditError("There are no second moments to save; measure at least one layer.")
    check_writable(Path(path).parent)
    layers = {
        str(layer): {"width": moment.width, "count": moment.count, "provenance": moment.provenance}
        for layer, moment in moments.items()
    }
    with atomic_path(Path(path)) as temporary:
        save_file(
            {str(layer): pack(moment.matrix.cpu()) for layer, moment in moments.items()},
            temporary,
            {"palimpsest": json.dumps({"format": FORMAT, "layers": layers}, ensure_ascii=False)},
        )


def load_moments(path: str | PathLike[str]) -> dict[int, SecondMoment]:
    """The second moments of a file, by layer.

    Raises:
        EditError: there is no such file, it is damaged, or it holds no second moments.
    """
    if not Path(path).is_file():
        raise EditError(f"There is no file of second moments {path}; name the one that `palimpsest moments` wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") == FIRST_FORMAT:
                return _first_format(file, metadata)
            card = json.loads(metadata.get("palimpsest", "{}"))
            found = card.get("format") if isinstance(card, dict) else None
            if found != FORMAT:
                raise EditError(
                    f"The file {path} holds no second moments: its format is {found!r}, expected {FORMAT!r}."
                )
            return {int(layer): _restore(file, layer, entry) for layer, entry in card["layers"].items()}
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise EditError(
            f"The file of second moments {path} is damaged ({error}); delete it and measure them again."
        ) from None


def save_moment(moment: SecondMoment, path: str | PathLike[str]) -> None:
    """A file of one layer."""
    save_moments({int(moment.provenance.get("layer", 0)): moment}, path)


def load_moment(path: str | PathLike[str]) -> SecondMoment:
    """The only second moment of a file; raises `EditError` as `load_moments` does, and when there are several."""
    moments = load_moments(path)
    if len(moments) != 1:
        raise EditError(f"The file {path} holds layers {sorted(moments)}; read it with load_moments and take one.")
    return next(iter(moments.values()))


def _restore(file: Any, layer: str, entry: Any) -> SecondMoment:
    provenance = {str(name): str(value) for name, value in sorted(entry["provenance"].items())}
    return SecondMoment(unpack(file.get_tensor(layer), int(entry["width"])), int(entry["count"]), provenance)


def _first_format(file: Any, card: dict[str, str]) -> dict[int, SecondMoment]:
    card = dict(sorted(card.items()))  # the file has no order of its own
    del card["format"]
    count = int(card.pop("count"))
    return {int(card.get("layer", 0)): SecondMoment(file.get_tensor("matrix"), count, card)}
