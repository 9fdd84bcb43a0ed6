"""What must be the same before and after anything that only looks at a model: the witnesses of the contract tests."""

import torch
from torch import Tensor

from palimpsest.model.model import Model


def weights_of(model: Model) -> dict[str, Tensor]:
    """A copy of every weight."""
    return {path: weight.detach().clone() for path, weight in model.net.named_parameters()}


def hooks_of(model: Model) -> dict[str, list[int]]:
    """The handles of every module's forward hooks."""
    return {name: [*module._forward_hooks, *module._forward_pre_hooks] for name, module in model.net.named_modules()}


def modes_of(model: Model) -> dict[str, object]:
    """Training mode of every module, and of every weight whether it asks for a gradient and has one."""
    modes: dict[str, object] = {name: module.training for name, module in model.net.named_modules()}
    flags = {path: (weight.requires_grad, weight.grad is None) for path, weight in model.net.named_parameters()}
    return modes | {f"weight {path}": flag for path, flag in flags.items()}


def same_weights(model: Model, before: dict[str, Tensor]) -> str:
    """The first weight that differs from a copy, bit for bit; "" when none does."""
    return next((path for path, weight in model.net.named_parameters() if not torch.equal(weight, before[path])), "")
