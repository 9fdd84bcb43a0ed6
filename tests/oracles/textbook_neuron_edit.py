"""The published edit of knowledge neurons as a loop over neurons, on the stored weight itself (Dai et al. 2022, section 5)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def textbook_neuron_edit(
    down: nn.Module, neurons: Iterable[int], old: Tensor, new: Tensor, lambda_old: float, lambda_new: float
) -> Tensor:
    """The weight, stored as it is stored (out, in for `nn.Linear`, in, out for GPT-2's `Conv1D`), after the edit."""
    weight = down.weight.detach().clone()
    for n in neurons:
        if isinstance(down, nn.Linear):
            weight[:, n] += -lambda_old * old + lambda_new * new
        else:
            weight[n, :] += -lambda_old * old + lambda_new * new
    return weight


def textbook_erase(down: nn.Module, neurons: Iterable[int], to: Tensor | None = None) -> Tensor:
    """The weight with the columns of the neurons zero, or `to`."""
    weight = down.weight.detach().clone()
    with torch.no_grad():
        for n in neurons:
            column = weight[:, n] if isinstance(down, nn.Linear) else weight[n, :]
            column.copy_(torch.zeros_like(column) if to is None else to)
    return weight
