"""What the methods that put a memory beside a layer share: which layer, which memory to grow, and a number for each fact."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from palimpsest.edit.artefact import Edit
from palimpsest.edit.payload import Routed
from palimpsest.errors import EditError, SettingError
from palimpsest.facts import Fact
from palimpsest.model import Model

Kind = TypeVar("Kind", bound=Routed)


def number_of(fact: Fact) -> int:
    """A number that is the same for equal prompts and answers in every process: the seed of what is drawn for a fact."""
    return int(hashlib.sha256(f"{fact.text}\n{fact.target_new}".encode()).hexdigest()[:12], 16)


def one_layer(title: str, model: Model, layers: Sequence[int] | None, depth: float) -> int:
    """The layer given, or the one at `depth` (0 to 1); raises where there are several or it has no down-projection."""
    if layers is not None and len(layers) != 1:
        raise SettingError(f"{title} stands beside one layer, got {len(layers)}; give one.")
    layer = model.anatomy.check_layer(round(depth * (model.n_layers - 1)) if layers is None else layers[0])
    model.anatomy.down(layer)  # says what is missing
    return layer


def held(model: Model, memory: Edit, kind: type[Kind], layer: int | None = None) -> Kind:
    """The one payload of `memory`, which must be of `kind`, made for `model`, and at `layer` where one is given."""
    found = memory.payloads[0] if len(memory.payloads) == 1 else None
    if not isinstance(found, kind) or type(found) is not kind:
        raise EditError(
            f"{memory!r} holds no single {kind.kind} that could be grown; make a new memory of all the facts."
        )
    memory.check_fits(model)
    if layer is not None and found.site.layer != layer:
        raise EditError(
            f"The memory stands beside layer {found.site.layer} and the method is set to layer {layer}; "
            f"give layers={found.site.layer}."
        )
    return found
