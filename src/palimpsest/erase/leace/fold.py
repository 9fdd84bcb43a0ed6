"""An eraser written into weights, where the algebra allows.

A module that ends in a linear map has the output W k + b at `value`, `mlp_out` and `attn_out`. Erasing it,

    r(W k + b) = (W - left right W) k + (b - left right b + bias),

is a change of W, of rank k - 1 for k classes, and of b. The residual stream is a sum of such outputs and of the embedding, and the
norms between layers are not linear, so an eraser there has no weight to go into.

A map without a bias (every one of Llama) has no place for the constant. r without it, x - left right x, erases as well (a
constant is no covariance) but moves the mean of the states by left right mu, so it is not the least change; `drop_constant=True`
asks for it.
"""

import torch
from torch import nn

from palimpsest.edit import Dense, LowRank
from palimpsest.edit.payload import refuse_quantised
from palimpsest.erase.leace.eraser import Eraser
from palimpsest.errors import EditError
from palimpsest.model import Model, Site, pad
from palimpsest.model.anatomy import Part, matrix_of
from palimpsest.model.taps import first

FOLDABLE = ("attn_out", "value", "mlp_out")
PROBE = "The quick brown fox"
SAME = 1e-5  # of the largest output: a module that adds a norm after its map differs by far more


def folded(model: Model, site: Site, eraser: Eraser, *, drop_constant: bool = False) -> tuple[LowRank | Dense, ...]:
    """The payloads that do in the weights what `eraser.hook(site)` does to the output.

    Raises:
        EditError: the site is no output of a linear map, something follows that map inside its module, its weight is quantised, or
            it has no bias for the constant and `drop_constant` is not set.
    """
    part = output_map(model, site)
    refuse_quantised(model, f"{part.path}.weight")
    left, right = eraser.proj_left.cpu().double(), eraser.proj_right.cpu().double()
    weight = matrix_of(part.module).detach().to("cpu", torch.float64)
    change = LowRank(f"{part.path}.weight", (-left).float().contiguous(), (right @ weight).float().contiguous())
    bias = getattr(part.module, "bias", None)
    if bias is None:
        if drop_constant or not bool(eraser.bias.any()):
            return (change,)
        raise EditError(
            f"{part.path} has no bias to take the eraser's constant (of norm {float(eraser.bias.norm()):.3g}), so it cannot be "
            f"folded exactly; say drop_constant=True, which erases as well but moves the mean of the states, or leave it a hook."
        )
    held = bias.detach().to("cpu", torch.float64)
    constant = -left @ (right @ held) + (0 if drop_constant else eraser.bias)
    return change, Dense(f"{part.path}.bias", constant.float().contiguous())


def output_map(model: Model, site: Site) -> Part:
    """The linear map whose output is `site`; raises `EditError` when there is none."""
    if site.kind not in FOLDABLE:
        raise EditError(
            f"An eraser at {site} cannot be folded into weights: the residual stream is no output of one linear map; leave it a "
            f"hook, or erase at {', '.join(FOLDABLE)}."
        )
    layer = model.anatomy.layers[model.anatomy.check_layer(site.layer)]
    part = layer.attention_projection if site.kind == "attn_out" else model.anatomy.down(site.layer)
    if part is None:
        raise EditError(
            f"The attention of layer {site.layer} of {model.name} has no output map to fold an eraser into."
        )
    if not _ends_in(model, site, part.module):
        raise EditError(
            f"Something follows {part.path} before {site} of {model.name}, so an eraser there cannot be folded exactly."
        )
    return part


def _ends_in(model: Model, site: Site, module: nn.Module) -> bool:
    """Whether the output of `module` is what stands at `site`, seen on a run."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_hook(lambda _module, _args, output: seen.append(first(output).detach().clone()))
    try:
        with model.evaluating():
            found = model.record(pad([model.encode(PROBE).ids]), [site])[site]
    finally:
        handle.remove()
    if not seen or seen[0].numel() != found.numel():
        return False
    return bool(torch.allclose(seen[0].reshape(found.shape), found, rtol=0, atol=SAME * float(found.abs().max())))
