"""Several changes of one weight as one: random masks so that they overlap little, and TIES where they do (Yadav et al. 2023).

    masks    entry (a, b) of change i may move with probability rho, drawn for each i by itself (Wang et al. 2024, section 2.3)
    trim     of each change keep the share `density` of entries that are largest in absolute value
    elect    the sign of an entry is that of the sum over changes
    merge    the entry is the mean over the changes that have that sign there, and 0 where none has

With rho = 0.2 and the published density 0.53 nothing is trimmed, because four entries in five are 0 before.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def random_masks(count: int, shape: tuple[int, int], ratio: float, *, seed: int) -> Bool[Tensor, "count out in"]:
    """One mask a change; true where it may move."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, *shape, generator=generator) < ratio


def ties(changes: Float[Tensor, "count out in"], density: float) -> Float[Tensor, "out in"]:
    """The changes as one, by the three steps above."""
    trimmed = torch.stack([_trimmed(change, density) for change in changes])
    sign = trimmed.sum(dim=0).sign()
    agree = (trimmed.sign() == sign) & (trimmed != 0)
    return torch.where(agree, trimmed, 0).sum(dim=0) / agree.sum(dim=0).clamp(min=1)


def _trimmed(change: Tensor, density: float) -> Tensor:
    keep = max(1, round(density * change.numel()))
    if keep >= change.numel():
        return change
    kept = torch.zeros_like(change).flatten()
    largest = change.abs().flatten().topk(keep).indices
    kept[largest] = change.flatten()[largest]
    return kept.view_as(change)
