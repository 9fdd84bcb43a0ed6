"""What `scan` and `line_up` both need: down-projections that can be read, second moments of the same model, sound settings."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.moments import SecondMoment
from palimpsest.errors import SettingError, WeightError
from palimpsest.model import Model
from palimpsest.model.anatomy import matrix_of


def down_layers(model: Model) -> list[int]:
    """Layers that have a down-projection."""
    return [layer.index for layer in model.anatomy.layers if layer.down is not None]


def readable_down(model: Model, layer: int) -> Float[Tensor, "out in"]:
    """The down-projection of a layer; raises `WeightError` where it is not finite, zero, or packed by a quantiser."""
    weight = matrix_of(model.anatomy.down(layer).module)
    if not weight.is_floating_point():
        raise WeightError(
            f"The down-projection of layer {layer} of {model.name} is packed as {weight.dtype}; load it in full precision."
        )
    if not bool(torch.isfinite(weight).all()) or not bool(weight.any()):
        raise WeightError(
            f"The down-projection of layer {layer} of {model.name} is zero or not finite; there is nothing to read."
        )
    return weight


def own_moment(model: Model, moments: Mapping[int, SecondMoment], layer: int) -> SecondMoment:
    """C of a layer; raises `SettingError` where it is missing, and `WeightError` where it was measured on other weights."""
    if layer not in moments:
        raise SettingError(
            f"Second moments are needed of every layer with a down-projection, got none for layer {layer}; measure all layers."
        )
    moments[layer].check_made_for(model, layer)
    return moments[layer]


def check_settings(reader: str, thresholds: Mapping[str, float], runs: Sequence[int], shortest: int) -> None:
    """Raise `SettingError` unless thresholds are above 0 and runs are whole numbers of `shortest` or more."""
    for name, value in thresholds.items():
        if not value > 0:
            raise SettingError(f"The threshold {name} of a {reader} must be above 0, got {value}.")
    if not isinstance(runs, Sequence) or not all(type(length) is int and length >= shortest for length in runs):
        raise SettingError(
            f"The runs of a {reader} are lengths, whole numbers of {shortest} or more such as (3, 5), got {runs!r}."
        )
