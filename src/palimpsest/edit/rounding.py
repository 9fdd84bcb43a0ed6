"""What the type of the weights costs an edit: W' is W + dose * dW rounded to that type, and never exactly it.

    relative error   |(W' - W) - dose dW| / |dose dW|      (Frobenius; 1 means that the edit was lost)
    unchanged        share of the entries the edit means to change that kept their old value

Both are about 1e-16 and 0 in float64, and grow as the change gets small beside the weights: a bfloat16 has 8 bits, so
an entry of 1 does not move at all for a change below 0.004.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from palimpsest.edit.payload import Acting, Payload, module_of
from palimpsest.edit.sums import change_of
from palimpsest.model import Model
from palimpsest.model.anatomy import stores_transposed


@dataclass(frozen=True)
class Rounding:
    """What writing one weight lost.

    Attributes:
        path: of the weight.
        dtype: of the weight.
        relative_error: norm of what was lost over norm of what was meant; 0 where nothing was meant.
        unchanged: share of the entries meant to change that did not.
        share: norm of the change meant over norm of the weight.
    """

    path: str
    dtype: str
    relative_error: float
    unchanged: float
    share: float


def rounding_of(payloads: Sequence[Payload], model: Model, dose: float) -> dict[str, Rounding]:
    """Per weight, what writing `payloads` into `model` as it is now would lose; hooks write nothing."""
    return {payload.path: _of_one(payload, model, dose) for payload in payloads if not isinstance(payload, Acting)}


def _of_one(payload: Payload, model: Model, dose: float) -> Rounding:
    assert not isinstance(payload, Acting)
    weight = model.parameter(payload.path)
    before = weight.detach().cpu().double()
    step = payload.new_weight(model, dose).cpu().double() - before
    meant = dose * change_of(payload, transposed=stores_transposed(module_of(model, payload.path))).cpu()
    size, moved = float(meant.norm()), meant != 0
    return Rounding(
        payload.path,
        str(weight.dtype).removeprefix("torch."),
        float((step - meant).norm()) / size if size else 0.0,
        float((step[moved] == 0).double().mean()) if bool(moved.any()) else 0.0,
        size / max(float(before.norm()), 1e-300),
    )
