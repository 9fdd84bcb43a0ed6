"""Places: one module of one layer, found by the model's anatomy, and what of an edit lies in it.

    ("mlp", 3)     every weight and bias of layer 3's MLP
    ("attn", 3)    every weight and bias of layer 3's attention: queries, keys, values and output

Grafting (put the base's weights of one place back, leave the rest of the edit) is the direct test of where an edit has
its effect (Nief et al. 2025, "Multiple streams of knowledge retrieval", arXiv 2506.20746). Of an `Edit` it is exact and
free: the payloads of that place are left out.
"""

from dataclasses import replace

from palimpsest.edit import Edit
from palimpsest.edit.payload import Acting
from palimpsest.errors import AnatomyError, SettingError, did_you_mean
from palimpsest.model import Model
from palimpsest.world.organisms.organism import Place

MODULES = ("mlp", "attn")


def all_places(model: Model) -> tuple[Place, ...]:
    """The MLP and the attention of every layer, in order."""
    return tuple((module, layer) for layer in range(model.n_layers) for module in MODULES)


def weights_of(model: Model, place: Place) -> tuple[str, ...]:
    """Paths of the weights at a place.

    Raises:
        SettingError: there is no such module or layer.
        AnatomyError: the layer has no such module.
    """
    module, layer = place
    if module not in MODULES:
        raise SettingError(f"There is no module {module!r} to plant in.{did_you_mean(module, MODULES)}")
    found = model.anatomy.layers[model.anatomy.check_layer(layer)]
    part = found.mlp if module == "mlp" else found.attention
    if part is None:
        raise AnatomyError(f"Layer {layer} of {model.name} has no {module} module to plant in; choose another place.")
    return tuple(path for path, _ in model.net.named_parameters() if path.startswith(f"{part.path}."))


def changed_places(model: Model, edit: Edit) -> tuple[Place, ...]:
    """The places in which an edit changes something.

    Raises:
        SettingError: it changes what is no place, which no graft of a place could put back.
    """
    changed = _paths(edit)
    places = tuple(place for place in all_places(model) if changed & set(weights_of(model, place)))
    outside = changed - {path for place in places for path in weights_of(model, place)}
    if outside or len(edit.payloads) > len(changed):
        what = sorted(outside)[0] if outside else "a hook"
        raise SettingError(
            f"An organism changes weights of MLPs and attention only, and {edit!r} changes {what}; leave it out."
        )
    return places


def grafted(model: Model, edit: Edit, place: Place) -> Edit:
    """The edit with the base's weights put back at one place."""
    back = set(weights_of(model, place))
    return replace(edit, payloads=tuple(p for p in edit.payloads if isinstance(p, Acting) or p.path not in back))


def _paths(edit: Edit) -> set[str]:
    return {payload.path for payload in edit.payloads if not isinstance(payload, Acting)}
