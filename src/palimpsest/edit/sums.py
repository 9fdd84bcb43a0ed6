"""Sums of edits, and how a change of one weight is held in the fewest numbers.

    (W + U1 V1) + U2 V2  =  W + [U1 U2] [V1; V2]        low ranks stay factors
    (W + U V) + D        =  W + (U V + D)               a dense change makes the sum dense

A change of rank r holds r (out + in) numbers as factors and out x in as it is; `compact` keeps whichever is fewer, so that
no file is larger than the dense change. `true_factors` gives the fewest factors that are the same change, for an adapter:

    U V   rank as float64 tells it: a small part of a change is a part of it, and is kept
    D     singular values above eps(float32) of the largest; below it lies what rounding put into D's own entries
"""

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from palimpsest.edit.payload import Acting, Dense, Hook, LowRank, Routed
from palimpsest.errors import EditError


def change_of(payload: LowRank | Dense, *, transposed: bool) -> Float[Tensor, "..."]:
    """The whole change at dose 1 in float64, as the weight is stored (`transposed`: as (in, out))."""
    if isinstance(payload, Dense):
        return payload.delta.double()
    change = payload.u.double() @ payload.v.double()
    return change.T if transposed else change


def compact(payload: LowRank | Dense, *, transposed: bool) -> LowRank | Dense:
    """The payload in the fewest numbers: rank at most the smaller side, and dense where factors would hold more."""
    if not isinstance(payload, LowRank):
        return payload
    small = payload.recompressed()
    out, width = small.u.shape[0], small.v.shape[1]
    if small.rank * (out + width) <= out * width:
        return small
    return Dense(payload.path, change_of(payload, transposed=transposed).float().contiguous())


def total(edits: Sequence[LowRank | Dense], transposed: Collection[str] | None = None) -> tuple[LowRank | Dense, ...]:
    """Payloads of several edits as one payload a weight: low ranks stay factors, a dense one makes the sum dense.

    Args:
        edits: in any order; the sum does not depend on it but for rounding.
        transposed: paths of the weights stored as (in, out); read off the shapes when None, which a square weight
            does not allow.
    """
    by_path: dict[str, list[LowRank | Dense]] = {}
    for payload in edits:
        by_path.setdefault(payload.path, []).append(payload)
    return tuple(_sum(path, parts, transposed) for path, parts in by_path.items())


def _sum(path: str, parts: list[LowRank | Dense], transposed: Collection[str] | None) -> LowRank | Dense:
    if len(parts) == 1:
        return parts[0]
    low, dense = [p for p in parts if isinstance(p, LowRank)], [p for p in parts if isinstance(p, Dense)]
    shapes = {(p.u.shape[0], p.v.shape[1]) for p in low}
    if len(shapes) > 1 or len({tuple(p.delta.shape) for p in dense}) > 1:
        raise EditError(f"The edits of {path} have different shapes and cannot be added; they belong to two models.")
    if not dense:
        return LowRank(path, torch.cat([p.u for p in low], dim=1), torch.cat([p.v for p in low])).recompressed()
    delta = sum((p.delta.double() for p in dense[1:]), dense[0].delta.double())
    if low:
        flipped = path in transposed if transposed is not None else _is_transposed(path, shapes.pop(), delta)
        for part in low:
            change = change_of(part, transposed=flipped)
            if change.shape != delta.shape:
                raise EditError(
                    f"The low-rank and the dense edit of {path} have the shapes {tuple(change.shape)} and "
                    f"{tuple(delta.shape)} and cannot be added; they belong to two models."
                )
            delta = delta + change
    return Dense(path, delta.float() if all(p.delta.dtype != torch.float64 for p in dense) else delta)


def _is_transposed(path: str, shape: tuple[int, int], delta: Tensor) -> bool:
    out, width = shape
    if out == width:
        raise EditError(
            f"{path} is square, so nothing says how its dense change is stored; add the edits (edit + other), which know."
        )
    return tuple(delta.shape) == (width, out)


def plus_acting(one: Acting, other: Acting) -> Acting:
    """Two payloads at one site as one; raises `EditError` where that is not possible."""
    if isinstance(one, Hook) and isinstance(other, Hook):
        return plus_hooks(one, other)
    if isinstance(one, Routed) and isinstance(other, Routed):
        return one.plus(other)
    raise EditError(
        f"A memory and a hook at {one.site} cannot be added, because the second would act on what the first left; "
        f"apply one edit after the other in the order you want."
    )


def plus_hooks(one: Hook, other: Hook) -> Hook:
    """The sum of two hooks of one site: exact for two shifts (x + c1 + c2) only, whichever acts first.

    With a projection in one of them, the second would read what the first left, and the order would matter.
    """
    if one.a.shape[1] or other.a.shape[1]:
        raise EditError(
            f"Two hooks at {one.site} cannot be added exactly, because the second would act on what the first left; "
            f"apply one edit after the other in the order you want."
        )
    return Hook(one.site, one.a, one.b, one.c + other.c)


def true_factors(payload: LowRank | Dense, *, transposed: bool) -> tuple[LowRank, float]:
    """The same change with as few columns as its numerical rank, and the relative norm of what was left out.

    An SVD in float64. Of factors only what float64 cannot tell from 0 is dropped: the error of Q R is eps times the columns
    of U times the rows of V. Of a dense change, what lies below eps(float32) of the largest singular value.
    """
    if isinstance(payload, LowRank):
        u, v = payload.u.double(), payload.v.double()
        q_u, core_u = torch.linalg.qr(u)
        q_v, core_v = torch.linalg.qr(v.T)
        left, singular, right = torch.linalg.svd(core_u @ core_v.T, full_matrices=False)
        left, right = q_u @ left, right @ q_v.T
        error = max(u.shape[0], v.shape[1]) * torch.finfo(torch.float64).eps
        noise = error * float((u.norm(dim=0) * v.norm(dim=1)).sum())
    else:
        matrix = payload.delta.double()
        left, singular, right = torch.linalg.svd(matrix.T if transposed else matrix, full_matrices=False)
        noise = torch.finfo(torch.float32).eps * (float(singular[0]) if len(singular) else 0.0)
    rank = int((singular > noise).sum())
    size = float(singular.norm())
    root = singular[:rank].sqrt()
    low = LowRank(
        payload.path, (left[:, :rank] * root).float().contiguous(), (root[:, None] * right[:rank]).float().contiguous()
    )
    return low, float(singular[rank:].norm()) / size if size else 0.0
