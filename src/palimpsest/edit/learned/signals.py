"""What a learned editor looks at: the input and the error of every edited map at every token (Mitchell et al. 2022, section 3.1).

For a linear map y_t = W u_t + b and a loss L, with the error delta_t = dL / dy_t at token t,

    dL / dW  =  sum over t of  delta_t u_t^T

so the gradient of one fact has a rank of at most its number of tokens, and u and delta hold all of it in T (in + out) numbers
instead of in x out. Here L = -(1/A) sum over the A tokens of the new answer of log p(o*_a | prompt, o*_<a).

Tokens whose error is exactly zero are left out: those after the last that is read, and at the last layer all that are not.
They add nothing to the gradient, and a normalised zero would not be zero any more.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from palimpsest.edit.learned.answers import Answers, nll
from palimpsest.errors import AnatomyError, EditError
from palimpsest.model import Model
from palimpsest.model.anatomy import in_out_features, is_linear


@dataclass(frozen=True)
class Signal:
    """Of one edited map: u and delta of every token with an error, and the row (fact) each belongs to."""

    inputs: Float[Tensor, "tokens in_"]
    errors: Float[Tensor, "tokens out"]
    rows: Int[Tensor, "tokens"]


def edited_maps(model: Model, layers: Sequence[int] | None, maps: str, last: int) -> list[str]:
    """Paths of the linear maps a learned editor changes: of the MLP ("mlp") or its down-projection alone ("down").

    Args:
        model: where they are.
        layers: whose; the `last` layers when None.
        maps: "mlp" or "down".
        last: how many layers, counted from the top, when none are named.

    Raises:
        AnatomyError: a layer has no down-projection.
        SettingError: a layer does not exist.
    """
    chosen = range(max(0, model.n_layers - last), model.n_layers) if layers is None else sorted(set(layers))
    paths: list[str] = []
    for layer in chosen:
        down, mlp = model.anatomy.down(layer), model.anatomy.layers[layer].mlp
        inside = (
            [f"{mlp.path}.{name}".rstrip(".") for name, part in mlp.module.named_modules() if is_linear(part)]
            if mlp
            else []
        )
        paths += [down.path] if maps == "down" or down.path not in inside else inside
    if not paths:
        raise AnatomyError("A learned editor needs at least one layer to edit, got none; name some with layers=....")
    return paths


def shapes_of(model: Model, paths: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of each map."""
    shapes = {}
    for path in paths:
        inputs, outputs = in_out_features(model.net.get_submodule(path))
        shapes[path] = (outputs, inputs)
    return shapes


@torch.enable_grad()
def signals(model: Model, answers: Answers, paths: Sequence[str]) -> tuple[dict[str, Signal], Float[Tensor, "rows"]]:
    """u and delta of the maps at `paths` for the loss of each row's answer, and those losses.

    The loss is the sum over rows, so a row's errors do not depend on what stands beside it.

    Raises:
        EditError: an input or an error is not finite.
    """
    heard: dict[str, Tensor] = {}
    shifts: dict[str, Tensor] = {}

    def hook(path: str) -> Any:
        def listen(_module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
            heard[path] = arguments[0].detach()
            shifts[path] = torch.zeros_like(output).requires_grad_()  # dL/d(shift) is dL/dy
            return output + shifts[path]

        return listen

    with ExitStack() as stack:
        stack.enter_context(model.evaluating())
        for path in paths:
            stack.callback(model.net.get_submodule(path).register_forward_hook(hook(path)).remove)
        losses = nll(model, answers)
        errors = torch.autograd.grad(losses.sum(), [shifts[path] for path in paths])
    found = {path: _signal(path, heard[path], error, answers) for path, error in zip(paths, errors, strict=True)}
    return found, losses.detach()


def _signal(path: str, inputs: Tensor, errors: Tensor, answers: Answers) -> Signal:
    shape = answers.batch.mask.shape  # OPT's maps see rows and tokens flattened into one
    inputs, errors = (tensor.float().reshape(*shape, -1) for tensor in (inputs, errors))
    if not bool(torch.isfinite(errors).all()):
        raise EditError(f"The gradient at {path} is not finite; load the model in float32.")
    alive = (errors != 0).any(-1) & answers.batch.mask.bool()
    return Signal(inputs[alive], errors[alive], alive.nonzero()[:, 0])
