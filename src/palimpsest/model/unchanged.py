"""What must be the same before and after anything that only looks at a model: the witnesses of the contract tests."""

import torch
from torch import Tensor

from palimpsest.model.model import Model


def weights_of(model: Model) -> dict[str, Tensor]:
    """A copy of every weight and buffer."""
    return {path: tensor.detach().clone() for path, tensor in _tensors(model)}


def hooks_of(model: Model) -> dict[str, list[object]]:
    """Every module's hooks, and the forward that stands in for its own where one does."""
    return {
        name: [
            *module._forward_hooks,
            *module._forward_pre_hooks,
            *module._backward_hooks,
            *module._backward_pre_hooks,
            module.__dict__.get("forward"),
        ]
        for name, module in model.net.named_modules()
    }


def modes_of(model: Model) -> dict[str, object]:
    """Training mode of every module, and of every weight whether it asks for a gradient and has one."""
    modes: dict[str, object] = {name: module.training for name, module in model.net.named_modules()}
    flags = {path: (weight.requires_grad, weight.grad is None) for path, weight in model.net.named_parameters()}
    return modes | {f"weight {path}": flag for path, flag in flags.items()}


def same_weights(model: Model, before: dict[str, Tensor]) -> str:
    """The first weight or buffer that differs from a copy, bit for bit, or came or went; "" when none did."""
    now = dict(_tensors(model))
    if strange := sorted(now.keys() ^ before.keys()):
        return strange[0]
    return next((path for path, tensor in now.items() if not torch.equal(tensor, before[path])), "")


def _tensors(model: Model) -> list[tuple[str, Tensor]]:
    return [*model.net.named_parameters(), *model.net.named_buffers()]
